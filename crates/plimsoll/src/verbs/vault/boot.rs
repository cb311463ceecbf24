//! Starts a service's own command on a copy of its database, at a port of its own, and runs its health check.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use plimsoll_guard::placeholders;

use super::VaultError;
use crate::config::{Check, Service};

const LOOK_AGAIN: Duration = Duration::from_millis(50);
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// A command without a check has to live for so long.
const LIVES_FOR: Duration = Duration::from_secs(2);

/// How long it took until it was ready. It is ended before this returns.
pub(super) fn boot(
    service: &Service,
    folder: &Path,
    database: &Path,
    copy: &Path,
) -> Result<Duration, VaultError> {
    let names = Names::new(folder, &service.cwd, database);
    let port = free_port()?;
    let mut told = false;
    let mut on_copy = |text: &str| {
        let changed = names.replace(text, copy);
        told |= changed != text;
        changed
    };
    let argv: Vec<String> = service.command.iter().map(|it| on_copy(it)).collect();
    let argv: Vec<String> = argv.iter().map(|it| placeholders::substitute(it, Some(port), None)).collect();
    let environment: Vec<(String, String)> =
        service.environment.iter().map(|(key, value)| (key.to_owned(), on_copy(value))).collect();
    if !told {
        let why = format!(
            "{} is told its database neither by an argument nor by env, so it would be booted on the live one; write env = {{ DATABASE = \"{}\" }}, and read it in the service",
            service.name,
            database.display()
        );
        return Err(VaultError::Usage(why));
    }
    let mut command = Command::new(&argv[0]);
    command.args(&argv[1..]).envs(environment).current_dir(&service.cwd).process_group(0);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    if let Some(variable) = &service.port_env {
        command.env(variable, port.to_string());
    }
    let child = command.spawn().map_err(|error| VaultError::No(format!("{}: {error}", argv[0])))?;
    let mut booted = Booted(child);
    let address = service.address.map_or(port, |it| it.port());
    ready(&mut booted, service, SocketAddr::from((Ipv4Addr::LOCALHOST, address)))
}

/// How the database may be written in arguments and variables.
struct Names(Vec<String>);

impl Names {
    fn new(folder: &Path, cwd: &Path, database: &Path) -> Self {
        let under = |base: &Path| database.strip_prefix(base).ok().map(|it| it.display().to_string());
        let absolute = Some(database.display().to_string());
        // The longest first, so that no part of it is replaced alone.
        let mut names: Vec<String> = [absolute, under(folder), under(cwd)].into_iter().flatten().collect();
        names.sort_by_key(|it| std::cmp::Reverse(it.len()));
        names.dedup();
        Self(names)
    }

    fn replace(&self, text: &str, copy: &Path) -> String {
        let found = self.0.iter().find(|name| text.contains(name.as_str()));
        found.map_or_else(|| text.to_owned(), |name| text.replace(name.as_str(), &copy.display().to_string()))
    }
}

/// Ended with all that it started, whatever happens.
struct Booted(Child);

impl Drop for Booted {
    fn drop(&mut self) {
        if let Some(group) = i32::try_from(self.0.id()).ok().and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
        let _ = self.0.wait();
    }
}

fn ready(booted: &mut Booted, service: &Service, address: SocketAddr) -> Result<Duration, VaultError> {
    let began = Instant::now();
    let mut last = "it never answered".to_owned();
    while began.elapsed() < service.health.start_period {
        if let Some(exit) = booted.0.try_wait()? {
            return Err(VaultError::No(format!("{} ended on the copy: {exit}", service.name)));
        }
        match probe(service, address, began) {
            Ok(true) => return Ok(began.elapsed()),
            Ok(false) => {}
            Err(error) => last = error,
        }
        std::thread::sleep(LOOK_AGAIN);
    }
    Err(VaultError::No(format!("{} did not get ready on the copy: {last}", service.name)))
}

fn probe(service: &Service, address: SocketAddr, began: Instant) -> Result<bool, String> {
    let text = |error: std::io::Error| error.to_string();
    match &service.check {
        Check::Tcp => TcpStream::connect_timeout(&address, ANSWER_WITHIN).map(|_| true).map_err(text),
        Check::Http(path) => http(address, path).map_err(text)?,
        Check::Command(argv) => {
            let mut command = Command::new(&argv[0]);
            command.args(&argv[1..]).current_dir(&service.cwd).stdout(Stdio::null()).stderr(Stdio::null());
            command.status().map(|exit| exit.success()).map_err(text)
        }
        Check::Nothing => Ok(began.elapsed() >= LIVES_FOR),
    }
}

/// 200 to 399 is well.
fn http(address: SocketAddr, path: &str) -> std::io::Result<Result<bool, String>> {
    let mut stream = TcpStream::connect_timeout(&address, ANSWER_WITHIN)?;
    stream.set_read_timeout(Some(ANSWER_WITHIN))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut head = [0; 12];
    stream.read_exact(&mut head)?;
    let status = String::from_utf8_lossy(&head[9..]).parse::<u16>().unwrap_or(0);
    Ok(if (200..400).contains(&status) { Ok(true) } else { Err(format!("GET {path}: {status}")) })
}

fn free_port() -> std::io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_database_is_found_however_it_is_written() {
        let names =
            Names::new(Path::new("/srv/app"), Path::new("/srv/app/api"), Path::new("/srv/app/api/data/a.db"));
        let on_copy = |text: &str| names.replace(text, Path::new("/tmp/c.db"));
        assert_eq!(on_copy("--db=/srv/app/api/data/a.db"), "--db=/tmp/c.db");
        assert_eq!(on_copy("sqlite:api/data/a.db?mode=rw"), "sqlite:/tmp/c.db?mode=rw");
        assert_eq!(on_copy("data/a.db"), "/tmp/c.db");
        assert_eq!(on_copy("server.js"), "server.js");
    }
}
