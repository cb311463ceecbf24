//! A service under a guard that is put through the mill, seen and struck from outside.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde::Deserialize;

use crate::bench::Setting;
use crate::bench::front::ground::{Ground, free_port};
use crate::bench::front::proxy::{self, Kind, Ports};
use crate::bench::front::store::{self, Store};
use crate::bench::guard::proc;
use crate::bench::guard::service::Program;
use crate::bench::guard::stage::{Stage, signal};
use crate::error::{Error, Result};
use crate::shell;

const READY_WITHIN: Duration = Duration::from_mins(1);
const PAUSE: Duration = Duration::from_millis(20);
const CLOSE_PAUSE: Duration = Duration::from_micros(500);

#[derive(Debug)]
pub(super) struct Subject {
    program: Program,
    handover: &'static str,
    plimsoll: PathBuf,
    /// Where users come in.
    pub(super) port: u16,
    // In the order in which they are ended.
    _peer: Option<Peer>,
    stage: Stage,
}

/// Another front than ours, before the same guard.
#[derive(Debug)]
struct Peer {
    process: Child,
    _ground: Ground,
}

/// What is used of `plimsoll status --json`.
#[derive(Debug, Deserialize)]
struct Status {
    services: Vec<Service>,
}

#[derive(Debug, Deserialize)]
struct Service {
    instances: Vec<Instance>,
}

#[derive(Debug, Deserialize)]
struct Instance {
    pid: Option<u32>,
    state: String,
    role: String,
    address: Option<SocketAddr>,
}

/// The instance that serves.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lead {
    pub(super) pid: u32,
    pub(super) address: SocketAddr,
}

impl Subject {
    pub(super) fn start(
        setting: &Setting<'_>,
        program: Program,
        front: Kind,
        handover: &'static str,
    ) -> Result<Self> {
        let ports = Ports { http: free_port()?, https: free_port()?, upstream: free_port()? };
        let stage = Stage::start(setting, &config(setting, program, front, handover, ports))?;
        let peer = start_peer(setting, front, ports)?;
        let plimsoll = setting.plimsoll.clone();
        let subject = Self { program, handover, plimsoll, port: ports.http, _peer: peer, stage };
        let blame = |error: Error| subject.stage.blame(&error.to_string());
        subject.wait_until_it_stands(None).map_err(blame)?;
        proxy::wait_for_port(ports.http).map_err(blame)?;
        Ok(subject)
    }

    pub(super) fn recycle(&self) -> Result<()> {
        self.stage.verb(&self.plimsoll, &["recycle", "reports"]).map(drop)
    }

    /// Until an instance other than `not` serves, and a spare is there where there should be one.
    pub(super) fn wait_until_it_stands(&self, not: Option<u32>) -> Result<Lead> {
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            let instances = self.instances().unwrap_or_default();
            let ready = |role: &'static str| {
                instances.iter().find(move |it| it.role == role && it.state == "ready" && it.pid != not)
            };
            let spared = self.handover != "standby" || ready("relief").is_some();
            if let Some((pid, address)) =
                ready("lead").filter(|_| spared).and_then(|it| it.pid.zip(it.address))
            {
                return Ok(Lead { pid, address });
            }
            if Instant::now() > deadline {
                return Err(Error::Check(format!(
                    "the service does not stand after {READY_WITHIN:?}: {instances:?}"
                )));
            }
            thread::sleep(PAUSE);
        }
    }

    fn instances(&self) -> Result<Vec<Instance>> {
        let mut command = self.stage.verb_command(&self.plimsoll, &["status", "--json"]);
        // It exits with 1 when the service is not well, and says so all the same.
        let output = command.stdin(Stdio::null()).output();
        let output = output.map_err(|source| Error::Start { command: shell::show(&command), source })?;
        let status: Status = serde_json::from_slice(&output.stdout)
            .map_err(|error| Error::Output { command: shell::show(&command), what: error.to_string() })?;
        Ok(status.services.into_iter().flat_map(|service| service.instances).collect())
    }

    /// Kills the instance; when it was seen to be gone.
    pub(super) fn kill(lead: Lead) -> (Instant, Instant) {
        let at = Instant::now();
        signal(lead.pid, Signal::KILL);
        while !proc::is_gone(lead.pid) && at.elapsed() < READY_WITHIN {
            thread::sleep(CLOSE_PAUSE);
        }
        (at, Instant::now())
    }

    /// Makes the instance hang, by its own switch.
    pub(super) fn hang(&self, lead: Lead) -> Result<()> {
        let target = match self.program {
            Program::Sample => "/fault/hang",
            Program::Node => "/hang",
        };
        match store::ask(lead.address, "POST", target)? {
            (202, _) => Ok(()),
            (status, body) => Err(Error::Check(format!("POST {target}: {status} {body}"))),
        }
    }

    /// What it carried out, whichever instance did.
    pub(super) fn store(&self) -> Result<Store> {
        Ok(match self.program {
            Program::Sample => Store::Pages(self.wait_until_it_stands(None)?.address),
            Program::Node => Store::Lines(self.stage.folder().join("reports.jsonl")),
        })
    }

    /// How long one more copy takes on this machine, now, until it answers for its health: what no front can undercut.
    pub(super) fn boot_once(&self, setting: &Setting<'_>) -> Result<Duration> {
        let (port, [program, argument]) = (free_port()?, self.program.command(setting));
        let mut command = Command::new(program);
        command
            .arg(argument)
            .env("PORT", port.to_string())
            .env("DATABASE", self.stage.folder().join("boot.db"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let begun = Instant::now();
        let mut process =
            command.spawn().map_err(|source| Error::Start { command: shell::show(&command), source })?;
        let address = (Ipv4Addr::LOCALHOST, port).into();
        let answers = || store::ask(address, "GET", "/health").is_ok_and(|(status, _)| status == 200);
        let mut took = None;
        while took.is_none() && begun.elapsed() < READY_WITHIN {
            thread::sleep(CLOSE_PAUSE);
            took = answers().then(|| begun.elapsed());
        }
        let _killed = process.kill();
        let _status = process.wait();
        took.ok_or_else(|| Error::Check(format!("`{}` does not answer", shell::show(&command))))
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        signal(self.process.id(), Signal::TERM);
        let _status = self.process.wait();
    }
}

/// The defaults, but for three: a recycle for every run, and no back-off, so that each kill is like a first one.
fn config(setting: &Setting<'_>, program: Program, front: Kind, handover: &str, ports: Ports) -> String {
    let command = program.command(setting);
    let Ports { http, upstream, .. } = ports;
    let (fixed, table) = match front {
        Kind::Plimsoll => (String::new(), format!("[front]\nhttp = \"127.0.0.1:{http}\"\n")),
        // They can be told one address only.
        Kind::Nginx | Kind::Haproxy | Kind::Bare => {
            (format!("address = \"127.0.0.1:{upstream}\"\n"), String::new())
        }
    };
    let port = if fixed.is_empty() { String::new() } else { format!("PORT = \"{upstream}\", ") };
    format!(
        "[service.reports]\ncommand = {command:?}\n{fixed}\
         env = {{ {port}DATABASE = \"{{folder}}/reports.db\", REPORTS_FILE = \"{{folder}}/reports.jsonl\" }}\n\
         [service.reports.recovery]\nhandover = \"{handover}\"\nrecycles_per_hour = 3600\nbackoff_max = \"1ms\"\n\
         [service.reports.health]\nhttp = \"/health\"\n{table}"
    )
}

fn start_peer(setting: &Setting<'_>, front: Kind, ports: Ports) -> Result<Option<Peer>> {
    let config: fn(&Ground, Ports) -> String = match front {
        Kind::Plimsoll | Kind::Bare => return Ok(None),
        Kind::Nginx => proxy::nginx,
        Kind::Haproxy => proxy::haproxy,
    };
    let ground = Ground::new(setting)?;
    let path = ground.write("peer.conf", &config(&ground, ports))?;
    let mut command = if front == Kind::Nginx { Command::new("nginx") } else { Command::new("haproxy") };
    command.args(if front == Kind::Nginx { &["-c"][..] } else { &["-db", "-f"] }).arg(path);
    let process = proxy::spawn(&mut command)?;
    Ok(Some(Peer { process, _ground: ground }))
}
