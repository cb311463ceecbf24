//! `[front]`: where it listens, how long it holds, and its routes.

mod limits;
mod route;
mod tls;

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::Path;
use std::time::Duration;

use plimsoll_core::units::Bytes;
use plimsoll_front::config::{AccessLogConfig, AccessLogStyle, Limits, Network};
use toml::Spanned;

use super::model::Front;
use super::section::{Section, WrongWord};
use super::service::address;

const HTTP_DEFAULT: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 8080));
const HOLD_WAIT_DEFAULT: Duration = Duration::from_secs(30);
const HOLD_REQUESTS_DEFAULT: u32 = 10_000;
const HOLD_BYTES_DEFAULT: Bytes = Bytes::mib(64);

/// The front, and the addresses that are written for it.
pub(super) type Read = (Front, Vec<Spanned<SocketAddr>>);

pub(super) fn front(section: Option<Section<'_>>, folder: &Path, services: &[&str]) -> Option<Read> {
    section.map(|section| section.read(|section| read(section, folder, services)))
}

fn read(section: &Section<'_>, folder: &Path, services: &[&str]) -> Read {
    let http = address(section, "http", "127.0.0.1:8080");
    let https = address(section, "https", "0.0.0.0:443");
    let hold_wait = section.duration("hold_wait", "30s");
    let hold_requests = section.small("hold_requests", 0..=1_000_000);
    let hold_bytes = section.size("hold_bytes", "64MiB");
    let trusted = networks(section, "trusted");
    let proxy_protocol = networks(section, "proxy_protocol");
    let fence = section.flag("fence").is_some_and(Spanned::into_inner);
    let access_log = section.section("access_log").and_then(|log| log.read(|log| access_log(log, folder)));
    let (limits, connections) = section
        .section("limits")
        .map_or_else(|| (Limits::default(), None), |limits| limits.read(limits::read));
    let tls = section.section("tls").map(|tls| tls.read(|tls| tls::read(tls, folder))).unwrap_or_default();
    let routes = section.sections("route");
    let routes =
        routes.into_iter().filter_map(|route| route.read(|route| route::read(route, services))).collect();
    if let Some(https) = https.as_ref().filter(|_| !section.has("tls")) {
        let hint = "add [front.tls] with certificate and key, or with acme";
        section.error(https.span(), "https has no certificate", hint);
    }
    let fallback = (!section.has("http") && !section.has("https")).then_some(HTTP_DEFAULT);
    let front = Front {
        http: http.as_ref().map(|http| *http.get_ref()).or(fallback),
        https: https.as_ref().map(|https| *https.get_ref()),
        hold_wait: hold_wait.map_or(HOLD_WAIT_DEFAULT, Spanned::into_inner),
        hold_requests: hold_requests.unwrap_or(HOLD_REQUESTS_DEFAULT),
        hold_bytes: hold_bytes.map_or(HOLD_BYTES_DEFAULT, Spanned::into_inner),
        trusted,
        proxy_protocol,
        fence,
        access_log,
        limits,
        connections,
        tls: tls.tls,
        // With both, whoever asks in the clear is sent to where nobody listens in.
        redirect: tls.redirect.unwrap_or(true) && https.is_some(),
        hsts: tls.hsts,
        routes,
    };
    (front, http.into_iter().chain(https).collect())
}

/// Addresses and networks of peers.
fn networks(section: &Section<'_>, key: &'static str) -> Vec<Network> {
    let written =
        section.list(key, "[\"10.0.0.0/8\", \"192.0.2.7\"]").map_or_else(Vec::new, Spanned::into_inner);
    let read = |text: Spanned<String>| {
        let network = Network::parse(text.get_ref());
        if network.is_none() {
            let hint = "write an IP address, or a network as in \"10.0.0.0/8\"";
            section.error(text.span(), format!("{key}: \"{}\" is no address", text.get_ref()), hint);
        }
        network
    };
    written.into_iter().filter_map(read).collect()
}

fn access_log(section: &Section<'_>, folder: &Path) -> Option<AccessLogConfig> {
    let styles = [("json", AccessLogStyle::Json), ("common", AccessLogStyle::Common)];
    let hint = "write format = \"json\" (the default) or format = \"common\"";
    let style = section.choice("format", &styles, WrongWord::IsNo { what: "format of an access log", hint });
    let file = section.text("file", "access.log");
    if file.is_none() && !section.has("file") {
        section.error(section.span.clone(), "the access log has no file", "write file = \"access.log\"");
    }
    Some(AccessLogConfig {
        path: folder.join(file?.into_inner()),
        style: style.unwrap_or(AccessLogStyle::Json),
    })
}
