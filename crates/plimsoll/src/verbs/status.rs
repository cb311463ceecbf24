//! `plimsoll status`: how every service is doing, readable at a glance.

use std::io::Write;

use jiff::Timestamp;
use plimsoll_core::units::Bytes;
use plimsoll_guard::records::{
    CertificateStatus, InstanceStatus, LayerStatus, ServiceStatus, Status, TrafficStatus,
};
use plimsoll_guard::tell::span_words;

use super::reach::{self, ReachError};
use super::table::Table;
use crate::cli::{Exit, Global, Listing};

pub fn run(args: &Listing, global: &Global, out: &mut dyn Write) -> Result<Exit, ReachError> {
    let client = reach::client(global);
    let status: Status = reach::wait(async { Ok(client.get("/api/v1/status").await?) })?;
    if args.json {
        serde_json::to_writer(&mut *out, &status).map_err(std::io::Error::from)?;
        writeln!(out)?;
    } else {
        print(&status, out)?;
    }
    let well = status.services.iter().all(is_well);
    Ok(if well { Exit::Done } else { Exit::No })
}

/// As wanted: up and ready, or down on purpose.
pub(super) fn is_well(service: &ServiceStatus) -> bool {
    match service.intent.as_str() {
        "up" => service.state == "ready",
        _ => service.state == "down",
    }
}

fn print(status: &Status, out: &mut dyn Write) -> std::io::Result<()> {
    let up = since(status.guard.started);
    write!(out, "plimsoll {}, guard pid {}, up {up}", status.version, status.guard.pid)?;
    match status.guard.after_incident {
        Some(incident) => writeln!(out, ", after the end of another (incident {incident})")?,
        None => writeln!(out)?,
    }
    for problem in &status.degraded {
        writeln!(out, "!! {problem}")?;
    }
    if let Some(front) = &status.front {
        let connections = front.connections;
        writeln!(out, "front on {}, {connections} connections", front.listeners.join(" and "))?;
        for certificate in &front.certificates {
            writeln!(out, "{}", certificate_line(certificate))?;
        }
    }
    for vault in &status.vaults {
        writeln!(out, "vault {}: {}", vault.name, super::vault::summary(vault))?;
        for problem in &vault.problems {
            writeln!(out, "!! vault {}: {problem}", vault.name)?;
        }
    }
    writeln!(out)?;
    let mut table = Table::new(&[
        "SERVICE",
        "STATE",
        "INSTANCE",
        ">PID",
        ">UP",
        ">MEMORY",
        ">DESCRIPTORS",
        "ADDRESS",
        ">RECYCLES",
        ">RESTARTS",
    ]);
    for service in &status.services {
        rows(&mut table, service);
    }
    table.print(out)?;
    for service in &status.services {
        writeln!(out)?;
        details(service, out)?;
    }
    Ok(())
}

fn rows(table: &mut Table, service: &ServiceStatus) {
    let budget =
        format!("{} ({}/{} h)", service.recycles, service.recycles_in_hour, service.recycles_per_hour);
    let counts = [budget, service.restarts.to_string()];
    if service.instances.is_empty() {
        let blank = || "-".to_owned();
        let cells =
            [service.name.clone(), state(service), blank(), blank(), blank(), blank(), blank(), blank()];
        table.row(cells.into_iter().chain(counts));
        return;
    }
    for (index, instance) in service.instances.iter().enumerate() {
        let [recycles, restarts] = if index == 0 { counts.clone() } else { [String::new(), String::new()] };
        let name = if index == 0 { service.name.clone() } else { String::new() };
        let state = if index == 0 { state(service) } else { instance.state.clone() };
        table.row([
            name,
            state,
            who(instance),
            or_dash(instance.pid),
            since(instance.started),
            memory(instance),
            or_dash(instance.descriptors),
            instance.address.clone().unwrap_or_else(|| "-".to_owned()),
            recycles,
            restarts,
        ]);
    }
}

/// The state, and that it is not what is wanted.
fn state(service: &ServiceStatus) -> String {
    if is_well(service) {
        return service.state.clone();
    }
    format!("{} (wanted {})", service.state, service.intent)
}

fn who(instance: &InstanceStatus) -> String {
    match instance.role.as_str() {
        "relief" => format!("{} (spare)", instance.id),
        _ => instance.id.clone(),
    }
}

fn memory(instance: &InstanceStatus) -> String {
    instance.memory_bytes.map_or_else(|| "-".to_owned(), |bytes| Bytes(bytes).to_string())
}

fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

fn details(service: &ServiceStatus, out: &mut dyn Write) -> std::io::Result<()> {
    writeln!(out, "{}", service.name)?;
    if let Some(incident) = service.incident {
        writeln!(out, "  !  incident {incident} is open: plimsoll incidents show {incident}")?;
    }
    for warning in &service.warnings {
        writeln!(out, "  !  {warning}")?;
    }
    if let Some(traffic) = &service.traffic {
        writeln!(out, "  {}", traffic_line(traffic))?;
    }
    for layer in &service.layers {
        writeln!(out, "  {}", layer_line(layer))?;
        for note in layer.notes.iter().filter(|note| note.starts_with("line refused")) {
            writeln!(out, "  !  {note}")?;
        }
    }
    Ok(())
}

/// `certificate example.org (acme): 61 days left`
fn certificate_line(certificate: &CertificateStatus) -> String {
    let left =
        certificate.days_left.map_or_else(|| "none yet".to_owned(), |days| format!("{days} days left"));
    let problem = certificate.problem.as_ref().map(|it| format!("; {it}")).unwrap_or_default();
    let mark = if certificate.problem.is_some() { "!! " } else { "" };
    format!("{mark}certificate {} ({}): {left}{problem}", certificate.names.join(", "), certificate.source)
}

/// `requests     1467  in flight 4, held 0 (of 57 ever, 187 ms at the longest), replayed 2, refused 0`
fn traffic_line(traffic: &TrafficStatus) -> String {
    let longest = span_words(std::time::Duration::from_millis(traffic.longest_hold_ms));
    let TrafficStatus { requests, in_flight, held, held_ever, replayed, refused, .. } = traffic;
    format!(
        "{:<12} {requests:>8}  in flight {in_flight}, held {held} ({held_ever} ever, {longest} at the longest), sent again {replayed}, refused {refused}",
        "requests"
    )
}

/// `hard_wall     512 MiB  by cgroup-v2`; what it cannot do, `check` says.
fn layer_line(layer: &LayerStatus) -> String {
    format!("{:<12} {:>8}  by {}", layer.layer, layer_limit(layer), layer.enforced_by)
}

pub(super) fn layer_limit(layer: &LayerStatus) -> String {
    let bytes = layer.limit_bytes.map(|bytes| Bytes(bytes).to_string());
    bytes.or(layer.limit.map(|limit| limit.to_string())).unwrap_or_else(|| "-".to_owned())
}

pub(super) fn since(then: Timestamp) -> String {
    let span = Timestamp::now().duration_since(then);
    let span = std::time::Duration::try_from(span).unwrap_or_default();
    match span.as_secs() {
        seconds if seconds >= 2 * 86_400 => format!("{} d", seconds / 86_400),
        seconds if seconds >= 2 * 3_600 => format!("{} h", seconds / 3_600),
        _ => span_words(span),
    }
}
