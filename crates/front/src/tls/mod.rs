//! Certificates and handshakes.
//!
//! [`Certificates`] holds what is served and is swapped without a lock under running handshakes; [`Files`] and
//! [`acme::Client`](crate::acme::Client) fill it, each its own [`Slot`]; [`Acceptor`] shakes hands. Does not know: HTTP,
//! routes, services.

mod acceptor;
mod certificate;
mod certificates;
mod error;
mod event;
mod expiry;
mod files;
mod keeper;
mod names;

pub use acceptor::{Accepted, Acceptor, Alpn};
pub use certificate::{Certificate, CertificateError};
pub use certificates::{CertificateReport, Certificates, Slot, Source};
pub use error::TlsError;
pub use event::{EVENTS_MAX, Events, Kind, Severity, TlsEvent};
pub use expiry::{Stage, days_left};
pub use files::{FilePair, Files, FilesError, POLL_EVERY, Reloader};

pub use keeper::{CertificateConfig, KeeperError};

pub(crate) use expiry::stage;
pub(crate) use keeper::{Chores, Keeper};
pub(crate) use names::normal;

/// What the front shakes hands with. Cheap to clone; one for all threads.
#[derive(Clone, Debug)]
pub struct Tls {
    pub acceptor: Acceptor,
    pub certificates: std::sync::Arc<Certificates>,
    pub challenges: std::sync::Arc<crate::acme::Challenges>,
}

/// Seconds since 1970, as certificates count them.
pub(crate) fn unix_now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// A moment as people read it; the bare number where it is out of the calendar.
pub(crate) fn date(unix_seconds: i64) -> String {
    jiff::Timestamp::from_second(unix_seconds)
        .map_or_else(|_| format!("second {unix_seconds}"), |moment| moment.to_string())
}
