//! How long it takes from `spawn` until the program runs, in a group and without one: `cargo bench -p plimsoll-kernel`.
//!
//! Each spawn is in a group of its own, made beforehand, as a restart has it.
#![expect(clippy::print_stdout, reason = "a bench prints its figures")]

use std::ffi::OsString;
use std::fs::File;
use std::time::{Duration, Instant};

use plimsoll_kernel::cgroup::{Group, Hierarchy, Limits, discover};
use plimsoll_kernel::spawn::{Command, spawn};
use plimsoll_kernel::{Roots, reap_one};

const RUNS: usize = 200;
const PATIENCE: Duration = Duration::from_secs(10);

fn main() {
    let found = discover(&Roots::default(), "bench");
    measure("no group", None, Joining::AsBest);
    if let Some(hierarchy) = &found.chosen {
        let version = hierarchy.facts().version.name();
        measure(&format!("{version}, as chosen"), Some(hierarchy), Joining::AsBest);
        measure(&format!("{version}, by cgroup.procs"), Some(hierarchy), Joining::ByProcs);
        hierarchy.remove_if_empty();
    }
    for refusal in &found.refusals {
        println!("refused: {refusal}");
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Joining {
    AsBest,
    ByProcs,
}

fn measure(what: &str, hierarchy: Option<&Hierarchy>, joining: Joining) {
    let mut times: Vec<Duration> = (0..RUNS).map(|run| one(hierarchy, joining, run)).collect();
    times.sort_unstable();
    let at = |share: usize| times[(RUNS * share / 100).min(RUNS - 1)];
    println!("{what:28} p50 {:8.3?}  p99 {:8.3?}  max {:8.3?}  ({RUNS} runs)", at(50), at(99), at(100));
}

fn one(hierarchy: Option<&Hierarchy>, joining: Joining, run: usize) -> Duration {
    let limits = Limits { wall_bytes: 64 << 20, tasks_max: Some(16), group_kill: true };
    let group = hierarchy.map(|place| place.create(&format!("bench.{run}"), &limits).expect("make a group"));
    let output = File::create("/dev/null").expect("open /dev/null").into();
    let argv = ["/bin/true"].map(OsString::from).to_vec();
    let mut command = Command::new(argv, Vec::new(), "/".into(), output);
    let started = Instant::now();
    if let Some(group) = &group {
        join(&mut command, group, joining);
    }
    let child = spawn(&command).expect("start /bin/true");
    let took = started.elapsed();
    let deadline = Instant::now() + PATIENCE;
    while reap_one(child.identity.pid).is_none() && Instant::now() < deadline {
        std::thread::park_timeout(Duration::from_millis(1));
    }
    if let Some(group) = group {
        group.remove(PATIENCE).expect("remove a group");
    }
    took
}

fn join(command: &mut Command, group: &Group, joining: Joining) {
    command.join = group.membership().expect("open the group");
    if joining == Joining::ByProcs {
        let procs =
            File::options().write(true).open(group.path().join("cgroup.procs")).expect("open cgroup.procs");
        command.join.folder = None;
        command.join.files[0] = procs.into();
    }
}
