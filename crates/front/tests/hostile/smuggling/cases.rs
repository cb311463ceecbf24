//! The table. RFC 9112 is "HTTP/1.1", RFC 9110 "HTTP Semantics".

/// What has to become of a request.
pub(super) enum Fate {
    /// This status, or none for 0, then the end of the connection; the service sees nothing.
    Refused(u16),
    /// The service sees these, and the connection goes on.
    Passes(&'static [&'static str]),
    PassesThenCloses(&'static [&'static str]),
    PassesThenRefused(&'static [&'static str], u16),
}

use Fate::{Passes, PassesThenCloses, PassesThenRefused, Refused};

pub(super) struct Case {
    pub(super) what: String,
    pub(super) bytes: Vec<u8>,
    pub(super) fate: Fate,
}

/// Bytes as they are.
fn raw(what: &str, bytes: impl AsRef<[u8]>, fate: Fate) -> Case {
    Case { what: what.to_owned(), bytes: bytes.as_ref().to_vec(), fate }
}

/// A request line and one header with the rest as they are, and a sane Host.
fn with(what: &str, line: &str, rest: &str, fate: Fate) -> Case {
    raw(what, format!("{line}\r\nHost: a\r\n{rest}"), fate)
}

fn post(what: &str, rest: &str, fate: Fate) -> Case {
    with(what, "POST / HTTP/1.1", rest, fate)
}

fn get(what: &str, rest: &str, fate: Fate) -> Case {
    with(what, "GET / HTTP/1.1", rest, fate)
}

fn line(line: &str, fate: Fate) -> Case {
    with(&format!("{line:?}"), line, "\r\n", fate)
}

/// Names a second request that must not be carried out.
const EVIL: &str = "GET /evil HTTP/1.1\r\nHost: a\r\n\r\n";
const HELLO: &[&str] = &["POST / hello"];
const ROOT: &[&str] = &["GET /"];

/// No plain numbers, or none that fits.
const BAD_LENGTHS: [&str; 16] = [
    "5, 5",
    "5, 6",
    "5,",
    "+5",
    "-5",
    "-0",
    "0x5",
    "5a",
    "5 5",
    "",
    "5.0",
    "5e0",
    "\"5\"",
    "\u{664}",
    "99999999999999999999",
    "18446744073709551616",
];

/// RFC 9112, 6.2 and 6.3; RFC 9110, 8.6.
pub(super) fn lengths() -> Vec<Case> {
    let mut all = vec![
        post("one length", "Content-Length: 5\r\n\r\nhello", Passes(HELLO)),
        post("two different lengths", "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!", Refused(400)),
        post(
            "the same length twice is one length (9110, 8.6)",
            "Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
            Passes(HELLO),
        ),
        post(
            "a length and a coding, with a second request hidden in it: the coding counts, and nothing after it \
             (9112, 6.1)",
            &format!("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n{EVIL}"),
            PassesThenCloses(HELLO),
        ),
        post(
            "the same, the other way round",
            &format!("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n5\r\nhello\r\n0\r\n\r\n{EVIL}"),
            PassesThenCloses(HELLO),
        ),
        post(
            "a length, and an empty chunked body before a hidden request",
            &format!("Content-Length: 40\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{EVIL}"),
            PassesThenCloses(&["POST /"]),
        ),
        post(
            "more than the length",
            "Content-Length: 5\r\n\r\nhello\x01garbage\r\n\r\n",
            PassesThenRefused(HELLO, 400),
        ),
        get(
            "a hidden request as the body of a GET",
            &format!("Content-Length: {}\r\n\r\n{EVIL}", EVIL.len()),
            Passes(&["GET / GET /evil HTTP/1.1\r\nHost: a"]),
        ),
        with(
            "a body where none is usual",
            "DELETE / HTTP/1.1",
            "Content-Length: 2\r\n\r\nxx",
            Passes(&["DELETE / xx"]),
        ),
        post("no length is no body", "\r\n", Passes(&["POST /"])),
        post("folded", "Content-Length:\r\n 5\r\n\r\nhello", Refused(400)),
        post("a space before the colon (9112, 5.1)", "Content-Length : 5\r\n\r\nhello", Refused(400)),
        post("a tab before the colon", "Content-Length\t: 5\r\n\r\nhello", Refused(400)),
        post("spaces around it are none of it", "Content-Length: \t5 \t\r\n\r\nhello", Passes(HELLO)),
        post(
            "named by Connection, it stays",
            "Connection: content-length\r\nContent-Length: 5\r\n\r\nhello",
            Passes(HELLO),
        ),
        post(
            "an underscore makes another name of it",
            &format!("Content_Length: {}\r\n\r\n{EVIL}", EVIL.len()),
            Passes(&["POST /", "GET /evil"]),
        ),
    ];
    all.extend(BAD_LENGTHS.map(|length| {
        post(&format!("length {length:?}"), &format!("Content-Length: {length}\r\n\r\nhello"), Refused(400))
    }));
    all
}

/// RFC 9112, 6.1.
pub(super) fn codings() -> Vec<Case> {
    const BODY: &str = "5\r\nhello\r\n0\r\n\r\n";
    let with_line =
        |line: &str, fate: Fate| post(&format!("{line:?}"), &format!("{line}\r\n\r\n{BODY}"), fate);
    vec![
        with_line("Transfer-Encoding: chunked", Passes(HELLO)),
        with_line("transfer-encoding: cHuNkEd", Passes(HELLO)),
        with_line("Transfer-Encoding:\tchunked\t", Passes(HELLO)),
        with_line("Connection: transfer-encoding\r\nTransfer-Encoding: chunked", Passes(HELLO)),
        with_line("Transfer-Encoding: xchunked", Refused(400)),
        with_line("Transfer-Encoding: chunked, chunked", Refused(400)),
        with_line("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", Refused(400)),
        with_line("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", Refused(400)),
        with_line("Transfer-Encoding: identity\r\nTransfer-Encoding: chunked", Refused(400)),
        with_line("Transfer-Encoding: identity", Refused(400)),
        with_line("Transfer-Encoding: identity, chunked", Refused(400)),
        with_line("Transfer-Encoding: gzip, chunked", Refused(400)),
        with_line("Transfer-Encoding: chunked, gzip", Refused(400)),
        with_line("Transfer-Encoding: chunked,", Refused(400)),
        with_line("Transfer-Encoding: ,chunked", Refused(400)),
        with_line("Transfer-Encoding:", Refused(400)),
        with_line("Transfer-Encoding: \"chunked\"", Refused(400)),
        with_line("Transfer-Encoding: chunked;q=1", Refused(400)),
        with_line("Transfer-Encoding: chunk\u{e9}d", Refused(400)),
        with_line("Transfer-Encoding: \u{b}chunked", Refused(400)),
        with_line("Transfer-Encoding : chunked", Refused(400)),
        with_line("Transfer-Encoding\u{0}: chunked", Refused(400)),
        with_line("Transfer-Encoding:\r\n chunked", Refused(400)),
        with_line("X: y\r\n Transfer-Encoding: chunked", Refused(400)),
        with_line(" Transfer-Encoding: chunked", Refused(400)),
        post(
            "an underscore makes another name of it",
            "Transfer_Encoding: chunked\r\nContent-Length: 5\r\n\r\nhello",
            Passes(HELLO),
        ),
        with(
            "on HTTP/1.0",
            "POST / HTTP/1.0",
            &format!("Transfer-Encoding: chunked\r\n\r\n{BODY}"),
            Refused(400),
        ),
        with(
            "on HTTP/1.0 with a length",
            "POST / HTTP/1.0",
            &format!("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n{BODY}"),
            Refused(400),
        ),
    ]
}

/// RFC 9112, 7.1.
pub(super) fn chunks() -> Vec<Case> {
    let body = |what: &str, body: &str, fate: Fate| {
        post(what, &format!("Transfer-Encoding: chunked\r\n\r\n{body}"), fate)
    };
    let long = "x".repeat(40_000);
    vec![
        body("two chunks", "2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n", Passes(HELLO)),
        body("leading zeros", "0005\r\nhello\r\n000\r\n\r\n", Passes(HELLO)),
        body("an extension", "5;name=\"a;b\"\r\nhello\r\n0;x\r\n\r\n", Passes(HELLO)),
        body("a size over 64 bits", "FFFFFFFFFFFFFFFFF\r\nhello\r\n0\r\n\r\n", Refused(400)),
        body("a size that wraps to five", "10000000000000005\r\nhello\r\n0\r\n\r\n", Refused(400)),
        body("a negative size", "-5\r\nhello\r\n0\r\n\r\n", Refused(400)),
        body("a size with a plus", "+5\r\nhello\r\n0\r\n\r\n", Refused(400)),
        body("a size with 0x", "0x5\r\nhello\r\n0\r\n\r\n", Refused(400)),
        body("a size that is none", "g\r\nhello\r\n0\r\n\r\n", Refused(400)),
        body("a size with an underscore", "0_5\r\nhello\r\n0\r\n\r\n", Refused(400)),
        body("no size", "\r\nhello\r\n0\r\n\r\n", Refused(400)),
        body("a size in two pieces", "5 5\r\nhello\r\n0\r\n\r\n", Refused(400)),
        body("a bare LF after the size", "5\nhello\r\n0\r\n\r\n", Refused(400)),
        body("a bare CR after the size", "5\rhello\r\n0\r\n\r\n", Refused(400)),
        body("a bare LF in an extension", "5;a\nb\r\nhello\r\n0\r\n\r\n", Refused(400)),
        body("a bare CR in an extension", "5;a\rb\r\nhello\r\n0\r\n\r\n", Refused(400)),
        body("no CRLF after the data", "5\r\nhello0\r\n\r\n", Refused(400)),
        body("more data than its size", "5\r\nhello!\r\n0\r\n\r\n", Refused(400)),
        body("a bare LF after the data", "5\r\nhello\n0\r\n\r\n", Refused(400)),
        body("an extension without an end", &format!("5;{long}\r\nhello\r\n0\r\n\r\n"), Refused(400)),
        body(
            "more trailers than anybody needs",
            &format!("5\r\nhello\r\n0\r\nX: {long}\r\n\r\n"),
            Refused(400),
        ),
        body("a trailer that is no line", "5\r\nhello\r\n0\r\nno colon\r\n\r\n", Refused(400)),
        body(
            "a bare LF ends no trailer: what follows is a part of it",
            &format!("5\r\nhello\r\n0\r\nX: 1\n\n{EVIL}"),
            Passes(HELLO),
        ),
        body(
            "a request after the last chunk is a request",
            &format!("5\r\nhello\r\n0\r\n\r\n{EVIL}"),
            Passes(&["POST / hello", "GET /evil"]),
        ),
    ]
}

/// RFC 9112, 2.2 and 5; RFC 9110, 5.
pub(super) fn heads() -> Vec<Case> {
    vec![
        get("a bare CR in a value", "X: a\rb\r\n\r\n", Refused(400)),
        get("a bare CR that ends a line", "X: a\rContent-Length: 5\r\n\r\n", Refused(400)),
        get("a bare LF ends a line, for the service too (9112, 2.2)", "X: a\nY: b\r\n\r\n", Passes(ROOT)),
        post("a length behind a bare LF is a length", "X: a\nContent-Length: 5\r\n\r\nhello", Passes(HELLO)),
        get("a NUL in a value", "X: a\0b\r\n\r\n", Refused(400)),
        get("a NUL in a name", "X\0: a\r\n\r\n", Refused(400)),
        get("DEL in a value", "X: a\x7fb\r\n\r\n", Refused(400)),
        get("a space in a name", "X y: a\r\n\r\n", Refused(400)),
        get("no name", ": a\r\n\r\n", Refused(400)),
        get("no colon", "Xa\r\n\r\n", Refused(400)),
        get("a name that is not ASCII", "X\u{e9}: a\r\n\r\n", Refused(400)),
        get("a name in brackets", "(X): a\r\n\r\n", Refused(400)),
        get("a folded line (9112, 5.2)", "X: a\r\n b\r\n\r\n", Refused(400)),
        get("a folded line by a tab", "X: a\r\n\tb\r\n\r\n", Refused(400)),
        raw("a space before the first header", "GET / HTTP/1.1\r\n Host: a\r\n\r\n", Refused(400)),
        get("an empty value", "X:\r\n\r\n", Passes(ROOT)),
        get("an expectation that nobody knows (9110, 10.1.1)", "Expect: 200-ok\r\n\r\n", Refused(417)),
        get("a known and an unknown expectation", "Expect: 100-continue, x\r\n\r\n", Refused(417)),
        get("the end asked for", "Connection: close\r\n\r\n", PassesThenCloses(ROOT)),
        get(
            "the end asked for, and taken back",
            "Connection: close\r\nConnection: keep-alive\r\n\r\n",
            PassesThenCloses(ROOT),
        ),
    ]
}

/// RFC 9112, 3.
pub(super) fn request_lines() -> Vec<Case> {
    let mut all = vec![
        raw("empty lines before it (9112, 2.2)", "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Passes(ROOT)),
        raw("a space before it", " GET / HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
        raw("a NUL before it", "\0GET / HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
        raw("HTTP/0.9", "GET /\r\n\r\n", Refused(400)),
        raw("nothing but a method", "GET\r\n\r\n", Refused(400)),
        raw("HTTP/2 in the clear", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Refused(0)),
        raw("a TLS handshake in the clear", b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03", Refused(400)),
        line("GET / HTTP/1.0", PassesThenCloses(ROOT)),
        line("GET / HTTP/3.0", Refused(400)),
        line("GET / HTTP/2.0", Refused(400)),
        line("GET / HTTP/1.2", Refused(400)),
        line("OPTIONS * HTTP/1.1", Passes(&["OPTIONS *"])),
        line("PURGE /x HTTP/1.1", Passes(&["PURGE /x"])),
        line("get / HTTP/1.1", Passes(&["get /"])),
        line("GET /a?b=c&d=%20 HTTP/1.1", Passes(&["GET /a?b=c&d=%20"])),
        line("GET /a/../b//c/./%2e%2e/%2F HTTP/1.1", Passes(&["GET /a/../b//c/./%2e%2e/%2F"])),
        line("GET /a\\b HTTP/1.1", Passes(&["GET /a\\b"])),
        line("GET /a#b HTTP/1.1", Passes(&["GET /a"])),
        line("CONNECT a:443 HTTP/1.1", Refused(501)),
        line("CONNECT / HTTP/1.1", Refused(501)),
    ];
    let bad = [
        "GET / http/1.1",
        "GET / HTTP/1.10",
        "GET / HTTP/1",
        "GET / HTTP/01.1",
        "GET / HTTP/1.1 ",
        "GET / HTTP/1.1 x",
        "GET / XTTP/1.1",
        "GET  / HTTP/1.1",
        "GET /  HTTP/1.1",
        "GET\t/ HTTP/1.1",
        "GET /\tHTTP/1.1",
        "GET /a b HTTP/1.1",
        "GET /a\0b HTTP/1.1",
        "GET /a%00b HTTP/1.1",
        "GET /a\x7fb HTTP/1.1",
        "GET * HTTP/1.1",
        "GET a HTTP/1.1",
        "GET a/b HTTP/1.1",
        "GET ? HTTP/1.1",
        "GET a:80 HTTP/1.1",
        "GET http:/ HTTP/1.1",
        "GET http:///x HTTP/1.1",
        "GET ftp://a/ HTTP/1.1",
        "GET file:///etc/passwd HTTP/1.1",
        "GE(T / HTTP/1.1",
        "G\0T / HTTP/1.1",
        "G\u{cb}T / HTTP/1.1",
    ];
    all.extend(bad.map(|text| line(text, Refused(400))));
    all
}

/// RFC 9112, 3.2; RFC 9110, 7.2.
pub(super) fn hosts() -> Vec<Case> {
    let all = |what: &str, lines: &str, fate: Fate| raw(what, format!("GET {lines}\r\n\r\n"), fate);
    let mut cases = vec![
        all("none", "/ HTTP/1.1", Refused(400)),
        all("none on HTTP/1.0", "/ HTTP/1.0", PassesThenCloses(ROOT)),
        all("two", "/ HTTP/1.1\r\nHost: a\r\nHost: b", Refused(400)),
        all("the same twice", "/ HTTP/1.1\r\nHost: a\r\nHost: a", Refused(400)),
        all("two on HTTP/1.0", "/ HTTP/1.0\r\nHost: a\r\nHost: b", Refused(400)),
        all("a port", "/ HTTP/1.1\r\nHost: a:8080", Passes(ROOT)),
        all("an empty port (3986, 3.2.3)", "/ HTTP/1.1\r\nHost: a:", Passes(ROOT)),
        all("an address", "/ HTTP/1.1\r\nHost: [::1]:80", Passes(ROOT)),
        all("in the address as well", "http://a/ HTTP/1.1\r\nHost: a", Passes(ROOT)),
        all("with the usual port in one of them", "http://a:80/ HTTP/1.1\r\nHost: a", Passes(ROOT)),
        all("an address without a path", "http://a HTTP/1.1\r\nHost: a", Passes(ROOT)),
        all("another in the address", "http://b/ HTTP/1.1\r\nHost: a", Refused(400)),
        all("another port in the address", "http://a:81/ HTTP/1.1\r\nHost: a", Refused(400)),
        all("an address, and no Host (9112, 3.2)", "http://a/ HTTP/1.1", Refused(400)),
        all("a user in the address (9110, 4.2.4)", "http://u@a/ HTTP/1.1\r\nHost: a", Refused(400)),
        all("a user and a password", "http://u:p@a/ HTTP/1.1\r\nHost: a", Refused(400)),
        all("a port that is none in the address", "http://a:99999/ HTTP/1.1\r\nHost: a", Refused(400)),
        all("a port of letters in the address", "http://a:x/ HTTP/1.1\r\nHost: a", Refused(400)),
    ];
    let bad = [
        "",
        "a b",
        "a,b",
        "a, b",
        "a/b",
        "u@a",
        "a:99999",
        "a:x",
        "a:-1",
        "a:+80",
        "a:80:80",
        "[::g]",
        "[::1",
        "::1",
        "[::1]x",
        "a?b",
        "a#b",
        "a\\b",
        "\"a\"",
        "http://a",
        "a\u{0}",
        "\u{e9}",
        "a:8\u{0}0",
        "a%zz",
    ];
    cases.extend(
        bad.map(|host| all(&format!("{host:?}"), &format!("/ HTTP/1.1\r\nHost: {host}"), Refused(400))),
    );
    cases
}

/// Ours, as docs/front.md says them; the statuses are of RFC 9110, 15.5 and RFC 6585, 5.
pub(super) fn sizes() -> Vec<Case> {
    let headers = |count: usize| "X: y\r\n".repeat(count);
    let target = |bytes: usize| format!("GET /{} HTTP/1.1", "a".repeat(bytes - 1));
    vec![
        get("100 headers", &format!("{}\r\n", headers(99)), Passes(ROOT)),
        get("101 headers", &format!("{}\r\n", headers(100)), Refused(431)),
        get("a head of 33 KiB", &format!("X: {}\r\n\r\n", "y".repeat(33 * 1024)), Refused(431)),
        get(
            "a head without an end",
            &"X: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n".repeat(2000),
            Refused(431),
        ),
        get("a line without an end", &format!("X: {}", "y".repeat(100 * 1024)), Refused(431)),
        with("a target of 9 KiB", &target(9 * 1024), "\r\n", Refused(414)),
        with("a target larger than a head", &target(40 * 1024), "\r\n", Refused(431)),
        raw("a target without an end", target(100 * 1024), Refused(431)),
        with("a method of 100 bytes", &format!("{} / HTTP/1.1", "A".repeat(100)), "\r\n", Refused(501)),
        raw("a method without an end", "A".repeat(100 * 1024), Refused(431)),
        post("a body of 1 TiB", "Content-Length: 1099511627776\r\n\r\nhello", Refused(413)),
    ]
}
