//! What a person is told about a wrong configuration: every text, as a catalogue that is read and reviewed.
//!
//! Each case is written into a folder of a made-up machine, whose path is shown as DIR.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use plimsoll::config::{Config, Host};

/// A folder with programs in PATH, a script that is not executable, and account files.
fn machine(is_root: bool) -> (tempfile::TempDir, Host) {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    fs::create_dir_all(at("bin")).expect("made");
    program(&at("bin/node"), "#!/bin/sh\n");
    program(&at("bin/serve"), "#!/bin/sh\n");
    program(&at("bin/textual"), "echo hello\n");
    program(&at("bin/orphan"), "#!/no/such/interpreter -x\n");
    program(&at("check"), "#!/bin/sh\n");
    fs::write(at("server.js"), "// not executable\n").expect("written");
    fs::write(at("passwd"), "root:x:0:0\nwww-data:x:33:33\n").expect("written");
    fs::write(at("group"), "root:x:0:\nwww-data:x:33:\n").expect("written");
    fs::write(at("bad.env"), "A=1\nhush hush\n2X=hush\nB=\"hush\n").expect("written");
    let path = OsString::from(at("bin"));
    let host = Host::made_up(move |name| (name == "PATH").then(|| path.clone()), is_root, folder.path());
    (folder, host)
}

fn program(path: &Path, text: &str) {
    fs::write(path, text).expect("written");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("executable");
}

/// What `text` is answered with, after the text itself.
fn told(text: &str) -> String {
    told_to(text, true)
}

fn told_to(text: &str, is_root: bool) -> String {
    let (folder, host) = machine(is_root);
    let file = folder.path().join("plimsoll.toml");
    let answer = match Config::parse(&file, text.to_owned(), Some(&host)) {
        Ok((_, warnings)) if warnings.is_empty() => "(fine)".to_owned(),
        Ok((_, warnings)) => warnings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n\n"),
        Err(errors) => errors.to_string(),
    };
    answer.replace(&folder.path().display().to_string(), "DIR")
}

/// The case inside a service that is otherwise fine.
fn service(rest: &str) -> String {
    told(&format!("[service.x]\ncommand = [\"serve\"]\n{rest}"))
}

/// As [`service`], under V8.
fn node(rest: &str) -> String {
    told(&format!("[service.x]\ncommand = [\"node\"]\n{rest}"))
}

fn catalogue(answers: &[String]) -> String {
    answers.join("\n\n----\n\n")
}

#[test]
fn the_text_itself() {
    insta::assert_snapshot!(catalogue(&[
        told(""),
        told("[service.x\ncommand = [\"node\"]\n"),
        told("[service.x]\ncommand = [\"node\"]\ncommand = [\"node\"]\n"),
        told("[service.x]\ncommand = [\"node\"]\ncwd = app\n[service.x.memory]\nhard = 512MiB\n"),
        told("[[service]]\ncommand = [\"node\"]\n"),
        told("service = 3\n"),
    ]));
}

#[test]
fn unknown_keys() {
    insta::assert_snapshot!(catalogue(&[
        told("[services.x]\ncommand = [\"node\"]\n"),
        told("command = [\"node\"]\n"),
        service("soft = \"256MiB\"\n"),
        service("comand = [\"node\"]\n"),
        service("colour = 1\n"),
        service("[service.x.memroy]\nhard = \"1GiB\"\n"),
        service("[service.x.memory]\nstop-grace = \"1s\"\ndrain = \"1s\"\n"),
        told("[service.x]\ncommand = [\"serve\"]\n[front]\nhtpp = \"127.0.0.1:8080\"\n"),
    ]));
}

#[test]
fn sizes_and_durations() {
    insta::assert_snapshot!(catalogue(&[
        service("memory = { hard = 512 }\n"),
        service("memory = { hard = \"512\" }\n"),
        service("memory = { hard = \"512M\" }\n"),
        service("memory = { hard = \"30s\" }\n"),
        service("memory = { hard = \"0MiB\" }\n"),
        service("memory = { for = 5 }\n"),
        service("memory = { for = \"5\" }\n"),
        service("recovery = { drain = \"30 seconds\" }\n"),
        service("recovery = { drain = \"5MiB\" }\n"),
        service("recovery = { backoff_max = \"0s\" }\n"),
        service("health = { interval = \"0s\", timeout = \"400d\" }\n"),
    ]));
}

#[test]
fn memory() {
    insta::assert_snapshot!(catalogue(&[
        node("memory = { recycle = \"600MiB\" }\n"),
        node("memory = { hard = \"256MiB\", recycle = \"256MiB\" }\n"),
        node("memory = { hard = \"200MiB\", soft = \"256MiB\" }\n"),
        node(""),
        node("memory = { soft = \"270MiB\" }\n"),
        node("memory = { soft = \"406MiB\" }\n"),
        node("memory = { recycle = \"200MiB\" }\n"),
        node("memory = { soft = \"100MiB\", runtime = \"python\" }\n"),
        node("env = { NODE_OPTIONS = \"--max-old-space-size=400\" }\n"),
        node("memory = { runtime = \"nod\" }\n"),
        node("memory = { group_kill = \"yes\" }\n"),
    ]));
}

#[test]
fn the_other_layers() {
    insta::assert_snapshot!(catalogue(&[
        service("descriptors = { recycle = 90 }\n"),
        service("descriptors = { recycle = 0.0 }\n"),
        service("descriptors = { recycle = \"90%\" }\n"),
        service("descriptors = { limit = -1 }\n"),
        service("recovery = { handover = \"overlapp\" }\n"),
        service("recovery = { stop_signal = \"SIGTREM\" }\n"),
        service("recovery = { stop_signal = \"SIGKILL\" }\n"),
        service("recovery = { recycles_per_hour = 0 }\n"),
        service("health = { http = \"http://localhost/health\" }\n"),
        service("health = { http = \"/health\", tcp = true, command = [\"./check\"] }\n"),
        service("health = { interval = \"1s\" }\n"),
        service("health = { retries = 0 }\n"),
        service("health = { command = [] }\n"),
        service("logs = { size = \"10\", keep = 0 }\n"),
    ]));
}

#[test]
fn names_commands_and_addresses() {
    insta::assert_snapshot!(catalogue(&[
        told("[service.My_App]\ncommand = [\"node\"]\n"),
        told("[service.x]\n"),
        told("[service.x]\ncommand = []\n"),
        told("[service.x]\ncommand = [\"\"]\n"),
        told("[service.x]\ncommand = \"node server.js\"\n"),
        told("[service.x]\ncommand = [\"node\", 1]\n"),
        told("[service.x]\ncommand = [\"node\", \"--port={prot}\"]\n"),
        service("port_env = \"A B\"\n"),
        service("port_env = 3000\n"),
        service("port_env = false\n"),
        service("port_env = false\nhealth = { http = \"/health\" }\n"),
        service("address = \"localhost:4000\"\n"),
        service("address = \"4000\"\n"),
        service("address = \"127.0.0.1:0\"\n"),
        service("address = \"127.0.0.1:4000\"\nport_env = \"PORT\"\n"),
        service("address = \"127.0.0.1:4000\"\nreplicas = 2\nrecovery = { handover = \"overlap\" }\n"),
        service("address = \"127.0.0.1:4000\"\nrecovery = { handover = \"standby\" }\n"),
        service("replicas = 0\n"),
        service("replicas = \"2\"\n"),
        service("tasks = 0\n"),
    ]));
}

#[test]
fn what_the_machine_lacks() {
    insta::assert_snapshot!(catalogue(&[
        told("[service.x]\ncommand = [\"nod\"]\n"),
        told("[service.x]\ncommand = [\"server.js\"]\n"),
        told("[service.x]\ncommand = [\"./server.js\"]\n"),
        told("[service.x]\ncommand = [\"./missing\"]\n"),
        told("[service.x]\ncommand = [\"./bin\"]\n"),
        told("[service.x]\ncommand = [\"textual\"]\n"),
        told("[service.x]\ncommand = [\"orphan\"]\n"),
        told("[service.x]\ncommand = [\"node\"]\nenv = { PATH = \"/nowhere\" }\n"),
        service("health = { command = [\"./chekc\"] }\n"),
        service("cwd = \"missing\"\n"),
        service("cwd = \"server.js\"\n"),
        service("env_file = \"missing.env\"\n"),
        service("env_file = \"bad.env\"\n"),
        service("env = { PORT = 3000, \"A B\" = \"x\" }\n"),
        service("user = \"ww-data\"\n"),
        service("user = \"nobody-here\"\ngroup = \"nogroup-here\"\n"),
        told_to("[service.x]\ncommand = [\"node\"]\nuser = \"www-data\"\n", false),
    ]));
}

#[test]
fn the_other_tables() {
    let with = |rest: &str| {
        told(&format!("[service.x]\ncommand = [\"serve\"]\naddress = \"127.0.0.1:4000\"\n{rest}"))
    };
    insta::assert_snapshot!(catalogue(&[
        with("[front]\nhttp = \"0.0.0.0:4000\"\n"),
        with("[front]\nhttps = \"0.0.0.0:443\"\n[[front.route]]\nservice = \"y\"\npath = \"api\"\n"),
        with("[front.tls]\ncertificate = \"a.pem\"\n"),
        with("[front]\ntrusted = [\"10.0.0.0/33\"]\n[front.access_log]\nformat = \"xml\"\n"),
        with("[front.limits]\nconnections = 0\nhead = \"1GiB\"\nidle = \"0s\"\n"),
        with("[[front.route]]\nreplay = \"sometimes\"\ntimeout = 5\n"),
        with("[front.tls]\nacme = { domains = [] }\n"),
        with("[service.y]\ncommand = [\"serve\"]\n[[front.route]]\nhost = \"example.org\"\n"),
        with("[service.y]\ncommand = [\"serve\"]\naddress = \"127.0.0.1:4000\"\n"),
        with("[admin]\nhttp = \"0.0.0.0:9640\"\n"),
        with("[admin]\nhttp = \"0.0.0.0:9640\"\ntoken = \"hush-hush\"\n"),
        with("[admin]\ntoken = \"env:NOT_SET\"\n"),
        with("[[vault]]\nto = \"/var/backups\"\n"),
        with("[alerts]\nslack = \"https://hooks.example.org/hush\"\nslak = \"hush\"\n"),
        with("[alerts]\npagerduty = \"file:missing\"\nwebhook = { secret = \"env:NOT_SET\" }\n"),
        with("[alerts]\nemail = { smtp = \"smtps://me:hush@example.org\", to = [\"me\"] }\n"),
        with("[[sweep]]\nover = \"300MiB\"\n"),
        with("[[sweep]]\nmatch = { exe = \"node\" }\n"),
        with("[sweep]\nmatch = { exe = \"/usr/bin/node\" }\n"),
        with("[docker]\nwatch = \"label=x\"\n"),
    ]));
}

#[test]
fn every_fault_is_told_at_once_in_the_order_of_the_file() {
    insta::assert_snapshot!(told(
        "[service.x]\ncommand = [\"nod\"]\n[service.x.memory]\nrecycle = \"1GiB\"\nsfot = \"1MiB\"\n\n\
         [service.Y]\nreplicas = 0\n\n[alert]\nslack = \"env:X\"\n"
    ));
}

#[test]
fn a_secret_written_in_the_file_is_never_shown() {
    let told = told(
        "[service.x]\ncommand = [\"serve\"]\nenv = { TOKEN = \"hush\", X = 1 }\n[alerts]\nslack = \"hush\"\nslak = \"hush\"\n",
    );
    assert!(!told.contains("hush"), "{told}");
    assert!(told.contains("******"), "{told}");
}

#[test]
fn a_file_that_cannot_be_read_is_told_with_what_to_do() {
    let folder = tempfile::tempdir().expect("a folder");
    let tell = |name: &str| {
        let errors = Config::read(&folder.path().join(name)).expect_err("it cannot be read").to_string();
        errors.replace(&folder.path().display().to_string(), "DIR")
    };
    fs::write(folder.path().join("latin.toml"), b"[service.x]\n# caf\xe9\n").expect("written");
    fs::write(folder.path().join("long.toml"), vec![b'#'; 2 << 20]).expect("written");
    insta::assert_snapshot!(catalogue(&[
        tell("missing.toml"),
        tell(""),
        tell("latin.toml"),
        tell("long.toml")
    ]));
}
