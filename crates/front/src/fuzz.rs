//! For `plimsoll-fuzz`: each takes any bytes, and panics where a rule of this crate does not hold.

use std::pin::pin;
use std::sync::atomic::AtomicU64;
use std::task::{Context, Poll, Waker};

use http::{HeaderName, HeaderValue, Request, Version};

use crate::config::{Limits, ReplayPolicy, RouteConfig};
use crate::found::Found;
use crate::headers::{self, Client, REQUEST_ID, RequestId};
use crate::proxy_protocol::{self, ProxyError};
use crate::route::{Routes, name_of};
use crate::tls::Certificate;
use crate::websocket::Frames;
use crate::{check, pattern};

/// A PROXY header, and what follows it on the connection.
pub fn proxy_protocol(bytes: &[u8]) {
    /// The longest of either version.
    const HEADER_BYTES_MAX: usize = 16 + 1024;
    let mut rest = bytes;
    let outcome = {
        let reading = pin!(proxy_protocol::read(&mut rest));
        match reading.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(outcome) => outcome,
            Poll::Pending => panic!("it waits for bytes that are there"),
        }
    };
    let taken = bytes.len() - rest.len();
    assert!(taken <= HEADER_BYTES_MAX, "{taken} bytes were read as a header");
    match outcome {
        Ok(Some(client)) if bytes.starts_with(b"PROXY ") => {
            assert!(bytes[..taken].ends_with(b"\r\n"), "{client} from a line without an end");
        }
        Ok(_) => assert!(taken >= 12),
        Err(ProxyError::Missing) => assert!(!bytes.starts_with(b"\r\n\r\n\0\r\nQUIT\n")),
        Err(ProxyError::Read(_) | ProxyError::Malformed(_)) => {}
    }
}

/// A request's head, as `METHOD TARGET` and a header on each further line.
pub fn request(bytes: &[u8]) {
    let Some(mut request) = head(bytes) else { return };
    let found = Found::look(request.headers());
    let Ok(checked) = check::check(&request, found, &Limits::default()) else { return };
    let checked = checked.host;
    let host = checked.as_str();
    assert!(!host.contains(['/', '@', ' ', ',']), "{host:?} is no host");
    assert!(request.headers().get_all("content-length").iter().count() <= 1);
    let path = request.uri().path().to_owned();
    let _ = routes().find(host, &path);
    assert!(host.starts_with(name_of(host)));
    path_pattern(path.as_bytes());
    let upgrade = headers::upgrade(request.headers(), found, request.version());
    for trusted in [false, true] {
        let mut headers = request.headers().clone();
        let client = Client::new(([192, 0, 2, 7], 999).into(), trusted, true);
        headers::to_service(&mut headers, found, trusted, upgrade.as_ref());
        let id = RequestId::of(&headers, found, &AtomicU64::new(7));
        headers::say(&mut headers, &client, &checked, &id);
        fit_for_the_service(&headers, trusted);
    }
    headers::to_client(request.headers_mut(), found);
    assert!(!request.headers().contains_key("connection"));
}

fn head(bytes: &[u8]) -> Option<Request<()>> {
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let mut words = lines.next()?.split(|byte| *byte == b' ');
    let (method, target) = (words.next()?, words.next()?);
    let version = if words.next().is_some() { Version::HTTP_10 } else { Version::HTTP_11 };
    let mut request = Request::builder().method(method).uri(target).version(version).body(()).ok()?;
    for line in lines.take(100) {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let name = HeaderName::from_bytes(&line[..colon]).ok()?;
        let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).ok()?;
        request.headers_mut().append(name, value);
    }
    Some(request)
}

fn routes() -> Routes {
    let route = |host: Option<&str>, path: Option<&str>| RouteConfig {
        host: host.map(Into::into),
        path: path.map(Into::into),
        service: plimsoll_core::ServiceId(0),
        replay: ReplayPolicy::Safe,
        timeout: None,
    };
    Routes::new(&[
        route(Some("*.example.org"), None),
        route(Some("a"), Some("/api/")),
        route(None, Some("/")),
    ])
}

/// What is between two neighbours goes no further, and nobody speaks for somebody else.
fn fit_for_the_service(headers: &http::HeaderMap, trusted: bool) {
    for name in headers.keys() {
        assert!(!name.as_str().contains('_'), "{name} would be another name to CGI");
    }
    for name in ["transfer-encoding", "keep-alive", "proxy-connection", "proxy-authorization", "expect"] {
        assert!(!headers.contains_key(name), "{name} is not for the service");
    }
    let upgrades = headers.get_all("connection").iter().all(|value| value == "upgrade");
    assert!(upgrades && headers.contains_key("connection") == headers.contains_key("upgrade"));
    let last = |name: &str| headers.get(name).and_then(|it| it.to_str().ok()).map(str::to_owned);
    let told = last("x-forwarded-for").expect("who asks is always said");
    assert!(if trusted { told.ends_with("192.0.2.7") } else { told == "192.0.2.7" }, "{told:?}");
    assert!(trusted || !headers.contains_key("forwarded"));
    assert!(trusted || last("x-forwarded-proto").as_deref() == Some("https"));
    let id = headers.get(REQUEST_ID).expect("every request has an id");
    assert!(id.len() <= 128 && id.as_bytes().iter().all(u8::is_ascii_graphic), "{id:?}");
    assert_eq!(headers.get_all(REQUEST_ID).iter().count(), 1, "one request, one id");
}

/// A path, and the pattern that it is counted under.
pub fn path_pattern(bytes: &[u8]) {
    let path = String::from_utf8_lossy(bytes);
    let pattern = pattern::of(&path);
    assert!(pattern.starts_with('/') && pattern.len() <= 8 * 33 + "/…".len(), "{pattern:?} of {path:?}");
    // A pattern is a path of the same pattern, or nothing would ever be counted together.
    assert_eq!(pattern::hash("GET", &path), pattern::hash("GET", &path));
    if !pattern.ends_with('…') {
        assert_eq!(pattern::of(&pattern), pattern, "of {path:?}");
    }
}

/// A certificate file and a key file, one after the other with a zero byte between them.
pub fn certificate(bytes: &[u8]) {
    let cut = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let (chain, key) = bytes.split_at(cut);
    match Certificate::from_pem(chain, key) {
        Ok(certificate) => {
            assert!(!certificate.names().is_empty());
            for name in certificate.names() {
                let _ = certificate.covers(name);
            }
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// Frames of a WebSocket end at the same places however they are cut.
pub fn websocket(bytes: &[u8]) {
    let (mut whole, mut pieces) = (Frames::default(), Frames::default());
    whole.passed(bytes);
    let width = bytes.first().map_or(1, |first| usize::from(*first) + 1);
    bytes.chunks(width).for_each(|piece| pieces.passed(piece));
    assert_eq!(whole.is_between(), pieces.is_between());
}
