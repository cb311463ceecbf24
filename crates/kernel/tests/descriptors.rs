//! The breakdown of a real process's descriptors.

mod common;

use std::time::Duration;

use common::role;
use plimsoll_kernel::procfs::{self, Budget, DescriptorKind, Side, TcpState};
use plimsoll_kernel::{Roots, process};

#[test]
fn every_kind_is_counted_where_it_belongs() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = role(None, &format!("descriptors {}", folder.path().display()));
    let printed = child.prints(".\n").to_owned();
    let port = printed.rsplit_once("port ").unwrap().1.trim().trim_end_matches('.').parse().unwrap();
    let roots = Roots::default();
    let budget = Budget { entries_max: 1000, within: Duration::from_secs(20) };
    let table = procfs::table(&roots, child.pid(), budget).unwrap();
    let count =
        |kind: DescriptorKind| table.kinds.iter().find(|one| one.kind == kind).map_or(0, |one| one.count);
    let files = |deleted| DescriptorKind::File { folder: folder.path().to_owned(), deleted };
    let tcp = |state, side| DescriptorKind::Tcp { state, side };
    assert!(table.complete);
    assert_eq!(count(files(false)), 7, "{table:?}");
    assert_eq!(count(files(true)), 1, "{table:?}");
    assert_eq!(count(tcp(TcpState::Listen, Side::None { port })), 1, "{table:?}");
    // The ends that were accepted go by our port, and so do the others, since it is their peer's.
    assert_eq!(count(tcp(TcpState::Established, Side::Inbound { port })), 4, "{table:?}");
    assert_eq!(count(tcp(TcpState::Established, Side::Outbound { peer_port: port })), 4, "{table:?}");
    assert_eq!(count(DescriptorKind::EventFd), 2, "{table:?}");
    assert_eq!(count(DescriptorKind::EventPoll), 1, "{table:?}");
    assert_eq!(count(DescriptorKind::Inotify), 1, "{table:?}");
    assert_eq!(count(DescriptorKind::Udp), 1, "{table:?}");
    assert_eq!(count(DescriptorKind::Unix), 2, "{table:?}");
    // Three pipes with two ends each, and its output twice.
    assert_eq!(count(DescriptorKind::Pipe), 3 * 2 + 2, "{table:?}");
    assert_eq!(procfs::count(&roots, child.pid()).unwrap(), u64::try_from(table.seen).unwrap());
    assert!(table.kinds.is_sorted_by(|one, other| one.count >= other.count));
}

#[test]
fn threads_memory_and_time_of_a_child_are_read() {
    let roots = Roots::default();
    let mut child = role(None, "hold 40");
    child.prints("holding");
    let rollup = procfs::Rollup::of(&roots, child.pid()).unwrap();
    assert!(rollup.pss_bytes >= 40 << 20, "{rollup:?}");
    let tree = procfs::tree_memory(&roots, &[child.pid()]).unwrap();
    assert_eq!(tree.processes, 1);
    assert!(tree.bytes >= 40 << 20);
    assert!(procfs::threads(&roots, child.pid(), 100).unwrap().len() >= 2);
    assert!(procfs::cpu_time(&roots, child.pid()).unwrap() < Duration::from_mins(1));
    assert!(!process::cgroup_of(&roots, child.pid()).unwrap().is_empty());
}

#[test]
fn a_process_that_has_ended_is_gone_everywhere() {
    let roots = Roots::default();
    let mut child = common::start(None, &["sleep", "1000"]);
    process::signal(&roots, child.identity(), rustix::process::Signal::KILL).unwrap();
    child.exits();
    let pid = child.pid();
    let budget = Budget { entries_max: 10, within: Duration::from_secs(1) };
    assert!(procfs::count(&roots, pid).unwrap_err().is_gone());
    assert!(procfs::table(&roots, pid, budget).unwrap_err().is_gone());
    assert!(procfs::threads(&roots, pid, 10).unwrap_err().is_gone());
    assert!(procfs::Rollup::of(&roots, pid).unwrap_err().is_gone());
    assert!(procfs::soft_limit(&roots, pid).unwrap_err().is_gone());
    assert!(process::cmdline(&roots, pid).unwrap_err().is_gone());
}
