//! One incident as a person wants to read it the morning after: what, when, which layer, how long dark, and what the
//! evidence says.

use std::io::{self, Write};
use std::time::Duration;

use plimsoll_core::units::Bytes;
use plimsoll_guard::logs::for_terminal;
use plimsoll_guard::records::{Evidence, ExitRecord, IncidentRecord, RequestsRecord, SampleRow};
use plimsoll_guard::tell::{clock, span_words};

use super::incidents::dark;

/// Lines of output and rows of a breakdown shown; `--json` has all.
const LOG_LINES: usize = 20;
const ROWS: usize = 8;
const CHART_WIDTH: usize = 60;

/// The cause of an incident that is the guard's own.
const GUARD: &str = "guard";
const OF_GUARD: &str = "\
Connections that came meanwhile have waited; requests that were in flight through the front at that moment have failed.
What the guard printed last is where `plimsoll run` prints (under systemd: journalctl -u plimsoll).";

pub(super) fn print(incident: &IncidentRecord, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "Incident {}: {}", incident.id, incident.summary)?;
    writeln!(out)?;
    writeln!(out, "  service   {}", incident.service)?;
    for (name, what) in [("instance", &incident.instance), ("layer", &incident.layer)] {
        if let Some(what) = what {
            writeln!(out, "  {name:<8}  {what}")?;
        }
    }
    writeln!(out, "  opened    {} UTC", incident.opened.strftime("%Y-%m-%d %H:%M:%S%.3f"))?;
    match incident.closed {
        Some(closed) => {
            let lasted = Duration::try_from(closed.duration_since(incident.opened)).unwrap_or_default();
            writeln!(
                out,
                "  closed    {} UTC, after {}",
                closed.strftime("%H:%M:%S%.3f"),
                span_words(lasted)
            )?;
        }
        None => writeln!(out, "  closed    not yet")?,
    }
    writeln!(out, "  dark      {}", dark(incident))?;
    writeln!(out, "  done      {}", incident.action.as_deref().unwrap_or("nothing yet"))?;
    writeln!(out, "\nWhat was found")?;
    for cause in &incident.causes {
        let layer = cause.layer.as_deref().unwrap_or("-");
        let who = cause.instance.as_deref().unwrap_or(&incident.service);
        writeln!(out, "  {}  {layer:<11}  {who}: {}", clock(cause.time), cause.message)?;
    }
    if let Some(requests) = &incident.requests {
        requests_of(requests, out)?;
    }
    match &incident.evidence {
        Some(evidence) => evidence_of(evidence, out),
        None if incident.causes.iter().any(|it| it.cause == GUARD) => writeln!(out, "\n{OF_GUARD}"),
        None => writeln!(out, "\nNo evidence was kept."),
    }
}

/// What users noticed, as far as the front carried their requests.
fn requests_of(requests: &RequestsRecord, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "\nRequests")?;
    if requests.held > 0 {
        let longest = span_words(Duration::from_millis(requests.longest_hold_ms));
        write!(out, "  {} held, {longest} at the longest", requests.held)?;
        let refused = requests.refused;
        writeln!(
            out,
            "{}",
            if refused > 0 { format!("; {refused} refused in the end") } else { String::new() }
        )?;
    }
    if requests.replayed > 0 {
        writeln!(out, "  {} sent again", requests.replayed)?;
    }
    if requests.unknown_count > 0 {
        writeln!(
            out,
            "  {} may have been carried out, and their clients were told so",
            requests.unknown_count
        )?;
        for it in requests.unknown.iter().take(LOG_LINES) {
            let (method, path, id) = (&it.method, for_terminal(&it.path), for_terminal(&it.request_id));
            writeln!(out, "    {}  {method} {path}  request {id}  {}", clock(it.time), it.reason)?;
        }
    }
    Ok(())
}

fn evidence_of(evidence: &Evidence, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "\nEvidence, taken {} in {} ms", clock(evidence.taken), evidence.took_ms)?;
    if let Some(exit) = &evidence.exit {
        writeln!(out, "  ended with {}", exit_words(exit))?;
    }
    if evidence.oom.oom_kill > 0 {
        writeln!(out, "  the kernel's out-of-memory count moved by {} in this life", evidence.oom.oom_kill)?;
    }
    samples(&evidence.samples, out)?;
    memory(evidence, out)?;
    descriptors(evidence, out)?;
    threads(evidence, out)?;
    log(evidence, out)?;
    if !evidence.missing.is_empty() {
        writeln!(out, "\n  Could not be had")?;
        for missing in &evidence.missing {
            writeln!(out, "    {missing}")?;
        }
    }
    Ok(())
}

fn exit_words(exit: &ExitRecord) -> String {
    let dumped = if exit.core_dumped { ", core dumped" } else { "" };
    match (exit.code, exit.signal) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => {
            format!("{}{dumped}", plimsoll_guard::tell::exit_words(plimsoll_core::Exit::Signal(signal)))
        }
        (None, None) => "an end nobody saw".to_owned(),
    }
}

/// First, last and fastest, and the curve in one line.
fn samples(samples: &[SampleRow], out: &mut dyn Write) -> io::Result<()> {
    let (Some(first), Some(last)) = (samples.first(), samples.last()) else { return Ok(()) };
    let span = Duration::try_from(last.time.duration_since(first.time)).unwrap_or_default();
    let peak = samples.iter().map(|it| it.memory_bytes).max().unwrap_or(0);
    writeln!(
        out,
        "\n  Memory  {} -> {} over {}, peak {} ({} samples)",
        Bytes(first.memory_bytes),
        Bytes(last.memory_bytes),
        span_words(span),
        Bytes(peak),
        samples.len()
    )?;
    if samples.len() > 1 {
        writeln!(out, "    {}", curve(samples, peak))?;
    }
    Ok(())
}

/// Samples at even distances in time, as eighth blocks from zero to the peak.
fn curve(samples: &[SampleRow], peak: u64) -> String {
    const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let (first, last) = (samples[0].time.as_millisecond(), samples[samples.len() - 1].time.as_millisecond());
    let width = CHART_WIDTH.min(samples.len() * 2);
    let at = |column: usize| {
        let share =
            i64::try_from(column).unwrap_or(0) * (last - first) / i64::try_from(width).unwrap_or(1).max(1);
        let index = samples.partition_point(|it| it.time.as_millisecond() <= first + share);
        samples[index.saturating_sub(1)].memory_bytes
    };
    let level = |bytes: u64| usize::try_from(bytes.saturating_mul(7) / peak.max(1)).unwrap_or(7).min(7);
    (1..=width).map(|column| BLOCKS[level(at(column))]).collect()
}

fn memory(evidence: &Evidence, out: &mut dyn Write) -> io::Result<()> {
    let of = |map: &std::collections::BTreeMap<String, u64>, keys: &[(&str, &str)]| -> Vec<String> {
        let rows = keys.iter().filter_map(|(key, name)| Some(format!("{name} {}", Bytes(*map.get(*key)?))));
        rows.collect()
    };
    let smaps = of(
        &evidence.smaps_rollup,
        &[
            ("rss_bytes", "resident"),
            ("pss_anon_bytes", "anonymous"),
            ("pss_file_bytes", "files"),
            ("swap_bytes", "swapped"),
        ],
    );
    if !smaps.is_empty() {
        writeln!(out, "  Process  {}", smaps.join(", "))?;
    }
    let keys: &[(&str, &str)] = if evidence.memory_stat.contains_key("anon") {
        &[("anon", "anonymous"), ("shmem", "shared"), ("kernel", "kernel"), ("file", "page cache")]
    } else {
        &[("total_rss", "anonymous"), ("total_shmem", "shared"), ("total_cache", "page cache")]
    };
    let stat = of(&evidence.memory_stat, keys);
    if !stat.is_empty() {
        writeln!(out, "  Cgroup   {}", stat.join(", "))?;
    }
    Ok(())
}

fn descriptors(evidence: &Evidence, out: &mut dyn Write) -> io::Result<()> {
    let Some(table) = &evidence.descriptors else { return Ok(()) };
    let part = if table.complete { "" } else { ", of which a part was looked at" };
    writeln!(out, "\n  Descriptors  {} of {}{part}", table.count, table.limit)?;
    for row in table.kinds.iter().take(ROWS) {
        let what = if row.detail.is_empty() { &row.kind } else { &row.detail };
        writeln!(out, "    {:>6}  {what}", row.count)?;
    }
    Ok(())
}

fn threads(evidence: &Evidence, out: &mut dyn Write) -> io::Result<()> {
    if evidence.threads.is_empty() {
        return Ok(());
    }
    writeln!(out, "\n  Threads")?;
    for row in evidence.threads.iter().take(ROWS) {
        let place = row.wchan.as_ref().map(|it| format!(" in {it}")).unwrap_or_default();
        writeln!(out, "    {:>6}  {} {}{place}", row.count, row.name, state_word(&row.state))?;
    }
    Ok(())
}

fn state_word(state: &str) -> &str {
    match state {
        "R" => "running",
        "S" | "I" => "sleeping",
        "D" => "stuck in the kernel",
        "T" | "t" => "stopped",
        "Z" | "X" => "ended",
        other => other,
    }
}

fn log(evidence: &Evidence, out: &mut dyn Write) -> io::Result<()> {
    if evidence.log_tail.is_empty() {
        return Ok(());
    }
    let shown = evidence.log_tail.len().min(LOG_LINES);
    writeln!(out, "\n  Last output ({shown} of {} lines kept)", evidence.log_tail.len())?;
    for line in &evidence.log_tail[evidence.log_tail.len() - shown..] {
        writeln!(out, "    {}", for_terminal(line))?;
    }
    Ok(())
}
