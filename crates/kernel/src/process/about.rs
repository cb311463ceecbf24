//! What a process is: its executable, arguments, environment, user and groups.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::read_of_process;
use crate::{Error, Result, Roots, text};

/// The process was started with `key=value` in its environment: as a child inherits it and a daemon keeps it. What the
/// process changed since then does not show. Reads at most 2 MiB, the kernel's own limit for one string being 128 KiB.
pub fn environ_has(roots: &Roots, pid: i32, key: &str, value: &str) -> Result<bool> {
    environ_finds(roots, pid, key, |found| found == value.as_bytes())
}

/// The process was started with this variable in its environment, whatever its value.
pub fn environ_names(roots: &Roots, pid: i32, key: &str) -> Result<bool> {
    environ_finds(roots, pid, key, |_| true)
}

fn environ_finds(roots: &Roots, pid: i32, key: &str, fits: impl Fn(&[u8]) -> bool) -> Result<bool> {
    const ENVIRON_BYTES_MAX: u64 = 2 << 20;
    let environ = text::read_bytes(&roots.process_file(pid, "environ"), ENVIRON_BYTES_MAX)
        .map_err(|error| Error::process("read the environment of", pid, error))?;
    let is_it = |entry: &[u8]| {
        entry.strip_prefix(key.as_bytes()).and_then(|rest| rest.strip_prefix(b"=")).is_some_and(&fits)
    };
    Ok(environ.split(|byte| *byte == 0).any(is_it))
}

/// The executable file; without the ` (deleted)` that the kernel adds when it was replaced.
pub fn exe(roots: &Roots, pid: i32) -> Result<PathBuf> {
    let path = fs::read_link(roots.process_file(pid, "exe"))
        .map_err(|error| Error::process("find the executable of", pid, error))?;
    match path.as_os_str().as_bytes().strip_suffix(b" (deleted)") {
        Some(name) => Ok(PathBuf::from(OsStr::from_bytes(name))),
        None => Ok(path),
    }
}

/// The arguments, at most 64 KiB of them. Empty for kernel threads and zombies. What is not UTF-8 is replaced.
pub fn cmdline(roots: &Roots, pid: i32) -> Result<Vec<String>> {
    const CMDLINE_BYTES_MAX: u64 = 64 << 10;
    let line = text::read_bytes(&roots.process_file(pid, "cmdline"), CMDLINE_BYTES_MAX)
        .map_err(|error| Error::process("read the arguments of", pid, error))?;
    let line = line.strip_suffix(b"\0").unwrap_or(&line);
    if line.is_empty() {
        return Ok(Vec::new());
    }
    Ok(line.split(|byte| *byte == 0).map(|one| String::from_utf8_lossy(one).into_owned()).collect())
}

/// The real user of a process.
pub fn uid_of(roots: &Roots, pid: i32) -> Result<u32> {
    let path = roots.process_file(pid, "status");
    let status = read_of_process(&path, pid)?;
    let uid = status
        .lines()
        .find_map(|line| line.strip_prefix("Uid:")?.split_ascii_whitespace().next()?.parse().ok());
    uid.ok_or(Error::Malformed { path, found: status })
}

/// One line of `/proc/PID/cgroup`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CgroupMembership {
    /// Empty for v2.
    pub controllers: Vec<String>,
    /// As the kernel names it, seen from our cgroup namespace.
    pub path: String,
}

/// The groups that a process is in, one for each hierarchy.
pub fn cgroup_of(roots: &Roots, pid: i32) -> Result<Vec<CgroupMembership>> {
    let list = read_of_process(&roots.process_file(pid, "cgroup"), pid)?;
    let membership = |line: &str| {
        let mut fields = line.splitn(3, ':').skip(1);
        let controllers =
            fields.next()?.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
        Some(CgroupMembership { controllers, path: fields.next()?.to_owned() })
    };
    Ok(list.lines().filter_map(membership).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_is_matched_as_a_whole() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("7")).unwrap();
        fs::write(folder.path().join("7/environ"), "A=1\0PLIMSOLL_INSTANCE=reports.70\0XA=2\0").unwrap();
        let roots = Roots { proc: folder.path().to_owned(), ..Roots::default() };
        let has = |key, value| environ_has(&roots, 7, key, value).unwrap();
        assert!(has("PLIMSOLL_INSTANCE", "reports.70"));
        assert!(!has("PLIMSOLL_INSTANCE", "reports.7"));
        assert!(!has("A", "2"));
        assert!(environ_names(&roots, 7, "PLIMSOLL_INSTANCE").unwrap());
        assert!(!environ_names(&roots, 7, "PLIMSOLL").unwrap());
    }
}
