//! HTTPS to a directory: a connection for each request, everything bounded.
//!
//! An order is some twenty requests every two months, so there is nothing to gain from a pool, and a pool's idle
//! connection would be the first thing to be stale.

use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{HOST, HeaderValue, RETRY_AFTER, USER_AGENT};
use http::{Request, Response, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::error::AcmeError;

const HTTPS_PORT: u16 = 443;
/// A certificate chain is the longest answer there is, and has some 10 KiB.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;
const AGENT: HeaderValue = HeaderValue::from_static(concat!("plimsoll/", env!("CARGO_PKG_VERSION")));

type Fault = Box<dyn StdError + Send + Sync>;
type Answer = Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>>;

#[derive(Clone)]
pub(super) struct Http {
    connector: TlsConnector,
    patience: Duration,
    /// What the last refusal said about when to come again; instant-acme does not hand it out.
    retry_after: Arc<Mutex<Option<Duration>>>,
}

impl fmt::Debug for Http {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Http").field("patience", &self.patience).finish_non_exhaustive()
    }
}

impl Http {
    /// Trusts the host's roots, and those in `extra`. Reads files, so beside the runtime's thread.
    pub(super) async fn new(extra: Option<PathBuf>, patience: Duration) -> Result<Self, AcmeError> {
        let roots = tokio::task::spawn_blocking(move || roots(extra.as_deref()))
            .await
            .map_err(|_| AcmeError::Interrupted)??;
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { connector: TlsConnector::from(Arc::new(config)), patience, retry_after: Arc::default() })
    }

    /// `Retry-After` of the last answer that was a refusal, if that had one.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        *self.retry_after.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, response: &Response<Bytes>) {
        let status = response.status();
        let refused = status.is_client_error() || status.is_server_error();
        let wait = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let wait = wait.filter(|_| refused).and_then(|text| wait_of(text, jiff::Timestamp::now()));
        *self.retry_after.lock().unwrap_or_else(PoisonError::into_inner) = wait;
    }

    async fn exchange(&self, request: Request<BodyWrapper<Bytes>>) -> Result<Response<Bytes>, Fault> {
        let host = request.uri().host().ok_or("URL has no host")?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        if request.uri().scheme_str() != Some("https") {
            return Err("only https:// is asked".into());
        }
        let port = request.uri().port_u16().unwrap_or(HTTPS_PORT);
        let tcp = TcpStream::connect((host.as_str(), port)).await?;
        let tls = self.connector.connect(ServerName::try_from(host)?, tcp).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(tls)).await?;
        let exchange = async move {
            let (parts, body) = sender.send_request(in_origin_form(request)?).await?.into_parts();
            let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await?;
            Ok::<_, Fault>(Response::from_parts(parts, body.to_bytes()))
        };
        // The connection ends when the exchange gives up its sender; how it ends says nothing about the answer.
        let (answer, _) = tokio::join!(exchange, connection);
        answer
    }

    async fn ask(self, request: Request<BodyWrapper<Bytes>>) -> Result<BytesResponse, Error> {
        let url = request.uri().to_string();
        let answer = tokio::time::timeout(self.patience, self.exchange(request)).await;
        let response = match answer {
            Ok(Ok(response)) => response,
            Ok(Err(fault)) => return Err(other(AcmeError::Http { url, why: causes(&*fault) })),
            Err(_) => return Err(other(AcmeError::HttpPatience { url, patience: self.patience })),
        };
        self.note(&response);
        // A gateway's page, which as a problem document would be "expected value at line 1".
        let status = response.status();
        if !status.is_success() && serde_json::from_slice::<serde_json::Value>(response.body()).is_err() {
            return Err(other(AcmeError::Http { url, why: format!("answered {status}") }));
        }
        Ok(BytesResponse::from(response.map(Full::new)))
    }
}

impl HttpClient for Http {
    fn request(&self, request: Request<BodyWrapper<Bytes>>) -> Answer {
        Box::pin(self.clone().ask(request))
    }
}

fn in_origin_form(mut request: Request<BodyWrapper<Bytes>>) -> Result<Request<BodyWrapper<Bytes>>, Fault> {
    let authority = request.uri().authority().ok_or("URL has no host")?.as_str();
    let host = HeaderValue::from_str(authority)?;
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    *request.uri_mut() = Uri::from_str(path)?;
    request.headers_mut().insert(HOST, host);
    request.headers_mut().insert(USER_AGENT, AGENT);
    Ok(request)
}

fn roots(extra: Option<&Path>) -> Result<RootCertStore, AcmeError> {
    let mut roots = RootCertStore::empty();
    // What cannot be read of the host's is missed below, if it was needed.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(path) = extra {
        let fault = |why: String| AcmeError::Roots { path: path.to_owned(), why };
        let text = std::fs::read(path).map_err(|error| fault(format!("cannot be read: {error}")))?;
        let mut count = 0;
        for root in CertificateDer::pem_slice_iter(&text) {
            let root =
                root.map_err(|error| fault(format!("has a certificate that cannot be read: {error}")))?;
            roots.add(root).map_err(|error| fault(format!("has a certificate that is no root: {error}")))?;
            count += 1;
        }
        if count == 0 {
            return Err(fault(
                "holds no certificate: a PEM file with BEGIN CERTIFICATE is needed".to_owned(),
            ));
        }
    }
    if roots.is_empty() { Err(AcmeError::NoRoots) } else { Ok(roots) }
}

/// Seconds, or a date (RFC 9110, 10.2.3).
fn wait_of(text: &str, now: jiff::Timestamp) -> Option<Duration> {
    let text = text.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let until = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
    Some(Duration::try_from(until.duration_since(now)).unwrap_or_default())
}

fn other(error: AcmeError) -> Error {
    Error::Other(Box::new(error))
}

/// A fault with what caused it, since the outermost often says only that something failed.
fn causes(fault: &(dyn StdError + 'static)) -> String {
    let mut text = fault.to_string();
    let mut next = fault.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_read_as_seconds_and_as_a_date() {
        let now: jiff::Timestamp = "1994-11-06T08:49:00Z".parse().unwrap();
        assert_eq!(wait_of(" 90 ", now), Some(Duration::from_secs(90)));
        assert_eq!(wait_of("Sun, 06 Nov 1994 08:49:37 GMT", now), Some(Duration::from_secs(37)));
        assert_eq!(wait_of("Sun, 06 Nov 1994 08:48:00 GMT", now), Some(Duration::ZERO));
        assert_eq!(wait_of("soon", now), None);
    }

    #[test]
    fn a_roots_file_without_a_root_is_refused_by_name() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, "rubbish").unwrap();
        let error = roots(Some(file.path())).unwrap_err().to_string();
        assert!(error.starts_with(&file.path().display().to_string()), "{error}");
        assert!(error.contains("holds no certificate"), "{error}");
    }
}
