//! The tables beside the services: admin, alerts, sweep, docker.

use std::time::Duration;

use plimsoll_core::units::Bytes;
use toml::Spanned;

use super::model::{Admin, Alerts, Docker, Email, Sweep, Webhook};
use super::secret::{SecretError, SecretRef};
use super::section::Section;
use super::service::{Around, address};

pub const ADMIN_HTTP_DEFAULT: std::net::SocketAddr =
    std::net::SocketAddr::V4(std::net::SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, 9640));
const SWEEP_OVER_DEFAULT: Bytes = Bytes::mib(300);
const ORPHAN_AFTER_DEFAULT: Duration = Duration::from_mins(10);
const SWEEP_EVERY_DEFAULT: Duration = Duration::from_mins(2);

/// The address that is written, with its place, so that two listeners on one port are found.
pub(super) fn admin(
    section: Option<Section<'_>>,
    around: Around<'_>,
) -> (Admin, Option<Spanned<std::net::SocketAddr>>) {
    let default = || (Admin { http: ADMIN_HTTP_DEFAULT, token: None, socket: None }, None);
    section.map_or_else(default, |section| section.read(|section| read_admin(section, around)))
}

fn read_admin(section: &Section<'_>, around: Around<'_>) -> (Admin, Option<Spanned<std::net::SocketAddr>>) {
    let http = address(section, "http", "127.0.0.1:9640");
    let token = secret(section, "token", "env:PLIMSOLL_TOKEN", around);
    let socket = section.text("socket", "/run/plimsoll/plimsoll.sock");
    if let Some(http) = http.as_ref().filter(|http| !http.get_ref().ip().is_loopback())
        && !section.has("token")
    {
        let hint = "add token = \"env:PLIMSOLL_TOKEN\", or listen on 127.0.0.1";
        section.error(http.span(), "admin is open to the network without a token", hint);
    }
    let admin = Admin {
        http: http.as_ref().map_or(ADMIN_HTTP_DEFAULT, |http| *http.get_ref()),
        token,
        socket: socket.map(|path| around.folder.join(path.into_inner())),
    };
    (admin, http)
}

/// `env:NAME` or `file:PATH`; the secret itself may not be written.
pub(super) fn secret(
    section: &Section<'_>,
    key: &'static str,
    example: &str,
    around: Around<'_>,
) -> Option<SecretRef> {
    let written = section.text(key, example)?;
    let Some(reference) = SecretRef::parse(written.get_ref(), around.folder) else {
        let hint = format!(
            "write {key} = \"{example}\" or \"file:PATH\", so that the secret stays out of this file"
        );
        section.error(written.span(), format!("{key} is neither env:NAME nor file:PATH"), &hint);
        return None;
    };
    check_secret(section, &written, &reference, around);
    Some(reference)
}

/// As [`secret`], or an address with one of `schemes` that carries no password.
fn secret_or_url(
    section: &Section<'_>,
    key: &'static str,
    schemes: &[&str],
    around: Around<'_>,
) -> Option<SecretRef> {
    let example = format!("{}example.org", schemes[0]);
    let written = section.text(key, &example)?;
    let text = written.get_ref();
    if let Some(reference) = SecretRef::parse(text, around.folder) {
        check_secret(section, &written, &reference, around);
        return Some(reference);
    }
    let rest = schemes.iter().find_map(|scheme| text.strip_prefix(scheme));
    let host = rest.map(|rest| rest.split('/').next().unwrap_or_default());
    match host {
        Some(host) if host.contains('@') && host.contains(':') => {
            let hint = format!("put the whole address into a variable and write {key} = \"env:NAME\"");
            section.error(written.span(), format!("{key} carries a password"), &hint);
        }
        Some(host) if !host.is_empty() => return Some(SecretRef::Plain(text.clone())),
        Some(_) | None => {
            let hint = format!("write {key} = \"{example}\", or \"env:NAME\"");
            section.error(written.span(), format!("{key} is not an address"), &hint);
        }
    }
    None
}

fn check_secret(section: &Section<'_>, written: &Spanned<String>, reference: &SecretRef, around: Around<'_>) {
    let Some(host) = around.host else { return };
    let Err(error) = reference.resolve_with(|name| host.variable(name)) else { return };
    let hint = match &error {
        SecretError::Unset(name) => format!("set {name} where plimsoll is started"),
        SecretError::Unreadable { .. } => "a file is looked for relative to this file".to_owned(),
        SecretError::TooLong(_) | SecretError::NotText(_) | SecretError::Empty(_) => {
            "write the secret there, and nothing else".to_owned()
        }
    };
    section.error(written.span(), error.to_string(), &hint);
}

pub(super) fn required(section: &Section<'_>, key: &str, example: &str) {
    if !section.has(key) {
        let hint = format!("write {key} = \"{example}\"");
        section.error(section.span.clone(), format!("{} has no {key}", section.path), &hint);
    }
}

pub(super) fn alerts(section: Option<Section<'_>>, around: Around<'_>) -> Option<Alerts> {
    section.map(|section| section.read(|section| read_alerts(section, around)))
}

fn read_alerts(section: &Section<'_>, around: Around<'_>) -> Alerts {
    let webhook =
        section.section("webhook").and_then(|webhook| webhook.read(|webhook| read_webhook(webhook, around)));
    let email = section.section("email").and_then(|email| email.read(|email| read_email(email, around)));
    Alerts {
        slack: secret(section, "slack", "env:SLACK_WEBHOOK_URL", around),
        pagerduty: secret(section, "pagerduty", "env:PAGERDUTY_ROUTING_KEY", around),
        webhook,
        email,
    }
}

fn read_webhook(section: &Section<'_>, around: Around<'_>) -> Option<Webhook> {
    let url = secret_or_url(section, "url", &["https://", "http://"], around);
    let secret = secret(section, "secret", "env:WEBHOOK_SECRET", around);
    required(section, "url", "https://example.org/hook");
    Some(Webhook { url: url?, secret })
}

fn read_email(section: &Section<'_>, around: Around<'_>) -> Option<Email> {
    let smtp = secret_or_url(section, "smtp", &["smtps://", "smtp://"], around);
    let to = section.list("to", "[\"ops@example.org\"]");
    required(section, "smtp", "smtps://mail.example.org");
    let to = to.map_or_else(Vec::new, Spanned::into_inner);
    for address in to.iter().filter(|address| !address.get_ref().contains('@')) {
        section.error(address.span(), "not an e-mail address", "write to = [\"ops@example.org\"]");
    }
    if to.is_empty() {
        section.error(section.span_of("to"), "nobody gets the mail", "write to = [\"ops@example.org\"]");
    }
    Some(Email { smtp: smtp?, to: to.into_iter().map(Spanned::into_inner).collect() })
}

pub(super) fn sweeps(sections: Vec<Section<'_>>) -> Vec<Sweep> {
    sections.into_iter().filter_map(|section| section.read(read_sweep)).collect()
}

/// With neither `over` nor `orphan_after` written both take their defaults; with one written it alone counts.
fn read_sweep(section: &Section<'_>) -> Option<Sweep> {
    let matched = section.section("match").map(|matched| {
        matched.read(|matched| {
            required(matched, "exe", "/usr/bin/node");
            (matched.text("exe", "/usr/bin/node"), matched.text("args", "dist/main"))
        })
    });
    let over = section.size("over", "300MiB");
    let orphan_after = section.duration("orphan_after", "10m");
    let every = section.positive_duration("every", "2m");
    let act = section.flag("act");
    if !section.has("match") {
        let hint = "write match = { exe = \"/usr/bin/node\", args = \"dist/main\" }";
        section.error(section.span.clone(), "sweep does not say which processes it is about", hint);
    }
    let (exe, args) = matched?;
    if let Some(exe) = exe.as_ref().filter(|exe| !exe.get_ref().starts_with('/')) {
        let hint = "write the whole path, as in exe = \"/usr/bin/node\"; a name alone would match too much";
        section.error(exe.span(), "exe is not a whole path", hint);
    }
    let neither = !section.has("over") && !section.has("orphan_after");
    Some(Sweep {
        exe: exe?.into_inner().into(),
        args: args.map(Spanned::into_inner),
        over: over.map(Spanned::into_inner).or(neither.then_some(SWEEP_OVER_DEFAULT)),
        orphan_after: orphan_after.map(Spanned::into_inner).or(neither.then_some(ORPHAN_AFTER_DEFAULT)),
        every: every.map_or(SWEEP_EVERY_DEFAULT, Spanned::into_inner),
        act: act.is_some_and(Spanned::into_inner),
    })
}

pub(super) fn docker(section: Option<Section<'_>>) -> Option<Docker> {
    let read = |section: &Section<'_>| {
        let watch = section.list("watch", "[\"label=plimsoll.guard=true\"]");
        let watch = watch.map_or_else(Vec::new, Spanned::into_inner);
        Docker { watch: watch.into_iter().map(Spanned::into_inner).collect() }
    };
    section.map(|section| section.read(read))
}
