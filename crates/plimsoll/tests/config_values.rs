//! What a right configuration becomes.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use plimsoll::config::{Check, Config, Host, NOT_YET, RuntimeChoice, runtime as runtime_of, size_text};
use plimsoll_core::layers::soft_limit::Runtime;
use plimsoll_core::units::Bytes;
use plimsoll_core::{Handover, ServiceConfig};
use plimsoll_front::config::{AccessLogConfig, AccessLogStyle, Limits, Protocol, ReplayPolicy};
use proptest::prelude::*;

fn parsed(text: &str) -> Config {
    let result = Config::parse(Path::new("/srv/app/plimsoll.toml"), text.to_owned(), None);
    result.unwrap_or_else(|errors| panic!("{errors}")).0
}

#[test]
fn the_shortest_file_gets_every_default() {
    let config = parsed("[service.reports]\ncommand = [\"node\", \"server.js\"]\n");
    let [service] = &config.services[..] else { panic!("one service") };
    let mut head = ServiceConfig::named("reports");
    // V8 ends at its own limit, which therefore stands over the line.
    head.memory.soft = Bytes::mib(448);
    assert_eq!(service.head(), head);
    assert_eq!(service.command, ["node", "server.js"]);
    assert_eq!(service.cwd, Path::new("/srv/app"));
    assert_eq!(service.port_env.as_deref(), Some("PORT"));
    assert_eq!((service.replicas, service.tasks, service.no_new_privs), (1, 4096, true));
    assert_eq!((&service.check, service.runtime), (&Check::Tcp, RuntimeChoice::Auto));
    assert_eq!(service.stop_signal.name(), "SIGTERM");
    assert!(config.not_yet.is_empty() && config.front.is_none() && config.sweeps.is_empty());
}

#[test]
fn a_program_that_v8_does_not_run_gets_half_of_the_wall_for_its_soft_limit() {
    let config = parsed("[service.reports]\ncommand = [\"python3\", \"server.py\"]\n");
    assert_eq!(config.services[0].head(), ServiceConfig::named("reports"));
}

/// The file of the manual, with every key there is.
const EVERYTHING: &str = r#"
[service.reports]
command = ["node", "server.js", "--listen={port}"]
cwd = "app"
env = { NODE_ENV = "production" }
env_file = ".env"
user = "www-data"
group = "www-data"
no_new_privs = false
replicas = 2
tasks = 512
port_env = "HTTP_PORT"

[service.reports.memory]
soft = "200MiB"
hard = "1GiB"
recycle = "400MiB"
for = "250ms"
runtime = "node"
group_kill = false

[service.reports.descriptors]
limit = 1024
recycle = 0.75

[service.reports.recovery]
handover = "overlap"
stop_signal = "SIGINT"
drain = "1m30s"
stop_grace = "0s"
backoff_max = "20s"
recycles_per_hour = 4

[service.reports.health]
http = "/health"
interval = "5s"
timeout = "2s"
retries = 2
start_period = "1m"
hang = "1s"

[service.reports.logs]
size = "1MiB"
keep = 5

[service.worker]
command = ["./worker"]
port_env = false
health = { command = ["./check"] }
protocol = "h2c"

[front]
http = "127.0.0.1:8080"
https = "0.0.0.0:443"
hold_wait = "30s"
hold_requests = 10000
hold_bytes = "64MiB"
trusted = ["10.0.0.0/8", "::1"]
proxy_protocol = ["192.0.2.7"]
fence = true
[front.access_log]
file = "access.log"
format = "common"
[front.limits]
connections = 500
connections_per_client = 50
streams = 20
headers = 64
idle = "10s"
head_wait = "2s"
handshake = "3s"
body_idle = "4s"
body_rate = "2KiB"
body_rate_after = "7s"
write_stall = "5s"
connect = "1s"
answer = "2m"
head = "16KiB"
uri = "4KiB"
keep = "128KiB"
body = "1GiB"
[front.tls]
acme = { domains = ["example.org"], email = "ops@example.org", directory = "letsencrypt" }
redirect = false
hsts = "180d"
[[front.route]]
host = "Example.org"
path = "/api"
service = "reports"
replay = "always"
timeout = "5s"

[admin]
http = "0.0.0.0:9640"
token = "env:TOKEN"
socket = "plimsoll.sock"

[[vault]]
database = "data/reports.db"
to = "file:///var/backups/reports"
every = "24h"
continuous = true
keep = { daily = 7, weekly = 4, monthly = 12 }

[alerts]
slack = "env:SLACK_WEBHOOK_URL"
pagerduty = "env:PAGERDUTY_ROUTING_KEY"
webhook = { url = "https://example.org/hook", secret = "env:HOOK" }
email = { smtp = "smtps://mail.example.org", to = ["ops@example.org"] }

[[sweep]]
match = { exe = "/usr/bin/node", args = "dist/main" }
over = "300MiB"
orphan_after = "10m"
every = "2m"
act = false

[docker]
watch = ["label=plimsoll.guard=true"]
"#;

#[test]
fn every_key_of_the_contract_is_taken() {
    let config = parsed(EVERYTHING);
    let [service, worker] = &config.services[..] else { panic!("two services") };
    let ServiceConfig { memory, descriptors, recovery, health, .. } = service.head();
    assert_eq!(
        (memory.soft, memory.hard, memory.recycle),
        (Bytes::mib(200), Bytes::mib(1024), Bytes::mib(400))
    );
    assert_eq!((memory.persistence, memory.group_kill), (Duration::from_millis(250), false));
    assert_eq!((descriptors.limit, descriptors.recycle.thousandths()), (1024, 750));
    assert_eq!((recovery.handover, recovery.drain), (Handover::Overlap, Duration::from_secs(90)));
    assert_eq!((health.retries, health.start_period), (2, Duration::from_mins(1)));
    assert_eq!((service.runtime, service.replicas), (RuntimeChoice::Fixed(Runtime::Node), 2));
    assert_eq!((service.stop_signal.number(), service.tasks), (2, 512));
    assert_eq!((service.logs.size, service.logs.keep), (Bytes::mib(1), 5));
    assert_eq!(service.environment.get("NODE_ENV"), Some("production"));
    assert_eq!((&worker.check, worker.has_address()), (&Check::Command(vec!["./check".into()]), false));
    assert_eq!(config.admin.socket.as_deref(), Some(Path::new("/srv/app/plimsoll.sock")));
    let front = config.front.as_ref().expect("a front");
    assert_eq!((front.trusted.len(), front.proxy_protocol.len(), front.fence), (2, 1, true));
    assert_eq!((front.connections, front.redirect, front.hsts), (Some(500), false, Some(days(180))));
    let log = AccessLogConfig { path: "/srv/app/access.log".into(), style: AccessLogStyle::Common };
    assert_eq!(front.access_log, Some(log));
    let limits = Limits {
        connections: Limits::default().connections,
        connections_per_client: 50,
        idle: Duration::from_secs(10),
        head_wait: Duration::from_secs(2),
        handshake: Duration::from_secs(3),
        body_idle: Duration::from_secs(4),
        body_rate_min: 2048,
        body_rate_after: Duration::from_secs(7),
        write_stall: Duration::from_secs(5),
        connect: Duration::from_secs(1),
        answer: Duration::from_mins(2),
        head_bytes: 16 * 1024,
        headers: 64,
        uri_bytes: 4096,
        body_bytes: 1 << 30,
        keep_bytes: 128 * 1024,
        streams: 20,
    };
    assert_eq!(front.limits, limits);
    let route = &front.routes[0];
    assert_eq!((route.host.as_deref(), route.replay), (Some("example.org"), ReplayPolicy::Always));
    assert_eq!(route.timeout, Some(Duration::from_secs(5)));
    assert_eq!((service.protocol, worker.protocol), (Protocol::Http1, Protocol::H2c));
    assert_eq!(config.sweeps[0].over, Some(Bytes::mib(300)));
    assert_eq!(config.not_yet, NOT_YET);
}

const fn days(count: u64) -> Duration {
    Duration::from_hours(24 * count)
}

#[test]
fn services_keep_the_order_of_the_file() {
    let config = parsed("[service.b]\ncommand = [\"b\"]\n[service.a]\ncommand = [\"a\"]\n");
    let names: Vec<&str> = config.services.iter().map(|service| service.name.as_str()).collect();
    assert_eq!(names, ["b", "a"]);
}

#[test]
fn limits_left_out_follow_the_wall() {
    let config = parsed("[service.x]\ncommand = [\"x\"]\nmemory = { hard = \"1GiB\" }\n");
    let memory = config.services[0].memory;
    assert_eq!(memory.soft, Bytes::mib(512));
    assert_eq!(memory.recycle, Bytes((1_u64 << 30) * 6 / 10));
}

#[test]
fn the_table_has_the_last_word_over_the_env_file_and_neither_is_shown() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join(".env"), "A=file\nB=file\n").expect("written");
    let file = folder.path().join("plimsoll.toml");
    let text = "[service.x]\ncommand = [\"sh\"]\nenv_file = \".env\"\nenv = { B = \"table\" }\n";
    fs::write(&file, text).expect("written");
    let (config, _) = Config::load(&file).unwrap_or_else(|errors| panic!("{errors}"));
    let environment = &config.services[0].environment;
    assert_eq!((environment.get("A"), environment.get("B")), (Some("file"), Some("table")));
    assert_eq!(format!("{environment:?}"), r#"{"A", "B"}"#);
}

#[test]
fn reading_for_the_socket_alone_does_not_need_the_programs() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("plimsoll.toml");
    let text = "[service.x]\ncommand = [\"no-such-program\"]\nenv_file = \"missing\"\n[admin]\nsocket = \"x.sock\"\n";
    fs::write(&file, text).expect("written");
    let (config, _) = Config::read(&file).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(config.admin.socket, Some(folder.path().join("x.sock")));
    assert!(Config::load(&file).is_err());
}

#[test]
fn a_sweep_with_one_condition_has_that_one_alone() {
    let sweep = |rest: &str| {
        parsed(&format!("[[sweep]]\nmatch = {{ exe = \"/usr/bin/node\" }}\n{rest}")).sweeps.remove(0)
    };
    assert_eq!(sweep("").over, Some(Bytes::mib(300)));
    assert!(sweep("").orphan_after.is_some() && !sweep("").act);
    assert_eq!(sweep("orphan_after = \"1m\"\n").over, None);
    assert_eq!(sweep("over = \"1GiB\"\n").orphan_after, None);
}

#[test]
fn the_runtime_is_what_the_user_says_or_what_the_program_tells() {
    let folder = tempfile::tempdir().expect("a folder");
    let program = folder.path().join("serve");
    fs::write(&program, "#!/usr/bin/env python3\n").expect("written");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("executable");
    let of = |command: &str, runtime: &str| {
        let text =
            format!("[service.x]\ncommand = [\"{command}\"]\nmemory = {{ runtime = \"{runtime}\" }}\n");
        let parsed = Config::parse(&folder.path().join("plimsoll.toml"), text, None);
        runtime_of(&parsed.unwrap_or_else(|errors| panic!("{errors}")).0.services[0])
    };
    assert_eq!(of("node", "auto"), Some(Runtime::Node));
    assert_eq!(of("node", "none"), None);
    assert_eq!(of("node", "jvm"), Some(Runtime::Jvm));
    assert_eq!(of("/bin/true", "auto"), Some(Runtime::Native));
    assert_eq!(of("missing", "auto"), Some(Runtime::Native));
    assert_eq!(of("./serve", "auto"), Some(Runtime::Python));
}

#[test]
fn numbers_may_be_grouped() {
    let config = parsed("[service.x]\ncommand = [\"x\"]\ndescriptors = { limit = 65_536, recycle = 1 }\n");
    let descriptors = config.services[0].descriptors;
    assert_eq!((descriptors.limit, descriptors.recycle.thousandths()), (65_536, 1000));
}

proptest! {
    #[test]
    fn no_text_panics_and_every_refusal_has_an_error(text in "(?s).{0,300}") {
        if let Err(errors) = Config::parse(Path::new("x.toml"), text, None) {
            prop_assert!(errors.errors() > 0);
            prop_assert!(!errors.to_string().is_empty());
        }
    }

    #[test]
    fn a_file_torn_or_changed_anywhere_is_answered(at in 0..EVERYTHING.len(), length in 0..40_usize, put in "[\\]\\[{}=\",.a-z0-9é\n]{0,8}") {
        let mut text = EVERYTHING.to_owned();
        let end = (at + length).min(text.len());
        text.replace_range(at..end, &put);
        if let Err(errors) = Config::parse(Path::new("x.toml"), text, Some(&Host::this())) {
            prop_assert!(!errors.to_string().is_empty());
        }
    }

    #[test]
    fn a_size_survives_being_written_and_read(hard in 4..1_u64 << 50) {
        let text = format!("[service.x]\ncommand = [\"x\"]\nmemory = {{ hard = \"{}\" }}\n", size_text(Bytes(hard)));
        prop_assert_eq!(parsed(&text).services[0].memory.hard, Bytes(hard));
    }
}
