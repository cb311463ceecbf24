//! Puts the vaults to work for the guard: the configuration turned into theirs, and what they say told to the guard.

use std::path::Path;

use jiff::Timestamp;
use plimsoll_guard::records::VaultStatus;
use plimsoll_guard::vaults::{VaultNews, VaultSaid, Vaults};
use plimsoll_vault::VaultConfig;
use plimsoll_vault::agent::Agent;
use plimsoll_vault::config::{BEAT_DEFAULT, TICK_LOCAL, TICK_REMOTE};
use plimsoll_vault::names::Millis;
use plimsoll_vault::retention::Keep;
use plimsoll_vault::shared::Teller;
use plimsoll_vault::status::{News, Status};
use plimsoll_vault::store::StoreConfig;
use tokio::sync::{Mutex, mpsc};

use crate::config::{Config, SecretError, SecretRef, Vault};

/// News that wait for the guard; what is more is only in the status.
const NEWS_MAX: usize = 256;

/// What a vault is started with.
pub(crate) fn config(vault: &Vault, state: &Path) -> Result<VaultConfig, SecretError> {
    let identity = match &vault.identity {
        Some(secret) => Some((secret.name(), secret.resolve()?.expose().to_owned())),
        None => None,
    };
    Ok(VaultConfig {
        name: vault.name.clone(),
        database: vault.database.clone(),
        store: StoreConfig { to: vault.to.clone(), bandwidth: vault.bandwidth.map(|it| it.0) },
        state: state.join("vault").join(&vault.name),
        every: vault.every,
        is_continuous: vault.continuous,
        keep: Keep { daily: vault.keep_daily, weekly: vault.keep_weekly, monthly: vault.keep_monthly },
        history: vault.history,
        verify: vault.verify,
        tick: if vault.to.starts_with("file://") { TICK_LOCAL } else { TICK_REMOTE },
        pressure: vault.pressure.0,
        spool: vault.spool.0,
        beat: BEAT_DEFAULT,
        recipients: vault.recipients.clone(),
        identity,
    })
}

/// The vaults, as the guard holds them.
#[derive(Debug)]
pub(crate) struct Keepers {
    agents: std::cell::RefCell<Vec<Agent>>,
    news: Mutex<mpsc::Receiver<News>>,
}

impl Keepers {
    /// Starts one for each `[[vault]]`; `None` without any.
    pub(crate) fn start(config: &Config, state: &Path) -> Result<Option<Self>, SecretError> {
        if config.vaults.is_empty() {
            return Ok(None);
        }
        let (teller, news) = mpsc::channel(NEWS_MAX);
        let mut agents = Vec::new();
        for vault in &config.vaults {
            let teller = teller.clone();
            let teller = Teller::new(move |news| drop(teller.try_send(news)));
            agents.push(Agent::start(self::config(vault, state)?, teller));
        }
        Ok(Some(Self { agents: agents.into(), news: Mutex::new(news) }))
    }
}

impl Vaults for Keepers {
    fn status(&self) -> Vec<VaultStatus> {
        self.agents.borrow().iter().map(|agent| status(agent.status())).collect()
    }

    fn news(&self) -> VaultNews<'_> {
        Box::pin(async {
            match self.news.lock().await.recv().await {
                Some(News { vault, kind, severity, message }) => VaultSaid { vault, kind, severity, message },
                // All of them ended.
                None => std::future::pending().await,
            }
        })
    }

    fn close(&self) {
        // Each ends beside the others.
        let mut agents = self.agents.borrow_mut();
        agents.iter().for_each(Agent::begin_end);
        agents.iter_mut().for_each(Agent::end);
    }
}

pub(crate) fn status(status: Status) -> VaultStatus {
    let time = |it: Option<Millis>| -> Option<Timestamp> { it.map(Millis::timestamp) };
    VaultStatus {
        name: status.name,
        database: status.database,
        to: status.to,
        mode: status.mode.name().to_owned(),
        why: status.why,
        tx: status.tx,
        fresh_as_of: time(status.fresh_as_of),
        last_snapshot: time(status.last_snapshot),
        last_backup: time(status.last_backup),
        verified: time(status.verified),
        backups: status.backups,
        snapshots: status.snapshots,
        waiting_bytes: status.waiting_bytes,
        log_bytes: status.log_bytes,
        held_ms_max: status.held_ms_max,
        sqlite_version: status.sqlite_version,
        problems: status.problems,
    }
}

impl SecretRef {
    /// Where it is, for errors.
    fn name(&self) -> std::path::PathBuf {
        match self {
            Self::Variable(name) => format!("env:{name}").into(),
            Self::File(path) => path.clone(),
            Self::Plain(_) => "identity".into(),
        }
    }
}
