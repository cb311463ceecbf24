//! The access log: one line for each request, written beside the requests. A slow disk costs lines, which are counted,
//! and never a request.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use http::Version;
use jiff::Timestamp;

use crate::config::{AccessLogConfig, AccessLogStyle};

/// Lines that wait for the disk.
const LINES_WAITING: usize = 8192;
/// What is buffered is written at least this often.
const FLUSH_EVERY: Duration = Duration::from_millis(500);
const STACK_BYTES: usize = 256 * 1024;

/// One finished request.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) client: IpAddr,
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) version: Version,
    pub(crate) status: u16,
    pub(crate) bytes: u64,
    pub(crate) took: Duration,
    pub(crate) held: Duration,
    pub(crate) attempts: u32,
    pub(crate) replays: u32,
    pub(crate) request_id: String,
    pub(crate) instance: Option<String>,
    pub(crate) reason: Option<&'static str>,
    pub(crate) cut_off: bool,
}

/// Takes lines from every thread.
#[derive(Clone, Debug)]
pub(crate) struct AccessLog {
    queue: SyncSender<Line>,
    lost: Arc<AtomicU64>,
    reopen: Arc<AtomicBool>,
}

impl AccessLog {
    /// Opens the file and starts writing beside.
    pub(crate) fn start(config: &AccessLogConfig) -> io::Result<Self> {
        let file = open(config)?;
        let (queue, lines) = sync_channel(LINES_WAITING);
        let (lost, reopen) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let writer = Writer {
            config: config.clone(),
            file: Some(BufWriter::new(file)),
            lost: Arc::clone(&lost),
            reopen: Arc::clone(&reopen),
        };
        let builder = std::thread::Builder::new().name("plimsoll-access".to_owned()).stack_size(STACK_BYTES);
        builder.spawn(move || writer.run(&lines))?;
        Ok(Self { queue, lost, reopen })
    }

    pub(crate) fn put(&self, line: Line) {
        if self.queue.try_send(line).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The file may have been moved away: the next line goes to a new one.
    pub(crate) fn reopen(&self) {
        self.reopen.store(true, Ordering::Relaxed);
    }

    /// Lines that could not be written.
    pub(crate) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

fn open(config: &AccessLogConfig) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(&config.path)
}

struct Writer {
    config: AccessLogConfig,
    file: Option<BufWriter<File>>,
    lost: Arc<AtomicU64>,
    reopen: Arc<AtomicBool>,
}

impl Writer {
    fn run(mut self, lines: &Receiver<Line>) {
        let mut flushed = Instant::now();
        loop {
            match lines.recv_timeout(FLUSH_EVERY.saturating_sub(flushed.elapsed())) {
                Ok(line) => self.write(&line),
                Err(RecvTimeoutError::Timeout) => {
                    self.flush();
                    flushed = Instant::now();
                }
                Err(RecvTimeoutError::Disconnected) => {
                    self.flush();
                    return;
                }
            }
        }
    }

    fn write(&mut self, line: &Line) {
        if self.file.is_none() || self.reopen.swap(false, Ordering::Relaxed) {
            self.flush();
            self.file = open(&self.config).ok().map(BufWriter::new);
        }
        let text = match self.config.style {
            AccessLogStyle::Common => line.common(Timestamp::now()),
            AccessLogStyle::Json => line.json(Timestamp::now()),
        };
        let written = self.file.as_mut().is_some_and(|file| file.write_all(text.as_bytes()).is_ok());
        if !written {
            self.file = None;
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn flush(&mut self) {
        if self.file.as_mut().is_some_and(|file| file.flush().is_err()) {
            self.file = None;
        }
    }
}

impl Line {
    /// `192.0.2.7 - - [25/Nov/2026:04:12:01 +0000] "GET /reports HTTP/1.1" 200 512 held=340ms attempts=2 …`
    fn common(&self, now: Timestamp) -> String {
        let Self { client, method, status, bytes, .. } = self;
        let (path, version) = (escaped(&self.path), version(self.version));
        let time = now.strftime("%d/%b/%Y:%H:%M:%S +0000");
        let mut text = format!(
            "{client} - - [{time}] \"{method} {path} {version}\" {status} {bytes} took={}us",
            self.took.as_micros()
        );
        if !self.held.is_zero() {
            let _ = write!(text, " held={}ms", self.held.as_millis());
        }
        if self.attempts > 1 {
            let _ = write!(text, " attempts={}", self.attempts);
        }
        if self.replays > 0 {
            let _ = write!(text, " replayed={}", self.replays);
        }
        if let Some(reason) = self.reason {
            let _ = write!(text, " reason={reason}");
        }
        if self.cut_off {
            text.push_str(" cut-off");
        }
        text.push('\n');
        text
    }

    fn json(&self, now: Timestamp) -> String {
        let record = Record {
            time: format!("{now:.3}"),
            client: self.client,
            method: &self.method,
            path: &self.path,
            version: version(self.version),
            status: self.status,
            bytes: self.bytes,
            took_us: u64::try_from(self.took.as_micros()).unwrap_or(u64::MAX),
            held_ms: u64::try_from(self.held.as_millis()).unwrap_or(u64::MAX),
            attempts: self.attempts,
            replays: self.replays,
            cut_off: self.cut_off,
            request_id: &self.request_id,
            instance: self.instance.as_deref(),
            reason: self.reason,
        };
        let mut text = serde_json::to_string(&record).unwrap_or_default();
        text.push('\n');
        text
    }
}

/// A line as JSON.
#[derive(Debug, serde::Serialize)]
struct Record<'a> {
    time: String,
    client: IpAddr,
    method: &'a str,
    path: &'a str,
    version: &'static str,
    /// 0: the client left before there was an answer.
    status: u16,
    bytes: u64,
    took_us: u64,
    held_ms: u64,
    attempts: u32,
    replays: u32,
    cut_off: bool,
    /// As the service got it; empty for what it never got.
    request_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    instance: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
}

/// Fit for a quoted string in a log line: nothing that ends it, and nothing that steers a terminal.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '"' | '\\' => {
                out.push('\\');
                out.push(c);
            }
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out
}

const fn version(version: Version) -> &'static str {
    match version {
        Version::HTTP_09 => "HTTP/0.9",
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_11 => "HTTP/1.1",
        Version::HTTP_2 => "HTTP/2",
        _ => "HTTP",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line() -> Line {
        Line {
            client: "192.0.2.7".parse().expect("an address"),
            method: "POST".into(),
            path: "/a\"b\n".into(),
            version: Version::HTTP_11,
            status: 200,
            bytes: 512,
            took: Duration::from_micros(1500),
            held: Duration::from_millis(340),
            attempts: 2,
            replays: 1,
            request_id: "4f".into(),
            instance: Some("reports.7".into()),
            reason: None,
            cut_off: false,
        }
    }

    #[test]
    fn a_line_is_one_line_whatever_the_path() {
        let at = Timestamp::from_millisecond(1_764_043_921_250).expect("a time");
        let text = line().common(at);
        assert_eq!(
            text,
            "192.0.2.7 - - [25/Nov/2025:04:12:01 +0000] \"POST /a\\\"b\\u000a HTTP/1.1\" 200 512 took=1500us held=340ms attempts=2 replayed=1\n"
        );
        let json = line().json(at);
        assert!(
            json.starts_with("{\"time\":\"2025-11-25T04:12:01.250Z\",") && json.ends_with("}\n"),
            "{json}"
        );
        assert_eq!(json.lines().count(), 1);
    }
}
