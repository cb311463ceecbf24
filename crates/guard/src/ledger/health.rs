//! What `status` says of the ledger.

/// Guarding goes on whatever this says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerHealth {
    /// Whether what happens now reaches the disk.
    pub ok: bool,
    /// What is wrong and what follows from it; empty when nothing is.
    pub message: String,
    /// Records lost for good since the guard started, because memory is bounded too.
    pub dropped: u64,
}

impl Default for LedgerHealth {
    fn default() -> Self {
        Self { ok: true, message: String::new(), dropped: 0 }
    }
}
