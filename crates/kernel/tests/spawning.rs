//! What a child finds, and how a start that fails is told.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "these are tests, also outside of #[test]")]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use common::{command, start, start_with, until};
use plimsoll_kernel::spawn::{Command, SpawnError, Step, spawn};
use plimsoll_kernel::{Exit, Ids, Roots, process, procfs};
use rustix::io::Errno;

fn fails(argv: &[&str], change: impl FnOnce(&mut Command)) -> SpawnError {
    let (mut command, _output) = command(argv);
    change(&mut command);
    match spawn(&command) {
        Ok(child) => panic!("{argv:?} was started as {child:?}"),
        Err(error) => error,
    }
}

fn script(folder: &Path, name: &str, mode: u32, text: &str) -> String {
    let path = folder.join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    path.to_str().unwrap().to_owned()
}

fn is_root() -> bool {
    rustix::process::getuid().is_root()
}

#[test]
fn a_command_that_is_not_in_the_path_is_not_found() {
    let error = fails(&["no-such-command-here"], |_| {});
    assert_eq!((error.step, error.errno), (Step::FindCommand, Errno::NOENT));
    assert_eq!(error.to_string(), "find no-such-command-here: command not found");
    assert!(!error.is_retryable());
}

#[test]
fn a_file_that_may_not_be_executed_is_told_from_a_missing_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = script(folder.path(), "data", 0o644, "#!/bin/sh\n");
    let error = fails(&[&path], |_| {});
    assert_eq!((error.step, error.errno), (Step::Exec, Errno::ACCESS));
    let error = fails(&["/nonexistent/program"], |_| {});
    assert_eq!((error.step, error.errno), (Step::Exec, Errno::NOENT));
}

#[test]
fn a_missing_interpreter_is_named_as_the_fault() {
    let folder = tempfile::tempdir().unwrap();
    let path = script(folder.path(), "run", 0o755, "#!/nonexistent/interpreter\n");
    let error = fails(&[&path], |_| {});
    assert!(error.to_string().ends_with("the interpreter that it names is missing"), "{error}");
    let path = script(folder.path(), "noise", 0o755, "neither\n");
    assert_eq!(fails(&[&path], |_| {}).errno, Errno::NOEXEC);
}

#[test]
fn a_missing_folder_is_named() {
    let error = fails(&["sh"], |command| command.cwd = "/nonexistent/folder".into());
    assert_eq!((error.step, error.errno), (Step::ChangeFolder, Errno::NOENT));
    assert_eq!(error.to_string(), "change to the folder of /nonexistent/folder: no such folder");
}

#[test]
fn a_nul_in_an_argument_and_an_equals_sign_in_a_name_are_refused_before_the_fork() {
    assert_eq!(fails(&["sh", "a\0b"], |_| {}).step, Step::Prepare);
    assert_eq!(fails(&["sh"], |command| command.env.push(("A=B".into(), "c".into()))).step, Step::Prepare);
}

#[test]
fn a_group_that_cannot_be_joined_is_a_step_of_its_own() {
    let read_only = fs::File::open("/dev/null").unwrap();
    let error = fails(&["sh"], |command| command.join.files.push(read_only.into()));
    assert_eq!((error.step, error.errno), (Step::JoinGroup, Errno::BADF));
}

#[test]
fn a_program_that_never_starts_is_given_up() {
    let folder = tempfile::tempdir().unwrap();
    // Opening a FIFO for writing waits for a reader, as a dead network filesystem does.
    let fifo = folder.path().join("cgroup.procs");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    let both = fs::OpenOptions::new().read(true).write(true).open(&fifo).unwrap();
    let full = vec![0_u8; 1 << 16];
    rustix::io::write(&both, &full).unwrap();
    let error = fails(&["sh"], |command| {
        command.join.files.push(both.into());
        command.within = Duration::from_millis(100);
    });
    assert_eq!((error.step, error.errno), (Step::Wait, Errno::TIMEDOUT));
    assert!(error.is_retryable());
}

#[test]
fn only_root_can_switch_users_or_raise_the_hard_limit() {
    if !is_root() {
        let ids = Ids { uid: 0, gid: 0, groups: vec![0] };
        assert_eq!(fails(&["sh"], |command| command.ids = Some(ids)).step, Step::SwitchUser);
        return;
    }
    // As an unprivileged user started by us: not possible from inside a test that is root, so the other end of it.
    let over_the_kernels_own_maximum = u64::from(u32::MAX) * 4;
    let error = fails(&["sh"], |command| command.nofile = Some(over_the_kernels_own_maximum));
    assert_eq!((error.step, error.errno), (Step::SetLimit, Errno::PERM));
}

#[test]
fn a_child_has_nothing_open_but_its_standard_three() {
    // Without close-on-exec on purpose, at a low and at a high number.
    let null = fs::File::open("/dev/null").unwrap();
    let low = rustix::io::dup(&null).unwrap();
    let high = rustix::io::fcntl_dupfd_cloexec(&null, 700).unwrap();
    rustix::io::fcntl_setfd(&high, rustix::io::FdFlags::empty()).unwrap();
    let child = start(None, &["sleep", "1000"]);
    let folder = format!("/proc/{}/fd", child.pid());
    let open = || {
        let mut names: Vec<_> = fs::read_dir(&folder).unwrap().map(|one| one.unwrap().file_name()).collect();
        names.sort();
        names
    };
    // The loader has its own files open for a moment; what leaks from us stays.
    until("only the standard three to be open", || open() == ["0", "1", "2"]);
    assert_eq!(procfs::count(&Roots::default(), child.pid()).unwrap(), 3);
    drop((low, high));
}

#[test]
fn a_child_has_exactly_the_environment_folder_and_session_it_was_given() {
    let mut child =
        start_with(None, &["sh", "-c", "pwd; umask; env; echo out; echo err >&2; sleep 1000"], |command| {
            command.env.push(("GREETING".into(), "hello world".into()));
            command.cwd = "/proc".into();
            command.umask = Some(0o027);
        });
    let printed = child.prints("err").to_owned();
    assert!(printed.starts_with("/proc\n"), "{printed}");
    assert!(printed.contains("\n0027\n") && printed.contains("GREETING=hello world\n"), "{printed}");
    assert!(!printed.contains("CARGO"), "{printed}");
    let stat = process::Stat::of(&Roots::default(), child.pid()).unwrap();
    assert_eq!(stat.session, child.pid());
    assert_eq!(stat.identity(), child.identity());
    assert!(process::environ_has(&Roots::default(), child.pid(), "GREETING", "hello world").unwrap());
}

#[test]
fn a_child_starts_with_no_signal_blocked_or_ignored_and_no_way_to_new_privileges() {
    let child = start(None, &["sleep", "1000"]);
    let status = fs::read_to_string(format!("/proc/{}/status", child.pid())).unwrap();
    let value = |key: &str| status.lines().find_map(|line| line.strip_prefix(key)).unwrap().trim().to_owned();
    assert_eq!(value("SigBlk:"), "0000000000000000");
    assert_eq!(value("SigIgn:"), "0000000000000000");
    assert_eq!(value("NoNewPrivs:"), "1");
}

#[test]
fn a_child_has_its_descriptor_limit_and_oom_score() {
    let child = start_with(None, &["sleep", "1000"], |command| {
        command.nofile = Some(123);
        command.oom_score_adj = Some(7);
    });
    assert_eq!(procfs::soft_limit(&Roots::default(), child.pid()).unwrap(), 123);
    assert_eq!(fs::read_to_string(format!("/proc/{}/oom_score_adj", child.pid())).unwrap().trim(), "7");
    let before = plimsoll_kernel::limits::set_descriptors(child.pid(), 100).unwrap();
    assert_eq!((before.soft, before.hard), (Some(123), Some(123)));
    assert_eq!(procfs::soft_limit(&Roots::default(), child.pid()).unwrap(), 100);
}

#[test]
fn a_child_runs_as_its_user_with_its_groups_only() {
    if !is_root() {
        println!("not run, since only root can switch users");
        return;
    }
    let ids = Ids { uid: 54_321, gid: 54_322, groups: vec![54_322, 54_323] };
    let child = start_with(None, &["sleep", "1000"], |command| command.ids = Some(ids));
    let status = fs::read_to_string(format!("/proc/{}/status", child.pid())).unwrap();
    assert!(status.contains("Uid:\t54321\t54321\t54321\t54321\n"), "{status}");
    assert!(status.contains("Gid:\t54322\t54322\t54322\t54322\n"), "{status}");
    assert!(status.contains("Groups:\t54322 54323"), "{status}");
    assert!(status.contains("CapEff:\t0000000000000000\n"), "{status}");
}

#[test]
fn an_exit_is_reported_as_code_or_signal() {
    assert_eq!(start(None, &["sh", "-c", "exit 7"]).exits(), Exit::Code(7));
    let killed = start(None, &["sh", "-c", "kill -TERM $$"]).exits();
    assert_eq!(killed, Exit::Signal { number: 15, core_dumped: false });
}

#[test]
fn a_signal_reaches_the_process_it_was_meant_for_and_nobody_afterwards() {
    let roots = Roots::default();
    let mut child = start(None, &["sleep", "1000"]);
    let identity = child.identity();
    assert!(identity.is_alive(&roots));
    process::signal(&roots, identity, rustix::process::Signal::TERM).unwrap();
    assert_eq!(child.exits(), Exit::Signal { number: 15, core_dumped: false });
    assert!(process::signal(&roots, identity, rustix::process::Signal::TERM).unwrap_err().is_gone());
}

#[test]
fn descendants_are_found_at_any_depth() {
    let roots = Roots::default();
    let mut child = start(None, &["sh", "-c", "sh -c 'sleep 1000 & echo up; wait' & wait"]);
    child.prints("up");
    let mut found = Vec::new();
    until("two generations, the second of which has become sleep", || {
        found = process::descendants(&roots, child.pid()).unwrap();
        found.len() == 2 && found[1].comm == "sleep"
    });
    assert_eq!(found[1].ppid, found[0].pid);
}
