//! `[service.NAME]`.

use std::net::SocketAddr;
use std::ops::Range;
use std::path::{Path, PathBuf};

use plimsoll_core::{Handover, TASKS_DEFAULT};
use plimsoll_front::config::Protocol;
use toml::Spanned;

use super::env_file;
use super::finding::Log;
use super::host::{Host, check_account, check_command};
use super::layers;
use super::model::{Check, Environment, PORT_ENV_DEFAULT, Service};
use super::placeholders;
use super::section::{Section, WrongWord};

const NAME_MAX: usize = 63;
const REPLICAS_MAX: u32 = 1024;
/// The kernel's own ceiling on process numbers.
const TASKS_MAX: u32 = 4_194_304;

/// What reading a service needs beside its table.
#[derive(Clone, Copy)]
pub(super) struct Around<'a> {
    pub(super) folder: &'a Path,
    /// `None`: only the text is checked, not what it names on this machine.
    pub(super) host: Option<&'a Host>,
}

/// A service, and the place of its fixed address.
pub(super) struct Read {
    pub(super) service: Service,
    pub(super) address: Option<Spanned<SocketAddr>>,
}

pub(super) fn services(section: &Section<'_>, around: Around<'_>) -> Vec<Read> {
    let children = section.children();
    children.into_iter().map(|(name, child)| child.read(|child| service(child, &name, around))).collect()
}

fn service(section: &Section<'_>, name: &Spanned<String>, around: Around<'_>) -> Read {
    check_name(section.log(), name);
    let command = command(section);
    let cwd = cwd(section, around);
    let environment = environment(section, around);
    let (user, group) = account(section, around);
    let no_new_privs = section.flag("no_new_privs");
    let replicas = section.small("replicas", 1..=REPLICAS_MAX);
    let tasks = section.small("tasks", 1..=TASKS_MAX);
    let (port_env, address) = endpoint(section);
    let protocol = protocol(section);
    let memory = layers::memory(section.section("memory"), section.span.clone());
    let descriptors = layers::descriptors(section.section("descriptors"));
    let (recovery, stop_signal) = layers::recovery(section.section("recovery"));
    let health = layers::health(section.section("health"));
    let logs = layers::logs(section.section("logs"));
    let mut service = Service {
        name: name.get_ref().clone(),
        command,
        cwd,
        environment,
        user,
        group,
        no_new_privs: no_new_privs.is_none_or(Spanned::into_inner),
        replicas: replicas.and_then(|count| u16::try_from(count).ok()).unwrap_or(1),
        tasks: tasks.unwrap_or(TASKS_DEFAULT),
        port_env,
        address: address.as_ref().map(|address| *address.get_ref()),
        protocol,
        runtime: memory.runtime,
        memory: memory.config,
        descriptors,
        recovery,
        stop_signal,
        check: health.check,
        health: health.config,
        logs,
    };
    layers::settle_soft(&memory, &mut service);
    check_copies(section, &service);
    check_connection(section, &service, health.span.clone());
    check_programs(section, &service, health.span, around);
    // Beside an error it would only distract.
    if !section.log().has_errors() {
        layers::check_abort(section.log(), &memory, &service);
    }
    Read { service, address }
}

fn check_name(log: &Log, name: &Spanned<String>) {
    if !is_name(name.get_ref()) {
        let hint = "write 1 to 63 of a-z, 0-9 and -, beginning with a letter or digit";
        log.error(name.span(), format!("\"{}\" is not a service name", name.get_ref()), hint);
    }
}

/// `[a-z0-9][a-z0-9-]{0,62}`: safe as a folder, a cgroup and part of an address.
pub(super) fn is_name(name: &str) -> bool {
    let fine = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '-';
    !name.is_empty() && name.len() <= NAME_MAX && !name.starts_with('-') && name.chars().all(fine)
}

fn command(section: &Section<'_>) -> Vec<String> {
    const EXAMPLE: &str = "[\"node\", \"server.js\"]";
    let hint = format!("write command = {EXAMPLE}");
    if let Some(value) = section.value("command")
        && let Some(text) = value.get_ref().as_str()
    {
        let words: Vec<String> = text.split_whitespace().map(|word| format!("{word:?}")).collect();
        let hint = format!("write command = [{}]; there is no shell in between", words.join(", "));
        section.error(value.span(), "command must be a list of texts, not one text", &hint);
        return Vec::new();
    }
    let Some(argv) = section.list("command", EXAMPLE) else {
        if !section.has("command") {
            section.error(section.span.clone(), format!("[{}] has no command", section.path), &hint);
        }
        return Vec::new();
    };
    if argv.get_ref().first().is_none_or(|program| program.get_ref().is_empty()) {
        section.error(argv.span(), "the command is empty", &hint);
    }
    for argument in argv.get_ref() {
        check_argument(section, argument);
    }
    argv.into_inner().into_iter().map(Spanned::into_inner).collect()
}

fn check_argument(section: &Section<'_>, argument: &Spanned<String>) {
    if let Some(name) = placeholders::unknown(argument.get_ref()) {
        let message = format!("unknown placeholder {{{name}}}");
        let hint =
            format!("there are {{port}} and {{socket}}; a literal {{{name}}} is written {{{{{name}}}}}");
        section.error(argument.span(), message, &hint);
    }
    if argument.get_ref().contains('\0') {
        section.error(argument.span(), "an argument cannot contain a zero byte", "");
    }
}

fn cwd(section: &Section<'_>, around: Around<'_>) -> PathBuf {
    let written = section.text("cwd", ".");
    let Some(written) = written else { return around.folder.to_owned() };
    let path = joined(around.folder, written.get_ref());
    if around.host.is_some_and(|host| !host.is_trusted()) && !path.is_dir() {
        let what = if path.exists() { "is not a folder" } else { "does not exist" };
        let hint = "write a folder, relative to this file";
        section.error(written.span(), format!("cwd {} {what}", path.display()), hint);
    }
    path
}

/// `.` adds nothing.
fn joined(folder: &Path, path: &str) -> PathBuf {
    folder.join(path).components().collect()
}

/// First the file, then the table, so that the table has the last word.
fn environment(section: &Section<'_>, around: Around<'_>) -> Environment {
    let mut environment = Environment::default();
    let file = section.text("env_file", ".env");
    if let Some(file) = file.filter(|_| around.host.is_some()) {
        let path = joined(around.folder, file.get_ref());
        match env_file::read(&path) {
            Ok(pairs) => pairs.into_iter().for_each(|(name, value)| environment.set(name, value)),
            Err(errors) => {
                for error in errors {
                    section.error(file.span(), error.to_string(), error.hint());
                }
            }
        }
    }
    if let Some(table) = section.section("env") {
        // Its keys are the user's own, so none of them is unknown.
        for (name, value) in table.entries() {
            read_variable(&table, &name, value, &mut environment);
        }
    }
    environment
}

fn read_variable(
    table: &Section<'_>,
    name: &Spanned<&str>,
    value: &Spanned<toml::de::DeValue<'_>>,
    environment: &mut Environment,
) {
    if !env_file::is_variable(name.get_ref()) {
        let hint = "write letters, digits and _, not beginning with a digit";
        table.error(name.span(), format!("\"{}\" is not a variable name", name.get_ref()), hint);
    }
    match value.get_ref().as_str() {
        Some(text) if text.contains('\0') => {
            table.error(value.span(), "a variable cannot contain a zero byte", "");
        }
        Some(text) => environment.set(*name.get_ref(), text),
        None => {
            let hint = format!("put the value in quotes: {} = \"…\"", name.get_ref());
            table.wrong_type(name.get_ref(), "text in quotes", value, &hint);
        }
    }
}

fn account(section: &Section<'_>, around: Around<'_>) -> (Option<String>, Option<String>) {
    let user = section.text("user", "www-data");
    let group = section.text("group", "www-data");
    if let Some(host) = around.host {
        check_account(section.log(), host, user.as_ref(), group.as_ref());
    }
    (user.map(Spanned::into_inner), group.map(Spanned::into_inner))
}

/// Where the service listens: a picked port told by `port_env`, or a fixed `address`.
fn endpoint(section: &Section<'_>) -> (Option<String>, Option<Spanned<SocketAddr>>) {
    let port_env = port_env(section);
    let address = address(section, "address", "127.0.0.1:4000");
    if address.is_some() && section.has("port_env") && port_env.is_some() {
        let hint = "keep port_env for a program that can be told its port, or address for one that cannot";
        section.error(section.span_of("port_env"), "port_env and address exclude each other", hint);
    }
    let port_env = if address.is_some() { None } else { port_env };
    (port_env, address)
}

fn protocol(section: &Section<'_>) -> Protocol {
    let hint = "write \"http1\" (the default), or \"h2c\" for HTTP/2 without TLS";
    let wrong = WrongWord::IsNo { what: "protocol that the front speaks", hint };
    let chosen = section.choice("protocol", &[("http1", Protocol::Http1), ("h2c", Protocol::H2c)], wrong);
    chosen.unwrap_or(Protocol::Http1)
}

/// The variable's name; `false` for a service that listens nowhere.
fn port_env(section: &Section<'_>) -> Option<String> {
    let Some(value) = section.value("port_env") else { return Some(PORT_ENV_DEFAULT.to_owned()) };
    let hint = "write port_env = \"PORT\", or port_env = false for a service that listens nowhere";
    match (value.get_ref().as_str(), value.get_ref().as_bool()) {
        (Some(name), _) if env_file::is_variable(name) => return Some(name.to_owned()),
        (Some(name), _) => section.error(value.span(), format!("\"{name}\" is not a variable name"), hint),
        (None, Some(false)) => {}
        (None, _) => section.wrong_type("port_env", "a variable name", value, hint),
    }
    None
}

pub(super) fn address(
    section: &Section<'_>,
    key: &'static str,
    example: &str,
) -> Option<Spanned<SocketAddr>> {
    let written = section.text(key, example)?;
    let text = written.get_ref();
    let hint = match text.rsplit_once(':') {
        Some(("" | "localhost", port)) => format!("write {key} = \"127.0.0.1:{port}\""),
        Some(("*", port)) => format!("write {key} = \"0.0.0.0:{port}\""),
        Some(_) | None => format!("write an IP address and a port, as in {key} = \"{example}\""),
    };
    match text.parse::<SocketAddr>() {
        Ok(address) if address.port() == 0 => {
            section.error(written.span(), format!("{key} has port 0"), "write the port to listen on");
        }
        Ok(address) => return Some(Spanned::new(written.span(), address)),
        Err(_) => section.error(written.span(), format!("{key}: \"{text}\" is not an address"), &hint),
    }
    None
}

/// Two copies cannot share one fixed address.
fn check_copies(section: &Section<'_>, service: &Service) {
    if service.address.is_none() {
        return;
    }
    let hint = "use port_env instead of address, so that each copy gets a port of its own";
    if service.replicas > 1 {
        section.error(section.span_of("replicas"), "several replicas cannot share one fixed address", hint);
    }
    let name = match service.recovery.handover {
        Handover::Hold => return,
        Handover::Overlap => "overlap",
        Handover::Standby => "standby",
    };
    let message = format!("handover \"{name}\" runs two copies, which cannot share one fixed address");
    let hint = "use port_env instead of address, or handover = \"hold\"";
    section.error(section.span_of("address"), message, hint);
}

/// A check that connects needs somewhere to connect to.
fn check_connection(section: &Section<'_>, service: &Service, health: Option<Range<usize>>) {
    let kind = match service.check {
        Check::Http(_) => "an HTTP check",
        Check::Tcp => "a TCP check (the default)",
        Check::Command(_) | Check::Nothing => return,
    };
    // `port_env` written and refused was told already.
    let switched_off =
        section.value("port_env").is_some_and(|value| value.get_ref().as_bool() == Some(false));
    if switched_off && !service.has_address() {
        let hint = "give the service a port (port_env or address), or write command = [\"./check\"] or tcp = false \
                    under health";
        let span = health.unwrap_or_else(|| section.span_of("port_env"));
        section.error(span, format!("{kind} has nothing to connect to"), hint);
    }
}

/// Whether the programs that it names can be started here.
fn check_programs(
    section: &Section<'_>,
    service: &Service,
    health: Option<Range<usize>>,
    around: Around<'_>,
) {
    let Some(host) = around.host.filter(|_| service.cwd.is_dir()) else { return };
    check_command(section.log(), host, section.span_of("command"), &service.command, service);
    if let Check::Command(argv) = &service.check {
        let span = health.unwrap_or_else(|| section.span_of("health"));
        check_command(section.log(), host, span, argv, service);
    }
}
