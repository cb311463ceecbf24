//! One boot of the machine, under QEMU.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::shell::{self, Limits};

/// All suites together; emulation is some ten times slower than the machine it runs on.
const LIMIT: Duration = Duration::from_mins(10);

/// A boot takes 4 s, and 30 s on a busy machine.
const BOOT_LIMIT: Duration = Duration::from_mins(2);

/// On a busy host the emulated timer may stand still for so long that the kernel waits for it for ever, before its first
/// word; seen once in some fifty boots. No test runs before the machine has reported, so booting again repeats none.
const BOOTS_MAX: u32 = 3;

/// With a person at its shell the machine ends when they end it.
const LIMIT_KEPT: Duration = Duration::from_hours(12);

/// `psi=1` because Debian's kernels have PSI built in and switched off; `panic=-1` so that a dead machine ends at once;
/// `no_timer_check` because a timer that is late on a busy host is not broken, and the kernel would panic over it.
const KERNEL_LINE: &str = "console=ttyS0 psi=1 cgroup_no_v1=all no_timer_check panic=-1 quiet loglevel=3";

/// Boots, follows the console, and gives what the suites reported.
pub(super) fn run(folder: &Path, kernel: &Path, initrd: &Path, keep: bool) -> Result<String> {
    let report = folder.join("report.txt");
    let mut command = qemu(kernel, initrd, &report, keep);
    println!("$ {}", shell::show(&command));
    if keep {
        shell::run_interactive(&mut command, LIMIT_KEPT)?;
        return read(&report);
    }
    let log = folder.join("console.log");
    let mut boot = 1;
    loop {
        fs::write(&report, "").map_err(Error::file("write", &report))?;
        match follow(&mut command, &log) {
            Ok(()) | Err(Error::Overdue { .. }) if boot < BOOTS_MAX && read(&report)?.is_empty() => {
                println!("vm: boot {boot} never came to the first test; booting again");
                boot += 1;
            }
            end => return end.and_then(|()| read(&report)),
        }
    }
}

/// One boot, its console shown and written to `log`.
fn follow(command: &mut Command, log: &Path) -> Result<()> {
    let mut console = fs::File::create(log).map_err(Error::file("write", log))?;
    let mut written = Ok(());
    let limits = Limits { first_line: BOOT_LIMIT, whole: LIMIT };
    let end = shell::run_reading(command, limits, &mut |line| {
        if written.is_ok() {
            written = writeln!(console, "{line}");
        }
    });
    written.map_err(Error::file("write", log))?;
    end
}

fn read(report: &Path) -> Result<String> {
    fs::read_to_string(report).map_err(Error::file("read", report))
}

fn qemu(kernel: &Path, initrd: &Path, report: &Path, keep: bool) -> Command {
    let mut command = Command::new("qemu-system-x86_64");
    // Emulation everywhere: slower than KVM, and the same on every machine.
    command.args(["-accel", "tcg", "-cpu", "max", "-m", "2048", "-smp", "2", "-no-reboot"]);
    command.args(["-nodefaults", "-display", "none"]);
    command.args(["-serial", if keep { "mon:stdio" } else { "stdio" }]);
    command.arg("-serial").arg(format!("file:{}", report.display()));
    command.arg("-kernel").arg(kernel).arg("-initrd").arg(initrd).args(["-append", KERNEL_LINE]);
    command
}
