//! `cargo xtask vm`: the kernel suites under a pure cgroup v2, in a machine of their own.
//!
//! Debian's kernel and an initramfs of busybox, the static test binaries and the static `plimsoll`, under plain QEMU
//! emulation: needs no root, no KVM and no image, and boots in seconds. Suites that want systemd get the host's, in the
//! same machine, once the others are done. Nothing is installed on the host; kernel and
//! busybox are unpacked below `target/vm`.

mod debian;
mod initramfs;
mod machine;
mod report;
mod suites;
mod systemd;

use std::fs;

use crate::error::{Error, Result};
use crate::tally::Tally;
use crate::vm::report::Report;
use crate::workspace::Workspace;

pub(crate) use suites::{build_plimsoll, is_for_the_vm};

#[derive(Debug, Default, clap::Args)]
pub(crate) struct Args {
    /// Leave a shell open on the machine after the suites; end it with `poweroff -f`
    #[arg(long)]
    keep: bool,
    /// Run only the tests with this in their name
    filter: Option<String>,
}

/// Programs that must be there, with the packages that bring them.
pub(crate) const NEEDS: [&str; 4] = ["qemu-system-x86_64", "cpio", "musl-gcc", "make"];

pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<Tally> {
    if let Some(missing) = NEEDS.iter().find(|program| !crate::shell::has(program)) {
        return Err(Error::Lacks(format!("{missing}; `cargo xtask test` installs it")));
    }
    let folder = workspace.target.join("vm");
    fs::create_dir_all(&folder).map_err(Error::file("make", &folder))?;

    let suites = suites::build(workspace)?;
    let debian = debian::fetch(&folder)?;
    let initrd = initramfs::pack(&folder, &debian.busybox, &suites, args)?;
    println!("booting {} with {} suites", debian.kernel.display(), suites.tests.len());
    let text = machine::run(&folder, &debian.kernel, &initrd, args.keep)?;

    let report = Report::parse(&text);
    let tally = report.tally();
    println!("vm: {tally}");
    report
        .check(&suites.names(), args.filter.is_some())
        .map(|()| tally)
        .map_err(|what| Error::Vm { what, tally })
}
