//! Kernel and busybox from Debian's archive, unpacked and not installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{Error, Result};
use crate::shell;
use crate::test::apt;

/// The package that always depends on the newest kernel without drivers for real hardware.
const KERNEL_NEWEST: &str = "linux-image-cloud-amd64";
const KERNEL_PREFIX: &str = "linux-image-";
const BUSYBOX: &str = "busybox-static";

#[derive(Debug)]
pub(super) struct Debian {
    pub(super) kernel: PathBuf,
    pub(super) busybox: PathBuf,
}

/// What an earlier run unpacked is used again, so that a second run needs no network.
pub(super) fn fetch(folder: &Path) -> Result<Debian> {
    if let Some(debian) = unpacked(folder) {
        return Ok(debian);
    }
    if !shell::has("apt-get") || !shell::has("dpkg-deb") {
        return Err(Error::Lacks("apt-get and dpkg-deb, which bring the VM's kernel".into()));
    }
    let kernel = newest_kernel().or_else(|_no_lists_yet| {
        apt::update()?;
        newest_kernel()
    })?;
    for package in [kernel.as_str(), BUSYBOX] {
        unpack(folder, package)?;
    }
    unpacked(folder)
        .ok_or_else(|| Error::Check(format!("{kernel} or {BUSYBOX} holds no kernel or no busybox")))
}

fn unpacked(folder: &Path) -> Option<Debian> {
    let packages = fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path());
    let mut kernels: Vec<PathBuf> = packages.filter_map(|package| kernel_in(&package)).collect();
    kernels.sort();
    let busybox = ["bin/busybox", "usr/bin/busybox"].map(|path| folder.join(BUSYBOX).join(path));
    Some(Debian { kernel: kernels.pop()?, busybox: busybox.into_iter().find(|path| path.is_file())? })
}

fn kernel_in(package: &Path) -> Option<PathBuf> {
    let name = package.file_name()?.to_str()?;
    let boot = fs::read_dir(name.starts_with(KERNEL_PREFIX).then(|| package.join("boot"))?).ok()?;
    boot.flatten().map(|entry| entry.path()).find(|path| {
        path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with("vmlinuz-"))
    })
}

fn newest_kernel() -> Result<String> {
    let mut command = Command::new("apt-cache");
    let output = shell::output(command.args(["depends", KERNEL_NEWEST]))?;
    kernel_of(&output).ok_or_else(|| Error::Output {
        command: shell::show(&command),
        what: "names no kernel; are the package lists there (apt-get update)?".into(),
    })
}

/// The kernel's package in the output of `apt-cache depends`.
fn kernel_of(depends: &str) -> Option<String> {
    let mut packages = depends.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
    packages.find(|package| package.starts_with(KERNEL_PREFIX)).map(str::to_owned)
}

/// Downloads a package and unpacks it into a folder of its name, which appears only when it is whole.
fn unpack(folder: &Path, package: &str) -> Result<()> {
    let (done, partial) = (folder.join(package), folder.join(format!("{package}.partial")));
    if done.is_dir() {
        return Ok(());
    }
    remove(&partial)?;
    fs::create_dir_all(&partial).map_err(Error::file("make", &partial))?;
    println!("$ apt-get download {package}");
    let mut download = Command::new("apt-get");
    shell::output(download.args(["download", package]).current_dir(&partial))?;
    let entries = fs::read_dir(&partial).map_err(Error::file("list", &partial))?;
    let archive = entries
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|it| it == "deb"));
    let archive = archive.ok_or_else(|| Error::Check(format!("apt-get downloaded no package {package}")))?;
    shell::output(Command::new("dpkg-deb").arg("-x").arg(&archive).arg(&partial))?;
    fs::remove_file(&archive).map_err(Error::file("remove", &archive))?;
    fs::rename(&partial, &done).map_err(Error::file("rename", &partial))
}

fn remove(folder: &Path) -> Result<()> {
    if !folder.exists() {
        return Ok(());
    }
    fs::remove_dir_all(folder).map_err(Error::file("remove", folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_package_is_read_from_apts_answer() {
        let answer = "linux-image-cloud-amd64\n  Depends: linux-image-6.1.0-56-cloud-amd64\n";
        assert_eq!(kernel_of(answer).as_deref(), Some("linux-image-6.1.0-56-cloud-amd64"));
        assert_eq!(kernel_of("linux-image-cloud-amd64\n"), None);
    }

    #[test]
    fn the_newest_unpacked_kernel_is_used_and_half_a_download_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let write = |path: &str| {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        };
        write("linux-image-6.1.0-40-cloud-amd64/boot/vmlinuz-6.1.0-40-cloud-amd64");
        assert!(unpacked(folder.path()).is_none());
        write("busybox-static/bin/busybox");
        write("linux-image-6.1.0-56-cloud-amd64/boot/vmlinuz-6.1.0-56-cloud-amd64");
        write("linux-image-6.1.0-57-cloud-amd64.partial/boot/System.map");
        let kernel = unpacked(folder.path()).unwrap().kernel;
        assert!(kernel.ends_with("vmlinuz-6.1.0-56-cloud-amd64"), "{}", kernel.display());
    }
}
