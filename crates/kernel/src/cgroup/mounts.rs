//! Which cgroup filesystems are mounted where, and where in them we are.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use crate::{Result, Roots, text};

/// One mounted hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mount {
    /// Its folder in our view of the filesystem.
    pub(super) point: PathBuf,
    /// The cgroup that this folder shows: `/` unless only a part was mounted, as container engines do.
    root: PathBuf,
    /// `None` for v2; the controllers of a v1 hierarchy.
    controllers: Option<Vec<String>>,
}

impl Mount {
    fn has(&self, controller: &str) -> bool {
        self.controllers.as_ref().is_some_and(|all| all.iter().any(|one| one == controller))
    }
}

/// A parsed `/proc/self/mountinfo` and `/proc/self/cgroup`.
#[derive(Debug)]
pub(super) struct Places {
    mounts: Vec<Mount>,
    memberships: Vec<Membership>,
}

#[derive(Debug, PartialEq, Eq)]
struct Membership {
    /// Empty for v2.
    controllers: Vec<String>,
    path: PathBuf,
}

/// A hierarchy as we find it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// The mount point.
    pub(super) top: PathBuf,
    /// Our own cgroup's folder, `top` where the kernel names one that the mount does not show.
    pub(super) own: PathBuf,
}

impl Places {
    pub(super) fn read(roots: &Roots) -> Result<Self> {
        let mounts = text::read(&roots.proc.join("self/mountinfo"))?;
        let memberships = text::read(&roots.proc.join("self/cgroup"))?;
        Ok(Self {
            mounts: mounts
                .lines()
                .filter_map(mount_of)
                .filter(|at| at.point.starts_with(&roots.cgroup))
                .collect(),
            memberships: memberships.lines().filter_map(membership_of).collect(),
        })
    }

    pub(super) fn v2(&self) -> Option<Place> {
        let mount = self.mounts.iter().find(|mount| mount.controllers.is_none())?;
        let own = self.memberships.iter().find(|of| of.controllers.is_empty());
        Some(place(mount, own))
    }

    pub(super) fn v1(&self, controller: &str) -> Option<Place> {
        let mount = self.mounts.iter().find(|mount| mount.has(controller))?;
        let own = self.memberships.iter().find(|of| of.controllers.iter().any(|one| one == controller));
        Some(place(mount, own))
    }
}

fn place(mount: &Mount, membership: Option<&Membership>) -> Place {
    let top = mount.point.clone();
    let own = membership
        .and_then(|of| of.path.strip_prefix(&mount.root).ok())
        // `..` is the kernel's way to say: outside of your cgroup namespace.
        .filter(|inside| inside.components().all(|part| matches!(part, Component::Normal(_))))
        .map(|inside| if inside == Path::new("") { top.clone() } else { top.join(inside) })
        .filter(|own| own.is_dir())
        .unwrap_or_else(|| top.clone());
    Place { top, own }
}

/// `36 35 0:30 /root /point rw,… shared:1 - cgroup cgroup rw,memory`
fn mount_of(line: &str) -> Option<Mount> {
    let (place, kind) = line.split_once(" - ")?;
    let mut place = place.split(' ').skip(3);
    let (root, point) = (unescaped(place.next()?), unescaped(place.next()?));
    let mut kind = kind.split(' ');
    let controllers = match kind.next()? {
        "cgroup2" => None,
        "cgroup" => Some(kind.nth(1)?.split(',').map(str::to_owned).collect()),
        _ => return None,
    };
    Some(Mount { point, root, controllers })
}

/// `4:memory:/path`, `0::/path`
fn membership_of(line: &str) -> Option<Membership> {
    let mut fields = line.splitn(3, ':').skip(1);
    let controllers = fields.next()?.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
    Some(Membership { controllers, path: PathBuf::from(fields.next()?) })
}

/// Blanks, tabs, newlines and backslashes are octal in mountinfo.
fn unescaped(field: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let octal = (first == b'\\').then(|| tail.get(..3)).flatten().and_then(octal_byte);
        bytes.push(octal.unwrap_or(first));
        rest = if octal.is_some() { &tail[3..] } else { tail };
    }
    PathBuf::from(OsString::from_vec(bytes))
}

fn octal_byte(digits: &[u8]) -> Option<u8> {
    u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok()
}

#[cfg(feature = "fuzz")]
pub(super) fn fuzz(text: &str) {
    for line in text.lines() {
        let read = mount_of(line).is_some_and(|mount| mount.point.as_os_str().len() > line.len());
        assert!(!read, "a mount point longer than its line");
        let _ = membership_of(line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    struct Fake {
        folder: tempfile::TempDir,
    }

    impl Fake {
        fn new(mountinfo: &str, cgroup: &str) -> Self {
            let folder = tempfile::tempdir().unwrap();
            fs::create_dir_all(folder.path().join("proc/self")).unwrap();
            let at = folder.path().join("cg").to_string_lossy().into_owned();
            fs::write(folder.path().join("proc/self/mountinfo"), mountinfo.replace('@', &at)).unwrap();
            fs::write(folder.path().join("proc/self/cgroup"), cgroup).unwrap();
            Self { folder }
        }

        fn with_group(self, path: &str) -> Self {
            fs::create_dir_all(self.folder.path().join("cg").join(path)).unwrap();
            self
        }

        fn places(&self) -> Places {
            let roots =
                Roots { proc: self.folder.path().join("proc"), cgroup: self.folder.path().join("cg") };
            Places::read(&roots).unwrap()
        }

        fn at(&self, path: &str) -> PathBuf {
            self.folder.path().join(path)
        }
    }

    const HYBRID: &str = "24 1 0:22 / /proc rw - proc proc rw\n\
        30 24 0:26 / @/memory rw,relatime - cgroup cgroup rw,memory\n\
        31 24 0:27 / @/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
        32 24 0:28 / @/unified rw shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";

    #[test]
    fn a_hybrid_host_has_both_versions() {
        let fake =
            Fake::new(HYBRID, "4:memory:/deep/own\n2:cpu,cpuacct:/\n0::/\n").with_group("memory/deep/own");
        let places = fake.places();
        assert_eq!(
            places.v1("memory"),
            Some(Place { top: fake.at("cg/memory"), own: fake.at("cg/memory/deep/own") })
        );
        assert_eq!(places.v1("cpuacct").unwrap().top, fake.at("cg/cpu,cpuacct"));
        assert_eq!(places.v1("pids"), None);
        assert_eq!(places.v2().unwrap().own, fake.at("cg/unified"));
    }

    #[test]
    fn a_container_that_mounts_only_its_own_part_is_at_the_top_of_it() {
        let mount = "30 24 0:26 /docker/abc @/memory ro - cgroup cgroup rw,memory\n";
        let fake = Fake::new(mount, "4:memory:/docker/abc\n").with_group("memory");
        assert_eq!(fake.places().v1("memory").unwrap().own, fake.at("cg/memory"));
    }

    #[test]
    fn a_path_outside_of_the_mount_falls_back_to_the_top() {
        for path in ["/docker/abc", "/../other", "/.."] {
            let mount = "30 24 0:26 / @ rw - cgroup2 cgroup2 rw\n";
            let fake = Fake::new(mount, &format!("0::{path}\n")).with_group("x");
            assert_eq!(fake.places().v2().unwrap().own, fake.at("cg"), "{path}");
        }
    }

    #[test]
    fn blanks_in_a_mount_point_are_unescaped() {
        assert_eq!(unescaped("/a\\040b\\134c\\x"), PathBuf::from("/a b\\c\\x"));
        assert_eq!(unescaped("/end\\04"), PathBuf::from("/end\\04"));
    }
}
