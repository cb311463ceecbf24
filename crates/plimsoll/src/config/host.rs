//! What a configuration names on this machine: programs, users, variables. Looked at by `check` and before `run`.

use std::ffi::OsString;
use std::fs;
use std::io::Read as _;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use plimsoll_core::layers::soft_limit::{self, Hints, Runtime};
use toml::Spanned;

use super::finding::Log;
use super::model::{RuntimeChoice, Service};
use super::suggest::nearest;

/// Where a program is looked for when nobody says (as execvp does).
const PATH_DEFAULT: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

const ELF: &[u8] = b"\x7fELF";
/// The kernel reads no more of a script's first line.
const FIRST_LINE_MAX: u64 = 256;
/// The notes of a binary stand before this.
const NOTES_MAX: u64 = 32 * 1024;

type Variables = dyn Fn(&str) -> Option<OsString>;

/// The machine as it is asked; its files come in as parameters so that tests can bring their own.
pub struct Host {
    environment: Box<Variables>,
    is_root: bool,
    passwd: PathBuf,
    group: PathBuf,
    /// What was found once is not looked for again.
    trusted: bool,
}

impl std::fmt::Debug for Host {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Host").field("is_root", &self.is_root).finish_non_exhaustive()
    }
}

impl Host {
    /// This machine.
    pub fn this() -> Self {
        Self {
            environment: Box::new(|name| std::env::var_os(name)),
            is_root: rustix::process::geteuid().is_root(),
            passwd: "/etc/passwd".into(),
            group: "/etc/group".into(),
            trusted: false,
        }
    }

    /// This machine, for a configuration that was right when its services were started: a program or a folder that has
    /// vanished since is met when it is needed, and is no reason not to guard the rest.
    pub fn as_before() -> Self {
        Self { trusted: true, ..Self::this() }
    }

    pub(super) const fn is_trusted(&self) -> bool {
        self.trusted
    }

    /// A machine made up by a test: its variables, and its account files in `etc`.
    pub fn made_up(
        environment: impl Fn(&str) -> Option<OsString> + 'static,
        is_root: bool,
        etc: &Path,
    ) -> Self {
        Self {
            environment: Box::new(environment),
            is_root,
            passwd: etc.join("passwd"),
            group: etc.join("group"),
            trusted: false,
        }
    }

    pub(super) fn variable(&self, name: &str) -> Option<OsString> {
        (self.environment)(name)
    }
}

/// Why a program cannot be started.
#[derive(Debug, PartialEq, Eq)]
enum Unstartable {
    NotFound,
    NotInPath,
    Folder(PathBuf),
    NotExecutable(PathBuf),
    /// Executable, and neither a binary nor a script with a first line.
    NoFirstLine(PathBuf),
    /// A script whose interpreter is missing.
    NoInterpreter(PathBuf, String),
}

pub(super) fn check_command(log: &Log, host: &Host, span: Range<usize>, argv: &[String], service: &Service) {
    let Some(program) = argv.first().filter(|program| !program.is_empty()) else { return };
    if host.trusted {
        return;
    }
    let own = service.environment.get("PATH").map(OsString::from);
    let path = own.or_else(|| host.variable("PATH")).unwrap_or_else(|| PATH_DEFAULT.into());
    let Err(reason) = find_program(program, &service.cwd, &path) else { return };
    let (message, hint) = explain(program, &reason, &service.cwd);
    log.error(span, message, &hint);
}

fn explain(program: &str, reason: &Unstartable, cwd: &Path) -> (String, String) {
    match reason {
        Unstartable::NotFound => (
            format!("the program {program} does not exist in {}", cwd.display()),
            "a program with a slash is looked for relative to cwd".to_owned(),
        ),
        Unstartable::NotInPath => {
            let here = cwd.join(program).is_file();
            let hint = if here {
                format!("it is in cwd: write \"./{program}\"")
            } else {
                "install it, or write its whole path; the service's own PATH counts".to_owned()
            };
            (format!("the program {program} is not in PATH"), hint)
        }
        Unstartable::Folder(path) => {
            (format!("{} is a folder", path.display()), "name the program in it".to_owned())
        }
        Unstartable::NotExecutable(path) => {
            (format!("{} is not executable", path.display()), format!("run: chmod +x {}", path.display()))
        }
        Unstartable::NoFirstLine(path) => (
            format!("{} is neither a binary nor a script that names its interpreter", path.display()),
            format!("begin it with #!/bin/sh, or write [\"sh\", \"{program}\"]"),
        ),
        Unstartable::NoInterpreter(path, interpreter) => (
            format!("{} asks for {interpreter}, which does not exist", path.display()),
            format!("install {interpreter}, or correct the script's first line (also its line end)"),
        ),
    }
}

/// The file that would be started, looked up as `execvpe` does in `cwd`.
fn find_program(program: &str, cwd: &Path, path: &OsString) -> Result<PathBuf, Unstartable> {
    if program.contains('/') {
        let file: PathBuf = cwd.join(program).components().collect();
        return startable(&file).map(|()| file);
    }
    let mut refused = None;
    for folder in std::env::split_paths(path) {
        let file = cwd.join(folder).join(program);
        match startable(&file) {
            Ok(()) => return Ok(file),
            Err(Unstartable::NotFound | Unstartable::Folder(_)) => {}
            Err(reason) => refused = refused.or(Some(reason)),
        }
    }
    Err(refused.unwrap_or(Unstartable::NotInPath))
}

fn startable(file: &Path) -> Result<(), Unstartable> {
    let Ok(metadata) = fs::metadata(file) else { return Err(Unstartable::NotFound) };
    if metadata.is_dir() {
        return Err(Unstartable::Folder(file.to_owned()));
    }
    if metadata.permissions().mode() & 0o111 == 0 {
        return Err(Unstartable::NotExecutable(file.to_owned()));
    }
    let Some(head) = head(file, FIRST_LINE_MAX) else { return Ok(()) };
    if head.starts_with(ELF) {
        return Ok(());
    }
    let Some(line) = first_line(&head) else { return no_first_line(file, &head) };
    let interpreter = line.split_ascii_whitespace().next().unwrap_or_default();
    if Path::new(interpreter).is_file() {
        return Ok(());
    }
    Err(Unstartable::NoInterpreter(file.to_owned(), interpreter.to_owned()))
}

/// Other formats may be known to the kernel (binfmt_misc); only plain text certainly is not.
fn no_first_line(file: &Path, head: &[u8]) -> Result<(), Unstartable> {
    let text = !head.is_empty() && !head.contains(&0) && std::str::from_utf8(head).is_ok();
    if text { Err(Unstartable::NoFirstLine(file.to_owned())) } else { Ok(()) }
}

/// The first bytes; `None` where the file may be started and not read.
fn head(file: &Path, length: u64) -> Option<Vec<u8>> {
    let mut head = Vec::new();
    fs::File::open(file).ok()?.take(length).read_to_end(&mut head).ok()?;
    Some(head)
}

/// What follows `#!`, up to the line's end.
fn first_line(head: &[u8]) -> Option<&str> {
    let line = head.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    std::str::from_utf8(line).ok()
}

/// Whose soft limit `service` gets: what the user says, or what its command and its program's file tell; `None` when
/// it gets none.
pub fn runtime(service: &Service) -> Option<Runtime> {
    match service.runtime {
        RuntimeChoice::Off => None,
        RuntimeChoice::Fixed(runtime) => Some(runtime),
        RuntimeChoice::Auto => {
            let argv: Vec<&str> = service.command.iter().map(String::as_str).collect();
            let head = program_head(service).unwrap_or_default();
            let hints = Hints { first_line: first_line(&head), is_go: has_go_note(&head) };
            Some(soft_limit::detect(&argv, hints).unwrap_or(Runtime::Native))
        }
    }
}

fn program_head(service: &Service) -> Option<Vec<u8>> {
    let program = service.command.first()?;
    let own = service.environment.get("PATH").map(OsString::from);
    let path = own.or_else(|| std::env::var_os("PATH")).unwrap_or_else(|| PATH_DEFAULT.into());
    let file = find_program(program, &service.cwd, &path).ok()?;
    head(&file, NOTES_MAX)
}

/// Go's linker leaves an ELF note with the name `Go` near the front of every binary.
fn has_go_note(head: &[u8]) -> bool {
    const NAME_LENGTH: [u8; 4] = [4, 0, 0, 0];
    const KIND_AND_NAME: [u8; 8] = [4, 0, 0, 0, b'G', b'o', 0, 0];
    // Length of the name, length of the content (any), kind, name.
    let is_note = |note: &[u8]| note.starts_with(&NAME_LENGTH) && note.ends_with(&KIND_AND_NAME);
    head.starts_with(ELF) && head.windows(16).step_by(4).any(is_note)
}

pub(super) fn check_account(
    log: &Log,
    host: &Host,
    user: Option<&Spanned<String>>,
    group: Option<&Spanned<String>>,
) {
    let accounts = [("user", user, &host.passwd), ("group", group, &host.group)];
    for (kind, name, file) in accounts {
        let Some(name) = name else { continue };
        if !host.is_root {
            let hint = format!("run plimsoll as root, or remove {kind} to run the service as yourself");
            log.error(name.span(), format!("only root can switch to another {kind}"), &hint);
        }
        check_known(log, kind, name, file);
    }
}

/// Names have to be in the file; numbers need not be.
fn check_known(log: &Log, kind: &str, name: &Spanned<String>, file: &Path) {
    let written = name.get_ref();
    if written.parse::<u32>().is_ok() {
        return;
    }
    // A static binary reads the files alone, never a directory service.
    let known = fs::read(file).unwrap_or_default();
    let known = names(&known);
    if known.iter().any(|known| known == written) {
        return;
    }
    let near = nearest(written, known.iter().map(String::as_str));
    let hint = near.map_or_else(
        || format!("write a {kind} from {}, or its number", file.display()),
        |near| format!("did you mean \"{near}\"?"),
    );
    log.error(name.span(), format!("there is no {kind} \"{written}\""), &hint);
}

/// The first field of each line.
fn names(accounts: &[u8]) -> Vec<String> {
    let name = |line: &[u8]| {
        let field = line.split(|byte| *byte == b':').next().unwrap_or_default();
        std::ffi::OsStr::from_bytes(field).to_string_lossy().into_owned()
    };
    accounts.split(|byte| *byte == b'\n').map(name).filter(|name| !name.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_go_binary_is_known_by_its_note() {
        let mut head = ELF.to_vec();
        head.resize(0xf9c, 0);
        assert!(!has_go_note(&head));
        head.extend([4, 0, 0, 0, 83, 0, 0, 0, 4, 0, 0, 0, b'G', b'o', 0, 0]);
        assert!(has_go_note(&head));
        assert!(!has_go_note(&head[1..]));
    }

    #[test]
    fn a_first_line_ends_at_its_line_end() {
        assert_eq!(first_line(b"#!/usr/bin/env node\nx"), Some("/usr/bin/env node"));
        assert_eq!(first_line(b"echo"), None);
    }
}
