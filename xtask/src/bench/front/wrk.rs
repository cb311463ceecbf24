//! `wrk`, which sends as fast as it is answered, and what it says.

use std::process::Command;
use std::time::Duration;

use crate::bench::front::ground::{LOAD_CORE, on_core};
use crate::error::{Error, Result};
use crate::shell;

const CONNECTIONS: u32 = 32;

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Said {
    pub(super) requests: u64,
    pub(super) took: Duration,
    pub(super) p50: Duration,
    pub(super) p99: Duration,
    /// Answers other than 2xx and 3xx, and connections that failed.
    pub(super) failed: u64,
}

/// One run of so many seconds; each request on a connection of its own if `anew`.
pub(super) fn run(url: &str, seconds: u32, anew: bool) -> Result<Said> {
    let mut command: Command = on_core(LOAD_CORE, "wrk".as_ref());
    command.args(["--threads", "1", "--latency", "--timeout", "10s"]);
    command.args(["--connections", &CONNECTIONS.to_string(), "--duration", &format!("{seconds}s")]);
    if anew {
        command.args(["--header", "Connection: close"]);
    }
    let output = shell::output(command.arg(url))?;
    parse(&output).ok_or_else(|| Error::Output { command: shell::show(&command), what: output })
}

fn parse(output: &str) -> Option<Said> {
    let after =
        |key: &str| output.lines().find_map(|line| line.trim_start().strip_prefix(key)).map(str::trim);
    // `98765 requests in 2.00s, 20.11MB read`
    let total = output.lines().find(|line| line.contains(" requests in "))?;
    let (requests, rest) = total.trim().split_once(" requests in ")?;
    let bad: u64 = after("Non-2xx or 3xx responses:").map_or(Some(0), |count| count.parse().ok())?;
    // `connect 0, read 0, write 0, timeout 0`
    let errors = after("Socket errors:").unwrap_or_default();
    let errors =
        errors.split(|symbol: char| !symbol.is_ascii_digit()).filter_map(|it| it.parse::<u64>().ok());
    Some(Said {
        requests: requests.parse().ok()?,
        took: time(rest.split(',').next()?)?,
        p50: time(after("50%")?)?,
        p99: time(after("99%")?)?,
        failed: bad + errors.sum::<u64>(),
    })
}

/// `550.00us`, `2.10ms`, `1.20s`, `1.05m`.
fn time(text: &str) -> Option<Duration> {
    let unit = text.find(|symbol: char| symbol.is_ascii_alphabetic())?;
    let factor = match &text[unit..] {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        _ => return None,
    };
    Duration::try_from_secs_f64(text[..unit].parse::<f64>().ok()? * factor).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "Running 2s test @ http://127.0.0.1:1/\n  1 threads and 32 connections\n  \
        Thread Stats   Avg      Stdev     Max   +/- Stdev\n    Latency   646.76us  359.51us   5.64ms   89.29%\n    \
        Req/Sec    49.19k     3.05k   52.61k    85.71%\n  Latency Distribution\n     50%  550.00us\n     75%  0.70ms\n     \
        90%    0.95ms\n     99%    2.10ms\n  102772 requests in 2.10s, 24.11MB read\n  \
        Socket errors: connect 0, read 3, write 0, timeout 1\n  Non-2xx or 3xx responses: 5\n\
        Requests/sec:  48939.05\nTransfer/sec:     11.48MB\n";

    #[test]
    fn what_it_says_is_read_with_its_failures() {
        let said = parse(OUTPUT).unwrap();
        assert_eq!((said.requests, said.failed), (102_772, 9));
        let times = [said.took, said.p50, said.p99].map(|time| time.as_micros());
        assert_eq!(times, [2_100_000, 550, 2_100]);
        assert_eq!(parse("unable to connect"), None);
    }
}
