//! `package.json` and `deno.json`.

use std::path::Path;

use serde_json::Value;

use super::look::{Findings, Process, read, service_name};
use super::shell;

const SCRIPTS: [&str; 6] = ["server.js", "index.js", "app.js", "server.mjs", "index.mjs", "dist/main.js"];

pub(super) fn processes(folder: &Path, project: &str, findings: &mut Findings) -> Vec<Process> {
    let parse =
        |file: &str| read(&folder.join(file)).and_then(|text| serde_json::from_str::<Value>(&text).ok());
    let package = parse("package.json").and_then(|package| of_package(folder, project, &package, findings));
    let deno = || parse("deno.json").and_then(|deno| of_deno(project, &deno, findings));
    package.or_else(deno).or_else(|| of_script(folder, project, findings)).into_iter().collect()
}

/// A script by its usual name, without any manifest.
fn of_script(folder: &Path, project: &str, findings: &mut Findings) -> Option<Process> {
    if folder.join("package.json").is_file() {
        return None;
    }
    let script = SCRIPTS.into_iter().find(|script| folder.join(script).is_file())?;
    findings.notes.push(format!("{script}: a Node program"));
    let command = vec!["node".to_owned(), script.to_owned()];
    Some(Process {
        name: project.to_owned(),
        command,
        listens: true,
        why: format!("{script}, the usual name"),
    })
}

fn of_package(folder: &Path, project: &str, package: &Value, findings: &mut Findings) -> Option<Process> {
    let text = |key: &str| package.get(key).and_then(Value::as_str);
    let start = package.pointer("/scripts/start").and_then(Value::as_str);
    if let Some(engine) = package.pointer("/engines/node").and_then(Value::as_str) {
        findings.notes.push(format!("package.json: wants node {engine}"));
    }
    let named = text("main").filter(|main| folder.join(main).is_file());
    let main = named.or_else(|| SCRIPTS.into_iter().find(|script| folder.join(script).is_file()));
    let (command, why) = match (start, main) {
        (Some(start), _) => {
            findings.notes.push(format!("package.json: scripts.start is \"{start}\""));
            by_start(folder, start)
        }
        (None, Some(main)) => {
            findings.notes.push(format!("package.json: no scripts.start, and {main} is there"));
            (vec!["node".to_owned(), main.to_owned()], format!("package.json, {main}"))
        }
        (None, None) => {
            findings.notes.push("package.json: says nothing about starting".to_owned());
            return None;
        }
    };
    let name = text("name").and_then(service_name).unwrap_or_else(|| project.to_owned());
    Some(Process { name, command, listens: true, why })
}

/// `node …` is started directly: a package manager in between costs memory and keeps signals from it.
fn by_start(folder: &Path, start: &str) -> (Vec<String>, String) {
    match shell::plain(start) {
        Some(argv) if matches!(argv[0].as_str(), "node" | "nodejs" | "bun" | "deno") => {
            (argv, "package.json, scripts.start, without npm in between".to_owned())
        }
        Some(_) | None => {
            let manager = manager(folder);
            (vec![manager.to_owned(), "start".to_owned()], "package.json, scripts.start".to_owned())
        }
    }
}

/// By the lock file.
fn manager(folder: &Path) -> &'static str {
    const LOCKS: [(&str, &str); 4] =
        [("pnpm-lock.yaml", "pnpm"), ("yarn.lock", "yarn"), ("bun.lock", "bun"), ("bun.lockb", "bun")];
    let found = LOCKS.into_iter().find(|(lock, _)| folder.join(lock).is_file());
    found.map_or("npm", |(_, manager)| manager)
}

fn of_deno(project: &str, deno: &Value, findings: &mut Findings) -> Option<Process> {
    deno.pointer("/tasks/start")?;
    findings.notes.push("deno.json: has the task start".to_owned());
    let command = ["deno", "task", "start"].map(str::to_owned).to_vec();
    Some(Process {
        name: project.to_owned(),
        command,
        listens: true,
        why: "deno.json, tasks.start".to_owned(),
    })
}
