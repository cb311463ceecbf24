//! The seam to whoever keeps backups. The guard shows how they are doing and puts on record what they say; it knows
//! nothing of databases.

use std::future::{Future, pending};
use std::pin::Pin;

use crate::records::VaultStatus;

/// Something for the operator.
#[derive(Clone, Debug)]
pub struct VaultSaid {
    /// The vault's name.
    pub vault: String,
    pub kind: &'static str,
    /// `info`, `warning` or `page`.
    pub severity: &'static str,
    pub message: String,
}

pub type VaultNews<'a> = Pin<Box<dyn Future<Output = VaultSaid> + 'a>>;

/// Keeps backups, on threads of its own. Nothing here waits for them but [`Vaults::close`].
pub trait Vaults {
    fn status(&self) -> Vec<VaultStatus>;
    /// Waits for the next. Dropped before there is one, nothing is lost.
    fn news(&self) -> VaultNews<'_>;
    /// The guard ends, and every service is down: what is left is copied, for a few seconds at most.
    fn close(&self);
}

/// The next news; none for ever where there is no vault.
pub(crate) async fn news(vaults: Option<&dyn Vaults>) -> VaultSaid {
    match vaults {
        Some(vaults) => vaults.news().await,
        None => pending().await,
    }
}
