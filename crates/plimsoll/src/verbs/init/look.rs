//! What lies in a project's folder, and what it says about starting it.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use super::container::{self, Container};
use super::{node, shell};
use crate::config::is_env_file;

/// More of a file is never read.
const READ_MAX: u64 = 256 * 1024;
/// More files of a folder are never looked at.
const ENTRIES_MAX: usize = 1000;
const NAME_MAX: usize = 63;

/// One thing to guard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// A valid service name.
    pub name: String,
    pub command: Vec<String>,
    /// Whether it listens on a port.
    pub listens: bool,
    /// Where it was found and why it was taken, in a few words.
    pub why: String,
}

/// Everything that was found, in the order in which it was looked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// A line each.
    pub notes: Vec<String>,
    pub processes: Vec<Process>,
    /// The path of a health check, and where it was found.
    pub health: Option<(String, String)>,
    /// The port that a Dockerfile names.
    pub port: Option<u16>,
    /// SQLite databases, relative to the folder.
    pub databases: Vec<PathBuf>,
    pub env_file: bool,
}

/// Reads one kind of file: what it found goes into the findings, what it would start is returned.
type Source = fn(&Path, &str, &mut Findings) -> Vec<Process>;

/// Looks at `folder`. The first that says what to start wins: a Procfile, then the language's own file, then the
/// Dockerfile, whose paths are those of the image.
pub(super) fn look(folder: &Path) -> Findings {
    let mut findings = Findings::default();
    let name = project_name(folder);
    let container = read(&folder.join("Dockerfile")).map(|text| container::parse(&text));
    let sources: [Source; 6] = [procfile, node::processes, python, cargo, go, jar];
    for source in sources {
        let found = source(folder, &name, &mut findings);
        if findings.processes.is_empty() {
            findings.processes = found;
        }
    }
    if let Some(container) = container {
        from_container(folder, &name, container, &mut findings);
    }
    health_in_source(folder, &mut findings);
    databases(folder, &mut findings);
    environment(folder, &mut findings);
    findings
}

/// At most [`READ_MAX`] bytes of a regular file, as text.
pub(super) fn read(path: &Path) -> Option<String> {
    if !fs::metadata(path).ok()?.is_file() {
        return None;
    }
    let mut bytes = Vec::new();
    fs::File::open(path).ok()?.take(READ_MAX).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

fn project_name(folder: &Path) -> String {
    let absolute = fs::canonicalize(folder).unwrap_or_else(|_| folder.to_owned());
    let name = absolute.file_name().map(|name| name.to_string_lossy().into_owned());
    service_name(&name.unwrap_or_default()).unwrap_or_else(|| "web".to_owned())
}

/// `@acme/My App` is `my-app`; `None` when nothing usable is left.
pub(super) fn service_name(text: &str) -> Option<String> {
    let text = text.rsplit('/').next()?.to_lowercase();
    let plain = |letter: char| if letter.is_ascii_alphanumeric() { letter } else { '-' };
    let name: String = text.chars().map(plain).collect();
    let name: String = name.trim_matches('-').chars().take(NAME_MAX).collect();
    (!name.is_empty()).then_some(name)
}

/// `web: command`, and every other line a worker.
fn procfile(folder: &Path, project: &str, findings: &mut Findings) -> Vec<Process> {
    let Some(text) = read(&folder.join("Procfile")) else { return Vec::new() };
    let mut processes: Vec<Process> = Vec::new();
    for line in text.lines().filter(|line| !line.trim_start().starts_with('#')) {
        let Some((kind, command)) = line.split_once(':') else { continue };
        let (kind, command) = (kind.trim(), command.trim());
        // A release command runs once and ends; there is nothing to guard.
        if command.is_empty() || kind == "release" {
            continue;
        }
        findings.notes.push(format!("Procfile: {kind} is \"{command}\""));
        let listens = kind == "web";
        let name = if listens { Some(project.to_owned()) } else { service_name(kind) };
        let Some(name) = name.filter(|name| processes.iter().all(|other| other.name != *name)) else {
            continue;
        };
        let why = format!("Procfile, {kind}");
        processes.push(Process { name, command: shell::argv(command), listens, why });
    }
    processes
}

fn python(folder: &Path, project: &str, findings: &mut Findings) -> Vec<Process> {
    let manifest = read(&folder.join("pyproject.toml"));
    if let Some(text) = &manifest {
        let manager = text.parse::<toml::Table>().ok();
        let name = manager.as_ref().and_then(|table| table.get("project")?.get("name")?.as_str());
        findings.notes.push(format!("pyproject.toml: {}", name.unwrap_or("a Python project")));
    }
    let at = |file: &str| folder.join(file).is_file();
    let Some(script) = ["main.py", "app.py", "server.py", "manage.py"].into_iter().find(|file| at(file))
    else {
        return Vec::new();
    };
    findings.notes.push(format!("{script}: a Python program"));
    let tool = |name: &str| {
        let own = format!(".venv/bin/{name}");
        if at(&own) { format!("./{own}") } else { name.to_owned() }
    };
    let uses = |package: &str| manifest.as_ref().is_some_and(|text| text.contains(package));
    let (command, why) = match script {
        "manage.py" => {
            (vec![tool("python3"), script.into(), "runserver".into(), "{port}".into()], "Django's own server")
        }
        _ if uses("uvicorn") => {
            let module = format!("{}:app", script.trim_end_matches(".py"));
            (vec![tool("uvicorn"), module, "--port".into(), "{port}".into()], "it depends on uvicorn")
        }
        _ => (vec![tool("python3"), script.into()], "the usual name of the program"),
    };
    vec![Process { name: project.to_owned(), command, listens: true, why: format!("{script}, {why}") }]
}

fn cargo(folder: &Path, project: &str, findings: &mut Findings) -> Vec<Process> {
    let Some(text) = read(&folder.join("Cargo.toml")) else { return Vec::new() };
    let Ok(manifest) = text.parse::<toml::Table>() else { return Vec::new() };
    let declared = manifest.get("bin").and_then(|bins| bins.get(0)?.get("name")?.as_str());
    let package = manifest.get("package").and_then(|package| package.get("name")?.as_str());
    let has_main = folder.join("src/main.rs").is_file();
    let Some(binary) = declared.or(package.filter(|_| has_main)) else { return Vec::new() };
    findings.notes.push(format!("Cargo.toml: the binary {binary}"));
    let name = service_name(binary).unwrap_or_else(|| project.to_owned());
    let command = vec![format!("./target/release/{binary}")];
    let why = "Cargo.toml; build it with cargo build --release".to_owned();
    vec![Process { name, command, listens: true, why }]
}

fn go(folder: &Path, project: &str, findings: &mut Findings) -> Vec<Process> {
    let Some(text) = read(&folder.join("go.mod")) else { return Vec::new() };
    let module = text.lines().find_map(|line| line.strip_prefix("module "));
    let Some(name) = module.and_then(|module| service_name(module.trim())) else { return Vec::new() };
    findings.notes.push(format!("go.mod: the module {}", module.unwrap_or(project).trim()));
    let command = vec![format!("./{name}")];
    let why = format!("go.mod; build it with go build -o {name} .");
    vec![Process { name, command, listens: true, why }]
}

fn jar(folder: &Path, project: &str, findings: &mut Findings) -> Vec<Process> {
    let runs = |name: &str| {
        let extra = ["-sources.jar", "-javadoc.jar", "-plain.jar", "-tests.jar"];
        Path::new(name).extension().is_some_and(|ending| ending == "jar")
            && !name.starts_with("original-")
            && !extra.iter().any(|end| name.ends_with(end))
    };
    let found = ["", "target", "build/libs"].into_iter().find_map(|below| {
        let name = files(&folder.join(below)).into_iter().find(|name| runs(name))?;
        Some(Path::new(below).join(name))
    });
    let Some(path) = found else { return Vec::new() };
    findings.notes.push(format!("{}: a Java program", path.display()));
    let command = vec!["java".into(), "-jar".into(), path.display().to_string()];
    vec![Process { name: project.to_owned(), command, listens: true, why: format!("{}", path.display()) }]
}

fn from_container(folder: &Path, project: &str, container: Container, findings: &mut Findings) {
    findings.notes.extend(container.notes());
    findings.port = container.port;
    findings.health = container.health.map(|path| (path, "Dockerfile, HEALTHCHECK".to_owned()));
    let Some(program) = container.command.first() else { return };
    let here = !program.contains('/') || folder.join(program).is_file();
    if findings.processes.is_empty() && here {
        let why = "Dockerfile".to_owned();
        let command = container.command;
        findings.processes.push(Process { name: project.to_owned(), command, listens: true, why });
    }
}

/// A quoted "/health" or "/healthz" in a script that the command names.
fn health_in_source(folder: &Path, findings: &mut Findings) {
    if findings.health.is_some() {
        return;
    }
    let Some(web) = findings.processes.iter().find(|process| process.listens) else { return };
    let script = web.command.iter().skip(1).find(|word| folder.join(word).is_file());
    let Some((script, text)) = script.and_then(|script| Some((script, read(&folder.join(script))?))) else {
        return;
    };
    let quoted =
        |path: &&str| ['"', '\'', '`'].iter().any(|mark| text.contains(&format!("{mark}{path}{mark}")));
    let found = ["/healthz", "/health"].into_iter().find(quoted);
    if let Some(path) = found {
        findings.notes.push(format!("{script}: mentions {path}"));
        findings.health = Some((path.to_owned(), format!("{script} mentions it")));
    }
}

fn databases(folder: &Path, findings: &mut Findings) {
    for below in ["", "data", "db"] {
        for name in files(&folder.join(below)) {
            let is_database = [".db", ".sqlite", ".sqlite3"].iter().any(|end| name.ends_with(end));
            if is_database && starts_like_sqlite(&folder.join(below).join(&name)) {
                findings.databases.push(Path::new(below).join(name));
            }
        }
    }
    for database in &findings.databases {
        findings.notes.push(format!("{}: a SQLite database", database.display()));
    }
}

/// An empty file becomes a database at the first write.
fn starts_like_sqlite(path: &Path) -> bool {
    let mut head = Vec::new();
    let read = fs::File::open(path).and_then(|file| file.take(16).read_to_end(&mut head));
    read.is_ok() && (head.is_empty() || head == b"SQLite format 3\0")
}

fn environment(folder: &Path, findings: &mut Findings) {
    let file = folder.join(".env");
    if !file.is_file() {
        return;
    }
    findings.env_file = is_env_file(&file);
    let note =
        if findings.env_file { "variables for the service" } else { "not readable as NAME=value, left out" };
    findings.notes.push(format!(".env: {note}"));
}

/// The names of regular files, sorted, so that the same folder always gives the same answer.
fn files(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let entries = entries.flatten().take(ENTRIES_MAX).filter(|entry| entry.path().is_file());
    let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_name_becomes_a_service_name_or_none() {
        for (text, name) in [
            ("@acme/My App", Some("my-app")),
            ("reports", Some("reports")),
            ("github.com/acme/reports_api", Some("reports-api")),
            ("---", None),
            ("", None),
        ] {
            assert_eq!(service_name(text).as_deref(), name, "{text}");
        }
        assert_eq!(service_name(&"x".repeat(100)).map(|name| name.len()), Some(63));
    }
}
