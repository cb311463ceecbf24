//! Guards that are replaced by a newer program, and ways in which that goes wrong. Where the newer one lies is in the
//! environment.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use plimsoll_init::protocol::ToInit;
use plimsoll_init::{Link, Told};
use plimsoll_kernel::process::{Signal, signal};
use plimsoll_kernel::{Roots, Signals};

use super::{PATIENCE, begin, ear, end_init, found_and_ended, say_bye, start_child, welcomed};

/// Longer than init waits for a candidate.
const LONGER: Duration = Duration::from_secs(45);

pub(super) fn as_guard(kind: &str) -> bool {
    let newer = PathBuf::from(std::env::var_os("PLIMSOLL_NEWER").unwrap());
    let is_newer = std::env::current_exe().unwrap() == newer;
    match (kind, is_newer) {
        (_, false) if kind.starts_with("upgrade-") => older(kind, &newer),
        ("upgrade-silent", true) => silent(),
        ("upgrade-dies-taking", true) => dies_taking(),
        ("upgrade-dies-young", true) => dies_young(),
        ("upgrade-orphaned", true) => takes_over(),
        ("upgrade-ends", true) => is_told_to_end(),
        // It is ended before it is handed anything.
        ("upgrade-stays", true) => prepared().1.is_empty(),
        ("upgrade-cures", true) => cures(),
        _ => false,
    }
}

/// Asks for the newer one in its first life. In a later one it is there because that failed.
fn older(kind: &str, newer: &PathBuf) -> bool {
    // Told to end in the middle, it lets go all the same.
    let ends = Signals::take(&[Signal::TERM]).unwrap();
    let link = Link::inherited().unwrap();
    let welcome = welcomed(&link);
    let held = begin(&link);
    if kind == "upgrade-cures" && !welcome.reduced {
        // Until this one is asked to do only what is needed.
        std::process::abort();
    }
    link.say(&ToInit::Ready).unwrap();
    if !held.is_empty() {
        return say_bye(&link, found_and_ended(&held));
    }
    let heard = ear(&link);
    let child = start_child(&link);
    link.upgrade("newer", std::fs::File::open(newer).unwrap()).unwrap();
    loop {
        link.say(&ToInit::Fed).unwrap();
        match heard.recv_timeout(Duration::from_millis(500)) {
            Ok(Told::Yield) if kind == "upgrade-orphaned" => std::process::abort(),
            Ok(Told::Yield) if kind == "upgrade-stays" => {
                end_init();
                let told = waits_for_end(&ends);
                signal(&Roots::default(), child, Signal::KILL).unwrap();
                return say_bye(&link, told);
            }
            Ok(Told::Yield) => {
                if kind == "upgrade-ends" {
                    end_init();
                }
                link.say(&ToInit::Yielded).unwrap();
            }
            Ok(Told::Leave) => return true,
            Ok(Told::NotUpgraded { why }) => {
                // Nothing has changed but that: the child is ours still.
                return say_bye(&link, kind == "upgrade-silent" && why.contains("before it could guard"));
            }
            Ok(_) | Err(_) => {}
        }
    }
}

fn silent() -> bool {
    let link = Link::inherited().unwrap();
    welcomed(&link);
    std::thread::park_timeout(LONGER);
    true
}

/// Says that it stands ready, and is handed everything.
fn prepared() -> (Link, Vec<plimsoll_init::Held>) {
    let link = Link::inherited().unwrap();
    welcomed(&link);
    link.say(&ToInit::Prepared).unwrap();
    let held = begin(&link);
    (link, held)
}

fn dies_taking() -> bool {
    prepared();
    std::process::abort();
}

fn dies_young() -> bool {
    let (link, _) = prepared();
    link.say(&ToInit::Ready).unwrap();
    std::process::abort();
}

fn takes_over() -> bool {
    let (link, held) = prepared();
    link.say(&ToInit::Ready).unwrap();
    say_bye(&link, found_and_ended(&held))
}

fn is_told_to_end() -> bool {
    let signals = Signals::take(&[Signal::TERM]).unwrap();
    let (link, held) = prepared();
    link.say(&ToInit::Ready).unwrap();
    let told = waits_for_end(&signals);
    say_bye(&link, found_and_ended(&held) && told)
}

fn waits_for_end(signals: &Signals) -> bool {
    let until = Instant::now() + PATIENCE;
    while signals.next() != Some(Signal::TERM) {
        if Instant::now() > until {
            return false;
        }
        std::thread::park_timeout(Duration::from_millis(5));
    }
    true
}

fn cures() -> bool {
    let link = Link::inherited().unwrap();
    let welcome = welcomed(&link);
    link.say(&ToInit::Prepared).unwrap();
    let held = begin(&link);
    link.say(&ToInit::Ready).unwrap();
    say_bye(&link, found_and_ended(&held) && !welcome.reduced)
}
