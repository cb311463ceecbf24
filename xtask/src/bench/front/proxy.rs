//! The proxies that are compared, each with one worker on a core of its own, tuned as their users usually tune them.

use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::bench::Setting;
use crate::bench::front::ground::{Ground, LOAD_CORE, PROXY_CORE, free_port, on_core};
use crate::bench::front::{own, store, upstream};
use crate::bench::guard::proc;
use crate::bench::guard::stage::{self, Stage};
use crate::error::{Error, Result};
use crate::shell;

const UP_WITHIN: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(5);

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(in crate::bench) enum Kind {
    Nginx,
    Haproxy,
    Plimsoll,
    /// hyper's connections and nothing of ours.
    #[value(skip)]
    Bare,
}

#[derive(Debug)]
pub(super) struct Proxy {
    pub(super) kind: Kind,
    running: Running,
    pub(super) http: u16,
    pub(super) https: u16,
}

#[derive(Debug)]
enum Running {
    Alone(Child),
    Guard(Stage),
}

/// Where it listens, and what it stands in front of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ports {
    pub(super) http: u16,
    pub(super) https: u16,
    pub(super) upstream: u16,
}

impl Kind {
    /// Those that others would take in our place.
    const ALL: [Self; 3] = [Self::Nginx, Self::Haproxy, Self::Plimsoll];

    /// Those asked for, or all.
    pub(super) fn chosen(setting: &Setting<'_>) -> Vec<Self> {
        let all = Self::ALL.into_iter();
        all.filter(|kind| setting.only.is_empty() || setting.only.contains(kind)).collect()
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Haproxy => "HAProxy",
            Self::Plimsoll => "plimsoll",
            Self::Bare => "bare hyper",
        }
    }
}

impl Proxy {
    pub(super) fn start(setting: &Setting<'_>, kind: Kind, ground: &Ground, upstream: u16) -> Result<Self> {
        let ports = Ports { http: free_port()?, https: free_port()?, upstream };
        let running = match kind {
            Kind::Nginx => {
                let path = ground.write("nginx.conf", &nginx(ground, ports))?;
                Running::Alone(spawn(on_core(PROXY_CORE, "nginx".as_ref()).arg("-c").arg(path))?)
            }
            Kind::Haproxy => {
                let path = ground.write("haproxy.cfg", &haproxy(ground, ports))?;
                Running::Alone(spawn(on_core(PROXY_CORE, "haproxy".as_ref()).args(["-db", "-f"]).arg(path))?)
            }
            Kind::Bare => return Self::start_bare(&own::build_bare(setting)?, upstream),
            Kind::Plimsoll => {
                let config = plimsoll_config(ground, Ports { upstream: free_port()?, ..ports })?;
                Running::Guard(Stage::launch(setting, on_core(PROXY_CORE, &setting.plimsoll), &config)?)
            }
        };
        Self::up(kind, running, ports)
    }

    pub(super) fn start_bare(program: &Path, upstream: u16) -> Result<Self> {
        let ports = Ports { http: free_port()?, https: free_port()?, upstream };
        let addresses = [ports.http, ports.upstream].map(|port| format!("127.0.0.1:{port}"));
        let running = Running::Alone(spawn(on_core(PROXY_CORE, program).args(addresses))?);
        Self::up(Kind::Bare, running, ports)
    }

    fn up(kind: Kind, running: Running, ports: Ports) -> Result<Self> {
        let proxy = Self { kind, running, http: ports.http, https: ports.https };
        wait_for_port(proxy.http)?;
        proxy.wait_for_answer()?;
        Ok(proxy)
    }

    fn wait_for_answer(&self) -> Result<()> {
        let begun = Instant::now();
        loop {
            match store::ask((Ipv4Addr::LOCALHOST, self.http).into(), "GET", "/") {
                Ok((200, _)) => return Ok(()),
                Ok((status, body)) if begun.elapsed() > UP_WITHIN => {
                    return Err(Error::Check(format!("{} answers {status} {body}", self.kind.name())));
                }
                Err(error) if begun.elapsed() > UP_WITHIN => return Err(error),
                Ok(_) | Err(_) => thread::sleep(PAUSE),
            }
        }
    }

    pub(super) fn has_https(&self) -> bool {
        TcpStream::connect((Ipv4Addr::LOCALHOST, self.https)).is_ok()
    }

    /// The processes that are the proxy. Of ours the guard, and not what it guards.
    pub(super) fn pids(&self) -> Vec<u32> {
        match &self.running {
            Running::Alone(child) => proc::tree(child.id()),
            Running::Guard(stage) => guard_pids(stage),
        }
    }

    /// With what it guards.
    pub(super) fn tree_cpu_time(&self) -> Duration {
        match &self.running {
            Running::Alone(child) => proc::tree_cpu_time(child.id()),
            Running::Guard(stage) => proc::tree_cpu_time(stage.pid()),
        }
    }

    pub(super) fn cpu_time(&self) -> Duration {
        self.pids().into_iter().map(proc::threads_cpu_time).sum()
    }

    pub(super) fn rss_bytes(&self) -> Result<u64> {
        self.pids().into_iter().map(|pid| proc::resident(pid).map(|resident| resident.rss_bytes)).sum()
    }
}

/// The guard's process, and its init's where that is another one.
pub(super) fn guard_pids(stage: &Stage) -> Vec<u32> {
    let mut pids = vec![stage.pid()];
    pids.extend(proc::children_running(stage.pid(), "run"));
    pids
}

impl Drop for Proxy {
    fn drop(&mut self) {
        match &mut self.running {
            Running::Alone(child) => {
                stage::signal(child.id(), Signal::TERM);
                let _status = child.wait();
            }
            Running::Guard(_) => {}
        }
    }
}

/// Until somebody listens there.
pub(super) fn wait_for_port(port: u16) -> Result<()> {
    let begun = Instant::now();
    while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
        if begun.elapsed() > UP_WITHIN {
            return Err(Error::Check(format!("nobody listens on port {port} after {UP_WITHIN:?}")));
        }
        thread::sleep(PAUSE);
    }
    Ok(())
}

pub(super) fn spawn(command: &mut Command) -> Result<Child> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().map_err(|source| Error::Start { command: shell::show(command), source })
}

/// No sessions are resumed: a new connection is a whole handshake with everybody.
pub(super) fn nginx(ground: &Ground, ports: Ports) -> String {
    let (folder, Ports { http, https, upstream }) = (ground.folder.display(), ports);
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!(" {name}_temp_path {folder}/nginx-{name};\n"))
        .concat();
    format!(
        "worker_processes 1;\ndaemon off;\nuser root;\npid {folder}/nginx.pid;\nerror_log {folder}/nginx.log;\n\
         events {{ worker_connections 15000; }}\nhttp {{\n{temporary}\
         access_log off; sendfile on; tcp_nopush on; tcp_nodelay on;\n\
         keepalive_timeout 300; keepalive_requests 1000000000;\n\
         upstream service {{ server 127.0.0.1:{upstream}; keepalive 64; keepalive_requests 1000000000; }}\n\
         server {{\n listen 127.0.0.1:{http} backlog=4096;\n listen 127.0.0.1:{https} ssl backlog=4096;\n\
         ssl_certificate {folder}/certificate.pem; ssl_certificate_key {folder}/key.pem;\n\
         ssl_protocols TLSv1.2 TLSv1.3; ssl_session_cache off; ssl_session_tickets off;\n\
         location / {{\n proxy_pass http://service; proxy_http_version 1.1;\n\
         proxy_set_header Connection \"\"; proxy_set_header Host $host;\n\
         proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;\n\
         proxy_set_header X-Forwarded-Proto $scheme;\n proxy_max_temp_file_size 0;\n }}\n }}\n}}\n"
    )
}

pub(super) fn haproxy(ground: &Ground, ports: Ports) -> String {
    let (both, Ports { http, https, upstream }) = (ground.certificate_and_key(), ports);
    format!(
        "global\n nbthread 1\n maxconn 15000\n no strict-limits\n tune.ssl.cachesize 0\n\
         ssl-default-bind-options ssl-min-ver TLSv1.2 no-tls-tickets\n\
         defaults\n mode http\n option forwardfor\n option http-keep-alive\n http-reuse always\n\
         timeout connect 5s\n timeout client 300s\n timeout server 300s\n timeout http-keep-alive 300s\n\
         frontend public\n bind 127.0.0.1:{http} backlog 4096\n\
         bind 127.0.0.1:{https} backlog 4096 ssl crt {both}\n http-request set-header X-Forwarded-Proto https if {{ ssl_fc }}\n\
         default_backend service\n\
         backend service\n server one 127.0.0.1:{upstream}\n",
        both = both.display(),
    )
}

/// What is guarded is an upstream of its own, on the core of the others': the guard refuses an address where somebody
/// else stands. Its wall is wide, because the pages of the large file may be counted as its own.
fn plimsoll_config(ground: &Ground, ports: Ports) -> Result<String> {
    let (folder, Ports { http, https, upstream }) = (ground.folder.display(), ports);
    let file = upstream::configure(ground, "guarded", upstream)?;
    Ok(format!(
        "[service.upstream]\ncommand = [\"taskset\", \"--cpu-list\", \"{LOAD_CORE}\", \"nginx\", \"-c\", \"{file}\"]\n\
         address = \"127.0.0.1:{upstream}\"\n\
         [service.upstream.memory]\nhard = \"4GiB\"\nruntime = \"none\"\n\
         [front]\nhttp = \"127.0.0.1:{http}\"\nhttps = \"127.0.0.1:{https}\"\n\
         [front.tls]\ncertificate = \"{folder}/certificate.pem\"\nkey = \"{folder}/key.pem\"\nredirect = false\n",
        file = file.display(),
    ))
}
