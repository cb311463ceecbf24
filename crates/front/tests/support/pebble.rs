//! A real ACME server, with a DNS that says 127.0.0.1 to everything.

use std::fs::File;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::authority::Authority;
use crate::until::until;

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
    dns: Child,
    server: Option<Child>,
    wants: Wants,
}

impl Pebble {
    pub(crate) async fn start(wants: Wants) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::new();
        let (chain, key) = authority.issue(&["localhost", "127.0.0.1"]);
        for (name, text) in [("roots.pem", &authority.pem), ("cert.pem", &chain), ("key.pem", &key)] {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let [port, management, dns_port, dns_management] = free_ports();
        let config = serde_json::json!({ "pebble": {
            "listenAddress": format!("127.0.0.1:{port}"),
            "managementListenAddress": format!("127.0.0.1:{management}"),
            "certificate": folder.path().join("cert.pem"),
            "privateKey": folder.path().join("key.pem"),
            "httpPort": wants.http_port,
            "tlsPort": wants.tls_port,
            "ocspResponderURL": "",
            "externalAccountBindingRequired": false,
            "certificateValidityPeriod": wants.validity,
        }});
        std::fs::write(folder.path().join("pebble.json"), config.to_string()).unwrap();
        std::fs::write(folder.path().join("dns"), dns_port.to_string()).unwrap();
        let mut dns = Command::new("pebble-challtestsrv");
        dns.args(["-management", &format!("127.0.0.1:{dns_management}"), "-dns01"])
            .args([&format!("127.0.0.1:{dns_port}"), "-http01", "", "-https01", "", "-tlsalpn01", ""])
            .args(["-defaultIPv4", "127.0.0.1", "-defaultIPv6", ""])
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let dns = spawn(dns);
        let mut pebble = Self { folder, port, dns, server: None, wants };
        pebble.resume().await;
        pebble
    }

    /// Starts the server again; it has forgotten everything.
    pub(crate) async fn resume(&mut self) {
        let dns = std::fs::read_to_string(self.folder.path().join("dns")).unwrap();
        let log = File::options().create(true).append(true).open(self.log()).unwrap();
        let mut server = Command::new("pebble");
        server
            .arg("-config")
            .arg(self.folder.path().join("pebble.json"))
            .args(["-dnsserver", &format!("127.0.0.1:{dns}")])
            .env("PEBBLE_VA_NOSLEEP", "1")
            .env("PEBBLE_AUTHZREUSE", "0")
            .env("PEBBLE_WFE_NONCEREJECT", self.wants.nonce_reject.to_string())
            .stderr(log.try_clone().unwrap())
            .stdout(log);
        self.server = Some(spawn(server));
        let port = self.port;
        until("pebble to listen", async || TcpStream::connect(("127.0.0.1", port)).ok()).await;
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
        self.stop();
        end(&mut self.dns);
    }
}

fn spawn(mut command: Command) -> Child {
    let program = command.get_program().to_string_lossy().into_owned();
    command
        .spawn()
        .unwrap_or_else(|error| panic!("{program} is lacking ({error}): install Debian's package pebble"))
}

fn end(child: &mut Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Ports nobody has at the moment, for TCP and UDP.
fn free_ports<const N: usize>() -> [u16; N] {
    let taken: Vec<_> = std::iter::repeat_with(|| {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let udp = UdpSocket::bind(tcp.local_addr().unwrap());
        (tcp, udp)
    })
    .filter(|(_, udp)| udp.is_ok())
    .take(N)
    .collect();
    std::array::from_fn(|index| taken[index].0.local_addr().unwrap().port())
}
