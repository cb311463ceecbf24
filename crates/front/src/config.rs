//! What the front is told: where it listens, what it bounds, which request goes to which service.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use plimsoll_core::ServiceId;
use plimsoll_core::gate::GateConfig;

use crate::tls::CertificateConfig;

/// Client to first byte of a head, or between two requests on one connection.
pub const IDLE_DEFAULT: Duration = Duration::from_mins(1);
/// From the first byte of a head to its last.
pub const HEAD_WAIT_DEFAULT: Duration = Duration::from_secs(10);
/// A TLS handshake, from the connection to its end.
pub const HANDSHAKE_DEFAULT: Duration = Duration::from_secs(10);
/// No byte of a body for this long.
pub const BODY_IDLE_DEFAULT: Duration = Duration::from_secs(30);
/// A body slower than this, in bytes a second.
pub const BODY_RATE_MIN_DEFAULT: u64 = 1024;
/// A body may be slow for this long before its rate counts.
pub const BODY_RATE_AFTER_DEFAULT: Duration = Duration::from_secs(10);
/// The client takes no byte of its response for this long.
pub const WRITE_STALL_DEFAULT: Duration = Duration::from_secs(30);
pub const CONNECT_DEFAULT: Duration = Duration::from_secs(2);
/// From the last byte sent to the first byte of the answer.
pub const ANSWER_DEFAULT: Duration = Duration::from_mins(1);
pub const HEAD_BYTES_DEFAULT: usize = 32 * 1024;
pub const HEADERS_DEFAULT: usize = 100;
pub const URI_BYTES_DEFAULT: usize = 8 * 1024;
pub const BODY_BYTES_DEFAULT: u64 = 100 * 1024 * 1024;
/// A body up to this size is read before its request is sent, and kept so that the request can be sent again.
pub const KEEP_BYTES_DEFAULT: usize = 64 * 1024;
pub const STREAMS_DEFAULT: u32 = 100;
/// Connections of one address that may be open at a time.
pub const PER_CLIENT_DEFAULT: u32 = 0;
/// Threads, at most; more are of no use to one machine's services.
pub const WORKERS_MAX: usize = 16;

/// Bounds of everything a client can make the front hold or wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Client connections at a time, all listeners together.
    pub connections: u32,
    /// Of one client address; 0: as many as there are.
    pub connections_per_client: u32,
    pub idle: Duration,
    pub head_wait: Duration,
    pub handshake: Duration,
    pub body_idle: Duration,
    /// Bytes a second.
    pub body_rate_min: u64,
    pub body_rate_after: Duration,
    pub write_stall: Duration,
    pub connect: Duration,
    pub answer: Duration,
    pub head_bytes: usize,
    pub headers: usize,
    pub uri_bytes: usize,
    pub body_bytes: u64,
    pub keep_bytes: usize,
    /// Requests at a time on one HTTP/2 connection.
    pub streams: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 10_000,
            connections_per_client: PER_CLIENT_DEFAULT,
            idle: IDLE_DEFAULT,
            head_wait: HEAD_WAIT_DEFAULT,
            handshake: HANDSHAKE_DEFAULT,
            body_idle: BODY_IDLE_DEFAULT,
            body_rate_min: BODY_RATE_MIN_DEFAULT,
            body_rate_after: BODY_RATE_AFTER_DEFAULT,
            write_stall: WRITE_STALL_DEFAULT,
            connect: CONNECT_DEFAULT,
            answer: ANSWER_DEFAULT,
            head_bytes: HEAD_BYTES_DEFAULT,
            headers: HEADERS_DEFAULT,
            uri_bytes: URI_BYTES_DEFAULT,
            body_bytes: BODY_BYTES_DEFAULT,
            keep_bytes: KEEP_BYTES_DEFAULT,
            streams: STREAMS_DEFAULT,
        }
    }
}

/// Where clients connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ListenerConfig {
    pub address: SocketAddr,
    pub tls: bool,
}

/// Which failed requests of a route may be sent again although they may have run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReplayPolicy {
    /// Safe methods, and what carries an `Idempotency-Key`.
    #[default]
    Safe,
    /// Whatever the method: the service says that it can bear it.
    Always,
    /// Nothing that was sent.
    Never,
}

/// Which requests go to a service. The longest path that matches wins; one with a host before one without.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteConfig {
    /// Lower case, without port; `*.example.org` for any name one label longer. `None`: any.
    pub host: Option<String>,
    /// A path and everything under it. `None`: any.
    pub path: Option<String>,
    pub service: ServiceId,
    pub replay: ReplayPolicy,
    /// For the first byte of an answer; `None`: [`Limits::answer`].
    pub timeout: Option<Duration>,
}

/// What instances of a service speak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    #[default]
    Http1,
    /// HTTP/2 without TLS, by prior knowledge.
    H2c,
}

/// A service as the front knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServedConfig {
    pub id: ServiceId,
    pub name: String,
    pub hang: Duration,
    pub protocol: Protocol,
}

/// Addresses that share a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

impl Network {
    /// `10.0.0.0/8`, or one address. `None` when it is neither.
    pub fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address.parse().ok()?, Some(prefix.parse::<u8>().ok()?)),
            None => (text.parse::<IpAddr>().ok()?, None),
        };
        let most = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.unwrap_or(most);
        (prefix <= most).then_some(Self { address, prefix })
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let shift = 32 - u32::from(self.prefix);
                (u64::from(own.to_bits()) >> shift) == (u64::from(other.to_bits()) >> shift)
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let shift = 128 - u32::from(self.prefix);
                own.to_bits().checked_shr(shift) == other.to_bits().checked_shr(shift)
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessLogStyle {
    /// Apache's common log format, with what was held and sent again at the end.
    Common,
    Json,
}

/// Where finished requests are written down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessLogConfig {
    pub path: PathBuf,
    pub style: AccessLogStyle,
}

/// `Strict-Transport-Security`, sent on TLS once a certificate has been valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hsts {
    pub max_age: Duration,
}

/// Everything, all checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FrontConfig {
    pub listeners: Vec<ListenerConfig>,
    pub gate: GateConfig,
    pub limits: Limits,
    pub services: Vec<ServedConfig>,
    pub routes: Vec<RouteConfig>,
    /// Whose `X-Forwarded-*` and `Forwarded` are believed.
    pub trusted: Vec<Network>,
    /// Who begins each connection with a PROXY header.
    pub proxy_protocol: Vec<Network>,
    pub access_log: Option<AccessLogConfig>,
    /// For listeners with TLS.
    pub certificate: Option<CertificateConfig>,
    /// Plain HTTP answers with a redirect to HTTPS, beside ACME.
    pub redirect: bool,
    pub hsts: Option<Hsts>,
    /// Requests like one that was in flight at two deaths are refused.
    pub fence: bool,
    /// Threads; 0: one for each processor, up to [`WORKERS_MAX`].
    pub workers: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_holds_its_own_and_nobody_elses() {
        let ten = Network::parse("10.0.0.0/8").expect("a network");
        assert!(ten.contains("10.1.2.3".parse().expect("an address")));
        assert!(ten.contains("::ffff:10.1.2.3".parse().expect("an address")));
        assert!(!ten.contains("11.0.0.1".parse().expect("an address")));
        let all = Network::parse("::/0").expect("a network");
        assert!(all.contains("2001:db8::1".parse().expect("an address")));
        let one = Network::parse("127.0.0.1").expect("an address alone");
        assert!(!one.contains("127.0.0.2".parse().expect("an address")));
        for bad in ["10.0.0.0/33", "nobody", "10.0.0.0/", "::/129"] {
            assert_eq!(Network::parse(bad), None, "{bad}");
        }
    }
}
