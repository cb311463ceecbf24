//! Where the show takes place: a folder that goes away, and in it the configuration that a user could have written.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::{fs, io};

use tempfile::TempDir;

use super::DemoError;

/// The incident's limits at a quarter, and for descriptors less, so that the show is short.
pub(super) const WALL_MIB: u64 = 128;
pub(super) const LINE_MIB: u64 = 75;
pub(super) const DESCRIPTORS_MAX: u64 = 256;
/// Where the descriptors are recycled: the default share, 0.9.
pub(super) const DESCRIPTOR_LINE: u64 = DESCRIPTORS_MAX * 9 / 10;
pub(super) const MIB: u64 = 1024 * 1024;
pub(super) const SERVICE: &str = "reports";

/// Lowest port tried: below are those that well-known services use.
const PORT_MIN: u16 = 10_240;
const PORT_TRIES: u16 = 200;

#[derive(Debug)]
pub(super) struct Stage {
    folder: TempDir,
    pub(super) program: PathBuf,
    /// The service itself: where its switches are.
    pub(super) address: SocketAddr,
    /// Where its users ask.
    pub(super) front: SocketAddr,
}

impl Stage {
    pub(super) fn set() -> Result<Self, DemoError> {
        let program = std::env::current_exe().map_err(DemoError::Program)?;
        let folder =
            tempfile::Builder::new().prefix("plimsoll-demo-").tempdir().map_err(DemoError::Folder)?;
        let [address, front] =
            free_ports().map_err(DemoError::Port)?.map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        let stage = Self { folder, program, address, front };
        fs::write(stage.config(), stage.config_text()?).map_err(DemoError::Folder)?;
        Ok(stage)
    }

    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(super) fn config(&self) -> PathBuf {
        self.folder().join("plimsoll.toml")
    }

    pub(super) fn state(&self) -> PathBuf {
        self.folder().join("state")
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.state().join("plimsoll.sock")
    }

    /// What the guard prints on standard error, for when it cannot start.
    pub(super) fn complaints(&self) -> PathBuf {
        self.folder().join("guard.stderr")
    }

    fn config_text(&self) -> Result<String, DemoError> {
        let database = self.folder().join("reports.db");
        let (program, database) = (quoted(&self.program)?, quoted(&database)?);
        let (address, port, front) = (self.address, self.address.port(), self.front);
        Ok(format!(
            r#"# What `plimsoll demo` guards.
[service.{SERVICE}]
command = [{program}, "sample-service", "--port", "{port}", "--database", {database}]
address = "{address}"

[service.{SERVICE}.memory]
hard = "{WALL_MIB}MiB"
recycle = "{LINE_MIB}MiB"
for = "1s"

[service.{SERVICE}.descriptors]
limit = {DESCRIPTORS_MAX}

[service.{SERVICE}.recovery]
drain = "2s"
stop_grace = "2s"
recycles_per_hour = 100

[service.{SERVICE}.health]
http = "/health"
interval = "1s"
timeout = "1s"
retries = 2
start_period = "10s"

[front]
http = "{front}"
"#
        ))
    }
}

/// The path as a TOML string.
fn quoted(path: &Path) -> Result<String, DemoError> {
    let text = path.to_str().ok_or_else(|| DemoError::Name(path.to_owned()))?;
    Ok(toml::Value::from(text).to_string())
}

/// Free ports that the kernel does not hand to outgoing connections. From its range, a client that connects while
/// the service is down could be given that very port, talk to itself and keep the service from coming back.
fn free_ports() -> io::Result<[u16; 2]> {
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let end = range.split_whitespace().next().and_then(|low| low.parse().ok()).unwrap_or(32_768_u16);
    let width = end.saturating_sub(PORT_MIN);
    // Two demos at a time begin at different places.
    let first = u16::try_from(std::process::id() % u32::from(width.max(1))).unwrap_or(0);
    let mut ports = (0..PORT_TRIES.min(width)).map(|step| PORT_MIN + (first + step) % width);
    // Kept until both are known, so that they are two.
    let one = ports.by_ref().find_map(|port| listen(port).ok()).map_or_else(|| listen(0), Ok)?;
    let other = ports.find_map(|port| listen(port).ok()).map_or_else(|| listen(0), Ok)?;
    Ok([one.local_addr()?.port(), other.local_addr()?.port()])
}

fn listen(port: u16) -> io::Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn the_configuration_is_one_that_check_has_nothing_against() {
        let stage = Stage::set().expect("a stage");
        let (config, warnings) = Config::read(&stage.config()).unwrap_or_else(|errors| panic!("{errors}"));
        assert!(warnings.is_empty(), "{warnings:?}");
        assert_eq!(config.services.len(), 1);
    }

    #[test]
    fn a_path_with_quotes_and_backslashes_stays_one_string() {
        let text = format!("path = {}", quoted(Path::new(r#"/a "b"\c"#)).expect("text"));
        let table: toml::Table = text.parse().expect("TOML");
        assert_eq!(table["path"].as_str(), Some(r#"/a "b"\c"#));
    }

    #[test]
    fn the_folder_goes_away_with_the_stage() {
        let stage = Stage::set().expect("a stage");
        let folder = stage.folder().to_owned();
        drop(stage);
        assert!(!folder.exists());
    }
}
