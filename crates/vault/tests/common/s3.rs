//! A server of the S3 protocol on loopback: moto, from PyPI, by `cargo xtask test`. What uses it runs in a process of its
//! own, since the credentials come from the environment.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const WITHIN: Duration = Duration::from_mins(1);
/// What a child is to do, and where moto listens.
const TEST: &str = "STORES_TEST";
const MOTO: &str = "STORES_MOTO_PORT";

pub struct S3 {
    child: Child,
    pub port: u16,
}

impl S3 {
    /// `None` where it is not installed; in CI that is a failure.
    pub fn start(port: Option<u16>) -> Option<Self> {
        let tools = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../target/tools/python");
        let port = port.unwrap_or_else(free_port);
        let mut command = Command::new("python3");
        command.args(["-m", "moto.server", "-H", "127.0.0.1", "-p", &port.to_string()]);
        command.env("PYTHONPATH", &tools).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().ok()?;
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let is_up = lines.by_ref().map_while(Result::ok).any(|line| line.contains("Running on"));
        if !is_up {
            let _ = child.kill();
            let _ = child.wait();
            super::not_run("moto (python3 -m moto.server)");
            return None;
        }
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        let began = Instant::now();
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            assert!(began.elapsed() < WITHIN, "moto never listened");
            std::thread::yield_now();
        }
        Some(Self { child, port })
    }

    pub fn end(self) -> u16 {
        self.port
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

/// Runs the test `in_the_environment_of_a_bucket` of the same file in a process of its own, which is told what to do.
pub fn with_s3(test: &str, endpoint: u16, moto: u16) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "--nocapture", "in_the_environment_of_a_bucket"]);
    command.env(TEST, test).env(MOTO, moto.to_string());
    let done = in_its_environment(command, endpoint).status();
    assert!(done.unwrap().success(), "{test}");
}

/// A command that finds the bucket's server, and what opens it.
pub fn in_its_environment(mut command: Command, endpoint: u16) -> Command {
    command
        .env("AWS_ENDPOINT", format!("http://127.0.0.1:{endpoint}"))
        .env("AWS_ALLOW_HTTP", "true")
        .env("AWS_ACCESS_KEY_ID", "key")
        .env("AWS_SECRET_ACCESS_KEY", "secret")
        .env("AWS_REGION", "us-east-1");
    command
}

/// What this process is to do, if it is such a child.
pub fn asked() -> Option<String> {
    std::env::var(TEST).ok()
}

/// Where the library speaks to, and where moto listens.
pub fn ports() -> (u16, u16) {
    let endpoint = std::env::var("AWS_ENDPOINT").unwrap();
    let moto = std::env::var(MOTO).unwrap();
    (endpoint.rsplit(':').next().unwrap().parse().unwrap(), moto.parse().unwrap())
}

pub fn make_bucket(port: u16) {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    write!(stream, "PUT /backups HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: 0\r\nConnection: close\r\nAuthorization: AWS4-HMAC-SHA256 Credential=key/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}
