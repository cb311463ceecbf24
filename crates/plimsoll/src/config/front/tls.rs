//! `[front.tls]`: certificates from files or by ACME, and what goes with them.

use std::path::Path;
use std::time::Duration;

use plimsoll_front::acme::Directory;
use toml::Spanned;

use crate::config::model::Tls;
use crate::config::section::Section;

#[derive(Default)]
pub(super) struct TlsTable {
    pub(super) tls: Option<Tls>,
    pub(super) redirect: Option<bool>,
    pub(super) hsts: Option<Duration>,
}

pub(super) fn read(section: &Section<'_>, folder: &Path) -> TlsTable {
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
