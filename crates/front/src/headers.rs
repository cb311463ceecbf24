//! Headers on their way through: what belongs to one connection goes no further, and who asked is said.

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, COOKIE, FORWARDED, HOST, TE, TRAILER, UPGRADE,
};
use http::uri::{Authority, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Uri, Version};

use crate::check::Host;
use crate::found::{Found, Kind};
use crate::hash::mix;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
pub(crate) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Headers that a request has more of when it goes on.
const SAID_MAX: usize = 5;

/// A request id longer than this is replaced by one of ours.
const REQUEST_ID_BYTES_MAX: usize = 128;

/// Who asks, as far as we can know.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    /// The connection's other end, or what a listed peer's PROXY header says.
    pub(crate) peer: SocketAddr,
    /// It may say for whom it asks.
    pub(crate) trusted: bool,
    pub(crate) tls: bool,
    /// `X-Forwarded-For` of one that may not: the same for every request.
    forwarded_for: HeaderValue,
}

impl Client {
    pub(crate) fn new(peer: SocketAddr, trusted: bool, tls: bool) -> Self {
        let ip = peer.ip().to_canonical().to_string();
        let forwarded_for =
            HeaderValue::from_str(&ip).unwrap_or_else(|_| HeaderValue::from_static("unknown"));
        Self { peer, trusted, tls, forwarded_for }
    }
}

/// The protocol that a request wants to change to, where it is one that passes through.
pub(crate) fn upgrade(headers: &HeaderMap, found: Found, version: Version) -> Option<HeaderValue> {
    let may_ask = version == Version::HTTP_11 && found.has(Kind::Connection);
    if !may_ask || !names_token(headers, "upgrade") {
        return None;
    }
    headers.get(UPGRADE).filter(|it| passes_through(it.as_bytes())).cloned()
}

/// One protocol, and no other HTTP: what a client would ask by that, nobody here would have looked at.
fn passes_through(protocol: &[u8]) -> bool {
    let begins =
        |with: &str| protocol.get(..with.len()).is_some_and(|it| it.eq_ignore_ascii_case(with.as_bytes()));
    !protocol.contains(&b',') && !["h2", "http", "tls"].into_iter().any(begins)
}

fn names_token(headers: &HeaderMap, token: &str) -> bool {
    let all = headers.get_all(CONNECTION).iter().filter_map(|it| it.to_str().ok());
    all.flat_map(|it| it.split(',')).any(|it| it.trim().eq_ignore_ascii_case(token))
}

/// Takes away what is between two neighbours only: the hop-by-hop headers, and those that `Connection` names.
fn strip(headers: &mut HeaderMap, found: Found) {
    if found.has(Kind::Connection) {
        let others: Vec<HeaderValue> = if found.has_several(Kind::Connection) {
            headers.get_all(CONNECTION).iter().skip(1).cloned().collect()
        } else {
            Vec::new()
        };
        let first = headers.remove(CONNECTION);
        for named in first.iter().chain(&others).filter(|it| !names_no_header(it)) {
            remove_named(headers, named);
        }
    }
    for kind in [Kind::Hop, Kind::KeepAlive, Kind::TransferEncoding] {
        found.remove(headers, kind);
    }
}

/// By far most of them: how the connection goes on.
fn names_no_header(connection: &HeaderValue) -> bool {
    let bytes = connection.as_bytes();
    bytes.eq_ignore_ascii_case(b"keep-alive") || bytes.eq_ignore_ascii_case(b"close")
}

fn remove_named(headers: &mut HeaderMap, connection: &HeaderValue) {
    let named = connection.to_str().unwrap_or_default().split(',');
    for name in named.filter_map(|it| it.trim().parse::<HeaderName>().ok()) {
        // Nobody may talk us out of these.
        if name != HOST && name != CONTENT_LENGTH {
            headers.remove(name);
        }
    }
}

/// Takes away what a client's headers have that is not for a service. `trusted`: it may say for whom it asks. `upgrade`:
/// what [`upgrade`] found.
pub(crate) fn to_service(
    headers: &mut HeaderMap,
    found: Found,
    trusted: bool,
    upgrade: Option<&HeaderValue>,
) {
    let trailers = found.has(Kind::Te)
        && headers.get(TE).is_some_and(|te| te.as_bytes().eq_ignore_ascii_case(b"trailers"));
    strip(headers, found);
    found.remove(headers, Kind::Ours);
    found.remove(headers, Kind::Expect);
    if !trusted {
        found.remove(headers, Kind::Who);
    }
    if !trailers {
        found.remove(headers, Kind::Te);
    }
    found.remove(headers, Kind::Underscored);
    if found.has(Kind::Cookie) {
        join_cookies(headers);
    }
    if let Some(protocol) = upgrade {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, protocol.clone());
    }
}

/// Says to the service who asks, and by what name the request is known: once to each copy of a request's headers.
pub(crate) fn say(headers: &mut HeaderMap, client: &Client, host: &Host, id: &RequestId) {
    // Room for all that is said here, instead of growing for each.
    let _ = headers.try_reserve(SAID_MAX);
    say_who(headers, client, host);
    if let RequestId::Ours(_) = id {
        headers.insert(REQUEST_ID, id.value());
    }
}

/// What trailers may not say: anything about the message as a whole or its sender. What frames a message besides is left
/// out by hyper.
const NO_TRAILERS: [HeaderName; 9] = [
    HOST,
    CONTENT_LENGTH,
    TRAILER,
    AUTHORIZATION,
    FORWARDED_FOR,
    FORWARDED_PROTO,
    FORWARDED_HOST,
    REQUEST_ID,
    IDEMPOTENCY_KEY,
];

/// Makes trailers fit to be passed on, either way: some put them among a message's headers.
pub(crate) fn trailers(trailers: &mut HeaderMap) {
    let found = Found::look(trailers);
    strip(trailers, found);
    for kind in [Kind::Te, Kind::Ours, Kind::Expect, Kind::Who, Kind::Cookie, Kind::Underscored] {
        found.remove(trailers, kind);
    }
    for name in &NO_TRAILERS {
        trailers.remove(name);
    }
}

/// HTTP/2 has the host in the address (RFC 9113, 8.3.1), and no headers for one connection.
pub(crate) fn to_http2<B>(request: &mut Request<B>) {
    request.headers_mut().remove(CONNECTION);
    request.headers_mut().remove(UPGRADE);
    let host = request.headers().get(HOST).and_then(|it| Authority::try_from(it.as_bytes()).ok());
    if let (Some(authority), Some(path)) = (host, request.uri().path_and_query().cloned())
        && let Ok(address) =
            Uri::builder().scheme(Scheme::HTTP).authority(authority).path_and_query(path).build()
    {
        *request.uri_mut() = address;
    }
}

/// HTTP/2 clients send a cookie each; HTTP/1.1 has one header for all (RFC 9113, 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let all: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if all.len() < 2 {
        return;
    }
    if let Ok(joined) = HeaderValue::from_bytes(&all.join(&b"; "[..])) {
        headers.insert(COOKIE, joined);
    }
}

fn say_who(headers: &mut HeaderMap, client: &Client, host: &Host) {
    if !client.trusted {
        headers.insert(FORWARDED_PROTO, scheme(client.tls));
        set(headers, FORWARDED_HOST, host.value().clone());
        headers.insert(FORWARDED_FOR, client.forwarded_for.clone());
        return;
    }
    // Believed, and this peer added.
    if !headers.contains_key(FORWARDED_PROTO) {
        headers.insert(FORWARDED_PROTO, scheme(client.tls));
    }
    if !headers.contains_key(FORWARDED_HOST) {
        set(headers, FORWARDED_HOST, host.value().clone());
    }
    let ip = client.peer.ip().to_canonical();
    match joined(headers, &FORWARDED_FOR) {
        Some(before) => insert(headers, FORWARDED_FOR, &format!("{before}, {ip}")),
        None => set(headers, FORWARDED_FOR, client.forwarded_for.clone()),
    }
    if let Some(before) = joined(headers, &FORWARDED) {
        let node = if ip.is_ipv6() { format!("\"[{ip}]\"") } else { ip.to_string() };
        insert(headers, FORWARDED, &format!("{before}, for={node}"));
    }
}

const fn scheme(tls: bool) -> HeaderValue {
    HeaderValue::from_static(if tls { "https" } else { "http" })
}

fn joined(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let all: Vec<&str> = headers.get_all(name).iter().filter_map(|it| it.to_str().ok()).collect();
    (!all.is_empty()).then(|| all.join(", "))
}

fn insert(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    set(headers, name, HeaderValue::from_str(value).unwrap_or_else(|_| HeaderValue::from_static("")));
}

/// Nothing is said rather than an empty word.
fn set(headers: &mut HeaderMap, name: HeaderName, value: HeaderValue) {
    if value.is_empty() {
        headers.remove(name);
    } else {
        headers.insert(name, value);
    }
}

/// By what name the service knows a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RequestId {
    /// Its client's own.
    Told(HeaderValue),
    /// A number that is unlike any other for as long as they do not wrap; nobody's secret.
    Ours(u64),
}

impl RequestId {
    /// The one that the client gave, where that is one; else ours.
    pub(crate) fn of(headers: &HeaderMap, found: Found, numbers: &AtomicU64) -> Self {
        if found.has(Kind::RequestId)
            && !found.has_several(Kind::RequestId)
            && let Some(told) = headers.get(REQUEST_ID).filter(|it| is_request_id(it))
        {
            return Self::Told(told.clone());
        }
        Self::Ours(mix(numbers.fetch_add(1, Ordering::Relaxed)))
    }

    fn value(&self) -> HeaderValue {
        match self {
            Self::Told(value) => value.clone(),
            Self::Ours(number) => {
                HeaderValue::from_bytes(&hex(*number)).unwrap_or_else(|_| HeaderValue::from_static("0"))
            }
        }
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.value().to_str().unwrap_or_default())
    }
}

fn is_request_id(value: &HeaderValue) -> bool {
    let bytes = value.as_bytes();
    !bytes.is_empty() && bytes.len() <= REQUEST_ID_BYTES_MAX && bytes.iter().all(u8::is_ascii_graphic)
}

const HEX: &[u8; 16] = b"0123456789abcdef";

fn hex(number: u64) -> [u8; 16] {
    let mut digits = [0; 16];
    for (pair, byte) in digits.chunks_exact_mut(2).zip(number.to_be_bytes()) {
        pair.copy_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 0xf)]]);
    }
    digits
}

/// Makes a service's headers fit to be sent back.
pub(crate) fn to_client(headers: &mut HeaderMap, found: Found) {
    strip(headers, found);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(trusted: bool, pairs: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            let name: HeaderName = name.parse().expect("a name");
            headers.append(name, value.parse().expect("a value"));
        }
        let client = Client::new("192.0.2.7:999".parse().expect("an address"), trusted, true);
        let host = Host::from_static("example.org");
        let found = Found::look(&headers);
        let upgrade = upgrade(&headers, found, Version::HTTP_11);
        to_service(&mut headers, found, trusted, upgrade.as_ref());
        let id = RequestId::of(&headers, found, &AtomicU64::new(1));
        say(&mut headers, &client, &host, &id);
        assert_eq!(headers["x-request-id"], id.to_string());
        headers
    }

    #[test]
    fn a_request_has_one_id_and_two_are_replaced_by_one_of_ours() {
        let one = sent(false, &[("host", "a"), ("x-request-id", "4f")]);
        assert_eq!(one["x-request-id"], "4f");
        let two = sent(false, &[("host", "a"), ("x-request-id", "4f"), ("x-request-id", "50")]);
        let ids: Vec<_> = two.get_all("x-request-id").iter().collect();
        assert!(ids.len() == 1 && ids[0] != "4f" && ids[0] != "50", "{ids:?}");
    }

    #[test]
    fn what_connection_names_goes_no_further_except_what_it_may_not_name() {
        let headers = sent(
            false,
            &[
                ("host", "a"),
                ("connection", "close, x-private, Host"),
                ("x-private", "1"),
                ("keep-alive", "5"),
            ],
        );
        assert!(headers.get("x-private").is_none() && headers.get("connection").is_none());
        assert!(headers.get("keep-alive").is_none());
        assert_eq!(headers["host"], "a");
    }

    #[test]
    fn strangers_cannot_say_for_whom_they_ask() {
        let lies =
            [("x-forwarded-for", "10.0.0.1"), ("forwarded", "for=10.0.0.1"), ("x-real-ip", "10.0.0.1")];
        let headers = sent(false, &lies);
        assert_eq!(headers["x-forwarded-for"], "192.0.2.7");
        assert_eq!(headers["x-forwarded-proto"], "https");
        assert_eq!(headers["x-forwarded-host"], "example.org");
        assert!(headers.get("forwarded").is_none() && headers.get("x-real-ip").is_none());
    }

    #[test]
    fn a_listed_peer_is_believed_and_added() {
        let told =
            [("x-forwarded-for", "10.0.0.1"), ("x-forwarded-proto", "http"), ("forwarded", "for=10.0.0.1")];
        let headers = sent(true, &told);
        assert_eq!(headers["x-forwarded-for"], "10.0.0.1, 192.0.2.7");
        assert_eq!(headers["x-forwarded-proto"], "http");
        assert_eq!(headers["forwarded"], "for=10.0.0.1, for=192.0.2.7");
    }

    #[test]
    fn names_with_underscores_do_not_pass() {
        let headers =
            sent(false, &[("x_forwarded_for", "10.0.0.1"), ("content_length", "3"), ("x-fine", "1")]);
        assert!(headers.get("x_forwarded_for").is_none() && headers.get("content_length").is_none());
        assert_eq!(headers["x-fine"], "1");
    }

    #[test]
    fn an_upgrade_is_passed_on_by_its_own_words_only() {
        let headers = sent(false, &[("connection", "keep-alive, Upgrade"), ("upgrade", "websocket")]);
        assert_eq!(headers["connection"], "upgrade");
        assert_eq!(headers["upgrade"], "websocket");
        let headers = sent(false, &[("upgrade", "websocket")]);
        assert!(headers.get("upgrade").is_none());
    }

    #[test]
    fn no_other_http_is_changed_to() {
        for protocol in ["h2c", "HTTP/2.0", "TLS/1.0", "websocket, h2c"] {
            let headers = sent(false, &[("connection", "upgrade"), ("upgrade", protocol)]);
            assert!(headers.get("upgrade").is_none(), "{protocol}");
        }
    }

    #[test]
    fn every_request_has_an_id_and_a_sane_one_is_kept() {
        assert_eq!(sent(false, &[("x-request-id", "abc-1")])["x-request-id"], "abc-1");
        assert_ne!(sent(false, &[("x-request-id", "a b")])["x-request-id"], "a b");
        assert_eq!(sent(false, &[])["x-request-id"].len(), 16);
    }
}
