//! What the guard reads: orders on its socket, its own ledger after a torn write, records, placeholders.

use std::cell::{Cell, OnceCell};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use plimsoll_guard::control::{ASKS_MAX, Server};
use plimsoll_guard::ledger::{FILE_NAME, LedgerHandle, Span, read_only};
use plimsoll_guard::placeholders;
use plimsoll_guard::records::{EventRecord, IncidentRecord, SampleRollup, Status};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::task::LocalSet;

use crate::kernel::folder;

/// Longest that an answer is waited for; one that follows events has no end.
const ANSWER_WAIT: Duration = Duration::from_millis(40);
/// The same for the question whether it is well, which has an end.
const WELL_WAIT: Duration = Duration::from_secs(5);
/// Of an answer, so much is read.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;

struct Control {
    /// Ends before its runtime does.
    local: LocalSet,
    runtime: Runtime,
    socket: PathBuf,
    _state: TempDir,
}

thread_local! {
    static BEGUN: Cell<bool> = const { Cell::new(false) };
    // Touched only once there is one: then it ends before what tokio keeps in the thread, and may still use that.
    static CONTROL: OnceCell<Control> = const { OnceCell::new() };
    static LEDGER: OnceCell<(TempDir, Vec<u8>)> = const { OnceCell::new() };
}

impl Control {
    /// A real server whose driver has ended.
    fn begin() -> Self {
        let state = folder();
        let socket = state.path().join("fuzz.sock");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let local = LocalSet::new();
        let ledger = LedgerHandle::open(state.path());
        let server = local.block_on(&runtime, Server::bind(&socket)).expect("a socket in memory");
        local.spawn_local(server.serve(mpsc::channel(ASKS_MAX).0, ledger));
        Self { local, runtime, socket, _state: state }
    }

    fn ask(&self, bytes: &[u8], wait: Duration) -> Vec<u8> {
        self.local.block_on(&self.runtime, async {
            let mut stream = UnixStream::connect(&self.socket).await.expect("the server listens");
            // It may hang up before it has read everything.
            let _ = stream.write_all(bytes).await;
            let _ = stream.shutdown().await;
            let mut answer = Vec::new();
            let read = stream.take(ANSWER_BYTES_MAX);
            tokio::pin!(read);
            let _ = tokio::time::timeout(wait, read.read_to_end(&mut answer)).await;
            answer
        })
    }
}

/// Whatever comes over the control socket, which is alive after it.
pub(crate) fn control(bytes: &[u8]) {
    let fresh = (!BEGUN.replace(true)).then(Control::begin);
    CONTROL.with(|cell| {
        let control = cell.get_or_init(|| fresh.expect("one is begun before the first is asked"));
        let answer = control.ask(bytes, ANSWER_WAIT);
        assert!(
            answer.is_empty() || answer.starts_with(b"HTTP/1."),
            "{:?}",
            String::from_utf8_lossy(&answer)
        );
        let well = control.ask(b"GET /healthz HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n", WELL_WAIT);
        assert!(well.starts_with(b"HTTP/1.1 200"), "{:?}", String::from_utf8_lossy(&well));
    });
}

/// A ledger with this torn into it: four bytes each say where, how and what; the first two where it ends.
pub(crate) fn ledger(bytes: &[u8]) {
    LEDGER.with(|cell| {
        let (folder, whole) = cell.get_or_init(whole_ledger);
        let mut torn = whole.clone();
        if let [low, high, changes @ ..] = bytes {
            for change in changes.chunks_exact(4) {
                let at = usize::from(u16::from_le_bytes([change[0], change[1]])) % torn.len();
                let end = (at + usize::from(change[2] >> 4) + 1).min(torn.len());
                torn[at..end].fill(change[3]);
            }
            let length = usize::from(u16::from_le_bytes([*low, *high]));
            torn.truncate(if length == 0 { torn.len() } else { length });
        }
        let path = folder.path().join("torn.db");
        fs::write(&path, &torn).expect("a file in memory");
        read_ledger(&path);
    });
}

fn read_ledger(path: &Path) {
    let Ok(reader) = read_only(path) else { return };
    let _ = reader.events(None, None, 100).map(|rows| assert!(rows.len() <= 100));
    let _ = reader.events(Some("reports"), None, 100);
    let _ = reader.incidents(None, 100).map(|rows| assert!(rows.len() <= 100));
    let _ = reader.incident(1);
    let _ = reader.samples("reports.1", Span::Minute, None, 100);
}

fn whole_ledger() -> (TempDir, Vec<u8>) {
    let folder = folder();
    let ledger = LedgerHandle::open(folder.path());
    let event = r#"{"time":"2026-11-23T20:00:00Z","service":"reports","kind":"ready"}"#;
    let incident =
        r#"{"id":1,"service":"reports","opened":"2026-11-23T20:00:00Z","summary":"memory over the line"}"#;
    for _ in 0..20 {
        ledger.event(serde_json::from_str(event).expect("a record"));
    }
    ledger.incident(serde_json::from_str(incident).expect("a record"));
    assert!(ledger.close(Duration::from_secs(10)), "the ledger was not written");
    let path = folder.path().join(FILE_NAME);
    let whole = fs::read(&path).expect("the ledger's file");
    let events = read_only(&path).and_then(|it| it.events(None, None, 100)).expect("a whole ledger");
    assert_eq!(events.len(), 20, "the template itself must be right");
    (folder, whole)
}

/// Records as the control socket gives them, and back.
pub(crate) fn records(bytes: &[u8]) {
    if let Ok(event) = serde_json::from_slice::<EventRecord>(bytes) {
        let again = serde_json::to_vec(&event).expect("what was read can be written");
        assert_eq!(serde_json::from_slice::<EventRecord>(&again).expect("and read"), event);
    }
    let _ = serde_json::from_slice::<IncidentRecord>(bytes);
    let _ = serde_json::from_slice::<SampleRollup>(bytes);
    let _ = serde_json::from_slice::<Status>(bytes);
}

/// Braces in an argument: what was escaped comes out as it was.
pub(crate) fn placeholders(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let escaped = placeholders::escaped(&text);
    let _ = (placeholders::unknown(&text), placeholders::wants_port(&[text.clone().into_owned()]));
    assert_eq!(placeholders::unknown(&escaped), None, "{escaped:?} of {text:?}");
    let filled = |text: &str| placeholders::substitute(text, Some(4000), Some("/run/a.sock"));
    assert_eq!(filled(&escaped), text, "by way of {escaped:?}");
    let _ = filled(&text);
}
