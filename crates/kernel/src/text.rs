//! Reading and writing the kernel's small text files.

use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use crate::{Error, Result};

/// Room for `memory.stat` of any kernel so far (about 2 KiB on 6.x), with as much again for later ones.
pub(crate) const STAT_BYTES_MAX: usize = 8192;

/// Reads a whole file of at most `bytes_max`; a longer one is cut there. Files in /proc have no size to go by.
pub(crate) fn read_bytes(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(bytes_max).read_to_end(&mut bytes)?;
    Ok(bytes)
}

pub(crate) fn read(path: &Path) -> Result<String> {
    const SMALL_FILE_BYTES_MAX: u64 = 1 << 20;
    let bytes = read_bytes(path, SMALL_FILE_BYTES_MAX).map_err(|error| Error::file("read", path, error))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// One write of the whole text, without `O_CREAT` or `O_TRUNC`: in a cgroup folder neither means anything good.
pub(crate) fn write(path: &Path, text: &str) -> Result<()> {
    fs::OpenOptions::new()
        .write(true)
        .custom_flags(libc::O_CLOEXEC)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|error| Error::file("write", path, error))
}

/// A number alone in its file; `max` is [`u64::MAX`], a negative number 0.
pub(crate) fn read_number(path: &Path) -> Result<u64> {
    let text = read(path)?;
    number(text.trim().as_bytes()).ok_or_else(|| Error::Malformed { path: path.to_owned(), found: text })
}

pub(crate) fn number(text: &[u8]) -> Option<u64> {
    match text {
        b"max" => Some(u64::MAX),
        [b'-', digits @ ..] if !digits.is_empty() && digits.iter().all(u8::is_ascii_digit) => Some(0),
        [] => None,
        digits => digits.iter().try_fold(0_u64, |sum, digit| {
            let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
            sum.checked_mul(10)?.checked_add(digit)
        }),
    }
}

/// Reads from the start of an open file into `buffer`, in one call and without allocating.
pub(crate) fn pread(file: impl AsFd, buffer: &mut [u8]) -> rustix::io::Result<&[u8]> {
    let length = rustix::io::retry_on_intr(|| rustix::io::pread(&file, &mut *buffer, 0))?;
    Ok(&buffer[..length])
}

/// The pairs of a file whose lines are `key value`, as in `memory.stat` and `memory.events`.
pub(crate) fn pairs(text: &[u8]) -> impl Iterator<Item = (&[u8], u64)> {
    text.split(|byte| *byte == b'\n').filter_map(|line| {
        let space = line.iter().position(|byte| *byte == b' ')?;
        Some((&line[..space], number(line[space + 1..].trim_ascii())?))
    })
}

/// Asks until `done` says so or the time is over. Blocks this thread for at most `within`.
pub(crate) fn wait_until(within: Duration, mut done: impl FnMut() -> Result<bool>) -> Result<bool> {
    const PAUSE_MIN: Duration = Duration::from_micros(200);
    const PAUSE_MAX: Duration = Duration::from_millis(10);
    let deadline = Instant::now() + within;
    let mut pause = PAUSE_MIN;
    loop {
        if done()? {
            return Ok(true);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        thread::park_timeout(pause.min(left));
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_whole_or_nothing() {
        assert_eq!(number(b"0"), Some(0));
        assert_eq!(number(b"18446744073709551615"), Some(u64::MAX));
        assert_eq!(number(b"18446744073709551616"), None);
        assert_eq!(number(b"max"), Some(u64::MAX));
        assert_eq!(number(b"-1"), Some(0));
        assert_eq!(number(b"12k"), None);
        assert_eq!(number(b""), None);
        assert_eq!(number(b"-"), None);
    }

    #[test]
    fn pairs_skip_what_is_not_a_pair() {
        let found: Vec<_> = pairs(b"anon 4096\nbroken\nfile x\nshmem 1\n").collect();
        assert_eq!(found, [(&b"anon"[..], 4096), (&b"shmem"[..], 1)]);
    }

    #[test]
    fn waiting_ends_when_the_time_is_over() {
        assert!(!wait_until(Duration::from_millis(5), || Ok(false)).unwrap());
        assert!(wait_until(Duration::ZERO, || Ok(true)).unwrap());
    }
}
