//! The test binaries that go into the machine: static, found by their names.

use std::path::PathBuf;

use serde::Deserialize;

use crate::error::{Error, Result};
use crate::shell;
use crate::workspace::{MUSL, Workspace};

/// Packages whose suites may need a kernel of their own.
const PACKAGES: [&str; 3] = ["plimsoll-kernel", "plimsoll-guard", "plimsoll"];

/// Test files whose names begin so need cgroup v2, those of the last kind systemd as PID 1 as well.
const PREFIXES: [&str; 3] = ["cgroup_v2", "v2_", SYSTEMD];
const SYSTEMD: &str = "systemd_pid1";

const BINARY: &str = "plimsoll";
const WITHOUT_BINARY: &str = "plimsoll-kernel.";

#[derive(Debug)]
pub(super) struct Suites {
    pub(super) tests: Vec<Executable>,
    /// Only where a suite may call it; the one of `kernel` knows nothing of it, and runs while it does not build.
    pub(super) plimsoll: Option<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Executable {
    /// `plimsoll-kernel.cgroup_v2`: two packages may have files of one name.
    pub(super) name: String,
    pub(super) path: PathBuf,
}

impl Executable {
    pub(super) fn wants_systemd(&self) -> bool {
        self.name.split('.').any(|part| part.starts_with(SYSTEMD))
    }
}

impl Suites {
    pub(super) fn names(&self) -> Vec<&str> {
        self.tests.iter().map(|suite| suite.name.as_str()).collect()
    }
}

/// Does the test file of this name run in the machine, and nowhere else?
pub(crate) fn is_for_the_vm(test: &str) -> bool {
    PREFIXES.iter().any(|prefix| test.starts_with(prefix))
}

pub(super) fn build(workspace: &Workspace) -> Result<Suites> {
    let mut tests = Vec::new();
    for package in PACKAGES.iter().filter_map(|name| workspace.package(name)) {
        let targets =
            package.targets.iter().filter(|target| target.kind == ["test"] && is_for_the_vm(&target.name));
        let names: Vec<&str> = targets.map(|target| target.name.as_str()).collect();
        if !names.is_empty() {
            tests.extend(build_tests(workspace, &package.name, &names)?);
        }
    }
    if tests.is_empty() {
        let wanted = PREFIXES.map(|prefix| format!("tests/{prefix}*.rs")).join(" or ");
        return Err(Error::Check(format!("no package has a suite for the VM ({wanted})")));
    }
    let calls_it = |suite: &Executable| !suite.name.starts_with(WITHOUT_BINARY);
    let plimsoll = if tests.iter().any(calls_it) { Some(build_plimsoll(workspace)?) } else { None };
    Ok(Suites { tests, plimsoll })
}

/// The static binary as tests call it.
pub(crate) fn build_plimsoll(workspace: &Workspace) -> Result<PathBuf> {
    let built = executables(workspace, &["build", "--bin", BINARY], BINARY)?.into_iter().next();
    let built = built.ok_or_else(|| Error::Check(format!("cargo built no {BINARY}")))?;
    Ok(built.path)
}

fn build_tests(workspace: &Workspace, package: &str, names: &[&str]) -> Result<Vec<Executable>> {
    let mut args = vec!["test", "--no-run"];
    for name in names {
        args.extend(["--test", name]);
    }
    let mut built = executables(workspace, &args, package)?;
    // A package's own binaries are built along, for its tests to call.
    built.retain(|executable| names.iter().any(|name| executable.name == format!("{package}.{name}")));
    Ok(built)
}

fn executables(workspace: &Workspace, args: &[&str], package: &str) -> Result<Vec<Executable>> {
    let mut command = workspace.cargo(args);
    command.args(["--package", package, "--target", MUSL, "--message-format", "json-render-diagnostics"]);
    command.env("CC_x86_64_unknown_linux_musl", "musl-gcc");
    println!("$ {}", shell::show(&command));
    let output = shell::output(&mut command)?;
    Ok(output.lines().filter_map(|line| executable(line, package)).collect())
}

/// One line of cargo's output that tells of an executable.
#[derive(Deserialize)]
struct Artifact {
    target: ArtifactTarget,
    executable: Option<PathBuf>,
}

#[derive(Deserialize)]
struct ArtifactTarget {
    name: String,
}

fn executable(line: &str, package: &str) -> Option<Executable> {
    let artifact: Artifact = serde_json::from_str(line).ok()?;
    Some(Executable { name: format!("{package}.{}", artifact.target.name), path: artifact.executable? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_executable_is_read_from_cargos_messages_and_a_library_is_not() {
        let test =
            r#"{"reason":"compiler-artifact","target":{"name":"cgroup_v2"},"executable":"/t/cgroup_v2-1"}"#;
        let expected = Executable { name: "plimsoll-kernel.cgroup_v2".into(), path: "/t/cgroup_v2-1".into() };
        assert_eq!(executable(test, "plimsoll-kernel"), Some(expected));
        assert_eq!(executable(r#"{"target":{"name":"libc"},"executable":null}"#, "a"), None);
        assert_eq!(executable(r#"{"reason":"build-finished","success":true}"#, "a"), None);
    }

    #[test]
    fn suites_for_the_vm_are_known_by_their_names() {
        assert!(is_for_the_vm("cgroup_v2") && is_for_the_vm("cgroup_v2_psi") && is_for_the_vm("v2_guard"));
        assert!(!is_for_the_vm("cgroup_v1") && !is_for_the_vm("spawn_v2") && !is_for_the_vm("systemd"));
        let suite = |name: &str| Executable { name: name.into(), path: PathBuf::new() };
        assert!(
            suite("plimsoll.systemd_pid1").wants_systemd() && !suite("plimsoll.v2_guard").wants_systemd()
        );
    }
}
