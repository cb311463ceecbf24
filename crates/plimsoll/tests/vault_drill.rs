//! A drill boots the service on the copy, and believes nobody else.
#![allow(clippy::unwrap_used, reason = "these are tests, also outside of #[test]")]

mod common;

use std::process::Output;

use common::folder::Folder;
use common::{EXE, assert_exit, http, leftovers, plimsoll_command, stderr, stdout};

/// A database beside the configuration, and a snapshot of it in the store.
fn backed_up(service: &str) -> Folder {
    let folder = Folder::new();
    let database = folder.path().join("reports.db");
    let app = rusqlite::Connection::open(&database).unwrap();
    app.execute_batch("PRAGMA journal_mode=wal; CREATE TABLE notes(text); INSERT INTO notes VALUES ('one');")
        .unwrap();
    drop(app);
    let store = folder.path().join("store");
    let vault = format!(
        "[[vault]]\ndatabase = \"reports.db\"\nto = \"file://{}\"\nservice = \"reports\"\n",
        store.display()
    );
    folder.write("plimsoll.toml", &format!("[service.reports]\n{service}\n{vault}"));
    assert_exit(&vault_verb(&folder, "backup"), 0);
    folder
}

fn vault_verb(folder: &Folder, verb: &str) -> Output {
    let file = folder.path().join("plimsoll.toml");
    let mut command = plimsoll_command();
    command.env(leftovers::MARK, folder.mark()).arg("--state").arg(folder.state()).arg("--config").arg(file);
    command.args(["vault", verb]).output().unwrap()
}

fn health(check: &str) -> String {
    format!("[service.reports.health]\n{check}\nstart_period = \"3s\"\ntimeout = \"1s\"\n")
}

const TOLD: &str = "env = { DATABASE = \"reports.db\" }";

#[test]
fn a_fixed_port_is_refused_unless_the_command_takes_another() {
    let port = http::free_port();
    let service = |argument: &str| {
        let command = format!("[\"{EXE}\", \"sample-service\", \"--port\", \"{argument}\"]");
        let check = health("http = \"/health\"");
        format!("command = {command}\naddress = \"127.0.0.1:{port}\"\n{TOLD}\n{check}")
    };
    // Somebody answers there, as the live service does.
    let live = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
    let refused = vault_verb(&backed_up(&service(&port.to_string())), "drill");
    assert_exit(&refused, 2);
    let told = stderr(&refused);
    assert!(told.contains(&format!("127.0.0.1:{port}")) && told.contains("{port}"), "{told}");
    let drilled = vault_verb(&backed_up(&service("{port}")), "drill");
    assert_exit(&drilled, 0);
    drop(live);
}

#[test]
fn a_service_on_a_socket_is_asked_at_a_socket_of_its_own() {
    let script = "import http.server, socketserver, sqlite3, sys\n\
        sqlite3.connect(sys.argv[2]).execute('SELECT count(*) FROM notes')\n\
        class Yes(http.server.BaseHTTPRequestHandler):\n\
        \x20   def do_GET(self): self.send_response(204); self.end_headers()\n\
        \x20   def address_string(self): return 'local'\n\
        socketserver.UnixStreamServer(sys.argv[1], Yes).serve_forever()\n";
    let check = health("http = \"/health\"");
    let folder =
        backed_up(&format!("command = [\"python3\", \"serve.py\", \"{{socket}}\", \"reports.db\"]\n{check}"));
    folder.write("serve.py", script);
    let drilled = vault_verb(&folder, "drill");
    assert_exit(&drilled, 0);
    assert!(stdout(&drilled).contains("reports was ready on the copy"), "{}", stdout(&drilled));
    assert!(leftovers::processes(&folder.mark()).is_empty());
}

#[test]
fn a_yes_of_somebody_else_is_not_believed() {
    // It says that it is well, and listens nowhere: as a check does that asks the live service.
    let check = health("command = [\"true\"]");
    let folder = backed_up(&format!("command = [\"sleep\", \"1000\"]\n{TOLD}\n{check}"));
    let failed = vault_verb(&folder, "drill");
    assert_exit(&failed, 1);
    assert!(stderr(&failed).contains("the copy does not listen at 127.0.0.1:"), "{}", stderr(&failed));
    assert!(leftovers::processes(&folder.mark()).is_empty());
}

#[test]
fn a_service_that_ends_on_the_copy_says_what_it_said() {
    let check = health("http = \"/health\"");
    let script = "echo cannot open $DATABASE; exit 3";
    let folder = backed_up(&format!("command = [\"sh\", \"-c\", \"{script}\"]\n{TOLD}\n{check}"));
    let failed = vault_verb(&folder, "drill");
    assert_exit(&failed, 1);
    let told = stderr(&failed);
    assert!(told.contains("it ended with exit code 3") && told.contains("| cannot open /"), "{told}");
    assert!(!told.contains(folder.path().join("reports.db").to_str().unwrap()), "{told}");
}
