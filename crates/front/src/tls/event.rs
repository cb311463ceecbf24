//! What the operator is told about certificates.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::mpsc;

/// How many events may wait; certificates change a few times a day, so more than this is a reader that is gone.
pub const EVENTS_MAX: usize = 256;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    Info,
    /// Something failed, and what is served is still good.
    Warning,
    /// Clients fail, or will before long.
    Error,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    CertificateIssued,
    CertificateRenewalFailed,
    CertificateReloaded,
    CertificateReloadFailed,
    CertificateExpiring,
    /// The certificate is served, but could not be kept on the disk.
    CertificateNotStored,
    /// The directory does not want the contact address; certificates are issued all the same.
    AcmeContactRefused,
}

impl Kind {
    /// The name in event records.
    pub fn name(self) -> &'static str {
        match self {
            Self::CertificateIssued => "certificate_issued",
            Self::CertificateRenewalFailed => "certificate_renewal_failed",
            Self::CertificateReloaded => "certificate_reloaded",
            Self::CertificateReloadFailed => "certificate_reload_failed",
            Self::CertificateExpiring => "certificate_expiring",
            Self::CertificateNotStored => "certificate_not_stored",
            Self::AcmeContactRefused => "acme_contact_refused",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsEvent {
    pub severity: Severity,
    pub kind: Kind,
    pub message: String,
}

/// The sending end: bounded, never waits. What finds no place is counted and lost.
#[derive(Clone, Debug)]
pub struct Events {
    sender: mpsc::Sender<TlsEvent>,
    lost: Arc<AtomicU64>,
}

impl Events {
    pub fn channel() -> (Self, mpsc::Receiver<TlsEvent>) {
        let (sender, receiver) = mpsc::channel(EVENTS_MAX);
        (Self { sender, lost: Arc::default() }, receiver)
    }

    pub(crate) fn tell(&self, severity: Severity, kind: Kind, message: String) {
        if self.sender.try_send(TlsEvent { severity, kind, message }).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Events that nobody was there to read.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_without_a_reader_are_counted_and_never_block() {
        let (events, receiver) = Events::channel();
        for _ in 0..=EVENTS_MAX {
            events.tell(Severity::Info, Kind::CertificateIssued, String::new());
        }
        assert_eq!(events.lost(), 1);
        drop(receiver);
        events.tell(Severity::Info, Kind::CertificateIssued, String::new());
        assert_eq!(events.lost(), 2);
    }
}
