//! A Dockerfile: what its last stage starts, exposes and checks.

use super::shell;

/// What the last stage says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Container {
    entrypoint: Vec<String>,
    arguments: Vec<String>,
    /// ENTRYPOINT and CMD together.
    pub(super) command: Vec<String>,
    pub(super) port: Option<u16>,
    /// The path that HEALTHCHECK asks for.
    pub(super) health: Option<String>,
}

impl Container {
    pub(super) fn notes(&self) -> Vec<String> {
        let command =
            (!self.command.is_empty()).then(|| format!("Dockerfile: starts \"{}\"", self.command.join(" ")));
        let port = self.port.map(|port| format!("Dockerfile: exposes port {port}"));
        let health = self.health.as_ref().map(|path| format!("Dockerfile: checks {path}"));
        [command, port, health].into_iter().flatten().collect()
    }
}

pub(super) fn parse(text: &str) -> Container {
    let mut container = Container::default();
    for line in instructions(text) {
        let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((&line, ""));
        let rest = rest.trim();
        match word.to_ascii_uppercase().as_str() {
            // A new stage: only the last one runs.
            "FROM" => container = Container::default(),
            "ENTRYPOINT" => container.entrypoint = argv(rest),
            "CMD" => container.arguments = argv(rest),
            "EXPOSE" => container.port = container.port.or_else(|| port(rest)),
            "HEALTHCHECK" => container.health = health(rest),
            _ => {}
        }
    }
    container.command = container.entrypoint.iter().chain(&container.arguments).cloned().collect();
    container
}

/// Lines joined where they end in a backslash, without comments.
fn instructions(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = String::new();
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
        if let Some(part) = line.strip_suffix('\\') {
            open.extend([part, " "]);
        } else {
            open.push_str(line);
            found.push(std::mem::take(&mut open));
        }
    }
    found.push(open);
    found.retain(|line| !line.trim().is_empty());
    found
}

/// The exec form is a JSON list; anything else is for a shell.
fn argv(text: &str) -> Vec<String> {
    match serde_json::from_str::<Vec<String>>(text) {
        Ok(argv) => argv.iter().map(|word| crate::config::placeholders::escaped(word)).collect(),
        Err(_) if text.is_empty() => Vec::new(),
        Err(_) => shell::argv(text),
    }
}

fn port(text: &str) -> Option<u16> {
    let first = text.split_whitespace().next()?;
    first.trim_end_matches("/tcp").parse().ok()
}

/// The path of the first address in `curl -f http://localhost:3000/health || exit 1`.
fn health(text: &str) -> Option<String> {
    let address = text.split("http://").nth(1)?;
    let address = address.split(['"', '\'', ',', ']', '|', ')', ' ']).next()?;
    let path = address.find('/').map(|at| &address[at..])?;
    path.chars().all(|letter| letter.is_ascii_graphic()).then(|| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_stage_counts() {
        let container = parse(
            "FROM node AS build\nCMD [\"npm\", \"test\"]\nFROM node\nEXPOSE 3000/tcp 9000\n\
             HEALTHCHECK --interval=30s \\\n  CMD curl -f http://localhost:3000/health || exit 1\n\
             ENTRYPOINT [\"node\"]\n# comment\ncmd [\"server.js\"]\n",
        );
        assert_eq!(container.command, ["node", "server.js"]);
        assert_eq!((container.port, container.health.as_deref()), (Some(3000), Some("/health")));
    }

    #[test]
    fn the_shell_form_is_split_and_odd_files_say_nothing() {
        assert_eq!(parse("FROM x\nCMD node server.js").command, ["node", "server.js"]);
        assert_eq!(parse("FROM x\nHEALTHCHECK NONE\nEXPOSE $PORT\nCMD\n\\"), Container::default());
        assert_eq!(parse(""), Container::default());
    }
}
