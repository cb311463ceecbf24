//! The fork, and the child between fork and exec.
//!
//! The child is a copy of one thread of a process that may have others: a lock that one of those held stays locked for
//! ever. So after the fork there is no allocation, no panic, no libc function with state; only system calls. The ids
//! are switched by raw calls as well, since libc's own would signal threads that do not exist here.
#![expect(unsafe_code, reason = "fork, exec and signal dispositions have no safe form")]

use std::convert::Infallible;
use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr;

use rustix::fs::{Mode, OFlags, RawDir};
use rustix::io::{Errno, FdFlags};
use rustix::process::{Pid, Resource};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};

use super::Step;
use super::plan::{Plan, REPORT_BYTES};

/// Signals of this thread are blocked until it is dropped.
pub(super) struct Blocked {
    before: libc::sigset_t,
}

impl Blocked {
    pub(super) fn all() -> Result<Self, Errno> {
        let mut all = MaybeUninit::uninit();
        let mut before = MaybeUninit::uninit();
        // SAFETY: sigfillset writes the whole set that it is given, and cannot fail.
        unsafe { libc::sigfillset(all.as_mut_ptr()) };
        // SAFETY: both point to sets, the first of them filled.
        let code = unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr()) };
        if code != 0 {
            return Err(Errno::from_raw_os_error(code));
        }
        // SAFETY: the call has succeeded, and then it has written the old set.
        Ok(Self { before: unsafe { before.assume_init() } })
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        // SAFETY: the set came from the same call. It cannot fail with a valid `how`.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.before, ptr::null_mut()) };
    }
}

/// Forks a child that carries out the plan; returns in the parent only. To be called with signals blocked.
pub(super) fn fork(plan: &Plan) -> Result<Pid, Errno> {
    // Before the fork, since it allocates.
    let argv = pointers(&plan.argv);
    let env = pointers(&plan.env);
    let (forked, is_in_group) = match plan.folder.as_ref().map(clone_into) {
        Some(Ok(forked)) => (forked, true),
        // EINVAL and E2BIG: Linux before 5.7; ENOSYS: before 5.3; EPERM: a seccomp filter. Other errors may be of the
        // group's making: the child finds out when it writes itself in, and reports that as the step that it is.
        Some(Err(error @ (Errno::AGAIN | Errno::NOMEM))) => return Err(error),
        Some(Err(_)) | None => (plain_clone()?, false),
    };
    match forked {
        Forked::Parent(pid) => Ok(pid),
        Forked::Child => {
            let Err((step, errno)) = become_program(plan, is_in_group, &argv, &env);
            report(plan, step, errno);
            // SAFETY: ends the child without unwinding or atexit handlers, which are the parent's.
            unsafe { libc::_exit(EXIT_NOT_STARTED) }
        }
    }
}

/// As shells have it for a command that could not be run. Nobody sees it: the parent has the report.
const EXIT_NOT_STARTED: i32 = 127;

enum Forked {
    Parent(Pid),
    Child,
}

impl Forked {
    fn from_result(code: libc::c_long) -> Result<Self, Errno> {
        match i32::try_from(code) {
            Ok(0) => Ok(Self::Child),
            Ok(pid) if pid > 0 => Pid::from_raw(pid).map(Self::Parent).ok_or(Errno::INVAL),
            Ok(_) | Err(_) => Err(last_errno()),
        }
    }
}

/// The child is born in the group: nothing is migrated, which on a busy host can take 10 ms and more.
fn clone_into(folder: &OwnedFd) -> Result<Forked, Errno> {
    const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
    /// The kernel's `struct clone_args` up to `cgroup`, its version of Linux 5.7.
    #[repr(C)]
    #[derive(Default)]
    struct CloneArgs {
        flags: u64,
        pidfd: u64,
        child_tid: u64,
        parent_tid: u64,
        exit_signal: u64,
        stack: u64,
        stack_size: u64,
        tls: u64,
        set_tid: u64,
        set_tid_size: u64,
        cgroup: u64,
    }
    let args = CloneArgs {
        flags: CLONE_INTO_CGROUP,
        exit_signal: u64::from(libc::SIGCHLD.unsigned_abs()),
        cgroup: u64::from(folder.as_raw_fd().unsigned_abs()),
        ..CloneArgs::default()
    };
    // SAFETY: the structure and its size belong together, and without CLONE_VM and with no stack given this is a fork:
    // the child goes on here, on a copy of everything, and then only makes system calls.
    let code = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<CloneArgs>()) };
    Forked::from_result(code)
}

fn plain_clone() -> Result<Forked, Errno> {
    // SAFETY: as above. libc's fork would run handlers of libraries, which a child that only execs does not need; the
    // four arguments after the flags are 0, so that their order, which differs between machines, does not matter.
    let code = unsafe {
        libc::syscall(libc::SYS_clone, libc::c_long::from(libc::SIGCHLD), 0_usize, 0_usize, 0_usize, 0_usize)
    };
    Forked::from_result(code)
}

fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings.iter().map(|one| one.as_ptr()).chain([ptr::null()]).collect()
}

type Failure = (Step, Errno);

fn at(step: Step) -> impl Fn(Errno) -> Failure {
    move |errno| (step, errno)
}

/// Everything between fork and exec, in an order that has reasons: the group first, so that whatever follows is charged to
/// it; what needs privileges before they are dropped; the folder as the user that must be allowed into it; signals are let
/// in last, when no handler of ours is left.
fn become_program(
    plan: &Plan,
    is_in_group: bool,
    argv: &[*const libc::c_char],
    env: &[*const libc::c_char],
) -> Result<Infallible, Failure> {
    if !is_in_group {
        plan.files.iter().try_for_each(|file| write_all(file, b"0")).map_err(at(Step::JoinGroup))?;
    }
    if let Some(score) = &plan.oom_score_adj {
        set_oom_score(score).map_err(at(Step::SetOomScore))?;
    }
    rustix::process::setsid().map_err(at(Step::NewSession))?;
    if let Some(limit) = plan.nofile {
        rustix::process::setrlimit(Resource::Nofile, limit).map_err(at(Step::SetLimit))?;
    }
    redirect(plan).map_err(at(Step::Redirect))?;
    if let Some(mask) = plan.umask {
        rustix::process::umask(mask);
    }
    switch_user(plan).map_err(at(Step::SwitchUser))?;
    rustix::process::chdir(plan.cwd.as_c_str()).map_err(at(Step::ChangeFolder))?;
    if plan.no_new_privs {
        rustix::thread::set_no_new_privs(true).map_err(at(Step::NoNewPrivs))?;
    }
    let kept = inherit(&plan.inherit).map_err(at(Step::Redirect))?;
    close_others_on_exec(FIRST_OTHER + kept).map_err(at(Step::CloseDescriptors))?;
    if let Some(parent) = plan.parent {
        bind(parent).map_err(at(Step::Bind))?;
    }
    reset_signals().map_err(at(Step::ResetSignals))?;
    Err((Step::Exec, exec(&plan.program, argv, env)))
}

fn set_oom_score(score: &str) -> Result<(), Errno> {
    let file =
        rustix::fs::open(c"/proc/self/oom_score_adj", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    write_all(&file, score.as_bytes())
}

fn redirect(plan: &Plan) -> Result<(), Errno> {
    dup2_stdin(&plan.input)?;
    dup2_stdout(&plan.output)?;
    dup2_stderr(&plan.errors)
}

/// Puts them at 3 and up, where the program finds them; whatever was there is the parent's, and close-on-exec. How many.
fn inherit(files: &[OwnedFd]) -> Result<libc::c_uint, Errno> {
    let mut next = FIRST_OTHER;
    for file in files {
        // SAFETY: the number may be open in this child, and nothing here uses it from now on: what is still needed of
        // the plan (the report) was put above these numbers.
        let code = unsafe { libc::dup2(file.as_raw_fd(), next.cast_signed()) };
        if code < 0 {
            return Err(last_errno());
        }
        next += 1;
    }
    Ok(next - FIRST_OTHER)
}

/// To die with the parent; after the ids are switched, which would undo it.
fn bind(parent: Pid) -> Result<(), Errno> {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    // It may have ended before.
    if rustix::process::getppid() == Some(parent) { Ok(()) } else { Err(Errno::SRCH) }
}

/// For a process that becomes another program without a fork.
pub(super) fn replace(program: &CStr, argv: &[CString], env: &[CString]) -> Errno {
    exec(program, &pointers(argv), &pointers(env))
}

/// Groups before the user: afterwards there is no right to.
fn switch_user(plan: &Plan) -> Result<(), Errno> {
    let Some((uid, gid, groups)) = &plan.ids else { return Ok(()) };
    rustix::thread::set_thread_groups(groups)?;
    rustix::thread::set_thread_res_gid(*gid, *gid, *gid)?;
    rustix::thread::set_thread_res_uid(*uid, *uid, *uid)
}

/// Whatever we or our libraries have open without close-on-exec.
fn close_others_on_exec(first: libc::c_uint) -> Result<(), Errno> {
    const CLOSE_RANGE_CLOEXEC: libc::c_uint = 4;
    // SAFETY: marks descriptors and closes none: this call takes nothing away from anybody in this process.
    let code = unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, CLOSE_RANGE_CLOEXEC) };
    if code == 0 { Ok(()) } else { mark_one_by_one(first) }
}

const FIRST_OTHER: libc::c_uint = 3;

/// Before Linux 5.11. Only what is open is touched: the limit may be a million.
fn mark_one_by_one(first: libc::c_uint) -> Result<(), Errno> {
    let folder = rustix::fs::open(
        c"/proc/self/fd",
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let mut buffer = [MaybeUninit::uninit(); 2048];
    let mut entries = RawDir::new(&folder, &mut buffer);
    while let Some(entry) = entries.next() {
        let Some(number) = descriptor_number(entry?.file_name()) else { continue };
        if number < first.cast_signed() {
            continue;
        }
        // SAFETY: it was listed as open a moment ago, and this process has one thread: it still is.
        let fd = unsafe { BorrowedFd::borrow_raw(number) };
        rustix::io::fcntl_setfd(fd, FdFlags::CLOEXEC)?;
    }
    Ok(())
}

fn descriptor_number(name: &CStr) -> Option<i32> {
    name.to_bytes().iter().try_fold(0_i32, |sum, byte| {
        let digit = byte.is_ascii_digit().then(|| i32::from(byte - b'0'))?;
        sum.checked_mul(10)?.checked_add(digit)
    })
}

/// Exec keeps ignored signals ignored (SIGPIPE is, in a Rust program) and blocked ones blocked. By raw calls, since libc
/// keeps its hands on the first real-time signals, and whoever started us may have ignored those too.
fn reset_signals() -> Result<(), Errno> {
    const SIGNALS: std::ops::RangeInclusive<i32> = 1..=64;
    const SET_BYTES: usize = 8;
    /// More than the kernel's `struct sigaction` of any machine. All zero: SIG_DFL, no flags, an empty mask.
    static DEFAULT: [u64; 8] = [0; 8];
    static NONE: [u64; 1] = [0; 1];
    let nowhere = ptr::null_mut::<u8>();
    for signal in SIGNALS {
        // SAFETY: the kernel reads the action and writes no old one. Fails for KILL and STOP, which cannot be otherwise.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, DEFAULT.as_ptr(), nowhere, SET_BYTES) };
    }
    let set_mask = libc::SIG_SETMASK;
    // SAFETY: the kernel reads a set of that size and writes no old one.
    let code =
        unsafe { libc::syscall(libc::SYS_rt_sigprocmask, set_mask, NONE.as_ptr(), nowhere, SET_BYTES) };
    if code == 0 { Ok(()) } else { Err(last_errno()) }
}

fn exec(program: &CStr, argv: &[*const libc::c_char], env: &[*const libc::c_char]) -> Errno {
    // SAFETY: both lists end with a null pointer, and their strings live in the plan, which the caller holds.
    unsafe { libc::execve(program.as_ptr(), argv.as_ptr(), env.as_ptr()) };
    last_errno()
}

fn write_all(file: impl AsFd, bytes: &[u8]) -> Result<(), Errno> {
    let written = rustix::io::retry_on_intr(|| rustix::io::write(&file, bytes))?;
    if written == bytes.len() { Ok(()) } else { Err(Errno::IO) }
}

fn report(plan: &Plan, step: Step, errno: Errno) {
    let mut report = [0; REPORT_BYTES];
    report[0] = step.code();
    report[1..].copy_from_slice(&errno.raw_os_error().to_ne_bytes());
    // If even this fails, the parent sees an exec that succeeded and right after it an exit with EXIT_NOT_STARTED.
    let _ = write_all(&plan.report, &report);
}

/// Reads a number; does not allocate.
fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::INVAL)
}
