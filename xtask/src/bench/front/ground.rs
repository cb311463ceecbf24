//! What the parts stand on: a folder, ports, a certificate, cores, other people's programs.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::bench::Setting;
use crate::error::{Error, Result};
use crate::shell;
use crate::test::apt;

/// Generator and upstream have this core, the proxy the other one.
pub(super) const LOAD_CORE: usize = 0;
pub(super) const PROXY_CORE: usize = 1;

static GROUNDS: AtomicU32 = AtomicU32::new(0);

/// A folder that goes with it, and a certificate for localhost.
#[derive(Debug)]
pub(super) struct Ground {
    pub(super) folder: PathBuf,
}

impl Ground {
    pub(super) fn new(setting: &Setting<'_>) -> Result<Self> {
        let number = GROUNDS.fetch_add(1, Ordering::Relaxed);
        let folder = setting.workspace.target.join(format!("bench/ground-{}-{number}", std::process::id()));
        fs::create_dir_all(&folder).map_err(Error::file("make", &folder))?;
        let ground = Self { folder };
        ground.make_certificate()?;
        Ok(ground)
    }

    pub(super) fn certificate(&self) -> PathBuf {
        self.folder.join("certificate.pem")
    }

    pub(super) fn key(&self) -> PathBuf {
        self.folder.join("key.pem")
    }

    /// Both in one file, as HAProxy wants them.
    pub(super) fn certificate_and_key(&self) -> PathBuf {
        self.folder.join("both.pem")
    }

    pub(super) fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.folder.join(name);
        fs::write(&path, text).map_err(Error::file("write", &path))?;
        Ok(path)
    }

    fn make_certificate(&self) -> Result<()> {
        let mut command = Command::new("openssl");
        command.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]);
        command.args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]);
        command.args(["-addext", "basicConstraints=critical,CA:FALSE", "-days", "30"]);
        command.arg("-keyout").arg(self.key()).arg("-out").arg(self.certificate());
        shell::output(&mut command)?;
        let both = read(&self.certificate())? + &read(&self.key())?;
        self.write("both.pem", &both).map(drop)
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        // A folder below `target` that stays does no harm.
        let _left = fs::remove_dir_all(&self.folder);
    }
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(Error::file("read", path))
}

/// A loopback port that nobody has now; somebody may take it before it is used, and then the part fails.
pub(super) fn free_port() -> Result<u16> {
    let failed = |error| Error::Check(format!("no loopback port can be had: {error}"));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(failed)?;
    Ok(listener.local_addr().map_err(failed)?.port())
}

/// Installs Debian's packages whose programs are missing.
pub(super) fn bring(programs: &[&'static str]) -> Result<()> {
    let is_there = |program: &str| shell::has(program) || Path::new("/usr/sbin").join(program).exists();
    let missing = programs.iter().filter(|program| !is_there(program));
    let packages: Vec<&str> = missing.map(|program| package(program)).collect();
    if packages.is_empty() {
        return Ok(());
    }
    if let Some(why) = apt::refused() {
        return Err(Error::Lacks(format!("{}, and {why}", packages.join(", "))));
    }
    println!("installing {}", packages.join(" "));
    // Old lists may still do when the archive cannot be reached for new ones.
    if let Err(error) = apt::update() {
        println!("{error}");
    }
    apt::install(&packages)
}

/// Most packages are named as their program is.
fn package(program: &'static str) -> &'static str {
    if program == "node" { "nodejs" } else { program }
}

/// A command on one core.
pub(super) fn on_core(core: usize, program: &Path) -> Command {
    let mut command = Command::new("taskset");
    command.arg("--cpu-list").arg(core.to_string()).arg(program);
    command
}

/// This thread, and those it starts, on one core.
pub(super) fn stay_on_core(core: usize) -> Result<()> {
    let mut cores = CpuSet::new();
    cores.set(core);
    sched_setaffinity(None, &cores)
        .map_err(|error| Error::Check(format!("cannot stay on core {core}: {error}")))
}

/// As far as is allowed, for us and all that we start from now on; what the limit is then.
pub(super) fn raise_descriptor_limit() -> u64 {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    // What counts is how many there are, raised or not.
    let _refused = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}
