//! One client connection, as its requests see it.

use std::sync::Arc;

use crate::connection::Counted;
use crate::headers::Client;
use crate::meter::Meter;
use crate::shared::ClientCount;

#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) client: Client,
    pub(crate) meter: Arc<Meter>,
    pub(crate) http2: bool,
    /// The name that its TLS handshake asked for.
    pub(crate) sni: Option<String>,
    /// Its places, given back with the last who needs it: a tunnel outlives the connection's HTTP.
    #[expect(dead_code, reason = "it is held, and that is all")]
    pub(crate) places: (Counted, ClientCount),
}
