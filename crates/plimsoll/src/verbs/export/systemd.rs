//! `plimsoll export systemd`: a unit that gives the guard what the layers need and nothing beyond.

use std::fmt::Write as _;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::ExportError;
use crate::cli::{Exit, ExportSystemd, Global};
use crate::config::{Config, file_or_default};

/// What stopping may take beyond every service's own drain and grace: the guard's own limit, and some more for us.
const STOP_SLACK: Duration = Duration::from_secs(20);
/// Init pings at half of it, so that a machine under load is not taken for a hang.
const WATCHDOG: &str = "30s";

/// What a unit is made from.
struct Facts<'a> {
    config: &'a Config,
    program: PathBuf,
    file: PathBuf,
    state: Option<&'a Path>,
    is_user: bool,
}

pub(super) fn run(args: &ExportSystemd, global: &Global, out: &mut dyn Write) -> Result<Exit, ExportError> {
    let named = args.file.as_deref().or(global.config.as_deref());
    let path = file_or_default(named);
    let config = super::read(&path)?;
    let facts = Facts {
        config: &config,
        program: std::env::current_exe().map_err(ExportError::Program)?,
        file: std::path::absolute(&path).unwrap_or(path),
        state: global.state.as_deref(),
        is_user: args.user,
    };
    let service = facts.service()?;
    let socket = args.socket_unit.then(|| facts.socket());
    if let Some(folder) = &args.output {
        write(folder, "plimsoll.service", &service)?;
        if let Some(socket) = &socket {
            write(folder, "plimsoll.socket", socket)?;
        }
    } else {
        out.write_all(service.as_bytes())?;
        if let Some(socket) = &socket {
            write!(out, "\n# plimsoll.socket\n{socket}")?;
        }
    }
    Ok(Exit::Done)
}

fn write(folder: &Path, name: &str, text: &str) -> Result<(), ExportError> {
    let path = folder.join(name);
    std::fs::write(&path, text).map_err(|source| ExportError::Write { path, source })
}

impl Facts<'_> {
    fn service(&self) -> Result<String, ExportError> {
        let mut unit = String::new();
        let names: Vec<&str> = self.config.services.iter().map(|it| it.name.as_str()).collect();
        let run = self.command(&[Path::new("run"), &self.file])?;
        // Unlike a signal it fails, and says why, where the file is wrong.
        let reload = self.command(&[Path::new("reload"), Path::new("--config"), &self.file])?;
        let (where_to, user) = if self.is_user {
            ("~/.config/systemd/user/plimsoll.service", " --user")
        } else {
            ("/etc/systemd/system/plimsoll.service", "")
        };
        // Writing into a string cannot fail.
        let _ = write!(
            unit,
            "# Written by `plimsoll export systemd`. Where it is to be found: {where_to}; then\n\
             # `systemctl{user} daemon-reload` and `systemctl{user} enable --now plimsoll`.\n\
             [Unit]\n\
             Description=Plimsoll keeps {} up\n\
             After=network.target\n\
             # It never stays dead: five quick ends are no reason to give up.\n\
             StartLimitIntervalSec=0\n\n\
             [Service]\n\
             Type=notify\n\
             NotifyAccess=main\n\
             # `plimsoll upgrade` replaces this program while the services run on; `systemctl restart` stops them first.\n\
             ExecStart={}\n\
             ExecReload={}\n\
             Restart=always\n\
             RestartSec=100ms\n\
             WatchdogSec={WATCHDOG}\n\
             # The services stop in their own time: only the main process is told, and what is left then is killed.\n\
             KillMode=mixed\n\
             TimeoutStopSec={}s\n\
             # The layers: control groups of our own, descriptors and tasks for every service.\n\
             Delegate=yes\n\
             LimitNOFILE=1048576\n\
             TasksMax=infinity\n\
             OOMPolicy=continue\n\
             FileDescriptorStoreMax=64\n",
            names.join(", "),
            run,
            reload,
            self.stop_time().as_secs(),
        );
        unit.push_str(if self.is_user { USER } else { SYSTEM });
        Ok(unit)
    }

    fn command(&self, words: &[&Path]) -> Result<String, ExportError> {
        let state = self.state.into_iter().flat_map(|state| [Path::new("--state"), state]);
        let all = std::iter::once(self.program.as_path()).chain(words.iter().copied()).chain(state);
        let words: Vec<String> = all.map(word).collect::<Result<_, _>>()?;
        Ok(words.join(" "))
    }

    /// Sockets that the service manager holds, also while nothing of us runs.
    fn socket(&self) -> String {
        let front = self.config.front.as_ref();
        let addresses = front.into_iter().flat_map(|it| it.http.into_iter().chain(it.https));
        let listens: Vec<String> = addresses.map(|address| format!("ListenStream={address}")).collect();
        let listens = listens.join("\n");
        format!(
            "[Unit]\nDescription=Where Plimsoll listens\n\n[Socket]\n{listens}\nBacklog=4096\nReusePort=no\n\n\
             [Install]\nWantedBy=sockets.target\n"
        )
    }

    fn stop_time(&self) -> Duration {
        let longest = self.config.services.iter().map(|service| {
            let recovery = service.head().recovery;
            recovery.drain + recovery.stop_grace
        });
        longest.max().unwrap_or_default() + STOP_SLACK
    }
}

/// What a whole system may ask of us. What services need is left open: other users, their own folders, compilers at run
/// time, namespaces.
const SYSTEM: &str = "\
OOMScoreAdjust=-900
StateDirectory=plimsoll
RuntimeDirectory=plimsoll
RuntimeDirectoryPreserve=restart
# Nothing here takes anything from a layer; ProtectControlGroups= would.
ProtectSystem=full
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectKernelLogs=yes
ProtectClock=yes
ProtectHostname=yes
RestrictRealtime=yes
LockPersonality=yes
SystemCallArchitectures=native
KeyringMode=private

[Install]
WantedBy=multi-user.target
";

const USER: &str = "\
LockPersonality=yes
SystemCallArchitectures=native

[Install]
WantedBy=default.target
";

/// A word of a command line: quoted where it has to be, `%` and `$` taken as they are.
fn word(path: &Path) -> Result<String, ExportError> {
    let text = path.to_string_lossy();
    if text.contains(['\n', '\r', '\0']) {
        return Err(ExportError::Unnameable(path.to_owned()));
    }
    let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%").replace('$', "$$");
    let plain = text.chars().all(|letter| letter.is_ascii_alphanumeric() || "/._-:%$".contains(letter));
    Ok(if plain { text } else { format!("\"{text}\"") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_a_command_line_are_what_they_were() {
        let words = [
            ("/usr/bin/plimsoll", "/usr/bin/plimsoll"),
            ("/a b/\"c\"", "\"/a b/\\\"c\\\"\""),
            ("/50%", "/50%%"),
        ];
        for (path, expected) in words {
            assert_eq!(word(Path::new(path)).ok().as_deref(), Some(expected));
        }
        assert!(word(Path::new("/a\nb")).is_err());
    }
}
