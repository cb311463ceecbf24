//! What the task is told to do.

use std::path::PathBuf;
use std::time::Duration;

use super::error::ConfigError;
use crate::tls::normal;

/// What Let's Encrypt and others take in one certificate.
const DOMAINS_MAX: usize = 100;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Host names and addresses; no wildcards, which are granted by DNS alone.
    pub domains: Vec<String>,
    /// Where the authority may write to.
    pub email: Option<String>,
    pub directory: Directory,
    /// Proves each order there first: what fails at a staging directory costs nothing of production's limits.
    pub rehearsal: Option<Directory>,
    /// PEM with roots to trust besides the host's, for private authorities.
    pub roots: Option<PathBuf>,
    /// A profile of the directory, such as `shortlived`, which addresses need at Let's Encrypt.
    pub profile: Option<String>,
    pub kinds: ChallengeKinds,
    /// The state folder; all of ours goes into `acme` in it.
    pub state: PathBuf,
    pub intervals: Intervals,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Directory {
    LetsEncrypt,
    LetsEncryptStaging,
    /// `https://`, with no exception.
    Url(String),
}

/// Which validations there is a listener for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChallengeKinds {
    /// A plaintext listener, which the authority reaches at port 80.
    pub http_01: bool,
    /// A TLS listener, which the authority reaches at port 443.
    pub tls_alpn_01: bool,
}

/// Every waiting of the task; tests compress it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Intervals {
    /// How often to look whether anything is due.
    pub check: Duration,
    /// The first wait after a failure; it doubles up to `retry_max`.
    pub retry_min: Duration,
    pub retry_max: Duration,
    /// One request to the directory, from connecting to the last byte.
    pub request: Duration,
    /// One whole order, with its validations.
    pub order: Duration,
    /// Between two questions how an order is doing.
    pub poll: Duration,
}

impl Default for Intervals {
    fn default() -> Self {
        Self {
            check: Duration::from_hours(6),
            retry_min: Duration::from_mins(1),
            retry_max: Duration::from_hours(6),
            request: Duration::from_secs(30),
            order: Duration::from_mins(5),
            poll: Duration::from_secs(1),
        }
    }
}

impl Directory {
    /// What stands in the configuration.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        match text {
            "letsencrypt" => Ok(Self::LetsEncrypt),
            "letsencrypt-staging" => Ok(Self::LetsEncryptStaging),
            url if url.strip_prefix("https://").is_some_and(|rest| !rest.is_empty()) => {
                Ok(Self::Url(url.to_owned()))
            }
            other => Err(ConfigError::Directory(other.to_owned())),
        }
    }

    pub fn url(&self) -> &str {
        match self {
            Self::LetsEncrypt => instant_acme::LetsEncrypt::Production.url(),
            Self::LetsEncryptStaging => instant_acme::LetsEncrypt::Staging.url(),
            Self::Url(url) => url,
        }
    }

    /// A folder name: readable, and the same for the same URL alone.
    pub(super) fn folder(&self) -> String {
        match self {
            Self::LetsEncrypt => "letsencrypt".to_owned(),
            Self::LetsEncryptStaging => "letsencrypt-staging".to_owned(),
            // Every byte but these is escaped, so that two URLs never share a folder.
            Self::Url(url) => url.strip_prefix("https://").unwrap_or(url).bytes().map(escaped).collect(),
        }
    }
}

impl Config {
    /// Everything that can be known to fail before the first request; domains come back normalised.
    pub fn checked(mut self) -> Result<Self, ConfigError> {
        self.domains = self.domains.iter().map(|domain| domain_of(domain)).collect::<Result<_, _>>()?;
        let mut seen = std::collections::BTreeSet::new();
        self.domains.retain(|domain| seen.insert(domain.clone()));
        if self.domains.is_empty() {
            return Err(ConfigError::NoDomains);
        }
        if self.domains.len() > DOMAINS_MAX {
            return Err(ConfigError::TooManyDomains(self.domains.len()));
        }
        if let Some(email) = self.email.as_ref().filter(|email| !is_email(email)) {
            return Err(ConfigError::Email(email.clone()));
        }
        if !self.kinds.http_01 && !self.kinds.tls_alpn_01 {
            return Err(ConfigError::NoChallenge);
        }
        Ok(self)
    }
}

fn escaped(byte: u8) -> String {
    match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' => char::from(byte).to_string(),
        other => format!("_{other:02x}"),
    }
}

fn domain_of(text: &str) -> Result<String, ConfigError> {
    let domain = normal(text);
    if domain.starts_with("*.") {
        return Err(ConfigError::Wildcard(text.to_owned()));
    }
    if domain.parse::<std::net::IpAddr>().is_ok() {
        return Ok(domain);
    }
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    let good = domain.len() <= 253 && domain.split('.').all(label);
    if good { Ok(domain) } else { Err(ConfigError::Domain(text.to_owned())) }
}

fn is_email(text: &str) -> bool {
    let plain = text.bytes().all(|byte| byte.is_ascii_graphic() && !b",;<>\"?&".contains(&byte));
    plain && text.split_once('@').is_some_and(|(who, at)| !who.is_empty() && at.contains('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(domains: &[&str]) -> Config {
        Config {
            domains: domains.iter().map(|domain| (*domain).to_owned()).collect(),
            email: Some("ops@example.org".to_owned()),
            directory: Directory::LetsEncrypt,
            rehearsal: None,
            roots: None,
            profile: None,
            kinds: ChallengeKinds { http_01: true, tls_alpn_01: false },
            state: PathBuf::new(),
            intervals: Intervals::default(),
        }
    }

    #[test]
    fn domains_are_normalised_once_each_and_in_order() {
        let config = config(&["WWW.example.org.", "example.org", "www.example.org", "192.0.2.1"]);
        assert_eq!(config.checked().unwrap().domains, ["www.example.org", "example.org", "192.0.2.1"]);
    }

    #[test]
    fn what_no_authority_would_take_is_refused_before_it_is_asked() {
        let fault = |domains: &[&str]| config(domains).checked().unwrap_err();
        assert_eq!(fault(&[]), ConfigError::NoDomains);
        assert_eq!(fault(&["*.example.org"]), ConfigError::Wildcard("*.example.org".to_owned()));
        for bad in ["", "a b", "https://example.org", "exa_mple.org", "-a.org", "a..org", "bücher.de"] {
            assert_eq!(fault(&[bad]), ConfigError::Domain(bad.to_owned()), "{bad}");
        }
        let mail = Config { email: Some("ops".to_owned()), ..config(&["a.org"]) };
        assert_eq!(mail.checked().unwrap_err(), ConfigError::Email("ops".to_owned()));
        let kinds = ChallengeKinds { http_01: false, tls_alpn_01: false };
        assert_eq!(Config { kinds, ..config(&["a.org"]) }.checked().unwrap_err(), ConfigError::NoChallenge);
    }

    #[test]
    fn a_directory_is_a_known_name_or_https_and_has_a_folder_of_its_own() {
        assert_eq!(Directory::parse("letsencrypt"), Ok(Directory::LetsEncrypt));
        let url = |url: &str| Directory::parse(url).unwrap().folder();
        assert_eq!(url("https://ca.example:14000/dir"), "ca.example_3a14000_2fdir");
        assert_ne!(url("https://a/b_2f"), url("https://a/b/"));
        for bad in ["", "letsencript", "http://ca.example/dir", "https://"] {
            assert!(Directory::parse(bad).is_err(), "{bad}");
        }
    }
}
