//! What the kernel and the administrator say in small text files.

use std::cell::OnceCell;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use plimsoll_kernel::process::{self, Stat};
use plimsoll_kernel::{Roots, procfs};
use tempfile::TempDir;

const PID: i32 = 7;
/// Every file of a process that we read, and the one table of sockets.
const FILES: [&str; 7] = ["stat", "smaps_rollup", "status", "cmdline", "environ", "limits", "cgroup"];

thread_local! {
    static FOLDER: OnceCell<TempDir> = const { OnceCell::new() };
}

/// In memory where that can be had.
pub(crate) fn folder() -> TempDir {
    let memory = Path::new("/dev/shm");
    let at = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    tempfile::tempdir_in(at).expect("a folder for the files")
}

fn with_folder(work: impl FnOnce(&Path)) {
    FOLDER.with(|cell| work(cell.get_or_init(folder).path()));
}

/// The same bytes as every file of one process.
pub(crate) fn process_files(bytes: &[u8]) {
    with_folder(|folder| {
        let own = folder.join(PID.to_string());
        let net = folder.join("net");
        for path in [&own, &net, &own.join("net")] {
            fs::create_dir_all(path).expect("a folder for the files");
        }
        let write = |path: &Path| fs::write(path, bytes).expect("a file in memory");
        for name in FILES {
            write(&own.join(name));
        }
        for name in ["tcp", "tcp6"] {
            write(&own.join("net").join(name));
            write(&net.join(name));
        }
        let roots = Roots { proc: folder.to_owned(), ..Roots::default() };
        read_all(&roots);
    });
}

fn read_all(roots: &Roots) {
    if let Ok(stat) = Stat::of(roots, PID) {
        let _ = (stat.rss_bytes(), stat.cpu_time(), stat.has_ended(), stat.identity());
    }
    let _ = procfs::Rollup::of(roots, PID);
    let _ = procfs::tree_memory(roots, &[PID]);
    let _ = procfs::soft_limit(roots, PID);
    let _ = procfs::thread_count(roots, PID);
    let _ = procfs::cpu_time(roots, PID);
    let _ = process::cmdline(roots, PID);
    let _ = process::uid_of(roots, PID);
    let _ = process::cgroup_of(roots, PID);
    let _ = process::environ_has(roots, PID, "A", "B");
    let address = SocketAddr::from(([127, 0, 0, 1], 8080));
    let _ = procfs::listener_of(roots, address, Duration::from_secs(1));
}

/// `/etc/passwd`, a zero byte, `/etc/group`.
pub(crate) fn user_files(bytes: &[u8]) {
    let cut = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let (users, groups) = bytes.split_at(cut);
    with_folder(|folder| {
        let (passwd, group) = (folder.join("passwd"), folder.join("group"));
        fs::write(&passwd, users).expect("a file in memory");
        fs::write(&group, groups.get(1..).unwrap_or_default()).expect("a file in memory");
        for user in ["www-data", "33", "nobody"] {
            plimsoll_kernel::fuzz::user_files(&passwd, &group, user);
        }
    });
}
