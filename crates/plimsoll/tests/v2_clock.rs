//! The wall clock is stepped under a running guard. Runs in the VM, whose clock is its own.

mod common;

use common::config::sample;
use common::guard::Folder;
use rustix::time::{ClockId, Timespec, clock_gettime, clock_settime};

const DAY: i64 = 24 * 60 * 60;

/// Emulation is slow: checks get more time than on a real machine.
const PATIENT: &str = "[service.reports.health]\nhttp = \"/health\"\ninterval = \"5s\"\ntimeout = \"5s\"\n";

fn step(seconds: i64) {
    let now = clock_gettime(ClockId::Realtime);
    let then = Timespec { tv_sec: now.tv_sec + seconds, ..now };
    clock_settime(ClockId::Realtime, then).expect("we are root in the VM");
}

#[test]
fn steps_of_the_clock_make_no_incident_hide_none_and_stretch_none() {
    if std::env::var_os("PLIMSOLL_VM").is_none() {
        return common::not_run("only the clock of the VM may be stepped");
    }
    let mut guard = Folder::new().start(&sample("", PATIENT));
    guard.next("ready");
    for (number, days) in (1..).zip([2, -4, 2]) {
        step(days * DAY);
        guard.inject("reports", "/fault/crash");
        let opened = guard.next("incident_opened");
        assert_eq!(opened.cause.as_deref(), Some("exit"), "{opened:?}");
        guard.next("incident_closed");
        let incident = guard.incident(number);
        let dark = incident.dark_ms.expect("it is closed");
        assert!(dark < 60_000, "{dark} ms dark, in {incident:?}");
        assert_eq!(guard.lead("reports").id, format!("reports.{}", number + 1));
    }
    assert_eq!(guard.incidents().len(), 3);
    guard.end();
}
