//! The tables of a service that carry the six layers: memory, descriptors, recovery, health; and its logs.

use std::ops::Range;

use plimsoll_core::layers::soft_limit::{self, Hints, Runtime};
use plimsoll_core::units::{Bytes, Share};
use plimsoll_core::{
    DescriptorConfig, Handover, HealthConfig, MemoryConfig, RecoveryConfig, soft_of_aborting_runtime,
};
use toml::Spanned;

use super::finding::Log;
use super::model::{Check, LogConfig, RuntimeChoice, Service, StopSignal};
use super::quantity::size_text;
use super::section::{Section, WrongWord};

/// The kernel's own ceiling on `RLIMIT_NOFILE` unless `fs.nr_open` was raised.
const DESCRIPTORS_MAX: u64 = 1_048_576;
/// How far the working set is over `--max-old-space-size` when V8 aborts on a heap leak, at the least: measured with
/// Node 20 and examples/node-reports, 24 to 34 MiB.
const V8_OVER_SOFT: Bytes = Bytes::mib(24);
/// Below this a runtime cannot even load its libraries.
const DESCRIPTORS_MIN: u64 = 16;

/// The limits, and the place to blame for them.
pub(super) struct Memory {
    pub(super) config: MemoryConfig,
    pub(super) runtime: RuntimeChoice,
    soft_is_named: bool,
    span: Range<usize>,
}

/// `fallback` is the place of a service without this table.
pub(super) fn memory(section: Option<Section<'_>>, fallback: Range<usize>) -> Memory {
    let default = || Memory {
        config: MemoryConfig::default(),
        runtime: RuntimeChoice::Auto,
        soft_is_named: false,
        span: fallback,
    };
    section.map_or_else(default, |section| section.read(read_memory))
}

fn read_memory(section: &Section<'_>) -> Memory {
    let soft = section.size("soft", "256MiB");
    let hard = section.size("hard", "512MiB");
    let recycle = section.size("recycle", "300MiB");
    let persistence = section.duration("for", "5s");
    let runtime = runtime(section);
    let group_kill = section.flag("group_kill");

    let value = |size: &Option<Spanned<Bytes>>| size.as_ref().map(|size| *size.get_ref());
    let mut memory = MemoryConfig::with_defaults(value(&soft), value(&hard), value(&recycle));
    memory.persistence = persistence.map_or(memory.persistence, Spanned::into_inner);
    memory.group_kill = group_kill.map_or(memory.group_kill, Spanned::into_inner);

    // A size that could not be read was told already; its default would only cause a second, wrong complaint.
    let readable = |key, size: &Option<Spanned<Bytes>>| size.is_some() || !section.has(key);
    if readable("soft", &soft) && readable("hard", &hard) && readable("recycle", &recycle) {
        check_order(section, &memory);
    }
    let span = blamed(section, &["soft", "recycle", "hard"]);
    Memory { config: memory, runtime, soft_is_named: section.has("soft"), span }
}

/// Line and soft limit are both under the wall.
fn check_order(section: &Section<'_>, memory: &MemoryConfig) {
    let (soft, hard, recycle) = (memory.soft, memory.hard, memory.recycle);
    if recycle >= hard {
        let hint = format!(
            "the line has to be reached before the wall: write recycle = \"{}\", or raise hard",
            size_text(rounded(hard.scaled(6, 10)))
        );
        let message = format!("the recycle line ({recycle}) is not under the hard wall ({hard})");
        section.error(blamed(section, &["recycle", "hard"]), message, &hint);
    }
    if soft >= hard {
        let hint = format!(
            "the runtime's own limit has to be reached before the wall: write soft = \"{}\", or raise hard",
            size_text(rounded(hard.scaled(1, 2)))
        );
        let message = format!("the soft limit ({soft}) is not under the hard wall ({hard})");
        section.error(blamed(section, &["soft", "hard"]), message, &hint);
    }
}

/// Gives a runtime that aborts at its limit a default under which the line comes first. What the user named stands.
pub(super) fn settle_soft(memory: &Memory, service: &mut Service) {
    if !memory.soft_is_named && sets_v8_limit(service) {
        service.memory.soft = soft_of_aborting_runtime(service.memory.hard);
    }
}

/// Where V8's own limit ends the process before the line is reached: the line has to come first, since a recycle
/// loses nothing and an abort everything in flight.
pub(super) fn check_abort(log: &Log, memory: &Memory, service: &Service) {
    let MemoryConfig { soft, hard, recycle, .. } = service.memory;
    let aborts_at = soft + V8_OVER_SOFT;
    if aborts_at > recycle || soft >= hard || recycle >= hard || !sets_v8_limit(service) {
        return;
    }
    let message = format!(
        "V8 aborts at about {aborts_at} (soft limit {soft}), before the recycle line ({recycle}) is reached"
    );
    let between = recycle + (hard - recycle).scaled(1, 2);
    let hint =
        format!("write soft = \"{}\", between line and wall, or lower recycle", size_text(rounded(between)));
    log.warn(memory.span.clone(), message, &hint);
}

/// Whether the soft limit goes to V8; a limit of the user's own is theirs to judge.
pub(super) fn sets_v8_limit(service: &Service) -> bool {
    let argv: Vec<&str> = service.command.iter().map(String::as_str).collect();
    let runtime = match service.runtime {
        RuntimeChoice::Off => None,
        RuntimeChoice::Fixed(runtime) => Some(runtime),
        RuntimeChoice::Auto => soft_limit::detect(&argv, Hints::default()),
    };
    let Some(runtime) = runtime.filter(|runtime| runtime.aborts()) else { return false };
    let limit =
        soft_limit::environment(runtime, service.memory.soft, &argv, |name| service.environment.get(name));
    !limit.variables.is_empty()
}

/// The first of `keys` that is written: the one to look at.
fn blamed(section: &Section<'_>, keys: &[&str]) -> Range<usize> {
    let written = keys.iter().find(|key| section.has(key));
    written.map_or(section.span.clone(), |key| section.span_of(key))
}

/// A size worth proposing: whole mebibytes, where there is one.
fn rounded(size: Bytes) -> Bytes {
    const MIB: u64 = 1 << 20;
    if size.0 < MIB { size } else { Bytes(size.0 / MIB * MIB) }
}

fn runtime(section: &Section<'_>) -> RuntimeChoice {
    let fixed = Runtime::ALL.map(|runtime| (runtime.name(), RuntimeChoice::Fixed(runtime)));
    let words = [("auto", RuntimeChoice::Auto), ("none", RuntimeChoice::Off)].into_iter().chain(fixed);
    let words: Vec<(&str, RuntimeChoice)> = words.collect();
    section.choice("runtime", &words, WrongWord::Unknown).unwrap_or(RuntimeChoice::Auto)
}

pub(super) fn descriptors(section: Option<Section<'_>>) -> DescriptorConfig {
    let read = |section: &Section<'_>| {
        let default = DescriptorConfig::default();
        let limit = section.whole("limit", DESCRIPTORS_MIN..=DESCRIPTORS_MAX);
        DescriptorConfig {
            limit: limit.map_or(default.limit, Spanned::into_inner),
            recycle: share(section).unwrap_or(default.recycle),
        }
    };
    section.map_or_else(DescriptorConfig::default, |section| section.read(read))
}

/// A share over 0 and up to 1, kept in thousandths.
fn share(section: &Section<'_>) -> Option<Share> {
    let value = section.value("recycle")?;
    let hint = "write a share of the limit over 0 and up to 1, as in recycle = 0.9";
    let written = value.get_ref();
    let number = written.as_float().map(|number| number.as_str().replace('_', ""));
    let number = number.or_else(|| written.as_integer().map(|number| number.as_str().to_owned()));
    let Some(number) = number else {
        section.wrong_type("recycle", "a share such as 0.9", value, hint);
        return None;
    };
    let share = number.parse().ok().and_then(thousandths).and_then(Share::per_mille);
    if share.is_none() {
        section.error(value.span(), "recycle is not a share of the limit", hint);
    }
    share
}

/// `None` outside 0 to 1, where the cast would not be exact.
fn thousandths(number: f64) -> Option<u16> {
    if !(0.0..=1.0).contains(&number) {
        return None;
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "0 to 1000, as checked above"
    )]
    let rounded = (number * 1000.0).round() as u16;
    Some(rounded)
}

pub(super) fn recovery(section: Option<Section<'_>>) -> (RecoveryConfig, StopSignal) {
    section.map_or_else(Default::default, |section| section.read(read_recovery))
}

fn read_recovery(section: &Section<'_>) -> (RecoveryConfig, StopSignal) {
    let default = RecoveryConfig::default();
    let handover = handover(section).unwrap_or(default.handover);
    let signal = stop_signal(section);
    let drain = section.duration("drain", "30s");
    let stop_grace = section.duration("stop_grace", "10s");
    let backoff_max = section.positive_duration("backoff_max", "10s");
    let recycles = section.small("recycles_per_hour", 1..=3600);
    let recovery = RecoveryConfig {
        handover,
        drain: drain.map_or(default.drain, Spanned::into_inner),
        stop_grace: stop_grace.map_or(default.stop_grace, Spanned::into_inner),
        backoff_max: backoff_max.map_or(default.backoff_max, Spanned::into_inner),
        recycles_per_hour: recycles.unwrap_or(default.recycles_per_hour),
    };
    (recovery, signal)
}

fn handover(section: &Section<'_>) -> Option<Handover> {
    let words = [("hold", Handover::Hold), ("overlap", Handover::Overlap), ("standby", Handover::Standby)];
    section.choice("handover", &words, WrongWord::Unknown)
}

fn stop_signal(section: &Section<'_>) -> StopSignal {
    let Some(written) = section.text("stop_signal", "SIGTERM") else { return StopSignal::default() };
    if let Some(signal) = StopSignal::named(written.get_ref()) {
        return signal;
    }
    if written.get_ref().trim_start_matches("SIG") == "KILL" {
        let hint = "it cannot be caught, so nothing could drain; it is sent anyway once stop_grace is over";
        section.error(written.span(), "stop_signal must be one that the service can catch", hint);
    } else {
        let known = StopSignal::ALL.map(StopSignal::name);
        section.refuse_word("stop_signal", &written, &known, WrongWord::Unknown);
    }
    StopSignal::default()
}

/// Layer 6, and the place to blame when there is nothing to connect to.
pub(super) struct Health {
    pub(super) check: Check,
    pub(super) config: HealthConfig,
    pub(super) span: Option<Range<usize>>,
}

pub(super) fn health(section: Option<Section<'_>>) -> Health {
    let default = || Health { check: Check::Tcp, config: HealthConfig::default(), span: None };
    section.map_or_else(default, |section| section.read(read_health))
}

fn read_health(section: &Section<'_>) -> Health {
    let (check, span) = check(section);
    let default = HealthConfig::default();
    let interval = section.positive_duration("interval", "30s");
    let timeout = section.positive_duration("timeout", "10s");
    let retries = section.small("retries", 1..=100);
    let start_period = section.duration("start_period", "40s");
    let hang = section.positive_duration("hang", "2s");
    let config = HealthConfig {
        probed: check != Check::Nothing,
        interval: interval.map_or(default.interval, Spanned::into_inner),
        timeout: timeout.map_or(default.timeout, Spanned::into_inner),
        retries: retries.unwrap_or(default.retries),
        start_period: start_period.map_or(default.start_period, Spanned::into_inner),
        hang: hang.map_or(default.hang, Spanned::into_inner),
    };
    if config.timeout > config.interval {
        let message = "a check may take longer than the time between two checks";
        let hint = "write a timeout no longer than the interval";
        section.log().warn(blamed(section, &["timeout", "interval"]), message, hint);
    }
    Health { check, config, span: Some(span) }
}

/// One of `http`, `tcp` and `command`; `tcp` when none is written.
fn check(section: &Section<'_>) -> (Check, Range<usize>) {
    let http = section.text("http", "/health").map(|path| (path.span(), http_check(section, path)));
    let tcp = section.flag("tcp");
    let tcp = tcp.map(|on| (on.span(), if on.into_inner() { Check::Tcp } else { Check::Nothing }));
    let command = section.list("command", "[\"./check\"]").map(|argv| {
        let (span, argv) = (argv.span(), argv.into_inner().into_iter().map(Spanned::into_inner).collect());
        (span, command_check(section, argv))
    });
    let mut written: Vec<(Range<usize>, Check)> = [http, tcp, command].into_iter().flatten().collect();
    written.sort_by_key(|(span, _)| span.start);
    let mut written = written.into_iter();
    let Some((span, check)) = written.next() else { return (Check::Tcp, section.span.clone()) };
    for (second, _) in written {
        section.error(second, "a second kind of check", "keep one of http, tcp and command");
    }
    (check, span)
}

fn http_check(section: &Section<'_>, path: Spanned<String>) -> Check {
    let text = path.get_ref();
    let fine = text.starts_with('/') && text.chars().all(|letter| letter.is_ascii_graphic());
    if !fine {
        let hint = "write a path that begins with a slash, as in http = \"/health\"; host and port are the instance's";
        section.error(path.span(), "http is not a path", hint);
    }
    Check::Http(path.into_inner())
}

fn command_check(section: &Section<'_>, argv: Vec<String>) -> Check {
    if argv.first().is_none_or(String::is_empty) {
        section.error(
            section.span_of("command"),
            "the check's command is empty",
            "write command = [\"./check\"]",
        );
    }
    Check::Command(argv)
}

pub(super) fn logs(section: Option<Section<'_>>) -> LogConfig {
    let read = |section: &Section<'_>| {
        let size = section.size("size", "10MB");
        let keep = section.small("keep", 1..=100);
        let default = LogConfig::default();
        LogConfig { size: size.map_or(default.size, Spanned::into_inner), keep: keep.unwrap_or(default.keep) }
    };
    section.map_or_else(LogConfig::default, |section| section.read(read))
}
