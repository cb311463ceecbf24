//! What a directory may say beside a plain yes: renewal windows, limits, wrong certificates, and nothing at all.
#![expect(clippy::unwrap_used, reason = "what a test sets up it may insist on")]

use std::sync::Arc;
use std::time::Duration;

use plimsoll_front::acme::{ChallengeKinds, Challenges, Client, Config, Directory as Address, Intervals};
use plimsoll_front::tls::{Certificates, Events, Kind, TlsEvent};
use tempfile::TempDir;
use tokio::sync::mpsc;

#[path = "support/authority.rs"]
mod authority;
#[path = "support/directory.rs"]
mod directory;
#[path = "support/until.rs"]
mod until;

use directory::{Directory, Script};
use until::until;

const NAME: &str = "one.example";
const DAY: i64 = 24 * 60 * 60;
const FAR: (i64, i64) = (30 * DAY, 31 * DAY);
const PAST: (i64, i64) = (-2 * DAY, -DAY);

struct World {
    directory: Directory,
    certificates: Arc<Certificates>,
    state: TempDir,
    events: Events,
    told: mpsc::Receiver<TlsEvent>,
}

impl World {
    async fn new() -> Self {
        let script = Script { window: FAR, limited_seconds: None, replaced_already: false, forged: None };
        let (events, told) = Events::channel();
        Self {
            directory: Directory::start(script).await,
            certificates: Certificates::new(),
            state: tempfile::tempdir().unwrap(),
            events,
            told,
        }
    }

    fn config(&self) -> Config {
        Config {
            domains: vec![NAME.to_owned()],
            email: None,
            directory: Address::Url(self.directory.url.clone()),
            rehearsal: None,
            roots: Some(self.directory.roots()),
            profile: None,
            kinds: ChallengeKinds { http_01: true, tls_alpn_01: true },
            state: self.state.path().to_owned(),
            intervals: Intervals {
                check: Duration::from_millis(100),
                retry_min: Duration::from_millis(50),
                retry_max: Duration::from_millis(200),
                poll: Duration::from_millis(20),
                ..Intervals::default()
            },
        }
    }

    fn run(&self, config: Config) {
        let client = Client::new(config, &self.certificates, Challenges::new(), self.events.clone()).unwrap();
        tokio::spawn(client.run());
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
        .unwrap_or_else(|_| panic!("nobody told {kind:?}: {:?}", self.certificates.report()))
    }

    fn orders(&self) -> usize {
        self.directory.asked(|asked| asked.orders.len())
    }
}

#[tokio::test]
async fn a_renewal_comes_when_the_directory_suggests_it_and_says_what_it_replaces() {
    let mut world = World::new().await;
    world.run(world.config());
    world.told(Kind::CertificateIssued).await;
    until("the window to be asked for again", async || {
        world.directory.asked(|asked| asked.windows.len() >= 2).then_some(())
    })
    .await;
    assert_eq!(world.orders(), 1, "the window is far away");
    let id = world.directory.asked(|asked| asked.windows[0].clone());
    world.directory.say(|script| script.window = PAST);
    world.told(Kind::CertificateIssued).await;
    world.directory.asked(|asked| {
        assert_eq!(asked.orders[0].1, None);
        assert_eq!(asked.orders[1].1.as_deref(), Some(id.as_str()));
        assert_eq!(asked.accounts, 1);
    });
}

#[tokio::test]
async fn a_certificate_that_counts_as_replaced_is_renewed_without_saying_so() {
    let mut world = World::new().await;
    world.run(world.config());
    world.told(Kind::CertificateIssued).await;
    world.directory.say(|script| {
        script.window = PAST;
        script.replaced_already = true;
    });
    world.told(Kind::CertificateIssued).await;
    world.directory.asked(|asked| {
        assert!(asked.orders[1].1.is_some());
        assert!(asked.orders[2].1.is_none());
    });
}

#[tokio::test]
async fn a_limit_is_respected_for_as_long_as_the_directory_asks() {
    let mut world = World::new().await;
    world.directory.say(|script| script.limited_seconds = Some(2));
    world.run(world.config());
    let event = world.told(Kind::CertificateRenewalFailed).await;
    assert!(event.message.contains("rateLimited"), "{}", event.message);
    world.directory.say(|script| script.limited_seconds = None);
    world.told(Kind::CertificateIssued).await;
    let waited = world.directory.asked(|asked| asked.orders[1].0 - asked.orders[0].0);
    assert!(waited >= Duration::from_secs(2), "{waited:?}");
}

#[tokio::test]
async fn a_disk_that_takes_nothing_does_not_hurry_an_order_that_has_to_wait() {
    let mut world = World::new().await;
    std::fs::write(world.state.path().join("acme"), "").unwrap();
    world.run(world.config());
    world.told(Kind::CertificateIssued).await;
    world.directory.say(|script| {
        script.window = PAST;
        script.limited_seconds = Some(2);
    });
    let event = world.told(Kind::CertificateRenewalFailed).await;
    assert!(event.message.contains("rateLimited"), "{}", event.message);
    let before = world.orders();
    world.told(Kind::CertificateRenewalFailed).await;
    let waited = world.directory.asked(|asked| asked.orders[before].0 - asked.orders[before - 1].0);
    assert!(waited >= Duration::from_secs(2), "{waited:?}");
}

#[tokio::test]
async fn a_certificate_that_was_not_ordered_is_never_served() {
    let mut world = World::new().await;
    world.run(world.config());
    world.told(Kind::CertificateIssued).await;
    let before = world.certificates.find(Some(NAME)).unwrap();
    world.directory.say(|script| {
        script.window = PAST;
        script.forged = Some(NAME);
    });
    let event = world.told(Kind::CertificateRenewalFailed).await;
    assert!(event.message.contains("issued certificate belongs to another"), "{}", event.message);
    assert!(Arc::ptr_eq(&before, &world.certificates.find(Some(NAME)).unwrap()));
}

#[tokio::test]
async fn a_directory_that_never_answers_is_given_up_and_asked_again() {
    let mut world = World::new().await;
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = silent.local_addr().unwrap().port();
    let mut config = world.config();
    config.directory = Address::Url(format!("https://localhost:{port}/dir"));
    config.intervals.request = Duration::from_millis(200);
    world.run(config);
    for _ in 0..2 {
        let event = world.told(Kind::CertificateRenewalFailed).await;
        assert!(event.message.contains("did not answer within 200ms"), "{}", event.message);
    }
}

#[tokio::test]
async fn a_directory_that_nobody_vouches_for_is_not_asked_for_anything() {
    let mut world = World::new().await;
    let other = authority::Authority::new();
    let roots = world.state.path().join("other.pem");
    std::fs::write(&roots, &other.pem).unwrap();
    world.run(Config { roots: Some(roots), ..world.config() });
    let event = world.told(Kind::CertificateRenewalFailed).await;
    assert!(event.message.contains("invalid peer certificate"), "{}", event.message);
    assert_eq!(world.directory.asked(|asked| asked.accounts), 0);
}
