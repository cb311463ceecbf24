//! One line that says how far long work has come; on a terminal only, and gone when it is done.

use std::io::{IsTerminal as _, Write as _};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use plimsoll_vault::progress::{Phase, Progress};

const EVERY: Duration = Duration::from_millis(100);
const WIDTH: u64 = 30;

#[derive(Debug)]
pub(super) struct Bar {
    /// When it was drawn last, and of what.
    drawn: Mutex<Option<(Instant, String)>>,
    is_shown: bool,
}

impl Bar {
    pub(super) fn new() -> Self {
        Self { drawn: Mutex::new(None), is_shown: std::io::stderr().is_terminal() }
    }

    pub(super) fn show(&self, phase: &str, is_bytes: bool, done: u64, total: u64) {
        if !self.is_shown {
            return;
        }
        let Ok(mut drawn) = self.drawn.lock() else { return };
        let is_new = drawn.as_ref().is_none_or(|(at, of)| of != phase || at.elapsed() >= EVERY);
        if !is_new && done < total {
            return;
        }
        *drawn = Some((Instant::now(), phase.to_owned()));
        let _ = write!(std::io::stderr(), "\r\x1b[K{}", line(phase, is_bytes, done, total));
    }

    pub(super) fn clear(&self) {
        if self.is_shown && self.drawn.lock().is_ok_and(|mut it| it.take().is_some()) {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

impl Progress for Bar {
    fn at(&self, phase: Phase, done: u64, total: u64) {
        self.show(phase.name(), phase.is_bytes(), done, total);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.clear();
    }
}

/// `fetch      [##############                ]  47 %  470.0 MiB of 1.0 GiB`
fn line(phase: &str, is_bytes: bool, done: u64, total: u64) -> String {
    let amount = |it: u64| if is_bytes { super::bytes(it) } else { it.to_string() };
    if total <= 1 {
        return format!("{phase:<10} …");
    }
    let done = done.min(total);
    let filled = usize::try_from(u128::from(done) * u128::from(WIDTH) / u128::from(total)).unwrap_or(0);
    let empty = usize::try_from(WIDTH).unwrap_or(0) - filled;
    let percent = u128::from(done) * 100 / u128::from(total);
    let (filled, empty) = ("#".repeat(filled), " ".repeat(empty));
    format!("{phase:<10} [{filled}{empty}] {percent:>3} %  {} of {}", amount(done), amount(total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_how_far_it_is() {
        let text = line("fetch", true, 512 << 20, 1 << 30);
        assert_eq!(text, "fetch      [###############               ]  50 %  512 MiB of 1 GiB");
        assert_eq!(line("integrity", false, 0, 1), "integrity  …");
        assert!(line("copy", false, 9, 7).contains("100 %  7 of 7"));
    }
}
