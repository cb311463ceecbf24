//! Orders and renewals against pebble, a real ACME server that really validates.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "what a test sets up it may insist on")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use plimsoll_front::acme::{ChallengeKinds, Client, Config, Directory, Intervals};
use plimsoll_front::tls::{CertificateReport, Events, Kind, Severity, TlsEvent};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

#[path = "support/authority.rs"]
mod authority;
#[path = "support/listeners.rs"]
mod listeners;
#[path = "support/pebble.rs"]
mod pebble;
#[path = "support/small_disk.rs"]
mod small_disk;
#[path = "support/until.rs"]
mod until;
#[path = "support/visitor.rs"]
mod visitor;

use listeners::Listeners;
use pebble::{Pebble, Wants};
use small_disk::SmallDisk;
use until::until;
use visitor::visit;

const HTTP_01: ChallengeKinds = ChallengeKinds { http_01: true, tls_alpn_01: false };
const TLS_ALPN_01: ChallengeKinds = ChallengeKinds { http_01: false, tls_alpn_01: true };
const YEAR: u32 = 365 * 24 * 60 * 60;
const NAME: &str = "one.example";

/// What pebble says for each new account, each order and each certificate.
const NEW_ACCOUNT: &str = "accounts in memory";
const NEW_ORDER: &str = "Added order";
const ISSUED: &str = "Issued certificate serial";

struct World {
    front: Listeners,
    pebble: Pebble,
    state: TempDir,
    events: Events,
    told: mpsc::Receiver<TlsEvent>,
}

impl World {
    async fn new(validity: u32, nonce_reject: u32) -> Self {
        let front = Listeners::start().await;
        let (http_port, tls_port) = (front.http.port(), front.tls.port());
        let pebble = Pebble::start(Wants { http_port, tls_port, validity, nonce_reject }).await;
        let (events, told) = Events::channel();
        Self { front, pebble, state: tempfile::tempdir().unwrap(), events, told }
    }

    fn config(&self, domains: &[&str], kinds: ChallengeKinds) -> Config {
        Config {
            domains: domains.iter().map(|domain| (*domain).to_owned()).collect(),
            email: Some("ops@example.org".to_owned()),
            directory: Directory::Url(self.pebble.url()),
            rehearsal: None,
            roots: Some(self.pebble.roots()),
            profile: None,
            kinds,
            state: self.state.path().to_owned(),
            intervals: Intervals {
                check: Duration::from_millis(200),
                retry_min: Duration::from_millis(100),
                retry_max: Duration::from_millis(400),
                poll: Duration::from_millis(50),
                ..Intervals::default()
            },
        }
    }

    fn client(&self, config: Config) -> Client {
        let front = &self.front;
        Client::new(config, &front.certificates, Arc::clone(&front.challenges), self.events.clone()).unwrap()
    }

    fn run(&self, config: Config) -> JoinHandle<()> {
        tokio::spawn(self.client(config).run())
    }

    async fn told(&mut self, kind: Kind) -> TlsEvent {
        tokio::time::timeout(until::PATIENCE, async {
            loop {
                let event = self.told.recv().await.expect("the events are open");
                if event.kind == kind {
                    return event;
                }
            }
        })
        .await
        .unwrap_or_else(|_| panic!("nobody told {kind:?}: {:?}", self.report()))
    }

    fn report(&self) -> CertificateReport {
        self.front.certificates.report().pop().unwrap()
    }

    async fn shown(&self) -> Vec<u8> {
        let shown = visit(self.front.tls, NAME, &["h2"]).await.unwrap();
        assert_eq!(shown.alpn.as_deref(), Some(&b"h2"[..]));
        shown.leaf
    }

    fn stored(&self) -> String {
        let folder = self.folder("certificates");
        std::fs::read_to_string(folder.join(format!("{NAME}.pem"))).unwrap()
    }

    fn folder(&self, name: &str) -> std::path::PathBuf {
        let acme = self.state.path().join("acme");
        let directory = std::fs::read_dir(acme).unwrap().next().unwrap().unwrap();
        directory.path().join(name)
    }
}

fn is_empty(folder: &Path) -> bool {
    std::fs::read_dir(folder).map_or(true, |mut entries| entries.next().is_none())
}

#[tokio::test]
async fn a_certificate_is_issued_by_http_01_for_several_names_and_kept() {
    let mut world = World::new(YEAR, 0).await;
    let client = world.client(world.config(&[NAME, "www.one.example"], HTTP_01));
    assert!(world.report().problem.is_some(), "there is none yet");
    tokio::spawn(client.run());
    let event = world.told(Kind::CertificateIssued).await;
    assert_eq!(event.severity, Severity::Info);
    world.shown().await;
    assert!(world.front.certificates.covers("www.one.example"));
    let folder = world.folder("orders");
    until("the certificate to be kept", async || is_empty(&folder).then_some(())).await;
    assert!(world.stored().contains("PRIVATE KEY"));
    assert_eq!(world.report().problem, None);
    assert_eq!(world.pebble.said(NEW_ACCOUNT), 1);
    assert_eq!(world.front.validated.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_certificate_is_issued_by_tls_alpn_01_on_the_port_that_serves() {
    let mut world = World::new(YEAR, 0).await;
    world.run(world.config(&[NAME, "127.0.0.1"], TLS_ALPN_01));
    world.told(Kind::CertificateIssued).await;
    world.shown().await;
    assert!(world.front.certificates.covers("127.0.0.1"));
    // Pebble validates each name from several places.
    assert!(world.front.validated.load(Ordering::Relaxed) >= 2);
}

#[tokio::test]
async fn after_a_restart_the_stored_certificate_is_served_at_once_and_the_account_is_the_same() {
    let mut world = World::new(YEAR, 0).await;
    let first = world.run(world.config(&[NAME], HTTP_01));
    world.told(Kind::CertificateIssued).await;
    let folder = world.folder("orders");
    until("the certificate to be kept", async || is_empty(&folder).then_some(())).await;
    first.abort();
    let leaf = world.shown().await;

    world.pebble.stop();
    world.front = Listeners::start().await;
    let client = world.client(world.config(&[NAME], HTTP_01));
    assert_eq!(world.shown().await, leaf, "before the task has run, and with no directory there");
    drop(client);

    // One more name: the old certificate goes on until the new one is there. The directory has forgotten the account,
    // and is given the same key again.
    world.pebble.resume().await;
    let key = std::fs::read_to_string(world.folder("account.key")).unwrap();
    world.front = Listeners::start().await;
    let client = world.client(world.config(&[NAME, "two.example"], HTTP_01));
    assert_eq!(world.shown().await, leaf);
    assert!(!world.front.certificates.covers("two.example"));
    tokio::spawn(client.run());
    world.told(Kind::CertificateRenewalFailed).await;
    assert_eq!(world.shown().await, leaf, "the ports are not those that are validated");
    assert_eq!(std::fs::read_to_string(world.folder("account.key")).unwrap(), key);
}

#[tokio::test]
async fn a_short_life_is_renewed_again_and_again_with_one_account() {
    let mut world = World::new(8, 0).await;
    world.run(world.config(&[NAME], HTTP_01));
    world.told(Kind::CertificateIssued).await;
    let first = world.shown().await;
    world.told(Kind::CertificateIssued).await;
    world.told(Kind::CertificateIssued).await;
    assert_ne!(world.shown().await, first);
    assert_eq!(world.pebble.said(NEW_ACCOUNT), 1);
}

#[tokio::test]
async fn a_directory_that_is_away_does_no_harm_and_is_asked_until_it_is_back() {
    let mut world = World::new(20, 0).await;
    world.run(world.config(&[NAME], HTTP_01));
    world.told(Kind::CertificateIssued).await;
    let first = world.shown().await;
    world.pebble.stop();
    let event = world.told(Kind::CertificateRenewalFailed).await;
    assert!(event.message.contains("one.example"), "{}", event.message);
    assert_eq!(world.shown().await, first);
    assert!(world.report().problem.is_some_and(|problem| problem.contains("not renewed")));
    // It comes back with nothing remembered: the account is registered again, with the same key.
    world.pebble.resume().await;
    world.told(Kind::CertificateIssued).await;
    assert_ne!(world.shown().await, first);
    assert_eq!(world.report().problem, None);
}

#[tokio::test]
async fn a_validation_that_fails_is_said_in_the_authoritys_words_and_tried_again() {
    let mut world = World::new(YEAR, 0).await;
    world.front.lying.store(true, Ordering::Relaxed);
    world.run(world.config(&[NAME], HTTP_01));
    let event = world.told(Kind::CertificateRenewalFailed).await;
    assert!(event.message.contains("validation of one.example by http-01 failed"), "{}", event.message);
    assert_eq!(event.severity, Severity::Error, "there is no certificate to fall back to");
    world.front.lying.store(false, Ordering::Relaxed);
    world.told(Kind::CertificateIssued).await;
    assert_eq!(world.pebble.said(NEW_ACCOUNT), 1);
}

#[tokio::test]
async fn a_closed_port_is_got_around_by_the_other_challenge() {
    let mut world = World::new(YEAR, 0).await;
    world.front.lying.store(true, Ordering::Relaxed);
    world.run(world.config(&[NAME], ChallengeKinds { http_01: true, tls_alpn_01: true }));
    world.told(Kind::CertificateRenewalFailed).await;
    world.told(Kind::CertificateIssued).await;
    assert!(world.front.validated.load(Ordering::Relaxed) >= 1);
}

#[tokio::test]
async fn a_restart_in_the_middle_of_an_order_goes_on_with_the_same_order_and_account() {
    let mut world = World::new(YEAR, 0).await;
    for _ in 0..3 {
        let config = world.config(&[NAME], HTTP_01);
        // Dropped as soon as the order is placed: before, during or after the validation.
        let task = world.run(config);
        let state = world.state.path().join("acme");
        until("the order to be placed", async || {
            let directory = std::fs::read_dir(&state).ok()?.next()?.ok()?;
            directory.path().join("orders/one.example.json").exists().then_some(())
        })
        .await;
        task.abort();
        let _ = task.await;
    }
    world.run(world.config(&[NAME], HTTP_01));
    world.told(Kind::CertificateIssued).await;
    world.shown().await;
    assert_eq!(world.pebble.said(NEW_ACCOUNT), 1);
    assert_eq!(world.pebble.said(NEW_ORDER), 1);
    assert_eq!(world.pebble.said(ISSUED), 1);
}

#[tokio::test]
async fn an_account_whose_registration_was_lost_is_found_by_its_key() {
    let mut world = World::new(8, 0).await;
    let task = world.run(world.config(&[NAME], HTTP_01));
    world.told(Kind::CertificateIssued).await;
    task.abort();
    let _ = task.await;
    std::fs::remove_file(world.folder("account.json")).unwrap();
    world.run(world.config(&[NAME], HTTP_01));
    world.told(Kind::CertificateIssued).await;
    assert_eq!(world.pebble.said(NEW_ACCOUNT), 1);
}

#[tokio::test]
async fn refused_nonces_cost_time_and_nothing_else() {
    let mut world = World::new(YEAR, 50).await;
    world.run(world.config(&[NAME], HTTP_01));
    world.told(Kind::CertificateIssued).await;
    assert_eq!(world.pebble.said(NEW_ACCOUNT), 1);
    assert_eq!(world.pebble.said(ISSUED), 1);
}

#[tokio::test]
async fn what_cannot_be_kept_is_served_from_memory_and_kept_once_it_can_be() {
    let mut world = World::new(YEAR, 0).await;
    // A file where the folder should be: nothing can be written, as on a full disk, also not by root.
    std::fs::write(world.state.path().join("acme"), "").unwrap();
    world.run(world.config(&[NAME], HTTP_01));
    let event = world.told(Kind::CertificateNotStored).await;
    assert!(event.message.contains("/acme"), "{}", event.message);
    world.told(Kind::CertificateIssued).await;
    let leaf = world.shown().await;
    until("the problem to be said", async || world.report().problem).await;
    std::fs::remove_file(world.state.path().join("acme")).unwrap();
    until("the problem to be over", async || world.report().problem.is_none().then_some(())).await;
    assert!(world.stored().contains("PRIVATE KEY"));
    assert_eq!(world.shown().await, leaf, "no second order was needed");
    assert_eq!(world.pebble.said(ISSUED), 1);
    assert_eq!(world.pebble.said(NEW_ACCOUNT), 1);
}

#[tokio::test]
async fn a_full_disk_costs_no_certificate_and_no_second_one() {
    let Some(disk) = SmallDisk::mount() else { return };
    let mut world = World::new(YEAR, 0).await;
    disk.fill();
    let config = Config { state: disk.path().to_owned(), ..world.config(&[NAME], HTTP_01) };
    world.run(config);
    let event = world.told(Kind::CertificateNotStored).await;
    assert!(event.message.contains("No space left"), "{}", event.message);
    world.told(Kind::CertificateIssued).await;
    world.shown().await;
    until("the problem to be said", async || world.report().problem).await;
    disk.free();
    until("the problem to be over", async || world.report().problem.is_none().then_some(())).await;
    assert_eq!(world.pebble.said(ISSUED), 1);
    assert_eq!(world.pebble.said(NEW_ACCOUNT), 1);
}

#[tokio::test]
async fn an_order_is_rehearsed_before_production_is_asked() {
    let mut world = World::new(YEAR, 0).await;
    let front = &world.front;
    let production = Pebble::start(Wants {
        http_port: front.http.port(),
        tls_port: front.tls.port(),
        validity: YEAR,
        nonce_reject: 0,
    })
    .await;
    let roots = world.state.path().join("roots.pem");
    let both: Vec<String> = [production.roots(), world.pebble.roots()]
        .iter()
        .map(|path| std::fs::read_to_string(path).unwrap())
        .collect();
    std::fs::write(&roots, both.concat()).unwrap();
    world.front.lying.store(true, Ordering::Relaxed);
    let config = Config {
        directory: Directory::Url(production.url()),
        rehearsal: Some(Directory::Url(world.pebble.url())),
        roots: Some(roots),
        ..world.config(&[NAME], HTTP_01)
    };
    world.run(config);
    world.told(Kind::CertificateRenewalFailed).await;
    assert_eq!(production.said(NEW_ACCOUNT), 0, "production has not been bothered");
    world.front.lying.store(false, Ordering::Relaxed);
    world.told(Kind::CertificateIssued).await;
    assert_eq!(production.said(ISSUED), 1);
    assert_eq!(world.pebble.said(ISSUED), 1);
}
