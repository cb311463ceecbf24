//! The task: serves what is stored, orders what is missing, renews in time, and tries again for ever.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::account::Aside;
use super::challenges::Challenges;
use super::config::Config;
use super::desk::{Desk, Issued, covers_all, identifier};
use super::error::{AcmeError, ConfigError};
use super::http::Http;
use super::luck::{luck, luck_of};
use super::order::Conduct;
use super::schedule::{self, Lifetime, Window};
use super::secret::Secret;
use crate::tls::{
    Certificate, Certificates, Events, Kind, Reloader, Severity, Slot, Source, Stage, date, stage, unix_now,
};

#[derive(Debug)]
pub struct Client {
    config: Config,
    slot: Slot,
    challenges: Arc<Challenges>,
    events: Events,
    desk: Desk,
    rehearsal: Option<Rehearsal>,
    /// Failed orders in a row.
    failures: u32,
    /// No order before this, whatever else there is to look at.
    rest_until: Option<Instant>,
    /// What the disk did not take yet: it is served, and written as soon as it can be.
    unsaved: Option<Unsaved>,
    order_problem: Option<String>,
    stage: Stage,
    suggestion: Suggestion,
    hurry: Reloader,
}

#[derive(Debug)]
struct Rehearsal {
    desk: Desk,
    /// Since the last certificate: production failing does not call for another one.
    passed: bool,
}

#[derive(Debug)]
struct Unsaved {
    pem: Secret,
    failures: u32,
    why: String,
}

/// When the directory suggests to renew the certificate that is served.
#[derive(Clone, Copy, Debug, Default)]
struct Suggestion {
    window: Option<Window>,
    ask_at: i64,
}

impl Client {
    /// Checks the configuration and serves what is stored for these domains, at once. Blocks for a few small files.
    pub fn new(
        config: Config,
        certificates: &Arc<Certificates>,
        challenges: Arc<Challenges>,
        events: Events,
    ) -> Result<Self, ConfigError> {
        let config = config.checked()?;
        let desk = Desk::new(&config, &config.directory);
        let rehearsal = config.rehearsal.as_ref();
        let rehearsal =
            rehearsal.map(|directory| Rehearsal { desk: Desk::new(&config, directory), passed: false });
        let slot = certificates.add(Source::Acme, config.domains.clone());
        if let Some(stored) = desk.stored(&config, unix_now()) {
            slot.set(Arc::new(stored));
        } else {
            slot.set_problem(Some("there is no certificate yet".to_owned()));
        }
        Ok(Self {
            config,
            slot,
            challenges,
            events,
            desk,
            rehearsal,
            failures: 0,
            rest_until: None,
            unsaved: None,
            order_problem: None,
            stage: Stage::Fine,
            suggestion: Suggestion::default(),
            hurry: Reloader::default(),
        })
    }

    /// The place of its certificate, to remove it when the configuration no longer wants it.
    pub fn slot(&self) -> Slot {
        self.slot.clone()
    }

    /// Ends a wait, so that a cause that was put right need not be waited out.
    pub fn reloader(&self) -> Reloader {
        self.hurry.clone()
    }

    /// For ever. It can be dropped at any point, and started again where it was; what is served stays.
    pub async fn run(mut self) {
        let hurry = self.hurry.clone();
        loop {
            let wait = self.look().await;
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = hurry.asked() => self.rest_until = None,
            }
        }
    }

    /// One look at everything; how long until the next one.
    async fn look(&mut self) -> Duration {
        self.save().await;
        self.look_at_expiry(unix_now());
        self.ask_for_window(unix_now()).await;
        let now = unix_now();
        let renew_at = self.renew_at();
        let rest = self.rest_until.map(|until| until.saturating_duration_since(Instant::now()));
        let wait = if now < renew_at {
            self.order_problem = None;
            schedule::next_look(now, renew_at, self.config.intervals.check, luck())
        } else if let Some(rest) = rest.filter(|rest| !rest.is_zero()) {
            rest
        } else {
            let wait = match self.obtain().await {
                Ok(issued) => self.issued(issued).await,
                Err((error, retry_after)) => self.failed(&error, retry_after),
            };
            self.rest_until = Instant::now().checked_add(wait);
            wait
        };
        self.publish_problem();
        self.unsaved.as_ref().map_or(wait, |unsaved| wait.min(self.backoff(unsaved.failures, None)))
    }

    /// When the certificate is to be renewed; long ago where there is none that will do.
    fn renew_at(&self) -> i64 {
        match self.slot.certificate() {
            Some(certificate) if covers_all(&certificate, &self.config) => {
                schedule::renew_at(life(&certificate), self.suggestion.window, luck_of(&certificate))
            }
            Some(_) | None => i64::MIN,
        }
    }

    async fn ask_for_window(&mut self, now: i64) {
        let Some(certificate) = self.slot.certificate().filter(|_| now >= self.suggestion.ask_at) else {
            return;
        };
        let Some(id) = identifier(&certificate) else { return };
        // Until it has said otherwise, with each look.
        self.suggestion.ask_at =
            schedule::ask_again(now, self.config.intervals.check, self.config.intervals.check);
        let asked = async {
            let http = Http::new(self.config.roots.clone(), self.config.intervals.request).await.ok()?;
            let account = self.desk.account(&http).await.ok()??;
            account.renewal_info(&id).await.ok()
        };
        // No answer leaves the last one in force, and without one our own rule.
        if let Some((info, again)) = asked.await {
            let suggested = &info.suggested_window;
            self.suggestion.window =
                Some(Window { start: suggested.start.unix_timestamp(), end: suggested.end.unix_timestamp() });
            self.suggestion.ask_at = schedule::ask_again(now, again, self.config.intervals.check);
        }
    }

    async fn obtain(&mut self) -> Result<Issued, (AcmeError, Option<Duration>)> {
        let intervals = self.config.intervals;
        let http =
            Http::new(self.config.roots.clone(), intervals.request).await.map_err(|error| (error, None))?;
        let mut aside = Aside::default();
        let order = self.order(&http, &mut aside);
        let result = match tokio::time::timeout(intervals.order, order).await {
            Ok(result) => result,
            Err(_) => Err(AcmeError::OrderPatience(intervals.order)),
        };
        self.tell_aside(&aside);
        result.map_err(|error| (error, http.retry_after()))
    }

    async fn order(&mut self, http: &Http, aside: &mut Aside) -> Result<Issued, AcmeError> {
        let conduct = Conduct {
            challenges: Arc::clone(&self.challenges),
            kind: schedule::challenge(self.config.kinds, self.failures),
            poll: self.config.intervals.poll,
        };
        if let Some(rehearsal) = self.rehearsal.as_mut().filter(|rehearsal| !rehearsal.passed) {
            rehearsal.desk.order(&self.config, http, &conduct, None, aside).await?;
            rehearsal.desk.forget_pending();
            rehearsal.passed = true;
        }
        let served = self.slot.certificate();
        self.desk.order(&self.config, http, &conduct, served.as_deref(), aside).await
    }

    async fn issued(&mut self, issued: Issued) -> Duration {
        let certificate = issued.certificate;
        let message = format!(
            "certificate for {} issued by {}, until {}",
            certificate.names().join(", "),
            self.config.directory.url(),
            date(certificate.not_after())
        );
        self.slot.set(Arc::clone(&certificate));
        self.events.tell(Severity::Info, Kind::CertificateIssued, message);
        self.failures = 0;
        self.order_problem = None;
        self.stage = Stage::Fine;
        self.suggestion = Suggestion::default();
        if let Some(rehearsal) = &mut self.rehearsal {
            rehearsal.passed = false;
        }
        self.unsaved = Some(Unsaved { pem: issued.pem, failures: 0, why: String::new() });
        self.save().await;
        // A life so short that it is due at once must not become a storm of orders.
        self.config.intervals.retry_min
    }

    fn failed(&mut self, error: &AcmeError, retry_after: Option<Duration>) -> Duration {
        self.failures = self.failures.saturating_add(1);
        let wait = self.backoff(self.failures, retry_after);
        let bad = self.slot.certificate().is_none() || self.stage >= Stage::Near;
        let severity = if bad { Severity::Error } else { Severity::Warning };
        let domains = self.config.domains.join(", ");
        let again = wait.as_secs_f64().round();
        let message = format!("no new certificate for {domains}: {error}; tried again in {again} s");
        self.order_problem = Some(format!("not renewed: {error}"));
        // Whoever reads the event finds it in `status` as well.
        self.publish_problem();
        self.events.tell(severity, Kind::CertificateRenewalFailed, message);
        wait
    }

    fn backoff(&self, failures: u32, retry_after: Option<Duration>) -> Duration {
        let intervals = self.config.intervals;
        schedule::backoff(failures, intervals.retry_min, intervals.retry_max, retry_after, luck())
    }

    /// Keeps what was issued; what cannot be kept is served from memory and tried again.
    async fn save(&mut self) {
        let Some(unsaved) = &mut self.unsaved else { return };
        let verify = |text: &str| {
            let read = Certificate::from_pem(text.as_bytes(), text.as_bytes());
            read.map(|_| ()).map_err(|error| error.to_string())
        };
        match self.desk.store.put(self.desk.certificate_name(), unsaved.pem.pem().to_owned(), verify).await {
            Ok(()) => {
                self.unsaved = None;
                self.desk.forget_pending();
            }
            Err(error) => {
                unsaved.failures = unsaved.failures.saturating_add(1);
                unsaved.why = error.to_string();
                if unsaved.failures == 1 {
                    let message = format!("certificate is served, but cannot be kept: {error}");
                    self.events.tell(Severity::Error, Kind::CertificateNotStored, message);
                }
            }
        }
    }

    fn tell_aside(&self, aside: &Aside) {
        if let Some(error) = &aside.not_stored {
            let message = format!("account or order cannot be kept: {error}");
            self.events.tell(Severity::Warning, Kind::CertificateNotStored, message);
        }
        if let Some(error) = &aside.contact_refused {
            self.events.tell(Severity::Warning, Kind::AcmeContactRefused, error.to_string());
        }
    }

    fn publish_problem(&self) {
        let unsaved = self.unsaved.as_ref().map(|unsaved| format!("not kept: {}", unsaved.why));
        let problems: Vec<String> = self.order_problem.iter().cloned().chain(unsaved).collect();
        self.slot.set_problem((!problems.is_empty()).then(|| problems.join("; ")));
    }

    fn look_at_expiry(&mut self, now: i64) {
        let Some(certificate) = self.slot.certificate() else { return };
        let stage = stage(certificate.not_before(), certificate.not_after(), now);
        if stage > self.stage {
            let severity = if stage >= Stage::Near { Severity::Error } else { Severity::Warning };
            let verb = if stage == Stage::Over { "has expired at" } else { "expires at" };
            let names = certificate.names().join(", ");
            let message = format!("certificate for {names} {verb} {}", date(certificate.not_after()));
            self.events.tell(severity, Kind::CertificateExpiring, message);
        }
        self.stage = stage;
    }
}

fn life(certificate: &Certificate) -> Lifetime {
    Lifetime { not_before: certificate.not_before(), not_after: certificate.not_after() }
}
