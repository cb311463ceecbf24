//! A real ACME server, with a DNS that says 127.0.0.1 to everything.

use std::fs::File;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tempfile::TempDir;

use crate::authority::Authority;
use crate::until::until;
use crate::visitor::visit;

/// What a test wants of its server.
pub(crate) struct Wants {
    /// The ports that are validated.
    pub(crate) http_port: u16,
    pub(crate) tls_port: u16,
    /// Of the certificates, in seconds.
    pub(crate) validity: u32,
    /// Per cent of good nonces that are refused.
    pub(crate) nonce_reject: u32,
}

pub(crate) struct Pebble {
    folder: TempDir,
    port: u16,
    dns_port: u16,
    dns: Option<Child>,
    server: Option<Child>,
    wants: Wants,
}

/// How often other ports are tried: somebody may take one between our look and its use.
const TRIES: u32 = 5;

impl Pebble {
    pub(crate) async fn start(wants: Wants) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::new();
        let (chain, key) = authority.issue(&["localhost", "127.0.0.1"]);
        for (name, text) in [("roots.pem", &authority.pem), ("cert.pem", &chain), ("key.pem", &key)] {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let mut pebble = Self { folder, port: 0, dns_port: 0, dns: None, server: None, wants };
        for _ in 0..TRIES {
            pebble.choose_ports();
            pebble.start_server();
            if pebble.listens().await {
                return pebble;
            }
            pebble.end_all();
        }
        panic!("pebble does not start:\n{}", std::fs::read_to_string(pebble.log()).unwrap());
    }

    /// Starts the server again; it has forgotten everything.
    pub(crate) async fn resume(&mut self) {
        self.start_server();
        assert!(self.listens().await, "pebble does not start again");
    }

    /// Ports and the files that hold them; and the DNS server.
    fn choose_ports(&mut self) {
        let [port, management, dns_port, dns_management] = free_ports();
        (self.port, self.dns_port) = (port, dns_port);
        let config = serde_json::json!({ "pebble": {
            "listenAddress": format!("127.0.0.1:{port}"),
            "managementListenAddress": format!("127.0.0.1:{management}"),
            "certificate": self.folder.path().join("cert.pem"),
            "privateKey": self.folder.path().join("key.pem"),
            "httpPort": self.wants.http_port,
            "tlsPort": self.wants.tls_port,
            "ocspResponderURL": "",
            "externalAccountBindingRequired": false,
            "certificateValidityPeriod": self.wants.validity,
        }});
        std::fs::write(self.folder.path().join("pebble.json"), config.to_string()).unwrap();
        let mut dns = Command::new("pebble-challtestsrv");
        dns.args(["-management", &format!("127.0.0.1:{dns_management}"), "-dns01"])
            .args([&format!("127.0.0.1:{dns_port}"), "-http01", "", "-https01", "", "-tlsalpn01", ""])
            .args(["-defaultIPv4", "127.0.0.1", "-defaultIPv6", ""])
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        self.dns = Some(spawn(dns));
    }

    fn start_server(&mut self) {
        let log = File::options().create(true).append(true).open(self.log()).unwrap();
        let mut server = Command::new("pebble");
        server
            .arg("-config")
            .arg(self.folder.path().join("pebble.json"))
            .args(["-dnsserver", &format!("127.0.0.1:{}", self.dns_port)])
            .env("PEBBLE_VA_NOSLEEP", "1")
            .env("PEBBLE_AUTHZREUSE", "0")
            .env("PEBBLE_WFE_NONCEREJECT", self.wants.nonce_reject.to_string())
            .stderr(log.try_clone().unwrap())
            .stdout(log);
        self.server = Some(spawn(server));
    }

    /// Whether both came up; a program that finds its port taken ends at once. Who answers has to show our certificate,
    /// or it is somebody else's server at this port, and ours is about to end.
    async fn listens(&mut self) -> bool {
        let address = SocketAddr::from(([127, 0, 0, 1], self.port));
        let chain = std::fs::read(self.folder.path().join("cert.pem")).unwrap();
        let ours = CertificateDer::from_pem_slice(&chain).unwrap().to_vec();
        let (server, dns) = (&mut self.server, &mut self.dns);
        until("pebble to listen", async || {
            let listens = visit(address, "localhost", &[]).await.is_ok_and(|shown| shown.leaf == ours);
            let ended = [&mut *server, &mut *dns].into_iter().flatten().any(has_ended);
            if ended { Some(false) } else { listens.then_some(true) }
        })
        .await
    }

    fn end_all(&mut self) {
        for mut child in [self.server.take(), self.dns.take()].into_iter().flatten() {
            end(&mut child);
        }
    }

    pub(crate) fn stop(&mut self) {
        if let Some(mut server) = self.server.take() {
            end(&mut server);
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("https://localhost:{}/dir", self.port)
    }

    pub(crate) fn roots(&self) -> PathBuf {
        self.folder.path().join("roots.pem")
    }

    /// How often the server said this.
    pub(crate) fn said(&self, what: &str) -> usize {
        std::fs::read_to_string(self.log()).unwrap().matches(what).count()
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("pebble.log")
    }
}

impl Drop for Pebble {
    fn drop(&mut self) {
        self.end_all();
    }
}

fn spawn(mut command: Command) -> Child {
    let program = command.get_program().to_string_lossy().into_owned();
    command
        .spawn()
        .unwrap_or_else(|error| panic!("{program} is lacking ({error}): install Debian's package pebble"))
}

fn has_ended(child: &mut Child) -> bool {
    child.try_wait().unwrap().is_some()
}

fn end(child: &mut Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Ports that nobody has at the moment, for TCP and UDP, and that nobody else will choose while the server is starting:
/// each process has its block, each caller its own part of it. They lie below those that the kernel gives to whoever
/// asks for any, of which tests at the same time ask for hundreds.
fn free_ports<const N: usize>() -> [u16; N] {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let block = 10_000 + std::process::id() % 100 * 200;
    let taken: Vec<_> = std::iter::repeat_with(|| {
        let port = block + NEXT.fetch_add(1, Ordering::Relaxed) % 200;
        let address = ("127.0.0.1", u16::try_from(port).unwrap());
        Some((TcpListener::bind(address).ok()?, UdpSocket::bind(address).ok()?))
    })
    .flatten()
    .take(N)
    .collect();
    std::array::from_fn(|index| taken[index].0.local_addr().unwrap().port())
}
