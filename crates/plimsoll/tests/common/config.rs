//! Configurations: short, and quick where the defaults are made for production.

use std::path::Path;

use super::EXE;

/// The sample service with checks and grace that suit a test. `top` goes into `[service.reports]` itself, `tables` below it.
pub fn sample(top: &str, tables: &str) -> String {
    let health = if tables.contains("[service.reports.health]") { "" } else { QUICK_HEALTH };
    let recovery = if tables.contains("[service.reports.recovery]") { "" } else { QUICK_RECOVERY };
    format!(
        "[service.reports]\ncommand = [\"{EXE}\", \"sample-service\"]\nenv = {{ DATABASE = \"reports.db\" }}\n\
         {top}\n{health}{recovery}{tables}\n"
    )
}

const QUICK_HEALTH: &str = "[service.reports.health]\nhttp = \"/health\"\ninterval = \"500ms\"\ntimeout = \"500ms\"\n\
                            retries = 3\nstart_period = \"15s\"\n";
const QUICK_RECOVERY: &str = "[service.reports.recovery]\ndrain = \"1s\"\nstop_grace = \"2s\"\n";

/// A worker: any command, no port, nothing asked.
pub fn worker(name: &str, command: &[&str], rest: &str) -> String {
    let command: Vec<String> = command.iter().map(|word| format!("{word:?}")).collect();
    let health = format!("[service.{name}.health]\ntcp = false\n");
    let health = if rest.contains(&format!("[service.{name}.health]")) { String::new() } else { health };
    format!("[service.{name}]\ncommand = [{}]\nport_env = false\n{rest}\n{health}", command.join(", "))
}

/// An example's folder, copied so that what it writes stays out of the repository.
pub fn example(name: &str, into: &Path) -> String {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples").join(name);
    for entry in std::fs::read_dir(&from).unwrap().flatten().filter(|it| it.path().is_file()) {
        std::fs::copy(entry.path(), into.join(entry.file_name())).unwrap();
    }
    std::fs::read_to_string(from.join("plimsoll.toml")).unwrap()
}
