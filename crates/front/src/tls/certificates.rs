//! What is served: from the name a client asks for to the certificate that answers.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::certificate::Certificate;
use super::expiry::days_left;
use super::names::{normal, wildcard_of};

/// Where a certificate comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    Files,
    Acme,
}

impl Source {
    /// The name in `status`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Files => "files",
            Self::Acme => "acme",
        }
    }
}

/// What `status` and the metrics say of one certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateReport {
    /// The hosts it is for; those that are wanted, while there is none yet.
    pub names: Vec<String>,
    /// Unix seconds; `None` while there is no certificate.
    pub not_after: Option<i64>,
    pub source: Source,
    /// What fails at the moment, for people. What is served is still served.
    pub problem: Option<String>,
}

impl CertificateReport {
    /// Whole days, negative once it has expired.
    pub fn days_left(&self, now: i64) -> Option<i64> {
        self.not_after.map(|not_after| days_left(not_after, now))
    }
}

/// All certificates, shared between threads. Readers take no lock; a handshake in progress keeps what it began with.
#[derive(Debug, Default)]
pub struct Certificates {
    table: ArcSwap<Table>,
    /// Removed ones leave their place, so that indices stay true.
    slots: Mutex<Vec<Option<Content>>>,
}

/// The place of one certificate, for whoever keeps it up to date.
#[derive(Clone, Debug)]
pub struct Slot {
    certificates: Arc<Certificates>,
    index: usize,
}

#[derive(Debug)]
struct Content {
    source: Source,
    wanted: Vec<String>,
    certificate: Option<Arc<Certificate>>,
    problem: Option<String>,
}

#[derive(Debug, Default)]
struct Table {
    by_name: HashMap<String, Arc<CertifiedKey>>,
    /// The answer to a client that names no host: only where there is nothing to choose.
    single: Option<Arc<CertifiedKey>>,
}

impl Certificates {
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// A new place, empty; `wanted` is what it shall be for. Where two are for the same name, the earlier place answers.
    pub fn add(self: &Arc<Self>, source: Source, wanted: Vec<String>) -> Slot {
        let mut slots = self.lock();
        slots.push(Some(Content { source, wanted, certificate: None, problem: None }));
        let index = slots.len() - 1;
        self.table.store(Arc::new(Table::of(&slots)));
        Slot { certificates: Arc::clone(self), index }
    }

    /// The certificate for a name, exact before wildcard; without a name the only one, if there is only one.
    pub fn find(&self, name: Option<&str>) -> Option<Arc<CertifiedKey>> {
        self.table.load().find(name).cloned()
    }

    /// Whether any certificate is for `host` (no port). Where not, a client that did name a host in its handshake has
    /// come to the wrong place: 421.
    pub fn covers(&self, host: &str) -> bool {
        self.find(Some(host)).is_some()
    }

    /// Whether `host` is served with the same certificate as `sni`, so that a client may rightly use one connection for
    /// both.
    pub fn same_site(&self, sni: &str, host: &str) -> bool {
        let table = self.table.load();
        match (table.find(Some(sni)), table.find(Some(host))) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (None, _) | (_, None) => false,
        }
    }

    pub fn report(&self) -> Vec<CertificateReport> {
        self.lock().iter().flatten().map(Content::report).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Option<Content>>> {
        // Nothing under this lock leaves the slots half changed.
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, index: usize, change: impl FnOnce(&mut Option<Content>)) {
        let mut slots = self.lock();
        if let Some(content) = slots.get_mut(index) {
            change(content);
        }
        self.table.store(Arc::new(Table::of(&slots)));
    }
}

impl Slot {
    /// Serves `certificate` from the next handshake on; the problem that there was is none any more.
    pub fn set(&self, certificate: Arc<Certificate>) {
        self.change(|content| {
            content.certificate = Some(certificate);
            content.problem = None;
        });
    }

    /// Says what fails, or that nothing does any more.
    pub fn set_problem(&self, problem: Option<String>) {
        self.change(|content| content.problem = problem);
    }

    pub fn problem(&self) -> Option<String> {
        self.get(|content| content.problem.clone())
    }

    pub fn certificate(&self) -> Option<Arc<Certificate>> {
        self.get(|content| content.certificate.clone())
    }

    /// Serves it no more; for a reload whose new configuration is without it. The other slots stay as they are.
    pub fn remove(&self) {
        self.certificates.change(self.index, |content| *content = None);
    }

    fn change(&self, change: impl FnOnce(&mut Content)) {
        self.certificates.change(self.index, |content| {
            if let Some(content) = content {
                change(content);
            }
        });
    }

    fn get<V>(&self, get: impl FnOnce(&Content) -> Option<V>) -> Option<V> {
        self.certificates.lock().get(self.index)?.as_ref().and_then(get)
    }
}

impl Content {
    fn report(&self) -> CertificateReport {
        let certificate = self.certificate.as_deref();
        CertificateReport {
            names: certificate.map_or(&self.wanted[..], Certificate::names).to_vec(),
            not_after: certificate.map(Certificate::not_after),
            source: self.source,
            problem: self.problem.clone(),
        }
    }
}

impl Table {
    fn of(slots: &[Option<Content>]) -> Self {
        let mut by_name = HashMap::new();
        let kept: Vec<&Content> = slots.iter().flatten().collect();
        for certificate in kept.iter().filter_map(|content| content.certificate.as_ref()) {
            for name in certificate.names() {
                by_name.entry(name.clone()).or_insert_with(|| Arc::clone(certificate.certified_key()));
            }
        }
        let single = match kept[..] {
            [only] => only.certificate.as_ref().map(|certificate| Arc::clone(certificate.certified_key())),
            _ => None,
        };
        Self { by_name, single }
    }

    fn find(&self, name: Option<&str>) -> Option<&Arc<CertifiedKey>> {
        let Some(name) = name else { return self.single.as_ref() };
        let name = normal(name);
        self.by_name.get(&name).or_else(|| self.by_name.get(&wildcard_of(&name)?))
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.find(hello.server_name())
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    fn certificate(names: &[&str]) -> Arc<Certificate> {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let chain = CertificateParams::new(names).unwrap().self_signed(&key).unwrap().pem();
        Arc::new(Certificate::from_pem(chain.as_bytes(), key.serialize_pem().as_bytes()).unwrap())
    }

    #[test]
    fn exact_names_come_before_wildcards_and_earlier_places_before_later_ones() {
        let certificates = Certificates::new();
        let wild = certificate(&["*.example.org"]);
        let exact = certificate(&["www.example.org", "example.org"]);
        let late = certificate(&["example.org"]);
        for one in [&wild, &exact, &late] {
            certificates.add(Source::Files, Vec::new()).set(Arc::clone(one));
        }
        let finds = |name: &str, one: &Arc<Certificate>| {
            Arc::ptr_eq(&certificates.find(Some(name)).unwrap(), one.certified_key())
        };
        assert!(finds("WWW.example.org", &exact));
        assert!(finds("api.example.org", &wild));
        assert!(finds("example.org", &exact));
        assert!(!certificates.covers("a.b.example.org"));
        assert!(certificates.same_site("www.example.org", "example.org"));
        assert!(!certificates.same_site("www.example.org", "api.example.org"));
    }

    #[test]
    fn a_client_without_a_name_is_answered_only_where_there_is_no_choice() {
        let certificates = Certificates::new();
        let slot = certificates.add(Source::Files, Vec::new());
        assert!(certificates.find(None).is_none());
        slot.set(certificate(&["example.org"]));
        assert!(certificates.find(None).is_some());
        // One more site is wanted, though its certificate is not there yet: whose client it is cannot be known.
        let other = certificates.add(Source::Acme, vec!["example.com".to_owned()]);
        assert!(certificates.find(None).is_none());
        other.remove();
        assert!(certificates.find(None).is_some());
        assert_eq!(certificates.report().len(), 1);
    }

    #[test]
    fn a_swap_is_seen_by_the_next_question_and_the_report_says_what_is_wrong() {
        let certificates = Certificates::new();
        let slot = certificates.add(Source::Acme, vec!["example.org".to_owned()]);
        let report = || certificates.report().remove(0);
        assert_eq!(report().names, ["example.org"]);
        assert_eq!(report().not_after, None);
        slot.set_problem(Some("the directory is away".to_owned()));
        assert_eq!(report().problem.as_deref(), Some("the directory is away"));
        let first = certificate(&["example.org"]);
        slot.set(Arc::clone(&first));
        let before = certificates.find(Some("example.org")).unwrap();
        slot.set(certificate(&["example.org"]));
        assert!(!Arc::ptr_eq(&before, &certificates.find(Some("example.org")).unwrap()));
        assert!(report().days_left(first.not_before()).unwrap() > 0);
    }
}
