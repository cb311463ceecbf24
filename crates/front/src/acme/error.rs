//! What goes wrong with an order, and whether waiting may help.

use std::path::PathBuf;
use std::time::Duration;

/// What is wrong with the configuration; said before anything starts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    #[error("acme needs at least one domain")]
    NoDomains,
    #[error("acme takes at most 100 domains, and these are {0}: authorities refuse more in one certificate")]
    TooManyDomains(usize),
    #[error(
        "domain {0:?} is a wildcard, which an authority grants only by DNS: list the names, or use files"
    )]
    Wildcard(String),
    #[error("domain {0:?} is not a host name: letters, digits, hyphens and dots, punycode for others")]
    Domain(String),
    #[error("email {0:?} is not an address")]
    Email(String),
    #[error("directory {0:?} is neither \"letsencrypt\", \"letsencrypt-staging\" nor an https:// URL")]
    Directory(String),
    #[error("acme needs a way to be validated: a listener for http (port 80) or one for https (port 443)")]
    NoChallenge,
}

#[derive(Debug, thiserror::Error)]
pub enum AcmeError {
    /// The network's fault or the directory's.
    #[error("{url}: {why}")]
    Http { url: String, why: String },
    #[error("{url} did not answer within {patience:?}")]
    HttpPatience { url: String, patience: Duration },
    #[error("no root certificates to check the directory with: install ca-certificates, or set `roots`")]
    NoRoots,
    #[error("{path} {why}")]
    Roots { path: PathBuf, why: String },
    /// The directory answered, and said no.
    #[error("{doing} failed: {error}")]
    Directory { doing: &'static str, error: instant_acme::Error },
    /// The authority came to look, and did not find what it should.
    #[error("validation of {domain} by {kind} failed: {detail}")]
    Validation { domain: String, kind: &'static str, detail: String },
    #[error("directory offers none of our challenges for {0}")]
    NoChallenge(String),
    #[error("order did not finish within {0:?}")]
    OrderPatience(Duration),
    #[error("directory refused our nonces in {0} tries in a row")]
    Nonces(u32),
    #[error("order is {0:?}")]
    OrderState(instant_acme::OrderStatus),
    /// What came is not what was ordered.
    #[error("issued certificate {0}")]
    Issued(String),
    #[error("key cannot be made: {0}")]
    Key(#[from] rcgen::Error),
    #[error("challenge certificate cannot be made: {0}")]
    Challenge(#[from] rustls::Error),
    #[error("{path} cannot be {verb}: {error}")]
    Store { path: PathBuf, verb: &'static str, error: std::io::Error },
    #[error("{path} is not what was written: {why}")]
    StoreContent { path: PathBuf, why: String },
    /// The runtime is shutting down.
    #[error("interrupted")]
    Interrupted,
}

/// The last part of an ACME problem's type, such as `badNonce` (RFC 8555, 6.7).
impl AcmeError {
    pub(super) fn problem(&self) -> Option<&str> {
        let Self::Directory { error: instant_acme::Error::Api(problem), .. } = self else { return None };
        problem.r#type.as_deref()?.rsplit(':').next()
    }

    /// Whether asking again at once is right: the directory only wanted a fresher nonce.
    pub(super) fn is_bad_nonce(&self) -> bool {
        self.problem() == Some("badNonce")
    }

    /// Whether the directory does not know our account any more, as a test directory after a restart.
    pub(super) fn is_unknown_account(&self) -> bool {
        self.problem() == Some("accountDoesNotExist")
    }

    /// Whether the directory may take the same order without a word about what it replaces: it knows nothing of that, or
    /// does not know that certificate, or did not answer as it should.
    pub(super) fn may_be_about_replacing(&self) -> bool {
        let Self::Directory { error, .. } = self else { return false };
        if let instant_acme::Error::Other(inner) = error {
            // One of ours inside is a directory that was not reached.
            return !inner.is::<Self>();
        }
        matches!(error, instant_acme::Error::Unsupported(_)) || self.ends_order()
    }

    /// Whether the order is beyond help, so that only a new one can succeed.
    pub(super) fn ends_order(&self) -> bool {
        match self {
            Self::Validation { .. } | Self::NoChallenge(_) | Self::OrderState(_) | Self::Issued(_) => true,
            // No answer, or an answer about something else than the order.
            Self::Directory { .. } => self
                .problem()
                .is_some_and(|problem| !["badNonce", "rateLimited", "serverInternal"].contains(&problem)),
            Self::Http { .. }
            | Self::HttpPatience { .. }
            | Self::NoRoots
            | Self::Roots { .. }
            | Self::OrderPatience(_)
            | Self::Nonces(_)
            | Self::Key(_)
            | Self::Challenge(_)
            | Self::Store { .. }
            | Self::StoreContent { .. }
            | Self::Interrupted => false,
        }
    }
}
