//! `[front.limits]`: what a client can make the front hold or wait for, at most.

use std::time::Duration;

use plimsoll_core::units::Bytes;
use plimsoll_front::config::Limits;
use toml::Spanned;

use crate::config::quantity::size_text;
use crate::config::section::Section;

const CONNECTIONS_MAX: u32 = 1_000_000;
/// A head must fit into memory for each of as many connections as there may be.
const HEAD_MAX: Bytes = Bytes::mib(1);
const KEEP_MAX: Bytes = Bytes::mib(16);

/// Those written; the others as they are by default. Connections are `None` where only the descriptors bound them.
pub(super) fn read(section: &Section<'_>) -> (Limits, Option<u32>) {
    let mut limits = Limits::default();
    let connections = section.small("connections", 1..=CONNECTIONS_MAX);
    set(&mut limits.connections_per_client, section.small("connections_per_client", 0..=CONNECTIONS_MAX));
    set(&mut limits.streams, section.small("streams", 1..=10_000));
    let headers = section.small("headers", 10..=1_000).and_then(|it| usize::try_from(it).ok());
    set(&mut limits.headers, headers);
    let spans: [(&'static str, &str, &mut Duration); 8] = [
        ("idle", "60s", &mut limits.idle),
        ("head_wait", "10s", &mut limits.head_wait),
        ("handshake", "10s", &mut limits.handshake),
        ("body_idle", "30s", &mut limits.body_idle),
        ("write_stall", "30s", &mut limits.write_stall),
        ("connect", "2s", &mut limits.connect),
        ("answer", "60s", &mut limits.answer),
        ("body_rate_after", "10s", &mut limits.body_rate_after),
    ];
    for (key, example, limit) in spans {
        set(limit, section.positive_duration(key, example).map(Spanned::into_inner));
    }
    set(&mut limits.head_bytes, bytes(section, "head", "32KiB", HEAD_MAX));
    set(&mut limits.uri_bytes, bytes(section, "uri", "8KiB", HEAD_MAX));
    set(&mut limits.keep_bytes, bytes(section, "keep", "64KiB", KEEP_MAX));
    set(&mut limits.body_bytes, section.size("body", "100MiB").map(|size| size.get_ref().0));
    set(&mut limits.body_rate_min, section.size("body_rate", "1KiB").map(|size| size.get_ref().0));
    (limits, connections)
}

fn set<T>(limit: &mut T, written: Option<T>) {
    if let Some(written) = written {
        *limit = written;
    }
}

fn bytes(section: &Section<'_>, key: &'static str, example: &str, most: Bytes) -> Option<usize> {
    let size = section.size(key, example)?;
    if size.get_ref().0 > most.0 {
        let hint = format!("write at most {}, as in {key} = \"{example}\"", size_text(most));
        section.error(size.span(), format!("{key} is out of range"), &hint);
        return None;
    }
    usize::try_from(size.get_ref().0).ok()
}
