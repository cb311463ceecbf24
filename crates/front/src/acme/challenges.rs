//! What the listeners answer while a certificate authority validates our names.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock};

use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair};
use rustls::crypto::ring;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::error::AcmeError;
use crate::tls::normal;

/// RFC 8555, 8.3.
const PREFIX: &str = "/.well-known/acme-challenge/";

/// The challenges in progress, shared by the listeners and the task that orders.
#[derive(Debug, Default)]
pub struct Challenges {
    answers: RwLock<Answers>,
}

#[derive(Debug, Default)]
struct Answers {
    by_token: HashMap<String, String>,
    by_name: HashMap<String, Arc<CertifiedKey>>,
}

/// Challenges of one order; what was published is taken back when this is dropped, also in the middle of the order.
#[derive(Debug)]
pub(super) struct Published {
    challenges: Arc<Challenges>,
    tokens: Vec<String>,
    names: Vec<String>,
}

impl Challenges {
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// The body for a request of `path` on the plaintext listener, as `text/plain`, before any redirect or hold. `None`
    /// for everything that is not a challenge in progress.
    pub fn http_answer(&self, path: &str) -> Option<String> {
        let token = path.strip_prefix(PREFIX)?;
        let answers = self.answers.read().unwrap_or_else(PoisonError::into_inner);
        answers.by_token.get(token).cloned()
    }

    /// Whether a validation by TLS-ALPN-01 for `name` is expected.
    pub(crate) fn has_name(&self, name: &str) -> bool {
        self.certificate(name).is_some()
    }

    fn certificate(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        let answers = self.answers.read().unwrap_or_else(PoisonError::into_inner);
        answers.by_name.get(&normal(name)).cloned()
    }

    fn change(&self, change: impl FnOnce(&mut Answers)) {
        change(&mut self.answers.write().unwrap_or_else(PoisonError::into_inner));
    }
}

impl ResolvesServerCert for Challenges {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.certificate(hello.server_name()?)
    }
}

impl Published {
    pub(super) fn new(challenges: Arc<Challenges>) -> Self {
        Self { challenges, tokens: Vec::new(), names: Vec::new() }
    }

    pub(super) fn http(&mut self, token: &str, key_authorization: &str) {
        let answer = (token.to_owned(), key_authorization.to_owned());
        self.tokens.push(token.to_owned());
        self.challenges.change(|answers| {
            answers.by_token.insert(answer.0, answer.1);
        });
    }

    /// `digest` is the SHA-256 of the key authorization.
    pub(super) fn tls_alpn(&mut self, domain: &str, digest: &[u8]) -> Result<(), AcmeError> {
        let certificate = Arc::new(validation_certificate(domain, digest)?);
        let name = sni_of(domain);
        self.names.push(name.clone());
        self.challenges.change(|answers| {
            answers.by_name.insert(name, certificate);
        });
        Ok(())
    }
}

impl Drop for Published {
    fn drop(&mut self) {
        self.challenges.change(|answers| {
            for token in &self.tokens {
                answers.by_token.remove(token);
            }
            for name in &self.names {
                answers.by_name.remove(name);
            }
        });
    }
}

/// RFC 8737, 3: self-signed, for this name alone, with the digest in a critical extension.
fn validation_certificate(domain: &str, digest: &[u8]) -> Result<CertifiedKey, AcmeError> {
    let mut params = CertificateParams::new(vec![domain.to_owned()])?;
    params.distinguished_name = DistinguishedName::new();
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    // Not `from_der`: it reads the certificate, and does not know the critical extension.
    let key = ring::default_provider().key_provider.load_private_key(key)?;
    Ok(CertifiedKey::new(vec![certificate.der().clone()], key))
}

/// The name a validation comes with: for an address, which no SNI can hold, its reverse (RFC 8738, 6).
fn sni_of(domain: &str) -> String {
    match domain.parse::<IpAddr>() {
        Ok(IpAddr::V4(address)) => {
            let [a, b, c, d] = address.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        Ok(IpAddr::V6(address)) => {
            let octets = address.octets();
            let nibbles = octets.iter().rev().flat_map(|octet| [octet & 15, octet >> 4]);
            let labels: Vec<String> = nibbles.map(|nibble| format!("{nibble:x}")).collect();
            format!("{}.ip6.arpa", labels.join("."))
        }
        Err(_) => normal(domain),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_challenge_is_answered_while_its_order_lives_and_not_after() {
        let challenges = Challenges::new();
        let mut published = Published::new(Arc::clone(&challenges));
        published.http("abc", "abc.thumb");
        published.tls_alpn("Example.org", &[7; 32]).unwrap();
        assert_eq!(challenges.http_answer("/.well-known/acme-challenge/abc").as_deref(), Some("abc.thumb"));
        assert_eq!(challenges.http_answer("/.well-known/acme-challenge/abcd"), None);
        assert_eq!(challenges.http_answer("/abc"), None);
        assert!(challenges.has_name("example.org"));
        drop(published);
        assert_eq!(challenges.http_answer("/.well-known/acme-challenge/abc"), None);
        assert!(!challenges.has_name("example.org"));
    }

    #[test]
    fn an_address_is_validated_by_its_reverse_name() {
        assert_eq!(sni_of("192.0.2.1"), "1.2.0.192.in-addr.arpa");
        let zeros = "0.".repeat(23);
        assert_eq!(sni_of("2001:db8::1"), format!("1.{zeros}8.b.d.0.1.0.0.2.ip6.arpa"));
    }
}
