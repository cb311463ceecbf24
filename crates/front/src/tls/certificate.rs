//! One certificate: its chain, its key, and what the leaf says.

use std::net::IpAddr;
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem};
use rustls::sign::CertifiedKey;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::X509Certificate;

use super::names::normal;

/// A chain longer than this is somebody's bundle of roots, and would be sent to every client.
const CHAIN_MAX: usize = 10;

/// A chain with its key, checked: they belong together, and the leaf can be read.
#[derive(Debug)]
pub struct Certificate {
    key: Arc<CertifiedKey>,
    names: Vec<String>,
    not_before: i64,
    not_after: i64,
}

/// What is wrong with a chain or a key. Which file it is, the caller knows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    #[error("holds no certificate: a PEM file with BEGIN CERTIFICATE is needed, the server's own first")]
    NoCertificate,
    #[error("has a certificate that cannot be read ({0}): is the file complete?")]
    Chain(String),
    #[error(
        "has more than {CHAIN_MAX} certificates: only the server's own and its intermediates belong there"
    )]
    ChainTooLong,
    #[error("names no host, so no client would accept it")]
    NoNames,
    #[error("holds no private key: a PEM file with BEGIN PRIVATE KEY is needed")]
    NoKey,
    #[error("is encrypted, and there is nobody to ask for the password: decrypt it with `openssl pkey`")]
    EncryptedKey,
    #[error("cannot be used as a private key ({0}): RSA, ECDSA P-256, P-384 and Ed25519 keys can")]
    Key(String),
    #[error(
        "belongs to another certificate: the key and the first certificate of the chain must be of one pair"
    )]
    Mismatch,
}

impl CertificateError {
    /// Whether the fault is the key's, and not the chain's.
    pub fn is_of_key(&self) -> bool {
        match self {
            Self::NoKey | Self::EncryptedKey | Self::Key(_) | Self::Mismatch => true,
            Self::NoCertificate | Self::Chain(_) | Self::ChainTooLong | Self::NoNames => false,
        }
    }
}

impl Certificate {
    /// Reads a chain, leaf first, and its key. Whether it has expired is not an error here.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, CertificateError> {
        let chain = read_chain(chain)?;
        let leaf = Leaf::read(&chain[0])?;
        let key = ring::default_provider()
            .key_provider
            .load_private_key(read_key(key)?)
            .map_err(|error| CertificateError::Key(error.to_string()))?;
        // Compared here and not by rustls, which cannot read every certificate that clients accept.
        if key.public_key().is_some_and(|public| public.as_ref() != leaf.public_key) {
            return Err(CertificateError::Mismatch);
        }
        let key = CertifiedKey::new(chain, key);
        Ok(Self {
            key: Arc::new(key),
            names: leaf.names,
            not_before: leaf.not_before,
            not_after: leaf.not_after,
        })
    }

    /// The hosts it is for, wildcards as they stand there; normalised, in its own order.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Unix seconds.
    pub fn not_before(&self) -> i64 {
        self.not_before
    }

    /// Unix seconds.
    pub fn not_after(&self) -> i64 {
        self.not_after
    }

    pub fn is_expired(&self, now: i64) -> bool {
        now >= self.not_after
    }

    /// Whether it is for `host`.
    pub fn covers(&self, host: &str) -> bool {
        let host = normal(host);
        let wildcard = super::names::wildcard_of(&host);
        self.names.iter().any(|name| *name == host || Some(name) == wildcard.as_ref())
    }

    pub(crate) fn leaf(&self) -> Option<&CertificateDer<'static>> {
        self.key.cert.first()
    }

    pub(super) fn certified_key(&self) -> &Arc<CertifiedKey> {
        &self.key
    }
}

fn read_chain(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let mut chain = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(text) {
        chain.push(certificate.map_err(|error| CertificateError::Chain(error.to_string()))?);
        if chain.len() > CHAIN_MAX {
            return Err(CertificateError::ChainTooLong);
        }
    }
    if chain.is_empty() { Err(CertificateError::NoCertificate) } else { Ok(chain) }
}

fn read_key(text: &[u8]) -> Result<PrivateKeyDer<'static>, CertificateError> {
    const ENCRYPTED: &[u8] = b"ENCRYPTED";
    PrivateKeyDer::from_pem_slice(text).map_err(|error| {
        if text.windows(ENCRYPTED.len()).any(|window| window == ENCRYPTED) {
            CertificateError::EncryptedKey
        } else if matches!(error, pem::Error::NoItemsFound) {
            CertificateError::NoKey
        } else {
            CertificateError::Key(error.to_string())
        }
    })
}

struct Leaf {
    names: Vec<String>,
    not_before: i64,
    not_after: i64,
    /// The whole SubjectPublicKeyInfo, DER.
    public_key: Vec<u8>,
}

impl Leaf {
    fn read(der: &CertificateDer<'_>) -> Result<Self, CertificateError> {
        let (_, leaf) = x509_parser::parse_x509_certificate(der)
            .map_err(|error| CertificateError::Chain(error.to_string()))?;
        let names = names_of(&leaf);
        if names.is_empty() {
            return Err(CertificateError::NoNames);
        }
        let validity = leaf.validity();
        Ok(Self {
            names,
            not_before: validity.not_before.timestamp(),
            not_after: validity.not_after.timestamp(),
            public_key: leaf.public_key().raw.to_vec(),
        })
    }
}

/// The hosts and addresses of the subject's alternative names; the common name only where there is none of these, as
/// old private authorities make them.
fn names_of(leaf: &X509Certificate<'_>) -> Vec<String> {
    let alternative = leaf.subject_alternative_name().ok().flatten();
    let mut names: Vec<String> = alternative
        .map(|extension| extension.value.general_names.iter().filter_map(host_of).collect())
        .unwrap_or_default();
    if names.is_empty() {
        let common = leaf.subject().iter_common_name().filter_map(|name| name.as_str().ok());
        names = common.filter(|name| !name.contains(' ')).map(normal).collect();
    }
    names
}

fn host_of(name: &GeneralName<'_>) -> Option<String> {
    if let GeneralName::DNSName(name) = name {
        Some(normal(name))
    } else if let GeneralName::IPAddress(bytes) = name {
        address(bytes).map(|address| address.to_string())
    } else {
        None
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(four) = <[u8; 4]>::try_from(bytes) {
        return Some(IpAddr::from(four));
    }
    <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    fn pair(names: &[&str]) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let certificate = CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    fn fault(chain: &str, key: &str) -> CertificateError {
        Certificate::from_pem(chain.as_bytes(), key.as_bytes()).unwrap_err()
    }

    #[test]
    fn a_pair_is_read_with_its_names_and_covers_them() {
        let (chain, key) = pair(&["Example.org", "*.example.org", "127.0.0.1"]);
        let certificate = Certificate::from_pem(chain.as_bytes(), key.as_bytes()).unwrap();
        assert_eq!(certificate.names(), ["example.org", "*.example.org", "127.0.0.1"]);
        for host in ["example.org", "WWW.example.org.", "127.0.0.1"] {
            assert!(certificate.covers(host), "{host}");
        }
        for host in ["a.www.example.org", "example.com", "127.0.0.2", ""] {
            assert!(!certificate.covers(host), "{host}");
        }
        assert!(certificate.not_before() < certificate.not_after());
    }

    #[test]
    fn what_is_wrong_with_a_pair_is_said_as_it_is() {
        let (chain, key) = pair(&["example.org"]);
        let (_, foreign) = pair(&["example.org"]);
        let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIB\n-----END ENCRYPTED PRIVATE KEY-----\n";
        assert_eq!(fault(&chain, &foreign), CertificateError::Mismatch);
        assert_eq!(fault("", &key), CertificateError::NoCertificate);
        assert_eq!(fault("rubbish", &key), CertificateError::NoCertificate);
        assert_eq!(fault(&chain, "rubbish"), CertificateError::NoKey);
        assert_eq!(fault(&chain, encrypted), CertificateError::EncryptedKey);
        assert!(matches!(fault(&chain[..chain.len() / 2], &key), CertificateError::Chain(_)));
        assert_eq!(fault(&chain.repeat(CHAIN_MAX + 1), &key), CertificateError::ChainTooLong);
    }
}
