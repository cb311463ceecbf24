//! Certificates from files, over real connections: which is shown, and what happens when the files change.
#![expect(clippy::unwrap_used, reason = "what a test sets up it may insist on")]

use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use plimsoll_front::acme::Challenges;
use plimsoll_front::tls::{
    Accepted, Acceptor, Alpn, Certificates, Events, FilePair, Files, FilesError, Kind, Reloader, Severity,
    TlsError, TlsEvent,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tempfile::TempDir;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

#[path = "support/authority.rs"]
mod authority;
#[path = "support/until.rs"]
mod until;
#[path = "support/visitor.rs"]
mod visitor;

use authority::Authority;
use until::until;
use visitor::visit;

/// Far quicker than in production, so that nothing is waited for long.
const EVERY: Duration = Duration::from_millis(20);
const PATIENCE: Duration = Duration::from_secs(30);

struct World {
    folder: TempDir,
    authority: Authority,
    certificates: Arc<Certificates>,
    events: Events,
    told: mpsc::Receiver<TlsEvent>,
}

impl World {
    fn new() -> Self {
        let (events, told) = Events::channel();
        Self {
            folder: tempfile::tempdir().unwrap(),
            authority: Authority::new(),
            certificates: Certificates::new(),
            events,
            told,
        }
    }

    fn pair(&self, name: &str) -> FilePair {
        FilePair {
            certificate: self.folder.path().join(format!("{name}.pem")),
            key: self.folder.path().join(format!("{name}.key")),
        }
    }

    /// Issues and writes; the leaf comes back.
    fn write(&self, pair: &FilePair, names: &[&str]) -> Vec<u8> {
        let (chain, key) = self.authority.issue(names);
        std::fs::write(&pair.certificate, &chain).unwrap();
        std::fs::write(&pair.key, &key).unwrap();
        der(&chain)
    }

    /// Serves a new certificate for `names` from files called `name`, and keeps looking at them.
    fn watch(&self, name: &str, names: &[&str]) -> (FilePair, Vec<u8>, Reloader) {
        let pair = self.pair(name);
        let leaf = self.write(&pair, names);
        let files = Files::open(pair.clone(), &self.certificates, self.events.clone()).unwrap();
        let reloader = files.reloader();
        tokio::spawn(files.run(EVERY));
        (pair, leaf, reloader)
    }

    fn acceptor(&self) -> Acceptor {
        Acceptor::new(Arc::clone(&self.certificates), Challenges::new()).unwrap()
    }

    /// Accepts for ever; connections are dropped after the handshake.
    async fn serve(&self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let acceptor = self.acceptor();
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move { drop(acceptor.accept(tcp, PATIENCE).await) });
            }
        });
        address
    }

    /// The next event of this kind that says `what`. A write in two steps that this machine drags out may be told as well.
    async fn told(&mut self, kind: Kind, what: &str) -> TlsEvent {
        tokio::time::timeout(until::PATIENCE, async {
            loop {
                let event = self.told.recv().await.expect("the events are open");
                if event.kind == kind && event.message.contains(what) {
                    return event;
                }
            }
        })
        .await
        .unwrap_or_else(|_| panic!("nobody told {kind:?} with {what:?}"))
    }
}

fn der(chain: &str) -> Vec<u8> {
    CertificateDer::from_pem_slice(chain.as_bytes()).unwrap().to_vec()
}

async fn shown(address: SocketAddr, name: &str) -> Vec<u8> {
    visit(address, name, &[]).await.unwrap().leaf
}

async fn until_shown(address: SocketAddr, name: &str, leaf: &[u8]) {
    until("the new certificate to be shown", async || (shown(address, name).await == leaf).then_some(()))
        .await;
}

fn problem(world: &World) -> Option<String> {
    world.certificates.report().remove(0).problem
}

#[tokio::test]
async fn each_name_is_shown_its_own_certificate_and_a_wildcard_covers_one_label() {
    let world = World::new();
    let (_, one, _) = world.watch("one", &["one.example", "www.one.example"]);
    let (_, wild, _) = world.watch("wild", &["*.two.example"]);
    let address = world.serve().await;
    assert_eq!(shown(address, "one.example").await, one);
    assert_eq!(shown(address, "WWW.one.example").await, one);
    assert_eq!(shown(address, "api.two.example").await, wild);
    for unknown in ["two.example", "a.b.two.example", "three.example"] {
        let error = visit(address, unknown, &[]).await.unwrap_err().to_string();
        assert!(error.contains("UnrecognisedName"), "{unknown}: {error}");
    }
}

#[tokio::test]
async fn a_client_by_address_is_shown_the_only_certificate_and_turned_away_from_two() {
    let world = World::new();
    let (_, one, _) = world.watch("one", &["one.example"]);
    let address = world.serve().await;
    assert_eq!(shown(address, "127.0.0.1").await, one);
    world.watch("two", &["two.example"]);
    let error = visit(address, "127.0.0.1", &[]).await.unwrap_err().to_string();
    assert!(error.contains("UnrecognisedName"), "{error}");
}

#[tokio::test]
async fn http2_is_preferred_http1_is_spoken_and_other_protocols_are_refused() {
    let world = World::new();
    world.watch("one", &["one.example"]);
    let address = world.serve().await;
    let alpn = async |offers: &[&str]| visit(address, "one.example", offers).await.map(|shown| shown.alpn);
    assert_eq!(alpn(&["http/1.1", "h2"]).await.unwrap().as_deref(), Some(&b"h2"[..]));
    assert_eq!(alpn(&["http/1.1"]).await.unwrap().as_deref(), Some(&b"http/1.1"[..]));
    assert_eq!(alpn(&[]).await.unwrap(), None);
    assert!(alpn(&["h3"]).await.is_err());
    let validation = alpn(&["acme-tls/1"]).await.unwrap_err().to_string();
    assert!(validation.contains("UnrecognisedName"), "no challenge is in progress: {validation}");
}

#[tokio::test]
async fn the_front_learns_the_protocol_and_the_name() {
    let world = World::new();
    world.watch("one", &["one.example"]);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let acceptor = world.acceptor();
    let client = tokio::spawn(async move { visit(address, "One.example", &["h2"]).await });
    let (tcp, _) = listener.accept().await.unwrap();
    match acceptor.accept(tcp, PATIENCE).await.unwrap() {
        Accepted::Stream { alpn, sni, .. } => {
            assert_eq!(alpn, Alpn::Http2);
            assert_eq!(sni.as_deref(), Some("one.example"));
        }
        Accepted::Challenge => panic!("nobody validates"),
    }
    client.await.unwrap().unwrap();
}

#[tokio::test]
async fn silent_and_dripping_clients_are_closed_when_their_patience_is_over() {
    const SHORT: Duration = Duration::from_millis(300);
    let world = World::new();
    world.watch("one", &["one.example"]);
    let acceptor = world.acceptor();
    for first in [&b""[..], &[22, 3, 1, 0, 100, 1][..]] {
        let (mut client, server) = tokio::io::duplex(1024);
        tokio::io::AsyncWriteExt::write_all(&mut client, first).await.unwrap();
        let began = Instant::now();
        let error = acceptor.accept(server, SHORT).await.unwrap_err();
        assert!(matches!(error, TlsError::Patience(SHORT)), "{error}");
        assert!(began.elapsed() >= SHORT && began.elapsed() < SHORT * 10);
        assert_eq!(client.read(&mut [0; 8]).await.unwrap(), 0, "closed");
    }
}

#[tokio::test]
async fn what_is_no_handshake_is_an_error_and_not_a_wait() {
    let world = World::new();
    world.watch("one", &["one.example"]);
    let (mut client, server) = tokio::io::duplex(1024);
    tokio::io::AsyncWriteExt::write_all(&mut client, b"GET / HTTP/1.1\r\nHost: one.example\r\n\r\n")
        .await
        .unwrap();
    let error = world.acceptor().accept(server, PATIENCE).await.unwrap_err();
    assert!(matches!(error, TlsError::Handshake(_)), "{error}");
}

#[tokio::test]
async fn a_renewed_pair_is_shown_to_the_next_client_and_rubbish_never() {
    let mut world = World::new();
    let (pair, first, _) = world.watch("one", &["one.example"]);
    let address = world.serve().await;
    assert_eq!(shown(address, "one.example").await, first);
    let second = world.write(&pair, &["one.example"]);
    until_shown(address, "one.example", &second).await;
    assert_eq!(world.told(Kind::CertificateReloaded, "one.example").await.severity, Severity::Info);

    std::fs::write(&pair.certificate, "rubbish").unwrap();
    let event = world.told(Kind::CertificateReloadFailed, "one.pem holds no certificate").await;
    assert_eq!(event.severity, Severity::Error);
    assert_eq!(shown(address, "one.example").await, second);
    assert!(problem(&world).is_some_and(|problem| problem.contains("one.pem")));

    let third = world.write(&pair, &["one.example"]);
    until_shown(address, "one.example", &third).await;
    assert_eq!(problem(&world), None);
    world.told(Kind::CertificateReloaded, "one.example").await;
}

#[tokio::test]
async fn a_half_written_renewal_keeps_the_old_pair_until_the_key_is_there_too() {
    let mut world = World::new();
    let (pair, first, _) = world.watch("one", &["one.example"]);
    let address = world.serve().await;
    let (chain, key) = world.authority.issue(&["one.example"]);
    std::fs::write(&pair.certificate, &chain).unwrap();
    world.told(Kind::CertificateReloadFailed, "one.key belongs to another certificate").await;
    assert_eq!(shown(address, "one.example").await, first);
    std::fs::write(&pair.key, &key).unwrap();
    until_shown(address, "one.example", &der(&chain)).await;
}

#[tokio::test]
async fn files_that_are_gone_are_said_and_found_again() {
    let mut world = World::new();
    let (pair, first, _) = world.watch("one", &["one.example"]);
    let address = world.serve().await;
    std::fs::remove_file(&pair.certificate).unwrap();
    world.told(Kind::CertificateReloadFailed, "one.pem cannot be read").await;
    assert_eq!(shown(address, "one.example").await, first);
    let second = world.write(&pair, &["one.example"]);
    until_shown(address, "one.example", &second).await;
}

#[tokio::test]
async fn a_swapped_link_is_followed_as_certbot_leaves_it() {
    let world = World::new();
    let (old, new) = (world.pair("archive1"), world.pair("archive2"));
    let live = world.pair("live");
    let link = |to: &Path, at: &Path| {
        let aside = at.with_extension("link");
        symlink(to, &aside).unwrap();
        std::fs::rename(&aside, at).unwrap();
    };
    let first = world.write(&old, &["one.example"]);
    let second = world.write(&new, &["one.example"]);
    link(&old.certificate, &live.certificate);
    link(&old.key, &live.key);
    let files = Files::open(live.clone(), &world.certificates, world.events.clone()).unwrap();
    tokio::spawn(files.run(EVERY));
    let address = world.serve().await;
    assert_eq!(shown(address, "one.example").await, first);
    link(&new.certificate, &live.certificate);
    link(&new.key, &live.key);
    until_shown(address, "one.example", &second).await;
}

#[tokio::test]
async fn a_reload_on_request_says_at_once_what_is_wrong() {
    let mut world = World::new();
    let pair = world.pair("one");
    world.write(&pair, &["one.example"]);
    let files = Files::open(pair.clone(), &world.certificates, world.events.clone()).unwrap();
    let reloader = files.reloader();
    // As good as never: only the request can have it look again.
    tokio::spawn(files.run(Duration::from_hours(1)));
    std::fs::write(&pair.key, "rubbish").unwrap();
    reloader.reload();
    world.told(Kind::CertificateReloadFailed, "one.key holds no private key").await;
}

#[tokio::test]
async fn a_pair_that_does_not_match_is_refused_before_anything_starts() {
    let world = World::new();
    let pair = world.pair("one");
    world.write(&pair, &["one.example"]);
    let (_, foreign) = world.authority.issue(&["one.example"]);
    std::fs::write(&pair.key, foreign).unwrap();
    let error = Files::open(pair, &world.certificates, world.events.clone()).unwrap_err();
    assert!(matches!(error, FilesError::Content { .. }));
    assert!(error.to_string().contains("one.key belongs to another certificate"), "{error}");
    assert!(world.certificates.report().is_empty());
}

#[tokio::test]
async fn an_expired_pair_is_served_and_said() {
    let mut world = World::new();
    let pair = world.pair("one");
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["one.example".to_owned()]).unwrap();
    params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    std::fs::write(&pair.certificate, params.self_signed(&key).unwrap().pem()).unwrap();
    std::fs::write(&pair.key, key.serialize_pem()).unwrap();
    let _files = Files::open(pair, &world.certificates, world.events.clone()).unwrap();
    let event = world.told(Kind::CertificateExpiring, "has expired at 2020-01-01T00:00:00Z").await;
    assert_eq!(event.severity, Severity::Error);
    assert!(world.certificates.report()[0].days_left(1_600_000_000).unwrap() < 0);
}

#[tokio::test]
async fn a_session_is_resumed_although_the_certificate_was_swapped() {
    let world = World::new();
    let (pair, _, _) = world.watch("one", &["one.example"]);
    let address = world.serve().await;
    let mut config =
        rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates({
                let mut roots = rustls::RootCertStore::empty();
                roots.add(CertificateDer::from_pem_slice(world.authority.pem.as_bytes()).unwrap()).unwrap();
                roots
            })
            .with_no_client_auth();
    config.resumption = rustls::client::Resumption::in_memory_sessions(8);
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let resumed = async || {
        let tcp = TcpStream::connect(address).await.unwrap();
        let mut stream = connector.connect("one.example".try_into().unwrap(), tcp).await.unwrap();
        // The tickets come behind the handshake; the end of the stream is behind these.
        let _ = stream.read_to_end(&mut Vec::new()).await;
        stream.get_ref().1.handshake_kind() == Some(rustls::HandshakeKind::Resumed)
    };
    assert!(!resumed().await);
    assert!(resumed().await);
    let second = world.write(&pair, &["one.example"]);
    until_shown(address, "one.example", &second).await;
    assert!(resumed().await);
}
