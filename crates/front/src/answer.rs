//! What the front says for itself, where it has to: short, honest about whether the request may have run.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use plimsoll_core::gate::{Refusal, Why};

use crate::body::ResponseBody;
use crate::found::{Found, Kind};

/// Says in one word why the front answered itself.
pub const REASON: HeaderName = HeaderName::from_static("plimsoll-reason");

/// Whether a browser asks.
pub(crate) fn wants_html(headers: &HeaderMap, found: Found) -> bool {
    found.has(Kind::Accept)
        && headers.get(ACCEPT).and_then(|it| it.to_str().ok()).is_some_and(|it| it.contains("text/html"))
}

/// An answer of our own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) reason: &'static str,
    /// One sentence for a person.
    says: &'static str,
    retry_after: Option<Duration>,
    /// Nothing more on this connection.
    pub(crate) closes: bool,
}

impl Answer {
    pub(crate) const fn refused(status: StatusCode, reason: &'static str, says: &'static str) -> Self {
        Self { status, reason, says, retry_after: None, closes: true }
    }

    const fn kept(status: StatusCode, reason: &'static str, says: &'static str) -> Self {
        Self { status, reason, says, retry_after: None, closes: false }
    }

    /// It was not sent: trying again is safe, whatever the method.
    pub(crate) const fn not_sent(refusal: Refusal) -> Self {
        Self {
            status: StatusCode::SERVICE_UNAVAILABLE,
            reason: refusal.reason.name(),
            says: "The service cannot answer right now. Your request was not sent to it and may safely be tried again.",
            retry_after: Some(refusal.retry_after),
            closes: false,
        }
    }

    /// It was sent and the connection died.
    pub(crate) const fn given_up(why: Why) -> Self {
        let status = StatusCode::BAD_GATEWAY;
        match why {
            Why::MayHaveRun => Self::kept(
                status,
                why.name(),
                "The service ended while it had your request. It may have been carried out; look before you try again.",
            ),
            Why::Poison => Self::kept(
                status,
                why.name(),
                "The service ended twice while it had this request. It is not sent again.",
            ),
            Why::Budget => Self::kept(
                status,
                why.name(),
                "The service ended while it had your request, and too many are being repeated already.",
            ),
            Why::BodyGone => Self {
                retry_after: Some(Duration::from_secs(1)),
                ..Self::kept(
                    StatusCode::SERVICE_UNAVAILABLE,
                    why.name(),
                    "Your request was not sent, and its body is too large to be kept here. It may safely be tried again.",
                )
            },
            Why::Answered => Self::kept(status, why.name(), "The service ended in the middle of its answer."),
            Why::Gone => Self::kept(status, why.name(), "There is no such service any more."),
        }
    }

    pub(crate) const fn timed_out() -> Self {
        Self::kept(
            StatusCode::GATEWAY_TIMEOUT,
            "answer-timeout",
            "The service did not answer in time. Your request may have been carried out; look before you try again.",
        )
    }

    pub(crate) const fn fenced() -> Self {
        Self::kept(
            StatusCode::BAD_GATEWAY,
            "fenced",
            "Requests like this one were in flight when the service died twice. They are refused for a while.",
        )
    }

    pub(crate) const fn bad_answer() -> Self {
        Self::kept(
            StatusCode::BAD_GATEWAY,
            "bad-answer",
            "The service's answer could not be understood. Your request may have been carried out.",
        )
    }

    pub(crate) const fn no_route() -> Self {
        Self::kept(StatusCode::NOT_FOUND, "no-route", "No service is behind this address.")
    }

    pub(crate) const fn misdirected() -> Self {
        Self::kept(
            StatusCode::MISDIRECTED_REQUEST,
            "host-not-in-certificate",
            "This connection was made for another name.",
        )
    }

    /// As a response: JSON, or a small page for browsers.
    pub(crate) fn response(self, html: bool) -> Response<ResponseBody> {
        let (kind, text) =
            if html { ("text/html; charset=utf-8", self.page()) } else { ("application/json", self.json()) };
        let mut response = Response::new(ResponseBody::full(Bytes::from(text)));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(REASON, HeaderValue::from_static(self.reason));
        if let Some(after) = self.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(after.as_secs().max(1)));
        }
        if self.closes {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    fn json(self) -> String {
        let Self { status, reason, says, .. } = self;
        format!("{{\"status\":{},\"reason\":\"{reason}\",\"message\":\"{says}\"}}\n", status.as_u16())
    }

    fn page(self) -> String {
        let Self { status, says, reason, .. } = self;
        let title = status.canonical_reason().unwrap_or("Error");
        let code = status.as_u16();
        format!(
            "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content=\"width=device-width\">\
             <title>{code} {title}</title><style>body{{font:1rem/1.5 system-ui,sans-serif;max-width:34rem;\
             margin:16vh auto;padding:0 1rem;color:#222}}h1{{font-size:1.3rem}}small{{color:#666}}\
             @media(prefers-color-scheme:dark){{body{{background:#161616;color:#ddd}}small{{color:#999}}}}</style>\
             <h1>{title}</h1><p>{says}</p><p><small>{code} {reason}</small></p>\n"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use plimsoll_core::gate::Reason;

    #[test]
    fn what_was_not_sent_says_when_to_come_back() {
        let refusal = Refusal { reason: Reason::HoldFull, retry_after: Duration::from_secs(3) };
        let response = Answer::not_sent(refusal).response(false);
        assert_eq!(response.status(), 503);
        assert_eq!(response.headers()["retry-after"], "3");
        assert_eq!(response.headers()["plimsoll-reason"], "hold-full");
        assert_eq!(response.headers()["content-type"], "application/json");
    }

    #[test]
    fn a_browser_gets_a_page_and_what_may_have_run_no_hint_to_repeat_it() {
        let mut asked = HeaderMap::new();
        asked.insert(ACCEPT, HeaderValue::from_static("text/html,*/*"));
        let response = Answer::given_up(Why::MayHaveRun).response(wants_html(&asked, Found::look(&asked)));
        assert_eq!(response.status(), 502);
        assert_eq!(response.headers()["content-type"], "text/html; charset=utf-8");
        assert!(response.headers().get(RETRY_AFTER).is_none());
    }
}
