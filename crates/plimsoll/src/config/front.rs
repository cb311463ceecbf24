//! `[front]`: where it listens, how long it holds, and its routes.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::Path;
use std::time::Duration;

use plimsoll_core::units::Bytes;
use toml::Spanned;

use plimsoll_front::acme::Directory;

use super::model::{Front, Route, Tls};
use super::section::Section;
use super::service::address;
use super::suggest::nearest;

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
    let tls = section.section("tls").map(|tls| tls.read(|tls| read_tls(tls, folder)));
    let (tls, redirect, hsts) = tls.map_or((None, None, None), |read| (read.tls, read.redirect, read.hsts));
    let routes = section.sections("route");
    let routes =
        routes.into_iter().filter_map(|route| route.read(|route| read_route(route, services))).collect();
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
        tls,
        // With both, whoever asks in the clear is sent to where nobody listens in.
        redirect: redirect.unwrap_or(true) && https.is_some(),
        hsts,
        routes,
    };
    (front, http.into_iter().chain(https).collect())
}

struct TlsTable {
    tls: Option<Tls>,
    redirect: Option<bool>,
    hsts: Option<Duration>,
}

fn read_tls(section: &Section<'_>, folder: &Path) -> TlsTable {
    TlsTable {
        redirect: section.flag("redirect").map(Spanned::into_inner),
        hsts: section.positive_duration("hsts", "180d").map(Spanned::into_inner),
        tls: read_certificate(section, folder),
    }
}

fn read_certificate(section: &Section<'_>, folder: &Path) -> Option<Tls> {
    let certificate = section.text("certificate", "tls/fullchain.pem");
    let key = section.text("key", "tls/privkey.pem");
    let acme = section.section("acme").map(|acme| acme.read(|acme| read_acme(acme, folder)));
    let hint =
        "write certificate and key, or acme = { domains = [\"example.org\"], email = \"ops@example.org\" }";
    match (certificate, key, acme) {
        (Some(certificate), Some(key), None) => Some(Tls::Files {
            certificate: folder.join(certificate.into_inner()),
            key: folder.join(key.into_inner()),
        }),
        (None, None, Some(acme)) => acme,
        (_, _, Some(_)) => {
            section.error(section.span.clone(), "tls has both files and acme", hint);
            None
        }
        (_, _, None) => {
            section.error(section.span.clone(), "tls lacks its certificate or its key", hint);
            None
        }
    }
}

fn read_acme(section: &Section<'_>, folder: &Path) -> Option<Tls> {
    let domains = section.list("domains", "[\"example.org\"]");
    let email = section.text("email", "ops@example.org");
    let directory = section.text("directory", "letsencrypt");
    if domains.as_ref().is_none_or(|domains| domains.get_ref().is_empty()) {
        section.error(section.span_of("domains"), "acme has no domains", "write domains = [\"example.org\"]");
    }
    if email.is_none() && !section.has("email") {
        section.error(section.span.clone(), "acme has no email", "write email = \"ops@example.org\"");
    }
    let roots = section.text("roots", "ca.pem");
    let staging_first = section.flag("staging_first");
    let directory = match directory {
        None => Directory::LetsEncrypt,
        Some(written) => Directory::parse(written.get_ref())
            .map_err(|error| {
                let hint = "write \"letsencrypt\", \"letsencrypt-staging\" or an https:// address";
                section.error(written.span(), error.to_string(), hint);
            })
            .ok()?,
    };
    Some(Tls::Acme {
        domains: domains?.into_inner().into_iter().map(Spanned::into_inner).collect(),
        email: email?.into_inner(),
        directory,
        roots: roots.map(|roots| folder.join(roots.into_inner())),
        staging_first: staging_first.is_some_and(Spanned::into_inner),
    })
}

fn read_route(section: &Section<'_>, services: &[&str]) -> Option<Route> {
    let host = section.text("host", "example.org");
    let path = section.text("path", "/api");
    let service = section.text("service", "reports");
    if let Some(path) = path.as_ref().filter(|path| !path.get_ref().starts_with('/')) {
        section.error(path.span(), "path does not begin with a slash", "write path = \"/api\"");
    }
    let service = match service {
        Some(service) => known_service(section, &service, services)?,
        None => only_service(section, services)?,
    };
    Some(Route { host: host.map(Spanned::into_inner), path: path.map(Spanned::into_inner), service })
}

fn known_service(section: &Section<'_>, service: &Spanned<String>, services: &[&str]) -> Option<String> {
    let name = service.get_ref();
    if services.contains(&name.as_str()) {
        return Some(name.clone());
    }
    let near = nearest(name, services.iter().copied());
    let hint = near.map_or_else(
        || format!("services are: {}", services.join(", ")),
        |near| format!("did you mean \"{near}\"?"),
    );
    section.error(service.span(), format!("there is no service \"{name}\""), &hint);
    None
}

/// With one service, a route need not name it.
fn only_service(section: &Section<'_>, services: &[&str]) -> Option<String> {
    if let [only] = services {
        return Some((*only).to_owned());
    }
    if !section.has("service") {
        let hint = format!("write service = \"{}\"", services.first().unwrap_or(&"reports"));
        section.error(section.span.clone(), "the route does not say which service it leads to", &hint);
    }
    None
}
