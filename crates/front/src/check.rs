//! Is this a request that everybody behind us would read the same way? What is not, is refused here.
//!
//! hyper has refused broken framing before this is asked (RFC 9112: lengths that differ, obs-fold, spaces before a
//! colon, unknown codings). Here is what it leaves to us, each found by sending it.

use http::header::{CONTENT_LENGTH, EXPECT, HOST, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri, Version};

use crate::answer::Answer;
use crate::config::Limits;
use crate::found::{Found, Kind};
use crate::route::name_of;

/// The longest one registered has 17.
const METHOD_BYTES_MAX: usize = 64;

/// What a request was found to be.
#[derive(Clone, Debug)]
pub(crate) struct Checked {
    pub(crate) host: Host,
}

/// The host that a request is for, with its port where it names one; empty for an HTTP/1.0 request without.
#[derive(Clone, Debug)]
pub(crate) struct Host(HeaderValue);

impl Host {
    pub(crate) fn as_str(&self) -> &str {
        // It is text, or it would have been refused.
        self.0.to_str().unwrap_or_default()
    }

    #[cfg(test)]
    pub(crate) const fn from_static(text: &'static str) -> Self {
        Self(HeaderValue::from_static(text))
    }

    pub(crate) const fn value(&self) -> &HeaderValue {
        &self.0
    }
}

pub(crate) fn check<B>(request: &Request<B>, found: Found, limits: &Limits) -> Result<Checked, Answer> {
    if request.method() == Method::CONNECT {
        return Err(refuse(StatusCode::NOT_IMPLEMENTED, "connect", "This is no forward proxy."));
    }
    if request.method().as_str().len() > METHOD_BYTES_MAX {
        return Err(refuse(StatusCode::NOT_IMPLEMENTED, "bad-method", "No method is that long."));
    }
    let uri = request.uri();
    check_uri(request.method(), uri, limits)?;
    if found.has(Kind::TransferEncoding) || found.has(Kind::ContentLength) {
        check_framing(request.headers(), found, request.version())?;
    }
    if found.has(Kind::Expect) {
        check_expectations(request.headers())?;
    }
    host(request, found).map(|host| Checked { host })
}

const fn refuse(status: StatusCode, reason: &'static str, says: &'static str) -> Answer {
    Answer::refused(status, reason, says)
}

const fn bad(reason: &'static str, says: &'static str) -> Answer {
    refuse(StatusCode::BAD_REQUEST, reason, says)
}

fn check_uri(method: &Method, uri: &Uri, limits: &Limits) -> Result<(), Answer> {
    let target = uri.path_and_query().map_or("", |it| it.as_str());
    if target.len() > limits.uri_bytes {
        return Err(refuse(StatusCode::URI_TOO_LONG, "uri-too-long", "The address is too long."));
    }
    if uri.scheme_str().is_some_and(|scheme| scheme != "http" && scheme != "https") {
        return Err(bad("bad-scheme", "Only http and https are served here."));
    }
    let is_options_of_all = method == Method::OPTIONS && target == "*";
    if !target.starts_with('/') && !is_options_of_all {
        return Err(bad("bad-target", "The request target is not a path."));
    }
    // The end of the text to whatever is written in C.
    if uri.path().contains("%00") {
        return Err(bad("bad-target", "The path has a NUL in it."));
    }
    Ok(())
}

fn check_framing(headers: &HeaderMap, found: Found, version: Version) -> Result<(), Answer> {
    if let Some(coding) = headers.get(TRANSFER_ENCODING) {
        // Anything but this one word is read differently by somebody.
        if found.has_several(Kind::TransferEncoding) || !is_chunked(coding) {
            return Err(bad("bad-transfer-encoding", "Transfer-Encoding must be chunked, and nothing else."));
        }
        if version < Version::HTTP_11 {
            return Err(bad("bad-transfer-encoding", "HTTP/1.0 has no Transfer-Encoding."));
        }
    }
    if found.has_several(Kind::ContentLength) {
        return Err(bad("bad-content-length", "Content-Length was given more than once."));
    }
    if headers.get(CONTENT_LENGTH).is_some_and(|it| !is_length(it)) {
        return Err(bad("bad-content-length", "Content-Length is not a number."));
    }
    Ok(())
}

pub(crate) fn is_chunked(coding: &HeaderValue) -> bool {
    coding.as_bytes().eq_ignore_ascii_case(b"chunked")
}

/// Of an answer: what a client of ours would read differently from us. hyper takes the coding where both are given.
pub(crate) fn is_framed_well(
    found: Found,
    length: Option<&HeaderValue>,
    coding: Option<&HeaderValue>,
) -> bool {
    !found.has_several(Kind::ContentLength)
        && !found.has_several(Kind::TransferEncoding)
        && coding.is_none_or(is_chunked)
        && length.is_none_or(is_length)
        && (length.is_none() || coding.is_none())
}

fn is_length(value: &HeaderValue) -> bool {
    !value.is_empty() && value.as_bytes().iter().all(u8::is_ascii_digit)
}

fn check_expectations(headers: &HeaderMap) -> Result<(), Answer> {
    let known = |it: &HeaderValue| it.as_bytes().eq_ignore_ascii_case(b"100-continue");
    if headers.get_all(EXPECT).iter().all(known) {
        return Ok(());
    }
    let says = "Nothing is known here that could be expected but 100-continue.";
    Err(refuse(StatusCode::EXPECTATION_FAILED, "bad-expectation", says))
}

/// The one host that the request is for.
fn host<B>(request: &Request<B>, found: Found) -> Result<Host, Answer> {
    if found.has_several(Kind::Host) {
        return Err(bad("bad-host", "More than one Host was given."));
    }
    let header = request.headers().get(HOST);
    let text = match header.map(HeaderValue::to_str) {
        None => None,
        Some(Ok("")) => return Err(bad("bad-host", "The Host header is empty.")),
        Some(Ok(host)) => Some(host),
        Some(Err(_)) => return Err(bad("bad-host", "The Host header is not text.")),
    };
    let authority = request.uri().authority();
    if authority.is_some_and(|it| it.as_str().contains('@')) {
        return Err(bad("bad-host", "A user name has no place in the address."));
    }
    let (value, text) = match (authority, text) {
        // RFC 9112, 3.2: also where the address names one.
        (Some(_), None) if request.version() == Version::HTTP_11 => {
            return Err(bad("bad-host", "No Host was given."));
        }
        (Some(authority), Some(header)) if !same_host(authority.as_str(), header, request.uri()) => {
            return Err(bad("bad-host", "The address and the Host header name different hosts."));
        }
        (Some(authority), _) => (HeaderValue::from_str(authority.as_str()).ok(), authority.as_str()),
        (None, Some(text)) => (header.cloned(), text),
        (None, None) if request.version() < Version::HTTP_11 => {
            return Ok(Host(HeaderValue::from_static("")));
        }
        (None, None) => return Err(bad("bad-host", "No Host was given.")),
    };
    if !is_host(text) {
        return Err(bad("bad-host", "The Host header is not a host."));
    }
    value.map(Host).ok_or(bad("bad-host", "The Host header is not text."))
}

/// The same name and port; a port that is the scheme's own may be left out.
fn same_host(one: &str, other: &str, uri: &Uri) -> bool {
    let default = if uri.scheme_str() == Some("https") { "443" } else { "80" };
    let port = |host: &str| {
        let rest = host.get(name_of(host).len()..).unwrap_or_default();
        rest.strip_prefix(':').filter(|port| !port.is_empty()).unwrap_or(default).to_owned()
    };
    name_of(one).eq_ignore_ascii_case(name_of(other)) && port(one) == port(other)
}

/// A name, an address, or one in brackets, and perhaps a port.
fn is_host(host: &str) -> bool {
    let name = name_of(host);
    let rest = host.get(name.len()..).unwrap_or_default();
    let port_fits = rest.is_empty() || rest.strip_prefix(':').is_some_and(is_port);
    let inside = name.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
    let name_fits = if let Some(inside) = inside {
        inside.parse::<std::net::Ipv6Addr>().is_ok()
    } else {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b'~');
        !name.is_empty() && name.bytes().all(fits)
    };
    port_fits && name_fits
}

fn is_port(text: &str) -> bool {
    text.is_empty() || (text.bytes().all(|it| it.is_ascii_digit()) && text.parse::<u16>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(
        build: impl FnOnce(http::request::Builder) -> http::request::Builder,
    ) -> Result<String, &'static str> {
        let request = build(Request::builder()).body(()).expect("a request");
        check(&request, Found::look(request.headers()), &Limits::default())
            .map(|it| it.host.as_str().to_owned())
            .map_err(|answer| answer.reason)
    }

    #[test]
    fn one_host_is_wanted_and_no_more() {
        assert_eq!(asked(|it| it.uri("/").header("host", "example.org:8080")), Ok("example.org:8080".into()));
        assert_eq!(asked(|it| it.uri("/").header("host", "a").header("host", "a")), Err("bad-host"));
        assert_eq!(asked(|it| it.uri("/")), Err("bad-host"));
        assert_eq!(asked(|it| it.uri("/").version(Version::HTTP_10)), Ok(String::new()));
        for bad in ["a b", "a,b", "a/b", "user@a", "a:99999", "a:+80", "a:80:80", "a%zz", "[::g]", "", "a:b"]
        {
            assert_eq!(asked(|it| it.uri("/").header("host", bad)), Err("bad-host"), "{bad}");
        }
        assert_eq!(asked(|it| it.uri("/").header("host", "[::1]:80")), Ok("[::1]:80".into()));
    }

    #[test]
    fn an_absolute_address_must_name_the_same_host() {
        let to = |uri: &'static str, host: &'static str| asked(move |it| it.uri(uri).header("host", host));
        assert_eq!(to("http://example.org/x", "example.org"), Ok("example.org".into()));
        assert_eq!(to("http://example.org/x", "Example.org:80"), Ok("example.org".into()));
        assert_eq!(to("http://example.org/x", "example.com"), Err("bad-host"));
        assert_eq!(to("http://example.org:81/x", "example.org"), Err("bad-host"));
        assert_eq!(to("ftp://example.org/x", "example.org"), Err("bad-scheme"));
        assert_eq!(to("http://me@example.org/x", "example.org"), Err("bad-host"));
    }

    #[test]
    fn lengths_and_codings_are_plain_or_refused() {
        let with = |name: &'static str, value: &'static str| {
            asked(move |it| it.method("POST").uri("/").header("host", "a").header(name, value))
        };
        assert_eq!(with("content-length", "5"), Ok("a".into()));
        assert_eq!(with("content-length", "+5"), Err("bad-content-length"));
        assert_eq!(with("content-length", ""), Err("bad-content-length"));
        assert_eq!(with("transfer-encoding", "Chunked"), Ok("a".into()));
        assert_eq!(with("transfer-encoding", "identity, chunked"), Err("bad-transfer-encoding"));
        assert_eq!(with("transfer-encoding", "xchunked"), Err("bad-transfer-encoding"));
    }

    #[test]
    fn what_is_no_path_is_no_target() {
        assert_eq!(asked(|it| it.method("CONNECT").uri("a:443")), Err("connect"));
        assert_eq!(asked(|it| it.method("OPTIONS").uri("*").header("host", "a")), Ok("a".into()));
        assert_eq!(asked(|it| it.method("GET").uri("*").header("host", "a")), Err("bad-target"));
    }
}
