//! What came of each fault, and the table at the end.

use std::time::Duration;

use plimsoll_core::Layer;
use serde_json::{Value, json};

use super::board::Scene;
use super::fault::FAULTS;
use super::gauge;
use super::stage::{DESCRIPTOR_LINE, LINE_MIB};
use super::tally::Window;
use super::traffic::{PER_SECOND, TIMEOUT};

/// Why a show broke off that somebody had seen enough of.
pub(super) const INTERRUPTED: &str = "interrupted";

/// One fault of the show. `problem` says why it did not go as it should have.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) fault: &'static str,
    pub(super) expected: Layer,
    /// The layers that had a cause, in the order in which they found it.
    pub(super) acted: Vec<String>,
    pub(super) detected: Option<Duration>,
    pub(super) traffic: Window,
    /// By the guard's account.
    pub(super) dark_told: Option<Duration>,
    pub(super) problem: Option<String>,
}

impl Row {
    pub(super) fn is_well(&self) -> bool {
        self.problem.is_none()
    }

    /// The layer whose work it was when it did it, or else whoever acted.
    pub(super) fn layer(&self) -> String {
        let expected = self.expected.name();
        if self.acted.iter().any(|layer| layer == expected) {
            return expected.to_owned();
        }
        if self.acted.is_empty() { "none".to_owned() } else { self.acted.join(", ") }
    }

    fn detected_words(&self) -> String {
        self.detected.map_or("never".to_owned(), span)
    }

    fn json(&self) -> Value {
        json!({
            "fault": self.fault,
            "layer_expected": self.expected.name(),
            "layers": self.acted,
            "detected_ms": self.detected.map(millis),
            "dark_ms": millis(self.traffic.dark),
            "dark_told_ms": self.dark_told.map(millis),
            "requests_sent": self.traffic.sent,
            "requests_lost": self.traffic.failed,
            "requests_unsure": self.traffic.unsure,
            "ok": self.is_well(),
            "problem": self.problem,
        })
    }
}

/// The show as a whole.
#[derive(Clone, Debug)]
pub(super) struct Report {
    pub(super) rows: Vec<Row>,
    total: Window,
    latency: [Option<Duration>; 2],
    soft_limit: String,
    wall: String,
    took: Duration,
    /// Why it ended before its end.
    pub(super) broken_off: Option<String>,
    /// Processes that were still there after the guard was told to stop.
    pub(super) left_behind: usize,
}

impl Report {
    pub(super) fn of(scene: &Scene, broken_off: Option<String>) -> Self {
        let enforced = |layer: Layer| scene.service.enforced_by(layer.name()).unwrap_or("unknown").to_owned();
        Self {
            rows: scene.rows.clone(),
            total: scene.tally.total(),
            latency: [50, 99].map(|percent| scene.tally.latency(percent)),
            soft_limit: enforced(Layer::SoftLimit),
            wall: enforced(Layer::HardWall),
            took: scene.started.elapsed(),
            broken_off,
            left_behind: 0,
        }
    }

    /// What the guard printed on standard error tells why a show broke off; otherwise it is nobody's business.
    pub(super) fn add_words_of_the_guard(&mut self, words: &str) {
        if let Some(why) = self.broken_off.as_mut().filter(|why| *why != INTERRUPTED && !words.is_empty()) {
            why.push_str("\nThe guard said:\n");
            why.push_str(words);
        }
    }

    pub(super) fn is_well(&self) -> bool {
        let complete = self.rows.len() == FAULTS.len() && self.broken_off.is_none();
        complete && self.left_behind == 0 && self.rows.iter().all(Row::is_well)
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "ok": self.is_well(),
            "took_ms": millis(self.took),
            "faults": self.rows.iter().map(Row::json).collect::<Vec<_>>(),
            "requests_sent": self.total.sent,
            "requests_lost": self.total.failed,
            "requests_unsure": self.total.unsure,
            "latency_p50_ms": self.latency[0].map(millis),
            "latency_p99_ms": self.latency[1].map(millis),
            "hard_wall_enforced_by": self.wall,
            "soft_limit_enforced_by": self.soft_limit,
            "broken_off": self.broken_off,
            "left_behind": self.left_behind,
        })
    }

    /// The table with its verdict and its footnotes.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        if !self.rows.is_empty() {
            text.push_str(&table(&self.rows));
            text.push('\n');
        }
        text.push_str(&self.verdict());
        if !self.rows.is_empty() {
            text.push('\n');
            text.push_str(&self.footnotes());
        }
        text
    }

    fn verdict(&self) -> String {
        let mut text = String::new();
        let mut say = |line: String| text.push_str(&(line + "\n"));
        for row in self.rows.iter().filter(|row| !row.is_well()) {
            say(format!("NOT OK: {}: {}", row.fault, row.problem.as_deref().unwrap_or_default()));
        }
        if let Some(why) = &self.broken_off {
            say(format!(
                "NOT OK: the show broke off after {} of {} faults: {why}",
                self.rows.len(),
                FAULTS.len()
            ));
        }
        if self.left_behind > 0 {
            say(format!("NOT OK: the guard left {} processes behind; they were killed", self.left_behind));
        }
        if self.is_well() {
            let took = self.took.as_secs();
            say(format!("Every layer did its work, and the service is back after every fault ({took} s)."));
        }
        text
    }

    fn footnotes(&self) -> String {
        let mut text = String::new();
        let mut note = |name: &str, words: &str| wrap(&mut text, name, words);
        let look = gauge::INTERVAL.as_millis();
        note(
            "detected in",
            &format!(
                "from the fault's first visible moment until the guard's incident reached the demo. Leaks and the first \
                 spike: from the last look that saw less than the line of {LINE_MIB} MiB or {DESCRIPTOR_LINE} descriptors \
                 (a look every {look} ms, so up to {look} ms too long). The others: from the injection, which the service \
                 answers and carries out some 20 ms later."
            ),
        );
        note(
            "dark for",
            "by the traffic: the longest time in which no request was answered (20 ms when all is well); meanwhile the \
             front holds them. From the \
             second unplanned end in a row on, the next start waits: 250 ms, then 500 ms, at most 10 s.",
        );
        note(
            "requests",
            &format!(
                "{PER_SECOND} a second on schedule, half POST, half GET, half on kept connections, none sent twice; from one \
                 fault to the next, through the front. Lost: refused, broken off, or not answered within {} s of its due \
                 time. Unsure: the service died with it, and the front says 502 \"may have run\" rather than sending a POST \
                 twice; GETs are sent again.",
                TIMEOUT.as_secs()
            ),
        );
        if let [Some(half), Some(most)] = self.latency {
            note(
                "latency",
                &format!(
                    "of those answered, from their due time: half within {}, 99 % within {}.",
                    span(half),
                    span(most)
                ),
            );
        }
        note(
            "hard_wall",
            &match self.wall.as_str() {
                "sampling" => "no cgroup may be written here: nothing stops a spike at the wall but sampling, so that row is \
                               the kill-switch's. `plimsoll check` says what would change it."
                    .to_owned(),
                by => format!(
                    "enforced by {by}. The guard, which is often quicker than the kernel, is asleep in that row (SIGSTOP) \
                     until the kernel has killed, so detecting took that long; then it gives the verdict and starts anew."
                ),
            },
        );
        note(
            "soft_limit",
            &format!(
                "set ({}), and not tried: it works inside a runtime such as V8 or the JVM, and the sample service has none. \
                 See examples/node-reports.",
                self.soft_limit
            ),
        );
        text
    }
}

/// Of two lines, so that the table fits 80 columns.
const HEADS: [[&str; 8]; 2] = [
    ["FAULT", "LAYER THAT", "DETECTED", "DARK", "REQUESTS", "", "", ""],
    ["", "ACTED", "IN", "FOR", "SENT", "LOST", "UNSURE", ""],
];

/// Text to the left, numbers to the right; the last column says in words whether it went well.
fn table(rows: &[Row]) -> String {
    let cells = rows.iter().map(|row| {
        let verdict = if row.is_well() { "ok" } else { "NOT OK" };
        [
            row.fault.to_owned(),
            row.layer(),
            row.detected_words(),
            span(row.traffic.dark),
            row.traffic.sent.to_string(),
            row.traffic.failed.to_string(),
            row.traffic.unsure.to_string(),
            verdict.to_owned(),
        ]
    });
    let lines: Vec<[String; 8]> =
        HEADS.map(|head| head.map(str::to_owned)).into_iter().chain(cells).collect();
    let widths: [usize; 8] =
        std::array::from_fn(|column| lines.iter().map(|line| line[column].len()).max().unwrap_or(0));
    lines.iter().map(|line| aligned(line, widths) + "\n").collect()
}

fn aligned(line: &[String; 8], widths: [usize; 8]) -> String {
    let cell = |column: usize| {
        let (text, width) = (&line[column], widths[column]);
        if matches!(column, 0 | 1 | 7) { format!("{text:<width$}") } else { format!("{text:>width$}") }
    };
    let cells: [String; 8] = std::array::from_fn(cell);
    cells.join("  ").trim_end().to_owned()
}

/// A footnote in at most 80 columns, its words indented behind its name.
fn wrap(text: &mut String, name: &str, words: &str) {
    const WIDTH: usize = 80;
    const INDENT: usize = 14;
    let mut line = format!("{name:<INDENT$}");
    for word in words.split(' ') {
        if line.len() + 1 + word.len() > WIDTH && line.len() > INDENT {
            text.push_str(line.trim_end());
            text.push('\n');
            line = " ".repeat(INDENT);
        }
        if line.len() > INDENT {
            line.push(' ');
        }
        line.push_str(word);
    }
    text.push_str(line.trim_end());
    text.push('\n');
}

/// `42 ms`, `3.1 s`.
pub(super) fn span(span: Duration) -> String {
    match span.as_millis() {
        millis @ ..1000 => format!("{millis} ms"),
        _ => format!("{:.1} s", span.as_secs_f64()),
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(fault: &'static str, problem: Option<&str>) -> Row {
        let (sent, failed, unsure, dark) = (152, 0, 4, Duration::from_millis(180));
        Row {
            fault,
            expected: Layer::KillSwitch,
            acted: vec!["kill_switch".to_owned()],
            detected: Some(Duration::from_millis(31)),
            traffic: Window { sent, failed, unsure, dark },
            dark_told: None,
            problem: problem.map(str::to_owned),
        }
    }

    fn report(rows: Vec<Row>) -> Report {
        let board = super::super::board::Board::new();
        let mut report = board.look(|scene| Report::of(scene, None));
        report.rows = rows;
        report
    }

    #[test]
    fn the_table_is_aligned_and_says_in_words_what_went_well() {
        let text = table(&[row("heap leak, 30 MiB/s", None), row("crash", Some("no incident was opened"))]);
        assert_eq!(
            text,
            "FAULT                LAYER THAT   DETECTED    DARK  REQUESTS\n\
             \x20                    ACTED              IN     FOR      SENT  LOST  UNSURE\n\
             heap leak, 30 MiB/s  kill_switch     31 ms  180 ms       152     0       4  ok\n\
             crash                kill_switch     31 ms  180 ms       152     0       4  NOT OK\n"
        );
    }

    #[test]
    fn only_a_complete_show_without_a_problem_is_well() {
        let rows = |problem| FAULTS.iter().map(|fault| row(fault.name, problem)).collect::<Vec<_>>();
        assert!(report(rows(None)).is_well());
        assert!(!report(rows(Some("no incident"))).is_well());
        assert!(!report(rows(None)[1..].to_vec()).is_well());
        assert!(!Report { left_behind: 1, ..report(rows(None)) }.is_well());
        assert!(!Report { broken_off: Some("interrupted".to_owned()), ..report(rows(None)) }.is_well());
    }

    #[test]
    fn what_went_wrong_is_said_with_what_was_seen() {
        let text = report(vec![row("crash", Some("no incident was opened"))]).text();
        assert!(text.contains("NOT OK: crash: no incident was opened"), "{text}");
        assert!(!text.contains("Every layer"), "{text}");
    }

    #[test]
    fn another_layer_than_the_expected_one_is_shown_as_it_was() {
        let mut row = row("crash", None);
        row.acted = vec!["health".to_owned(), "descriptors".to_owned()];
        assert_eq!(row.layer(), "health, descriptors");
        row.acted.push("kill_switch".to_owned());
        assert_eq!(row.layer(), "kill_switch");
    }

    #[test]
    fn footnotes_fit_eighty_columns() {
        let text = report(vec![row("crash", None)]).footnotes();
        assert!(text.lines().all(|line| line.len() <= 80), "{text}");
    }
}
