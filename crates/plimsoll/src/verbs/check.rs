//! `plimsoll check`: is the configuration right, and what will enforce each layer on this machine?

use std::io::Write;

use plimsoll_core::units::Bytes;
use plimsoll_guard::records::LayerStatus;
use plimsoll_guard::{Ground, host_memory};
use plimsoll_kernel::Roots;
use serde_json::json;

use super::status::layer_limit;
use super::table::Table;
use crate::cli::{CheckArgs, Exit, Global};
use crate::config::{ADMIN_HTTP_DEFAULT, Config, ConfigErrors, Warning, file_or_default};
use crate::fit::fit;
use crate::settings::{self, SettingsError};

/// The cgroups that `check` tries out are not those of a guard that may be running.
const SCOPE: &str = "check";

#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    #[error("{0}")]
    Config(ConfigErrors),
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error("cannot print: {0}")]
    Print(#[from] std::io::Error),
}

impl CheckError {
    pub fn exit(&self) -> Exit {
        match self {
            Self::Config(_) | Self::Settings(_) => Exit::Usage,
            Self::Print(_) => Exit::Internal,
        }
    }
}

pub fn run(args: &CheckArgs, global: &Global, out: &mut dyn Write) -> Result<Exit, CheckError> {
    let path = file_or_default(args.file.as_deref().or(global.config.as_deref()));
    let (mut config, warnings) = Config::load(&path).map_err(CheckError::Config)?;
    let room = settings::room();
    let fitted = fit(&mut config, room);
    let ground = Ground::survey(Roots::default(), SCOPE);
    let mut services = Vec::new();
    for service in &config.services {
        services.push((service.name.clone(), ground.layers(&settings::workload(service)?)));
    }
    if let Some(hierarchy) = &ground.hierarchy {
        hierarchy.remove_if_empty();
    }
    let mut warnings = all_warnings(&config, &warnings, &ground, room);
    warnings.extend(fitted);
    if args.json {
        let services: Vec<_> =
            services.iter().map(|(name, layers)| json!({ "name": name, "layers": layers })).collect();
        writeln!(out, "{}", json!({ "config": path, "services": services, "warnings": warnings }))?;
    } else {
        print(&path.display().to_string(), &services, &warnings, out)?;
    }
    Ok(Exit::Done)
}

fn all_warnings(config: &Config, warnings: &[Warning], ground: &Ground, room: Option<Bytes>) -> Vec<String> {
    let mut all: Vec<String> = warnings.iter().map(ToString::to_string).collect();
    for table in &config.not_yet {
        all.push(format!("[{table}] is understood and checked, but this version does not carry it out yet"));
    }
    if config.admin.http != ADMIN_HTTP_DEFAULT || config.admin.token.is_some() {
        all.push(
            "[admin] http and token are understood, but this version listens on the control socket only"
                .to_owned(),
        );
    }
    let walls: u64 = config.services.iter().map(|it| it.memory.hard.0 * u64::from(it.replicas)).sum();
    if let Some(room) = room.filter(|room| walls > room.0) {
        all.push(format!("the walls add up to {}, and all of us together may use {room} here", Bytes(walls)));
    } else if let Some(host) = host_memory(&ground.roots).filter(|host| walls > host.0) {
        all.push(format!("the walls add up to {}, and this machine has {host}", Bytes(walls)));
    }
    all
}

/// What each layer does or cannot do here, and what would make it stronger.
fn notes(layers: &[LayerStatus], out: &mut dyn Write) -> std::io::Result<()> {
    writeln!(out)?;
    for layer in layers {
        for (index, note) in layer.notes.iter().enumerate() {
            let name = if index == 0 { layer.layer.as_str() } else { "" };
            writeln!(out, "  {name:<11}  {note}")?;
        }
    }
    writeln!(out)
}

fn print(
    path: &str,
    services: &[(String, Vec<LayerStatus>)],
    warnings: &[String],
    out: &mut dyn Write,
) -> std::io::Result<()> {
    for (name, layers) in services {
        writeln!(out, "{name}")?;
        let mut table = Table::new(&["  LAYER", ">LIMIT", "ENFORCED BY"]);
        for layer in layers {
            table.row([format!("  {}", layer.layer), layer_limit(layer), layer.enforced_by.clone()]);
        }
        table.print(out)?;
        notes(layers, out)?;
    }
    for warning in warnings {
        writeln!(out, "{warning}")?;
    }
    let well = if warnings.is_empty() { "is right" } else { "can be used, with warnings" };
    writeln!(out, "{path} {well}: {} service{}", services.len(), if services.len() == 1 { "" } else { "s" })
}
