//! Where a test lives, and how a guard is started there.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use super::guard::Guard;
use super::{EXE, forget_developer, leftovers};

/// Where a test lives: its configuration, its state folder, its files.
pub struct Folder {
    root: tempfile::TempDir,
    /// Where the state folder is out of our sight: a place for the control socket that is not.
    pub socket: Option<PathBuf>,
    alone: bool,
}

impl Folder {
    /// Open to everybody, since some services run as somebody else.
    pub fn new() -> Self {
        let root = tempfile::Builder::new().prefix("plimsoll-e2e-").tempdir().unwrap();
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o777)).unwrap();
        Self { root, socket: None, alone: false }
    }

    /// The guard is its own parent, so that a test may hold it still for as long as it likes.
    pub fn alone() -> Self {
        Self { alone: true, ..Self::new() }
    }

    pub fn path(&self) -> &Path {
        self.root.path()
    }

    pub fn state(&self) -> PathBuf {
        self.path().join("state")
    }

    pub fn file(&self) -> PathBuf {
        self.path().join("plimsoll.toml")
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }

    /// A script that may be executed.
    pub fn script(&self, name: &str, text: &str) -> PathBuf {
        let path = self.write(name, text);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    /// Its whole text, wherever it is in the folder; empty where it is not there yet.
    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path().join(name)).unwrap_or_default()
    }

    pub fn mark(&self) -> String {
        self.path().to_string_lossy().into_owned()
    }

    /// The binary as a user who may do nothing, copied to where everybody may execute it.
    pub fn as_nobody(&self) -> (Command, PathBuf) {
        self.as_user(65_534)
    }

    /// The same as this user; as ourselves where we may not become another.
    pub fn as_user(&self, id: u32) -> (Command, PathBuf) {
        let exe = self.path().join("plimsoll");
        if !exe.exists() {
            fs::copy(EXE, &exe).unwrap();
        }
        if !rustix::process::geteuid().is_root() {
            return (Command::new(&exe), exe);
        }
        let mut command = Command::new("setpriv");
        command
            .args([format!("--reuid={id}"), format!("--regid={id}"), "--clear-groups".to_owned()])
            .arg(&exe);
        (command, exe)
    }

    pub fn start(self, config: &str) -> Guard {
        self.start_by(Command::new(EXE), config)
    }

    /// `command` is plimsoll, or what ends in it.
    pub fn start_by(self, command: Command, config: &str) -> Guard {
        self.write("plimsoll.toml", config);
        let file = self.file();
        self.launch(command, &[file.to_str().unwrap()])
    }

    /// `plimsoll run WHAT…`
    pub fn launch(self, command: Command, what: &[&str]) -> Guard {
        Guard::launch(Arc::new(self), command, what)
    }

    /// `command run WHAT…`, with pipes and marks as a test needs them.
    pub(super) fn spawn(&self, mut command: Command, what: &[&str]) -> Child {
        let complaints = File::options().create(true).append(true).open(self.path().join("stderr")).unwrap();
        forget_developer(&mut command);
        command.args(["run", "--log", "json", "--state"]).arg(self.state());
        if let Some(socket) = &self.socket {
            command.arg("--socket").arg(socket);
        }
        if self.alone {
            command.arg("--alone");
        }
        command.args(what);
        command.env(leftovers::MARK, self.mark()).current_dir(self.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(complaints).process_group(0);
        command.spawn().unwrap()
    }
}
