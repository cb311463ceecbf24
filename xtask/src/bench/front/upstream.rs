//! What all proxies stand in front of in the races: nginx that answers at once.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Stdio};

use crate::bench::front::ground::{Ground, LOAD_CORE, free_port, on_core};
use crate::bench::front::proxy::wait_for_port;
use crate::bench::guard::stage;
use crate::error::{Error, Result};
use crate::shell;

/// The body of the large answer.
pub(super) const GIB: u64 = 1 << 30;
pub(super) const LARGE_PATH: &str = "/large";

#[derive(Debug)]
pub(super) struct Upstream {
    process: Child,
    pub(super) port: u16,
}

impl Upstream {
    pub(super) fn start(ground: &Ground) -> Result<Self> {
        let port = free_port()?;
        let config = configure(ground, "upstream", port)?;
        let mut command = on_core(LOAD_CORE, "nginx".as_ref());
        command.arg("-c").arg(config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let process =
            command.spawn().map_err(|source| Error::Start { command: shell::show(&command), source })?;
        let upstream = Self { process, port };
        wait_for_port(port)?;
        Ok(upstream)
    }

    pub(super) fn pid(&self) -> u32 {
        self.process.id()
    }
}

/// Writes what nginx has to know, for one that is the same as every other but for its port.
pub(super) fn configure(ground: &Ground, name: &str, port: u16) -> Result<PathBuf> {
    let (folder, large) = (ground.folder.display(), ground.folder.join("large"));
    // A file of holes: it is read as fast as memory.
    File::create(&large).and_then(|file| file.set_len(GIB)).map_err(Error::file("create", &large))?;
    let config = format!(
        "worker_processes 1;\ndaemon off;\nuser root;\npid {folder}/{name}.pid;\nerror_log {folder}/{name}.log;\n\
         events {{ worker_connections 5000; }}\n\
         http {{\n access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000000;\n\
         server {{\n listen 127.0.0.1:{port} backlog=4096;\n\
         location / {{ return 200 \"{body}\"; }}\n\
         location = {LARGE_PATH} {{ alias {folder}/large; sendfile_max_chunk 1m; }}\n }}\n}}\n",
        body = "0123456789".repeat(10).split_at(99).0,
    );
    ground.write(&format!("{name}.conf"), &config)
}

impl Drop for Upstream {
    fn drop(&mut self) {
        stage::signal(self.pid(), rustix::process::Signal::TERM);
        let _status = self.process.wait();
    }
}
