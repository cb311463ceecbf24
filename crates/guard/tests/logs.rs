//! The logs on real pipes and real files.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test that cannot go on fails")]

mod small_disk;

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use plimsoll_guard::logs::{self, LINE_BYTES_MAX, LogBounds, PumpConfig, PumpHandle};
use rustix::pipe::{PipeFlags, pipe_with};
use small_disk::{DEADLINE, SmallDisk, wait_for};

const MB: u64 = 1_000_000;
const SMALL: LogBounds = LogBounds { file_bytes: MB, files: 3 };

struct Bench {
    logs: tempfile::TempDir,
    pump: PumpHandle,
}

impl Bench {
    fn new() -> Self {
        Self::with_rate(4 * MB, 32 * MB)
    }

    fn with_rate(bytes_per_second: u64, burst_bytes: u64) -> Self {
        let logs = tempfile::tempdir().unwrap();
        let config = PumpConfig { bytes_per_second, burst_bytes, ..PumpConfig::new(logs.path().to_owned()) };
        Self { pump: PumpHandle::start(config).unwrap(), logs }
    }

    fn path(&self) -> &Path {
        self.logs.path()
    }

    /// The end that an instance prints into.
    fn add(&self, service: &str, instance: &str) -> File {
        add(&self.pump, service, instance, SMALL)
    }

    fn texts(&self, service: &str) -> Vec<String> {
        match logs::read(self.path(), service, None, None) {
            Ok(lines) => lines.map(|line| line.text).collect(),
            Err(_) => Vec::new(),
        }
    }

    fn wait_for_text(&self, service: &str, text: &str) {
        wait_for(text, || self.texts(service).iter().any(|line| line.contains(text)));
    }
}

fn add(pump: &PumpHandle, service: &str, instance: &str, bounds: LogBounds) -> File {
    let (output, input) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    pump.add(service, instance, output, bounds);
    File::from(input)
}

fn disk_bytes(folder: &Path) -> u64 {
    fs::read_dir(folder).map_or(0, |entries| entries.map(|it| it.unwrap().metadata().unwrap().len()).sum())
}

/// `number` of every line that has one, and the lines that were told to be missing.
fn numbered(texts: &[String]) -> (Vec<u64>, u64) {
    let numbers = texts.iter().filter_map(|text| text.split_once(' ')?.0.parse().ok()).collect();
    let told = texts.iter().filter_map(|text| {
        text.strip_prefix("plimsoll dropped ")?.split_once(" lines")?.0.parse::<u64>().ok()
    });
    (numbers, told.sum())
}

#[test]
fn lines_of_all_instances_of_a_service_lie_in_one_file_with_time_and_instance() {
    let bench = Bench::new();
    let mut seven = bench.add("reports", "reports.7");
    writeln!(seven, "listening\twell\r").unwrap();
    drop(seven);
    bench.wait_for_text("reports", "listening");
    let mut eight = bench.add("reports", "reports.8");
    eight.write_all(b"two\nlast words \xff").unwrap();
    drop(eight);
    bench.wait_for_text("reports", "last words");
    let lines: Vec<_> = logs::read(bench.path(), "reports", None, None).unwrap().collect();
    let shown: Vec<_> = lines.iter().map(|it| (it.instance.as_str(), it.text.as_str())).collect();
    let wanted =
        [("reports.7", "listening\twell"), ("reports.8", "two"), ("reports.8", "last words \u{fffd}")];
    assert_eq!(shown, wanted);
    assert!(lines.is_sorted_by_key(|line| line.time));
    let stored = fs::read_to_string(bench.path().join("reports/current.log")).unwrap();
    assert!(stored.lines().all(|line| line.contains("Z reports.")), "{stored}");
}

#[test]
fn a_service_that_prints_a_hundred_megabytes_neither_blocks_nor_fills_the_disk_nor_starves_another() {
    const BYTES: u64 = 200 * MB;
    let bench = Bench::with_rate(MB, 2 * MB);
    let mut loud = bench.add("loud", "loud.1");
    let mut quiet = bench.add("quiet", "quiet.1");
    let block =
        (0..1000).map(|number| format!("{number:>6} {}\n", "x".repeat(92))).collect::<Vec<_>>().concat();
    let shouting = std::thread::spawn(move || {
        let begun = Instant::now();
        for _ in 0..BYTES / 100_000 {
            loud.write_all(block.as_bytes()).unwrap();
        }
        (loud, begun.elapsed())
    });
    for number in 0..200 {
        writeln!(quiet, "{number} is heard").unwrap();
        std::thread::yield_now();
    }
    let (loud, took) = shouting.join().unwrap();
    println!("{} MB/s", BYTES / MB * 1000 / u64::try_from(took.as_millis()).unwrap().max(1));
    drop((loud, quiet));
    bench.wait_for_text("quiet", "199 is heard");
    let (heard, missing) = numbered(&bench.texts("quiet"));
    assert_eq!((heard, missing), ((0..200).collect(), 0));

    bench.wait_for_text("loud", "plimsoll dropped");
    assert!(bench.pump.stop(DEADLINE));
    assert!(disk_bytes(&bench.path().join("loud")) <= SMALL.file_bytes * u64::from(SMALL.files));
    let texts = bench.texts("loud");
    let gap = texts.iter().find(|text| text.starts_with("plimsoll dropped")).unwrap();
    assert!(gap.ends_with("bytes) of output: over 1 MB/s"), "{gap}");
    assert!(
        texts.iter().all(|text| text.len() == 99 || text.starts_with("plimsoll dropped")),
        "no line is torn"
    );
    let health = bench.pump.health();
    assert!(health.ok && health.dropped_bytes > BYTES / 2, "{health:?}");
}

#[test]
fn order_is_kept_and_every_line_is_either_there_or_told_to_be_missing() {
    const LINES: u64 = 100_000;
    let logs = tempfile::tempdir().unwrap();
    let config =
        PumpConfig { bytes_per_second: MB, burst_bytes: 3 * MB, ..PumpConfig::new(logs.path().to_owned()) };
    let pump = PumpHandle::start(config).unwrap();
    let mut input = add(&pump, "reports", "reports.1", LogBounds { file_bytes: 100 * MB, files: 1 });
    let text = (0..LINES).map(|number| format!("{number} {}\n", "y".repeat(90))).collect::<Vec<_>>().concat();
    input.write_all(text.as_bytes()).unwrap();
    drop(input);
    assert!(pump.stop(DEADLINE));
    let lines: Vec<_> =
        logs::read(logs.path(), "reports", None, None).unwrap().map(|line| line.text).collect();
    let (numbers, missing) = numbered(&lines);
    assert!(numbers.is_sorted() && numbers.len() > 10_000);
    assert_eq!(numbers.len() as u64 + missing, LINES);
}

#[test]
fn a_line_without_end_is_cut_and_marked() {
    let bench = Bench::new();
    let mut input = bench.add("reports", "reports.1");
    input.write_all("z".repeat(LINE_BYTES_MAX + 10).as_bytes()).unwrap();
    input.write_all(b" end\n").unwrap();
    drop(input);
    bench.wait_for_text("reports", "end");
    let texts = bench.texts("reports");
    assert_eq!(texts.len(), 2);
    assert!(texts[0].ends_with("z […] ") && texts[1] == " […] zzzzzzzzzz end", "{}", texts[1]);
}

#[test]
fn a_flush_brings_the_last_lines_of_one_instance_within_reach() {
    let bench = Bench::new();
    let mut one = bench.add("reports", "reports.1");
    let mut two = bench.add("reports", "reports.2");
    for number in 0..500 {
        writeln!(one, "one {number}").unwrap();
        writeln!(two, "two {number}").unwrap();
    }
    wait_for("a flush in time", || bench.pump.flush("reports"));
    let tail = logs::tail_lines(bench.path(), "reports", "reports.1", 200, 256 << 10);
    assert_eq!(tail.len(), 200);
    assert!(tail[0].ends_with("Z reports.1 | one 300"), "{}", tail[0]);
    assert!(tail[199].ends_with("one 499"));
    // Which of the two pipes was read last is not said, but a hundred bytes hold two lines.
    let short = |instance| logs::tail_lines(bench.path(), "reports", instance, 200, 100).len();
    assert_eq!(short("reports.1") + short("reports.2"), 2);
    assert_eq!(logs::tail_lines(bench.path(), "nobody", "nobody.1", 200, 100), [""; 0]);
    assert!(bench.pump.flush("nobody"));
}

#[test]
fn reading_starts_at_a_time_and_ends_with_the_last_so_many_over_all_files() {
    let logs = tempfile::tempdir().unwrap();
    let folder = logs.path().join("reports");
    fs::create_dir(&folder).unwrap();
    let line = |second: u32| format!("2026-11-23T20:00:{second:02}.000Z reports.1 | {second}\n");
    fs::write(folder.join("current.2.log"), line(1) + &line(2)).unwrap();
    fs::write(folder.join("current.1.log"), line(3) + &line(4)).unwrap();
    fs::write(folder.join("current.log"), line(5) + &line(6) + "2026-11-23T20:00:07.000Z reports.1 | to")
        .unwrap();
    let read = |since: Option<&str>, last| {
        let since = since.map(|since| since.parse().unwrap());
        let lines = logs::read(logs.path(), "reports", since, last).unwrap();
        lines.map(|line| line.text).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(read(None, None), "1 2 3 4 5 6 to");
    assert_eq!(read(Some("2026-11-23T20:00:04Z"), None), "4 5 6 to");
    assert_eq!(read(None, Some(4)), "4 5 6 to");
    assert_eq!(read(None, Some(0)), "");
    assert_eq!(read(None, Some(100)), "1 2 3 4 5 6 to");
    assert_eq!(read(Some("2026-11-23T20:00:06Z"), Some(100)), "6 to");
    let missing = logs::read(logs.path(), "nobody", None, None).unwrap_err();
    assert_eq!(missing.kind(), std::io::ErrorKind::NotFound);
}

#[test]
fn a_thousand_idle_pipes_cost_next_to_nothing() {
    let bench = Bench::new();
    raise_descriptor_limit();
    bench.pump.flush("warm-up");
    let before = resident_bytes();
    let mut inputs: Vec<(String, File)> = (0..1000)
        .map(|number| {
            let name = format!("service-{number}");
            let input = bench.add(&name, &format!("{name}.1"));
            (name, input)
        })
        .collect();
    wait_for("the pipes to be taken over", || bench.pump.flush("service-999"));
    let each = resident_bytes().saturating_sub(before) / 1000;
    println!("{each} bytes for each service with one idle pipe");
    assert!(each < 2000, "{each} bytes each; pages are coarse, but not that coarse");
    assert_eq!(fs::read_dir(bench.path()).unwrap().count(), 0, "nothing is made before something is printed");

    for (name, input) in &mut inputs {
        writeln!(input, "hello from {name}").unwrap();
    }
    assert!(bench.pump.stop(DEADLINE));
    for (name, _) in &inputs {
        assert_eq!(bench.texts(name), [format!("hello from {name}")]);
    }
}

#[test]
fn few_files_are_held_open_whatever_the_number_of_services() {
    let bench = Bench::new();
    raise_descriptor_limit();
    let mut inputs: Vec<File> = Vec::new();
    for round in 0..2 {
        for number in 0..200 {
            if round == 0 {
                inputs.push(bench.add(&format!("s{number}"), &format!("s{number}.1")));
            }
            writeln!(inputs[number], "round {round}").unwrap();
        }
    }
    bench.wait_for_text("s199", "round 1");
    wait_for("a flush in time", || bench.pump.flush("s199"));
    let open =
        fs::read_dir("/proc/self/fd").unwrap().filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    let ours = open.filter(|target| target.starts_with(bench.path())).count();
    assert!((1..=64).contains(&ours), "{ours}");
    assert_eq!(bench.texts("s0"), ["round 0", "round 1"]);
}

#[test]
fn a_full_disk_costs_output_and_nothing_else() {
    let Some(disk) = SmallDisk::mount() else { return };
    let pump = PumpHandle::start(PumpConfig::new(disk.path().join("logs"))).unwrap();
    let mut input = add(&pump, "reports", "reports.1", SMALL);
    let text = |service| match logs::read(&disk.path().join("logs"), service, None, None) {
        Ok(lines) => lines.map(|line| line.text).collect::<Vec<_>>(),
        Err(_) => Vec::new(),
    };
    writeln!(input, "before").unwrap();
    wait_for("the first line", || text("reports") == ["before"]);
    disk.fill();
    let mut lines = 0_u64;
    wait_for("the disk to refuse", || {
        lines += 1;
        writeln!(input, "{lines} {}", "x".repeat(1000)).unwrap();
        !pump.health().ok
    });
    let health = pump.health();
    assert!(health.message.contains("output of reports cannot be stored"), "{health:?}");
    disk.free();
    wait_for("the disk to take it", || {
        lines += 1;
        writeln!(input, "{lines} again").unwrap();
        pump.health().ok
    });
    drop(input);
    assert!(pump.stop(DEADLINE));
    let (numbers, missing) = numbered(&text("reports"));
    assert!(numbers.is_sorted() && missing > 0);
    assert_eq!(numbers.len() as u64 + missing, lines, "every line is there or told to be missing");
}

#[test]
fn a_follower_sees_every_line_over_rotations_and_a_torn_one_only_once_it_is_whole() {
    let bench = Bench::new();
    let bounds = LogBounds { file_bytes: 64 << 10, files: 2 };
    let mut follow = logs::follow(bench.path(), "reports", None, None).unwrap();
    assert_eq!(follow.next_within(Duration::ZERO).unwrap(), None, "waits for a service that never printed");
    let mut input = add(&bench.pump, "reports", "reports.1", bounds);
    let mut number = 0_u64;
    for _ in 0..40 {
        let from = number;
        for _ in 0..100 {
            writeln!(input, "{number} {}", "f".repeat(100)).unwrap();
            number += 1;
        }
        for wanted in from..number {
            let line = follow.next_within(DEADLINE).unwrap().unwrap();
            assert!(line.text.starts_with(&format!("{wanted} ")), "{wanted}: {}", line.text);
        }
    }
    assert!(bench.path().join("reports/current.1.log").exists(), "it was rotated");

    wait_for("a flush in time", || bench.pump.flush("reports"));
    let mut late = logs::follow(bench.path(), "reports", None, Some(2)).unwrap();
    writeln!(input, "new").unwrap();
    let seen: Vec<String> = (0..3).map(|_| late.next_within(DEADLINE).unwrap().unwrap().text).collect();
    assert!(seen[0].starts_with("3998 ") && seen[1].starts_with("3999 ") && seen[2] == "new", "{seen:?}");

    let current = bench.path().join("reports/current.log");
    let mut stranger = fs::OpenOptions::new().append(true).open(current).unwrap();
    stranger.write_all(b"2026-11-23T20:00:07.000Z x.1 | to").unwrap();
    assert_eq!(late.next_within(Duration::from_millis(300)).unwrap(), None);
    stranger.write_all(b"rn\n").unwrap();
    assert_eq!(late.next_within(DEADLINE).unwrap().unwrap().text, "torn");
}

#[test]
fn the_end_of_the_guard_stores_what_was_printed_so_far() {
    let bench = Bench::new();
    let mut input = bench.add("reports", "reports.1");
    input.write_all(b"one\nhalf a li").unwrap();
    assert!(bench.pump.stop(DEADLINE));
    assert_eq!(bench.texts("reports"), ["one", "half a li"]);
}

fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
}

fn resident_bytes() -> u64 {
    let text = fs::read_to_string("/proc/self/statm").unwrap();
    text.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

#[test]
fn a_pipe_is_given_back_once_nobody_prints_into_it() {
    let bench = Bench::new();
    let (output, input) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    let copy: OwnedFd = input.try_clone().unwrap();
    bench.pump.add("reports", "reports.1", output, SMALL);
    File::from(input).write_all(b"from a parent\n").unwrap();
    bench.wait_for_text("reports", "from a parent");
    let mut child = File::from(copy);
    child.write_all(b"from a child that outlives it\n").unwrap();
    bench.wait_for_text("reports", "outlives");
    drop(child);
    assert!(bench.pump.flush("reports"));
}
