//! Brings a certificate into use and keeps it there: from files, or by ACME.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::mpsc;

use super::{
    Acceptor, Certificates, Events, FilePair, Files, FilesError, POLL_EVERY, Reloader, Tls, TlsError,
    TlsEvent,
};
use crate::acme::{self, Challenges, Client, ConfigError};

/// Where the certificate comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertificateConfig {
    Files(FilePair),
    Acme(Box<acme::Config>),
}

#[derive(Debug, thiserror::Error)]
pub enum KeeperError {
    #[error(transparent)]
    Files(#[from] FilesError),
    #[error("acme: {0}")]
    Acme(#[from] ConfigError),
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// What has to run for as long as the certificate is to stay good.
type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

pub(crate) struct Keeper {
    pub(crate) tls: Tls,
    pub(crate) reloader: Reloader,
    pub(crate) chores: Chores,
}

/// The part of it that runs on one of the front's threads.
pub(crate) struct Chores {
    pub(crate) task: Task,
    pub(crate) news: mpsc::Receiver<TlsEvent>,
}

impl std::fmt::Debug for Chores {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Chores")
    }
}

impl Keeper {
    /// Reads what is there. Blocks for a few small files; nothing is asked of anybody yet.
    pub(crate) fn open(config: &CertificateConfig) -> Result<Self, KeeperError> {
        let (certificates, challenges) = (Certificates::new(), Challenges::new());
        let (events, news) = Events::channel();
        let (reloader, task): (Reloader, Task) = match config {
            CertificateConfig::Files(pair) => {
                let files = Files::open(pair.clone(), &certificates, events)?;
                (files.reloader(), Box::pin(files.run(POLL_EVERY)))
            }
            CertificateConfig::Acme(config) => {
                let config = acme::Config::clone(config);
                let client = Client::new(config, &certificates, Arc::clone(&challenges), events)?;
                (client.reloader(), Box::pin(client.run()))
            }
        };
        let acceptor = Acceptor::new(Arc::clone(&certificates), Arc::clone(&challenges))?;
        Ok(Self { tls: Tls { acceptor, certificates, challenges }, reloader, chores: Chores { task, news } })
    }
}
