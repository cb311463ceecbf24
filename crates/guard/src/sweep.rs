//! The hunt for strays: processes that no service, no unit and no container owns, grown large or left behind.
//!
//! A stray is matched by its exact executable and exact arguments, never by a part of a name. It is reported, and acted
//! on only when told to; its identity (pid and start time) is checked again right before every signal.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use plimsoll_core::units::Bytes;
use plimsoll_kernel::process::{self, Identity, Signal, Stat};
use plimsoll_kernel::{self as kernel, Roots};
use serde::{Deserialize, Serialize};

use crate::driver::INSTANCE_VARIABLE;

/// From the stop signal until the kill.
pub const GRACE: Duration = Duration::from_secs(10);
/// After the kill, how long the end is waited for.
const KILL_WAIT: Duration = Duration::from_secs(2);
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// Words in a cgroup path that say a container runtime made it.
const CONTAINER_MARKS: [&str; 8] =
    ["docker", "libpod", "kubepods", "containerd", "crio", "lxc", "machine.slice", "garden"];

/// One `[[sweep]]` of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SweepRule {
    /// The executable's whole path.
    pub exe: PathBuf,
    /// One argument exactly, or consecutive ones separated by single spaces; `None` matches any.
    pub args: Option<String>,
    /// Resident memory from which on it is a stray.
    pub over: Option<Bytes>,
    /// Without a parent for this long, it is a stray.
    pub orphan_after: Option<Duration>,
    pub every: Duration,
    pub act: bool,
}

/// A stray, and what was done about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    pub pid: i32,
    /// In clock ticks since boot; with the pid it names the process for good.
    pub start_time: u64,
    pub exe: PathBuf,
    pub args: String,
    pub memory_bytes: u64,
    pub age_seconds: u64,
    /// `over 300 MiB`, `orphaned for 12 min`.
    pub reason: String,
    pub outcome: Outcome,
    #[serde(with = "crate::records::time")]
    pub found: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Found, and left alone because the rule does not act.
    Reported,
    /// Ended on its stop signal.
    Terminated,
    /// Had to be killed.
    Killed,
    /// Ended by itself, or another process has its pid by now.
    Gone,
    /// Could not be signalled, or outlived the kill.
    Failed { why: String },
}

/// Since when which process has been seen without a parent. Kept between hunts.
#[derive(Debug, Default)]
pub struct Orphans(BTreeMap<(i32, u64), Instant>);

/// Looks once. `orphans` knows those of earlier looks; without it (one look from the command line) an orphan's age stands
/// in for the time since its parent ended, which nobody knows.
pub fn hunt(
    roots: &Roots,
    rule: &SweepRule,
    mut orphans: Option<&mut Orphans>,
) -> Result<Vec<Finding>, kernel::Error> {
    let everybody: Vec<Stat> = process::all(roots)?.collect();
    let ours = Protected::gather(&everybody);
    let mut findings = Vec::new();
    let mut orphans_seen = BTreeSet::new();
    for stat in &everybody {
        let Some((exe, args)) = matches(roots, rule, stat) else { continue };
        if ours.spares(roots, stat) {
            continue;
        }
        let age = stat.age(roots).unwrap_or_default();
        let orphaned = is_orphan(stat, &everybody).then(|| {
            let key = (stat.pid, stat.start_time);
            orphans_seen.insert(key);
            orphans.as_mut().map_or(age, |known| known.0.entry(key).or_insert_with(Instant::now).elapsed())
        });
        let Some(reason) = reason(rule, stat, orphaned) else { continue };
        findings.push(Finding {
            pid: stat.pid,
            start_time: stat.start_time,
            exe,
            args,
            memory_bytes: stat.rss_bytes(),
            age_seconds: age.as_secs(),
            reason,
            outcome: Outcome::Reported,
            found: Timestamp::now(),
        });
    }
    if let Some(known) = orphans {
        known.0.retain(|key, _| orphans_seen.contains(key));
    }
    Ok(findings)
}

/// Ends every finding: stop signal, grace, kill. Blocks for up to `grace` and a little more in all.
pub fn end(roots: &Roots, findings: &mut [Finding], grace: Duration) {
    for finding in findings.iter_mut() {
        finding.outcome = signal(roots, finding, Signal::TERM).unwrap_or(Outcome::Terminated);
    }
    wait(roots, findings, grace);
    for finding in findings.iter_mut() {
        if finding.outcome == Outcome::Terminated && identity(finding).is_alive(roots) {
            finding.outcome = signal(roots, finding, Signal::KILL).unwrap_or(Outcome::Killed);
        }
    }
    wait(roots, findings, KILL_WAIT);
    for finding in findings.iter_mut() {
        if finding.outcome == Outcome::Killed && identity(finding).is_alive(roots) {
            finding.outcome = Outcome::Failed { why: "it outlived the kill, stuck in the kernel".to_owned() };
        }
    }
}

/// `None` when the signal was sent; otherwise what kept it from being sent.
fn signal(roots: &Roots, finding: &Finding, signal: Signal) -> Option<Outcome> {
    match process::signal(roots, identity(finding), signal) {
        Ok(()) => None,
        Err(error) if error.is_gone() => Some(Outcome::Gone),
        Err(error) => Some(Outcome::Failed { why: error.to_string() }),
    }
}

fn wait(roots: &Roots, findings: &[Finding], at_most: Duration) {
    let until = Instant::now() + at_most;
    let pending = |finding: &Finding| {
        matches!(finding.outcome, Outcome::Terminated | Outcome::Killed) && identity(finding).is_alive(roots)
    };
    while findings.iter().any(pending) && Instant::now() < until {
        std::thread::sleep(LOOK_AGAIN);
    }
}

const fn identity(finding: &Finding) -> Identity {
    Identity { pid: finding.pid, start_time: finding.start_time }
}

/// The executable and arguments, where both are exactly the rule's.
fn matches(roots: &Roots, rule: &SweepRule, stat: &Stat) -> Option<(PathBuf, String)> {
    if stat.has_ended() {
        return None;
    }
    // Kernel threads and other users' processes have no executable that we may see: never a match.
    let exe = process::exe(roots, stat.pid).ok()?;
    if exe != rule.exe {
        return None;
    }
    let args: Vec<String> = process::cmdline(roots, stat.pid).ok()?.into_iter().skip(1).collect();
    rule.args.as_ref().is_none_or(|wanted| has_run(&args, wanted)).then(|| (exe, args.join(" ")))
}

/// Whether some consecutive arguments, joined by spaces, are exactly `wanted`.
fn has_run(args: &[String], wanted: &str) -> bool {
    (0..args.len()).any(|from| (from..args.len()).any(|to| args[from..=to].join(" ") == wanted))
}

fn reason(rule: &SweepRule, stat: &Stat, orphaned: Option<Duration>) -> Option<String> {
    let memory = Bytes(stat.rss_bytes());
    if let Some(over) = rule.over.filter(|over| memory > *over) {
        return Some(format!("{memory}, over {over}"));
    }
    let (limit, orphaned) = (rule.orphan_after?, orphaned?);
    (orphaned >= limit).then(|| format!("orphaned for {}", crate::tell::span_words(orphaned)))
}

/// Whether its parent has gone and nobody took its place: it hangs on PID 1 or on a user's session manager.
fn is_orphan(stat: &Stat, everybody: &[Stat]) -> bool {
    let parent = everybody.iter().find(|other| other.pid == stat.ppid);
    stat.ppid == 1 || stat.ppid == 0 || parent.is_some_and(|parent| parent.comm == "systemd")
}

/// What is never a stray.
struct Protected {
    /// This process and everything above it.
    lineage: BTreeSet<i32>,
    /// Whoever runs it is a guard or works for one, also where it is not ours.
    own_exe: Option<PathBuf>,
    own_namespaces: [Option<PathBuf>; 2],
}

impl Protected {
    fn gather(everybody: &[Stat]) -> Self {
        let mut lineage = BTreeSet::from([1]);
        let own = i32::try_from(std::process::id()).unwrap_or(0);
        let mut pid = own;
        while pid > 0 && lineage.insert(pid) {
            pid = everybody.iter().find(|stat| stat.pid == pid).map_or(0, |stat| stat.ppid);
        }
        let roots = Roots::default();
        Self { lineage, own_exe: process::exe(&roots, own).ok(), own_namespaces: namespaces(&roots, "self") }
    }

    fn spares(&self, roots: &Roots, stat: &Stat) -> bool {
        self.lineage.contains(&stat.pid)
            || (self.own_exe.is_some() && process::exe(roots, stat.pid).ok() == self.own_exe)
            || is_guarded(roots, stat.pid)
            || self.is_elsewhere(roots, stat.pid)
            || is_owned(roots, stat.pid)
    }

    /// In a container: another pid or mount namespace than ours. What cannot be seen is spared too.
    fn is_elsewhere(&self, roots: &Roots, pid: i32) -> bool {
        namespaces(roots, &pid.to_string()) != self.own_namespaces
    }
}

fn namespaces(roots: &Roots, who: &str) -> [Option<PathBuf>; 2] {
    ["pid", "mnt"].map(|kind| std::fs::read_link(roots.proc.join(who).join("ns").join(kind)).ok())
}

/// Carries an instance's name, so some guard looks after it.
fn is_guarded(roots: &Roots, pid: i32) -> bool {
    process::environ_names(roots, pid, INSTANCE_VARIABLE).unwrap_or(true)
}

/// In a cgroup of a container, of a system unit, or of ours. What cannot be read is spared.
fn is_owned(roots: &Roots, pid: i32) -> bool {
    let Ok(groups) = process::cgroup_of(roots, pid) else { return true };
    groups.iter().any(|group| {
        let path = group.path.as_str();
        let unit = path.rsplit('/').next().unwrap_or_default();
        let of_a_unit = unit.ends_with(".service") && !unit.starts_with("user@");
        of_a_unit || path.contains("/plimsoll/") || CONTAINER_MARKS.iter().any(|mark| path.contains(mark))
    })
}
