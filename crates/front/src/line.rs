//! One client connection, as its requests see it.

use std::sync::Arc;

use crate::headers::Client;
use crate::meter::Meter;

#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) client: Client,
    pub(crate) meter: Arc<Meter>,
    pub(crate) http2: bool,
    /// The name that its TLS handshake asked for.
    pub(crate) sni: Option<String>,
}
