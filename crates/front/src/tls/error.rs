//! Why a handshake did not come about.

use std::io;
use std::time::Duration;

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The client's fault, or its network's: silent, dripping or gone.
    #[error("client did not finish the TLS handshake within {0:?}")]
    Patience(Duration),
    /// There is no certificate for the name; the client got the alert unrecognized_name.
    #[error("no certificate for {0}")]
    UnknownName(String),
    /// The client named no host, as clients by address do, and there is more than one site, or none yet.
    #[error("client named no host, and it is not clear which certificate to show")]
    NoName,
    /// A validation of a challenge that is not, or no longer, in progress.
    #[error("no challenge in progress for {0}")]
    UnknownChallenge(String),
    #[error("TLS handshake failed: {0}")]
    Handshake(#[source] io::Error),
    /// Our own fault: the cryptography refused to be set up.
    #[error("TLS cannot be set up: {0}")]
    Setup(#[from] rustls::Error),
}

impl TlsError {
    /// A label for metrics, one of a fixed few.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Patience(_) => "patience",
            Self::UnknownName(_) => "unknown_name",
            Self::NoName => "no_name",
            Self::UnknownChallenge(_) => "unknown_challenge",
            Self::Handshake(_) => "handshake",
            Self::Setup(_) => "setup",
        }
    }
}
