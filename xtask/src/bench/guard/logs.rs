//! A service that prints 100 MB/s: what it costs the guard, what reaches the disk, and whether the service is held up.

use std::thread;
use std::time::{Duration, Instant};

use crate::bench::Setting;
use crate::bench::figure::Figure;
use crate::bench::guard::proc;
use crate::bench::guard::service::{Program, Service};
use crate::bench::guard::stage::{Stage, bytes_below};
use crate::error::Result;

const PRINTED_PER_SECOND: u64 = 100_000_000;
/// Three files of 10 MB, the default.
const DISK_BYTES_MAX: f64 = 30e6;
const READY_WITHIN: Duration = Duration::from_secs(30);
/// Until what may come at once is used up and the files have been rotated.
const WARM_UP: Duration = Duration::from_secs(5);
const LOOKS: u32 = 10;

pub(super) fn run(setting: &Setting<'_>) -> Result<Vec<Figure>> {
    let service = Service::new(Program::Sample)?;
    let stage = Stage::start(setting, &service.config(setting))?;
    stage.wait_for("ready", 1, READY_WITHIN, |_| ())?;
    let pid = stage.wait_for_process(Program::Sample.word(), None, READY_WITHIN)?;
    let guard = stage.guard_pid();
    service.print(PRINTED_PER_SECOND, WARM_UP + Duration::from_secs(u64::from(LOOKS) + 5))?;
    thread::sleep(WARM_UP);
    let (mut cores, mut printed, mut disk) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..LOOKS {
        let before = (Instant::now(), proc::cpu_time(guard)?, proc::written_bytes(pid)?);
        thread::sleep(Duration::from_secs(1));
        let cpu = proc::cpu_time(guard)?.saturating_sub(before.1);
        #[expect(clippy::cast_precision_loss, reason = "exact up to 8 PiB")]
        let bytes = proc::written_bytes(pid)?.saturating_sub(before.2) as f64;
        let seconds = before.0.elapsed().as_secs_f64();
        cores.push(cpu.as_secs_f64() / seconds);
        printed.push(bytes / seconds);
        disk.push(bytes_below(&stage.logs()));
    }
    Ok(vec![
        Figure::bytes("a service that prints 100 MB/s: log files", &disk).promised(DISK_BYTES_MAX),
        Figure::cores("a service that prints 100 MB/s: the guard's share of a core", &cores),
        Figure::byte_rates("a service that prints 100 MB/s: what it got rid of", &printed),
    ])
}
