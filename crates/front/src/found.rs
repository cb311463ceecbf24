//! Which of the headers that matter here a message has. One look at all of them costs less than asking for each, and most
//! messages have few of them.

use http::{HeaderMap, HeaderName, HeaderValue};

/// What a header is to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Host,
    /// Names what else is for one connection.
    Connection,
    /// Between two neighbours only, as the two after it.
    Hop,
    KeepAlive,
    TransferEncoding,
    ContentLength,
    Te,
    /// For us, not for a service, as the one after it.
    Ours,
    Expect,
    /// Says who asks: to be believed from some only.
    Who,
    Cookie,
    Accept,
    ContentType,
    RequestId,
    IdempotencyKey,
    /// `X_Forwarded_For` and `X-Forwarded-For` are one variable to CGI and WSGI, and only one of them is checked.
    Underscored,
}

impl Kind {
    const fn bit(self) -> u32 {
        1 << self as u32
    }
}

fn kind(name: &HeaderName) -> Option<Kind> {
    Some(match name.as_str() {
        "host" => Kind::Host,
        "connection" => Kind::Connection,
        "proxy-connection" | "upgrade" | "proxy-authenticate" => Kind::Hop,
        "keep-alive" => Kind::KeepAlive,
        "transfer-encoding" => Kind::TransferEncoding,
        "content-length" => Kind::ContentLength,
        "te" => Kind::Te,
        "proxy-authorization" | "proxy" | "http2-settings" => Kind::Ours,
        "expect" => Kind::Expect,
        "forwarded" | "x-forwarded-port" | "x-real-ip" => Kind::Who,
        "cookie" => Kind::Cookie,
        "accept" => Kind::Accept,
        "content-type" => Kind::ContentType,
        "x-request-id" => Kind::RequestId,
        "idempotency-key" => Kind::IdempotencyKey,
        other if memchr::memchr(b'_', other.as_bytes()).is_some() => Kind::Underscored,
        _ => return None,
    })
}

/// The kinds that are there.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Found {
    once: u32,
    again: u32,
}

impl Found {
    pub(crate) fn look(headers: &HeaderMap) -> Self {
        Self::look_at(headers, |_, _| {})
    }

    /// The same, and shows each header of a kind on the way.
    pub(crate) fn look_at<'a>(headers: &'a HeaderMap, mut show: impl FnMut(Kind, &'a HeaderValue)) -> Self {
        let mut found = Self::default();
        for (name, value) in headers {
            if let Some(kind) = kind(name) {
                found.again |= found.once & kind.bit();
                found.once |= kind.bit();
                show(kind, value);
            }
        }
        found
    }

    pub(crate) const fn has(self, kind: Kind) -> bool {
        self.once & kind.bit() != 0
    }

    /// Several of one kind.
    pub(crate) const fn has_several(self, kind: Kind) -> bool {
        self.again & kind.bit() != 0
    }

    /// Takes away all of one kind.
    pub(crate) fn remove(self, headers: &mut HeaderMap, unwanted: Kind) {
        if !self.has(unwanted) {
            return;
        }
        let names: Vec<HeaderName> =
            headers.keys().filter(|name| kind(name) == Some(unwanted)).cloned().collect();
        for name in names {
            headers.remove(name);
        }
    }
}
