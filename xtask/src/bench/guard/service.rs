//! The two services that are measured, with their configuration and their switches.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::Duration;

use crate::bench::Setting;
use crate::error::{Error, Result};

const HTTP_WITHIN: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::bench) enum Program {
    Sample,
    Node,
}

/// A service on a port of its own.
#[derive(Debug)]
pub(in crate::bench) struct Service {
    program: Program,
    port: u16,
}

impl Program {
    pub(in crate::bench) const ALL: [Self; 2] = [Self::Sample, Self::Node];

    pub(in crate::bench) fn name(self) -> &'static str {
        match self {
            Self::Sample => "sample service",
            Self::Node => "Node",
        }
    }

    /// What its command line is known by.
    pub(in crate::bench) fn word(self) -> &'static str {
        match self {
            Self::Sample => "sample-service",
            Self::Node => "server.js",
        }
    }

    pub(in crate::bench) fn command(self, setting: &Setting<'_>) -> [String; 2] {
        match self {
            Self::Sample => [setting.plimsoll.display().to_string(), "sample-service".into()],
            Self::Node => {
                let server = setting.workspace.root.join("examples/node-reports/server.js");
                ["node".into(), server.display().to_string()]
            }
        }
    }
}

impl Service {
    pub(in crate::bench) fn new(program: Program) -> Result<Self> {
        let failed = |error| Error::Check(format!("no loopback port can be had: {error}"));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(failed)?;
        Ok(Self { program, port: listener.local_addr().map_err(failed)?.port() })
    }

    pub(in crate::bench) fn program(&self) -> Program {
        self.program
    }

    /// The limits are the defaults. The stop signal is one that neither program handles, so that the process begins to
    /// end in the moment that it is sent, which can be seen from outside.
    pub(in crate::bench) fn config(&self, setting: &Setting<'_>) -> String {
        let (command, port) = (self.program.command(setting), self.port);
        format!(
            "[service.reports]\ncommand = {command:?}\naddress = \"127.0.0.1:{port}\"\n\
             env = {{ PORT = \"{port}\", DATABASE = \"{{folder}}/reports.db\" }}\n\
             [service.reports.recovery]\nstop_signal = \"SIGUSR2\"\nrecycles_per_hour = 1000\n\
             [service.reports.health]\nhttp = \"/health\"\n"
        )
    }

    /// The same with a front before it.
    pub(in crate::bench) fn config_with_front(&self, setting: &Setting<'_>, front: u16) -> String {
        format!("{}[front]\nhttp = \"127.0.0.1:{front}\"\n", self.config(setting))
    }

    /// A loopback port that was free a moment ago.
    pub(in crate::bench) const fn port(&self) -> u16 {
        self.port
    }

    pub(in crate::bench) fn leak(&self, rate_bytes: u64, total_bytes: u64) -> Result<()> {
        let path = match self.program {
            Program::Sample => "/fault/leak-heap",
            Program::Node => "/leak-buffers",
        };
        self.post(&format!("{path}?rate={rate_bytes}B&total={total_bytes}B"))
    }

    pub(in crate::bench) fn spike(&self, size_bytes: u64, over: Duration) -> Result<()> {
        let path = match self.program {
            Program::Sample => "/fault/spike",
            Program::Node => "/spike",
        };
        self.post(&format!("{path}?size={size_bytes}B&over={}ms", over.as_millis()))
    }

    /// Only the sample service can.
    pub(in crate::bench) fn print(&self, rate_bytes: u64, lasts: Duration) -> Result<()> {
        self.post(&format!("/fault/log?rate={rate_bytes}B&for={}s", lasts.as_secs()))
    }

    fn post(&self, target: &str) -> Result<()> {
        let answer = self.ask(target).map_err(|error| Error::Check(format!("POST {target}: {error}")))?;
        let status = answer.lines().next().unwrap_or_default();
        if status.split(' ').nth(1).is_some_and(|code| code.starts_with('2')) {
            return Ok(());
        }
        Err(Error::Check(format!("POST {target}: {answer}")))
    }

    fn ask(&self, target: &str) -> std::io::Result<String> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))?;
        stream.set_read_timeout(Some(HTTP_WITHIN))?;
        let head = format!(
            "POST {target} HTTP/1.1\r\nHost: bench\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(head.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }
}
