//! The text of the configuration: the lines that count, and beside them the defaults as comments.

use std::fmt::Write as _;

use plimsoll_core::layers::soft_limit::{self, Hints, Runtime};

use super::look::{Findings, Process};

/// A configuration for what was found; it always loads.
pub(super) fn configuration(findings: &Findings) -> String {
    let mut text = String::from(
        "# Written by `plimsoll init`. Lines that are commented out show defaults.\n#\n# Found:\n",
    );
    for note in &findings.notes {
        line(&mut text, &format!("#   {}", comment(note)));
    }
    for process in &findings.processes {
        service(&mut text, process, findings);
    }
    front(&mut text, findings);
    vault(&mut text, findings);
    text
}

/// Without it the file would keep the program up and its users would still see every replacement.
fn front(text: &mut String, findings: &Findings) {
    let mut listening = findings.processes.iter().filter(|process| process.listens);
    let Some(first) = listening.next() else { return };
    line(text, "\n[front]");
    let http = format!("http = \"127.0.0.1:{}\"", findings.port.unwrap_or(8080));
    entry(text, &http, "users, or the proxy before it, ask here; held while an instance is replaced");
    entry(text, "# hold_wait = \"30s\"", "at most; then 503 with Retry-After");
    if findings.processes.len() > 1 {
        line(text, "\n[[front.route]]");
        entry(text, &format!("service = {}", quoted(&first.name)), "what no other route names");
    }
    for other in listening {
        line(text, "\n# [[front.route]]");
        entry(text, "# path = \"/api\"", "or host = \"api.example.org\"");
        line(text, &format!("# service = {}", quoted(&other.name)));
    }
}

fn service(text: &mut String, process: &Process, findings: &Findings) {
    let name = &process.name;
    let command: Vec<String> = process.command.iter().map(|word| quoted(word)).collect();
    line(text, &format!("\n[service.{name}]"));
    entry(text, &format!("command = [{}]", command.join(", ")), &process.why);
    if findings.env_file {
        line(text, "env_file = \".env\"");
    }
    if process.listens {
        let address = format!("# address = \"127.0.0.1:{}\"", findings.port.unwrap_or(3000));
        entry(text, "# port_env = \"PORT\"", "tells the program which port to listen on, on 127.0.0.1");
        entry(text, &address, "instead, for a program that cannot be told");
    } else {
        entry(text, "port_env = false", "a worker: it listens nowhere");
    }
    memory(text, process);
    recovery(text, name, findings);
    health(text, process, findings);
}

fn memory(text: &mut String, process: &Process) {
    line(text, &format!("\n[service.{}.memory]", process.name));
    let argv: Vec<&str> = process.command.iter().map(String::as_str).collect();
    if soft_limit::detect(&argv, Hints::default()).is_some_and(Runtime::aborts) {
        entry(
            text,
            "# soft = \"448MiB\"",
            "V8 aborts at its own limit, so by default it stands just under the wall",
        );
    } else {
        entry(
            text,
            "# soft = \"256MiB\"",
            "the runtime's own limit (JVM, Go, .NET, …), by default half of hard",
        );
    }
    entry(text, "# recycle = \"300MiB\"", "the line: past it for a while, the instance is replaced gently");
    entry(text, "hard = \"512MiB\"", "the wall: the kernel lets nothing past it");
}

fn recovery(text: &mut String, name: &str, findings: &Findings) {
    line(text, &format!("\n[service.{name}.recovery]"));
    match findings.databases.first() {
        Some(database) => {
            let why = format!("never two copies at once: {} has one writer", database.display());
            entry(text, "handover = \"hold\"", &why);
        }
        None => entry(text, "# handover = \"hold\"", "hold | overlap | standby"),
    }
    entry(text, "# drain = \"30s\"", "requests in flight get this long to finish");
    entry(text, "# stop_grace = \"10s\"", "from the stop signal to SIGKILL");
}

fn health(text: &mut String, process: &Process, findings: &Findings) {
    line(text, &format!("\n[service.{}.health]", process.name));
    match (&findings.health, process.listens) {
        (Some((path, why)), true) => entry(text, &format!("http = {}", quoted(path)), why),
        (None, true) => {
            entry(text, "# http = \"/health\"", "better, if the program has such a path");
            entry(text, "tcp = true", "well as long as it accepts connections");
        }
        (_, false) => {
            entry(text, "tcp = false", "no check; better: command = [\"./check\"], well when it exits 0");
        }
    }
    line(text, "# interval = \"30s\"");
    entry(text, "# start_period = \"40s\"", "failures while it boots do not count");
}

/// Where they go is the user's to say, so they are only shown.
fn vault(text: &mut String, findings: &Findings) {
    for database in &findings.databases {
        let database = quoted(&database.display().to_string());
        line(
            text,
            "\n# Backups that are restored and compared before they count; take the # away to have them:",
        );
        line(text, "# [[vault]]");
        line(text, &format!("# database = {}", comment(&database)));
        line(text, "# to = \"file:///var/backups\"");
    }
}

/// A setting, and beside it what it is for.
fn entry(text: &mut String, setting: &str, why: &str) {
    line(text, &format!("{setting:<32} # {}", comment(why)));
}

fn line(text: &mut String, line: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{line}");
}

/// A basic TOML string, on one line whatever is in it.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for letter in text.chars() {
        match letter {
            '"' | '\\' => quoted.extend(['\\', letter]),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            control if control.is_control() => {
                let _ = write!(quoted, "\\u{:04X}", u32::from(control));
            }
            plain => quoted.push(plain),
        }
    }
    quoted.push('"');
    quoted
}

/// What other files say must stay inside its comment.
fn comment(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use proptest::prelude::*;
    use std::path::Path;

    proptest! {
        #[test]
        fn whatever_was_found_the_file_loads(
            note in "(?s).{0,40}", word in "[^\0{]{1,20}", path in "/[a-z]{0,8}", listens: bool, health: bool, database in ".{1,20}"
        ) {
            let why = note.clone();
            let process = Process { name: "x".into(), command: vec!["sh".into(), word.clone()], listens, why };
            let findings = Findings {
                notes: vec![note.clone()],
                processes: vec![process],
                health: health.then_some((path, note)),
                port: None,
                databases: vec![database.into()],
                env_file: false,
            };
            let text = configuration(&findings);
            let loaded = Config::parse(Path::new("plimsoll.toml"), text.clone(), None);
            let (config, warnings) = loaded.map_err(|errors| TestCaseError::fail(format!("{errors}\n{text}")))?;
            prop_assert_eq!(&config.services[0].command[1], &word);
            prop_assert!(warnings.is_empty());
        }
    }
}
