//! Running test binaries by nextest, or by plain `cargo test` where nextest is missing, and counting what they ran.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::shell;
use crate::tally::Tally;
use crate::vm;
use crate::workspace::{Package, Workspace};

/// Selects all packages.
pub(super) const WHOLE: &str = "--workspace";

/// What one test binary ran.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Suite {
    /// `None` when the runner did not say.
    package: Option<String>,
    /// A test file's name, or the package's for the tests inside of it.
    name: String,
    pub(super) tally: Tally,
}

/// Which tests, and with what in their environment.
#[derive(Debug)]
pub(super) struct Selection<'a> {
    /// Arguments that nextest and `cargo test` both know.
    pub(super) args: &'a [&'a str],
    pub(super) env: &'a [(&'a str, &'a str)],
}

pub(super) fn run(
    workspace: &Workspace,
    selection: &Selection<'_>,
    limit: Duration,
    tally: &mut Tally,
) -> Result<Vec<Suite>> {
    let env = selection.env.iter().copied();
    if shell::succeeds(&mut workspace.cargo(&["nextest", "--version"])) {
        let mut command = workspace.cargo(&["nextest", "run", "--profile", "ci"]);
        command.args(selection.args).args(not_for_the_vm(workspace, selection)).envs(env);
        return run_nextest(workspace, &mut command, limit, tally);
    }
    let mut command = workspace.cargo(&["test", "--no-fail-fast"]);
    // Without nextest's groups, the suites that share the kernel's state go one by one, and so do all others.
    command.args(selection.args).args(targets(workspace, selection)).envs(env).env("RUST_TEST_THREADS", "1");
    run_libtest(&mut command, limit, tally)
}

/// Leaves the suites for the VM out, where they would pass without having tried anything. nextest refuses a filter for
/// a file that is not there, so each is named.
fn not_for_the_vm(workspace: &Workspace, selection: &Selection<'_>) -> Vec<String> {
    let (for_the_vm, _) = test_files(workspace);
    if for_the_vm.is_empty() || !selection.args.contains(&WHOLE) {
        return Vec::new();
    }
    let names: Vec<String> = for_the_vm.iter().map(|name| format!("binary(={name})")).collect();
    vec!["--filterset".to_owned(), format!("not ({})", names.join(" or "))]
}

/// The same for `cargo test`, which can only be told what to run.
fn targets(workspace: &Workspace, selection: &Selection<'_>) -> Vec<String> {
    let (for_the_vm, others) = test_files(workspace);
    if for_the_vm.is_empty() || !selection.args.contains(&WHOLE) {
        return vec!["--tests".to_owned()];
    }
    let files = others.into_iter().flat_map(|name| ["--test", name]);
    ["--lib", "--bins"].into_iter().chain(files).map(str::to_owned).collect()
}

/// The names of the test files of all packages: those for the VM, and the others.
fn test_files(workspace: &Workspace) -> (BTreeSet<&str>, BTreeSet<&str>) {
    let targets = workspace.packages.iter().flat_map(|package| &package.targets);
    let files = targets.filter(|target| target.kind == ["test"]).map(|target| target.name.as_str());
    files.partition(|name| vm::is_for_the_vm(name))
}

fn run_nextest(
    workspace: &Workspace,
    command: &mut Command,
    limit: Duration,
    tally: &mut Tally,
) -> Result<Vec<Suite>> {
    // Below the root and not in cargo's target folder, wherever that may be.
    let report = workspace.root.join("target/nextest/ci/junit.xml");
    if report.exists() {
        // One of an earlier run would be read for ours if this one never got so far.
        fs::remove_file(&report).map_err(Error::file("remove", &report))?;
    }
    let end = shell::run(command, limit);
    let suites = fs::read_to_string(&report).map(|text| junit(&text)).unwrap_or_default();
    count(&suites, tally);
    end.map(|()| suites)
}

/// Runs a `cargo test` and reads its output.
fn run_libtest(command: &mut Command, limit: Duration, tally: &mut Tally) -> Result<Vec<Suite>> {
    let mut suites = Vec::new();
    let end = shell::run_reading(command, limit, &mut |line| read_libtest(line, &mut suites));
    count(&suites, tally);
    end.map(|()| suites)
}

fn count(suites: &[Suite], tally: &mut Tally) {
    for suite in suites {
        *tally += suite.tally;
    }
}

/// Fails unless every package ran a test, and every test file, but those for the VM.
pub(super) fn all_ran(suites: &[Suite], packages: &[Package]) -> Result<()> {
    let idle: Vec<String> = packages.iter().flat_map(|package| idle(suites, package)).collect();
    if idle.is_empty() {
        return Ok(());
    }
    Err(Error::Check(format!("these ran nothing: {}", idle.join(", "))))
}

fn idle(suites: &[Suite], package: &Package) -> Vec<String> {
    let of_package = |suite: &&Suite| suite.package.as_ref().is_none_or(|name| *name == package.name);
    let ran = |target: &str| {
        let target = target.replace('-', "_");
        suites
            .iter()
            .filter(of_package)
            .any(|suite| suite.name.replace('-', "_") == target && suite.tally.ran() > 0)
    };
    let any = package.targets.iter().any(|target| ran(&target.name));
    let files =
        package.targets.iter().filter(|target| target.kind == ["test"] && !vm::is_for_the_vm(&target.name));
    let idle_files = files.filter(|target| !ran(&target.name));
    let mut idle: Vec<String> =
        idle_files.map(|target| format!("{}::{}", package.name, target.name)).collect();
    if !any && idle.is_empty() {
        idle.push(package.name.clone());
    }
    idle
}

/// The suites in nextest's report, in JUnit's format: an element `testsuite` for each binary that ran a test.
fn junit(text: &str) -> Vec<Suite> {
    text.split("<testsuite ").skip(1).filter_map(|rest| junit_suite(rest.split('>').next()?)).collect()
}

fn junit_suite(attributes: &str) -> Option<Suite> {
    let number = |name| attribute(attributes, name)?.parse::<u64>().ok();
    let failed = number("failures")? + number("errors")?;
    let tally = Tally { passed: number("tests")?.checked_sub(failed)?, failed };
    // `package::file`, `package::bin/name`, or `package` alone.
    let id = attribute(attributes, "name")?;
    let (package, target) = id.split_once("::").unwrap_or((id, id));
    let name = target.rsplit('/').next().unwrap_or(target);
    Some(Suite { package: Some(package.to_owned()), name: name.to_owned(), tally })
}

fn attribute<'a>(attributes: &'a str, name: &str) -> Option<&'a str> {
    let begin = attributes.find(&format!("{name}=\""))? + name.len() + 2;
    attributes[begin..].split('"').next()
}

/// `Running …` begins a suite, `test result: …` tells of it. A binary that dies has no result: one failure.
fn read_libtest(line: &str, suites: &mut Vec<Suite>) {
    let line = line.trim();
    if let Some(name) = begun(line) {
        suites.push(Suite { package: None, name, tally: Tally { passed: 0, failed: 0 } });
    } else if let (Some(result), Some(suite)) = (line.strip_prefix("test result: "), suites.last_mut()) {
        suite.tally = Tally { passed: before(result, " passed"), failed: before(result, " failed") };
    } else if let (Some(_), Some(suite)) =
        (line.strip_prefix("process didn't exit successfully"), suites.last_mut())
    {
        suite.tally.failed = suite.tally.failed.max(1);
    }
}

/// The name of a suite that begins: of the binary without its hash, or of the documented package.
fn begun(line: &str) -> Option<String> {
    if let Some(package) = line.strip_prefix("Doc-tests ") {
        return Some(package.to_owned());
    }
    let (_, path) = line.strip_prefix("Running ")?.rsplit_once('(')?;
    let file = path.trim_end_matches(')').rsplit('/').next()?;
    file.rsplit_once('-').map(|(name, _hash)| name.to_owned())
}

/// The number before a word: 3 in `ok. 3 passed; 0 failed`.
fn before(text: &str, word: &str) -> u64 {
    let number = text.split(word).next().and_then(|text| text.split_whitespace().next_back());
    number.and_then(|number| number.parse().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::Target;

    fn package(name: &str, tests: &[&str]) -> Package {
        let target = |kind: &str, name: &str| Target { name: name.to_owned(), kind: vec![kind.to_owned()] };
        let tests = tests.iter().map(|name| target("test", name));
        Package {
            name: name.to_owned(),
            version: "0.1.0".to_owned(),
            license: None,
            source: None,
            manifest_path: "/x/Cargo.toml".into(),
            dependencies: Vec::new(),
            targets: tests.chain([target("lib", &name.replace('-', "_"))]).collect(),
        }
    }

    fn suite(package: Option<&str>, name: &str, passed: u64, failed: u64) -> Suite {
        Suite { package: package.map(str::to_owned), name: name.to_owned(), tally: Tally { passed, failed } }
    }

    const JUNIT: &str = r#"<testsuites name="nextest-run" tests="9" failures="1" errors="0">
        <testsuite name="plimsoll-core" tests="4" disabled="0" errors="0" failures="1"><testcase name="a"/></testsuite>
        <testsuite name="plimsoll-kernel::cgroup_v1" tests="3" disabled="0" errors="0" failures="0"></testsuite>
        <testsuite name="xtask::bin/xtask" tests="2" disabled="0" errors="0" failures="0"></testsuite></testsuites>"#;

    #[test]
    fn nextests_report_is_counted() {
        let expected = [
            suite(Some("plimsoll-core"), "plimsoll-core", 3, 1),
            suite(Some("plimsoll-kernel"), "cgroup_v1", 3, 0),
            suite(Some("xtask"), "xtask", 2, 0),
        ];
        assert_eq!(junit(JUNIT), expected);
    }

    #[test]
    fn the_output_of_cargo_test_is_counted() {
        let output = "     Running unittests src/lib.rs (target/debug/deps/plimsoll_core-0a1b)\n\
            test result: FAILED. 3 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n\
            Running tests/cgroup_v1.rs (target/debug/deps/cgroup_v1-2c3d)\n\
            process didn't exit successfully: `cgroup_v1-2c3d` (signal: 9, SIGKILL: kill)\n   Doc-tests plimsoll_core\n\
            test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s";
        let mut suites = Vec::new();
        output.lines().for_each(|line| read_libtest(line, &mut suites));
        let expected = [
            suite(None, "plimsoll_core", 3, 1),
            suite(None, "cgroup_v1", 0, 1),
            suite(None, "plimsoll_core", 2, 0),
        ];
        assert_eq!(suites, expected);
    }

    #[test]
    fn a_package_or_a_test_file_that_ran_nothing_is_named() {
        let packages =
            [package("plimsoll-core", &[]), package("plimsoll-kernel", &["cgroup_v1", "cgroup_v2"])];
        assert!(all_ran(&junit(JUNIT), &packages).is_ok());
        let core_only = [suite(None, "plimsoll_core", 3, 0), suite(None, "cgroup_v1", 0, 0)];
        let error = all_ran(&core_only, &packages).unwrap_err().to_string();
        assert_eq!(error, "these ran nothing: plimsoll-kernel::cgroup_v1");
        let error = all_ran(&[], &packages[..1]).unwrap_err().to_string();
        assert_eq!(error, "these ran nothing: plimsoll-core");
    }

    #[test]
    fn both_runners_leave_the_suites_for_the_vm_out_of_a_whole_run() {
        let packages =
            vec![package("plimsoll-kernel", &["cgroup_v1", "cgroup_v2"]), package("plimsoll", &["cli"])];
        let workspace = Workspace { root: "/".into(), target: "/".into(), packages };
        let whole = Selection { args: &[WHOLE], env: &[] };
        assert_eq!(not_for_the_vm(&workspace, &whole), ["--filterset", "not (binary(=cgroup_v2))"]);
        assert_eq!(targets(&workspace, &whole), ["--lib", "--bins", "--test", "cgroup_v1", "--test", "cli"]);
        let part = Selection { args: &["--package", "plimsoll-sim"], env: &[] };
        assert_eq!(not_for_the_vm(&workspace, &part), Vec::<String>::new());
        assert_eq!(targets(&workspace, &part), ["--tests"]);
    }

    #[test]
    fn a_file_of_one_name_in_another_package_does_not_count() {
        let suites = [suite(Some("plimsoll-guard"), "cgroup_v1", 3, 0)];
        assert!(all_ran(&suites, &[package("plimsoll-kernel", &["cgroup_v1"])]).is_err());
    }
}
