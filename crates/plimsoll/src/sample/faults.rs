//! The switches: what can be made to go wrong, read from `POST /fault/NAME?…`. Nothing is done here.

use std::time::Duration;

use bytesize::ByteSize;
use rustix::process::Signal;

use super::query::{Query, QueryError};

const RATE_DEFAULT: ByteSize = ByteSize::mib(30);
const TOTAL_DEFAULT: ByteSize = ByteSize::mib(400);
const SPIKE_DEFAULT: ByteSize = ByteSize::mib(600);
const LOG_RATE_DEFAULT: ByteSize = ByteSize::mib(100);

/// The signals that a crash may be made of: those that end a process and that this one does not handle.
const CRASH_SIGNALS: [Signal; 7] =
    [Signal::ILL, Signal::TRAP, Signal::ABORT, Signal::BUS, Signal::FPE, Signal::KILL, Signal::SEGV];

/// One fault, fully specified. Rates are per second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// Memory that is touched and never given back.
    LeakHeap {
        rate_bytes: u64,
        total_bytes: u64,
    },
    /// Descriptors that are never closed.
    LeakDescriptors {
        kind: Kind,
        rate: u64,
        total: u64,
    },
    /// Memory taken within `over`, kept for `keep`, then given back.
    Spike {
        size_bytes: u64,
        over: Duration,
        keep: Duration,
    },
    /// The loop that serves stops: requests, health and SIGTERM wait for ever.
    Hang,
    Crash(Crash),
    /// SIGTERM does nothing any more.
    IgnoreTerm,
    /// Lines on stdout.
    Log {
        rate_bytes: u64,
        lasts: Duration,
    },
    /// A process that outlives its parent, in a session of its own.
    Fork {
        lasts: Duration,
    },
    /// Every answer comes `delay` late.
    Slow {
        delay: Duration,
        lasts: Duration,
    },
}

/// What kind of descriptor leaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Pipe,
    File,
    /// Both ends of established TCP connections over loopback.
    Socket,
}

/// How the process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Crash {
    Abort,
    Exit(u8),
    Signal(Signal),
}

impl Fault {
    /// The fault behind `/fault/NAME`, or `None` where there is no such switch.
    pub(super) fn parse(name: &str, mut query: Query<'_>) -> Result<Option<Self>, QueryError> {
        let fault = match name {
            "leak-heap" => leak_heap(&mut query)?,
            "leak-descriptors" => leak_descriptors(&mut query)?,
            "spike" => spike(&mut query)?,
            "hang" => Self::Hang,
            "crash" => Self::Crash(crash(&mut query)?),
            "ignore-term" => Self::IgnoreTerm,
            "log" => Self::Log {
                rate_bytes: query.size("rate", LOG_RATE_DEFAULT)?,
                lasts: query.duration("for", Duration::from_secs(5))?,
            },
            "fork" => Self::Fork { lasts: query.duration("for", Duration::from_mins(10))? },
            "slow" => Self::Slow {
                delay: query.duration("delay", Duration::from_secs(3))?,
                lasts: query.duration("for", Duration::from_secs(20))?,
            },
            _ => return Ok(None),
        };
        query.finish()?;
        Ok(Some(fault))
    }
}

fn leak_heap(query: &mut Query<'_>) -> Result<Fault, QueryError> {
    Ok(Fault::LeakHeap {
        rate_bytes: query.size("rate", RATE_DEFAULT)?,
        total_bytes: query.size("total", TOTAL_DEFAULT)?,
    })
}

fn leak_descriptors(query: &mut Query<'_>) -> Result<Fault, QueryError> {
    let kind = query.typed("kind", "pipe, file or socket", |value| match value {
        "pipe" => Some(Kind::Pipe),
        "file" => Some(Kind::File),
        "socket" => Some(Kind::Socket),
        _ => None,
    })?;
    Ok(Fault::LeakDescriptors {
        kind: kind.unwrap_or(Kind::Pipe),
        rate: query.count("rate", 200)?,
        // More than any sensible limit: by default the limit stops it.
        total: query.count("total", 1_000_000)?,
    })
}

fn spike(query: &mut Query<'_>) -> Result<Fault, QueryError> {
    Ok(Fault::Spike {
        size_bytes: query.size("size", SPIKE_DEFAULT)?,
        over: query.duration("over", Duration::from_secs(2))?,
        keep: query.duration("for", Duration::from_secs(10))?,
    })
}

fn crash(query: &mut Query<'_>) -> Result<Crash, QueryError> {
    let code = query.typed("code", "an exit code from 0 to 255", |value| value.parse().ok())?;
    let signal = query.typed("signal", "one of the signals 4, 5, 6, 7, 8, 9, 11", |value| {
        let number = value.parse::<i32>().ok()?;
        CRASH_SIGNALS.into_iter().find(|signal| signal.as_raw() == number)
    })?;
    match (code, signal) {
        (None, None) => Ok(Crash::Abort),
        (Some(code), None) => Ok(Crash::Exit(code)),
        (None, Some(signal)) => Ok(Crash::Signal(signal)),
        (Some(_), Some(_)) => Err(QueryError::Unknown { key: "signal beside code".to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(name: &str, query: &str) -> Fault {
        Fault::parse(name, Query::parse(query)).unwrap().unwrap()
    }

    fn refusal(name: &str, query: &str) -> String {
        Fault::parse(name, Query::parse(query)).unwrap_err().to_string()
    }

    #[test]
    fn a_heap_leak_has_a_rate_and_a_total() {
        let given = parse("leak-heap", "rate=5MiB&total=1GiB");
        assert_eq!(given, Fault::LeakHeap { rate_bytes: 5 << 20, total_bytes: 1 << 30 });
        let default = parse("leak-heap", "");
        assert_eq!(default, Fault::LeakHeap { rate_bytes: 30 << 20, total_bytes: 400 << 20 });
    }

    #[test]
    fn a_descriptor_leak_names_its_kind() {
        let fault = parse("leak-descriptors", "kind=socket&rate=50&total=300");
        assert_eq!(fault, Fault::LeakDescriptors { kind: Kind::Socket, rate: 50, total: 300 });
        let error = refusal("leak-descriptors", "kind=door");
        assert_eq!(error, "kind=door is not pipe, file or socket");
    }

    #[test]
    fn a_spike_has_a_size_a_rise_and_a_length() {
        let [over, keep] = [2, 10].map(Duration::from_secs);
        assert_eq!(parse("spike", "size=600MiB&over=2s"), Fault::Spike { size_bytes: 600 << 20, over, keep });
    }

    #[test]
    fn a_crash_is_an_abort_an_exit_code_or_a_signal() {
        assert_eq!(parse("crash", ""), Fault::Crash(Crash::Abort));
        assert_eq!(parse("crash", "code=3"), Fault::Crash(Crash::Exit(3)));
        assert_eq!(parse("crash", "signal=11"), Fault::Crash(Crash::Signal(Signal::SEGV)));
    }

    #[test]
    fn a_crash_that_would_not_end_the_process_is_refused() {
        assert!(refusal("crash", "signal=15").contains("one of the signals"));
        assert!(refusal("crash", "code=256").contains("exit code"));
        assert!(refusal("crash", "code=1&signal=9").contains("signal beside code"));
    }

    #[test]
    fn the_switches_without_parameters_refuse_any() {
        for (name, fault) in [("hang", Fault::Hang), ("ignore-term", Fault::IgnoreTerm)] {
            assert_eq!(parse(name, ""), fault);
            assert_eq!(refusal(name, "x=1"), "x is not a parameter here");
        }
    }

    #[test]
    fn log_fork_and_slow_end_by_themselves() {
        let [three, five, twenty] = [3, 5, 20].map(Duration::from_secs);
        assert_eq!(parse("log", "rate=1MiB&for=5s"), Fault::Log { rate_bytes: 1 << 20, lasts: five });
        assert_eq!(parse("fork", "for=20s"), Fault::Fork { lasts: twenty });
        assert_eq!(parse("slow", ""), Fault::Slow { delay: three, lasts: twenty });
    }

    #[test]
    fn there_is_no_other_switch() {
        assert_eq!(Fault::parse("nap", Query::parse("")), Ok(None));
    }
}
