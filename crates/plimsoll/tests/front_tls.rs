//! The front with a certificate from files: real handshakes, through the whole binary.
#![allow(clippy::unwrap_used, reason = "these are tests, also outside of #[test]")]

mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use common::config::sample;
use common::guard::Folder;
use common::{http, until};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

const NAME: &str = "reports.example";

struct Site {
    http: SocketAddr,
    https: SocketAddr,
    config: String,
    folder: tempfile::TempDir,
}

impl Site {
    fn new(tls: &str) -> (Self, CertificateDer<'static>) {
        let folder = tempfile::tempdir().unwrap();
        let root = write_certificate(&folder);
        let ports = [http::free_port(), http::free_port()];
        let [http, https] = ports.map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        let place = folder.path().display();
        let tables = format!(
            "[front]\nhttp = \"{http}\"\nhttps = \"{https}\"\n[front.tls]\n\
             certificate = \"{place}/chain.pem\"\nkey = \"{place}/key.pem\"\n{tls}"
        );
        (Self { http, https, config: sample("", &tables), folder }, root)
    }
}

fn write_certificate(folder: &tempfile::TempDir) -> CertificateDer<'static> {
    let made = rcgen::generate_simple_self_signed([NAME.to_owned()]).unwrap();
    std::fs::write(folder.path().join("key.pem"), made.signing_key.serialize_pem()).unwrap();
    std::fs::write(folder.path().join("chain.pem"), made.cert.pem()).unwrap();
    made.cert.der().clone()
}

/// The whole answer as text.
fn ask(address: SocketAddr, root: &CertificateDer<'static>, host: &str) -> std::io::Result<String> {
    let mut roots = RootCertStore::empty();
    roots.add(root.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(NAME).unwrap();
    let connection = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut stream = StreamOwned::new(connection, TcpStream::connect(address)?);
    write!(stream, "GET /health HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

#[test]
fn requests_come_by_tls_and_those_in_the_clear_are_sent_there() {
    let (site, root) = Site::new("hsts = \"30d\"\n");
    let mut guard = Folder::new().start(&site.config);
    guard.next("ready");
    let answer = ask(site.https, &root, NAME).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    assert!(answer.contains("strict-transport-security: max-age=2592000"), "{answer}");
    assert_eq!(http::get(site.http, "/health").unwrap().0, 308);
    let front = guard.status().front.unwrap();
    assert_eq!(front.certificates[0].names, [NAME]);
    assert!(front.certificates[0].days_left.is_some_and(|days| days > 300), "{front:?}");
}

#[test]
fn a_host_of_another_name_is_sent_away() {
    let (site, root) = Site::new("redirect = false\n");
    let mut guard = Folder::new().start(&site.config);
    guard.next("ready");
    let answer = ask(site.https, &root, "other.example").unwrap();
    assert!(answer.starts_with("HTTP/1.1 421"), "{answer}");
    assert_eq!(http::get(site.http, "/health").unwrap().0, 200);
}

#[test]
fn a_new_certificate_is_served_without_a_restart_and_rubbish_is_not() {
    let (site, old) = Site::new("");
    let mut guard = Folder::new().start(&site.config);
    guard.next("ready");
    let chain = site.folder.path().join("chain.pem");
    let good = std::fs::read(&chain).unwrap();
    std::fs::write(&chain, "rubbish").unwrap();
    guard.next("certificate_reload_failed");
    assert!(ask(site.https, &old, NAME).is_ok(), "the old one stays");
    std::fs::write(&chain, good).unwrap();
    let new = write_certificate(&site.folder);
    until("the new certificate is served", || ask(site.https, &new, NAME).is_ok());
}
