//! One directory, with our account there and the order in progress.

use std::sync::Arc;
use std::time::Duration;

use instant_acme::{Account, CertificateIdentifier, Order};
use rcgen::KeyPair;

use super::account::{Aside, Registrar};
use super::config::{Config, Directory};
use super::error::AcmeError;
use super::http::Http;
use super::order::{Conduct, Pending, finish, place};
use super::secret::Secret;
use super::store::Store;
use crate::tls::{Certificate, unix_now};

/// How often an order is taken up again because of a nonce. instant-acme gives up after three refusals of one request;
/// each of our tries goes on where the last one stopped.
const TRIES_MAX: u32 = 20;

/// An order older than this is left alone: authorities forget them, and its certificate would have lost its time.
const PENDING_AGE_MAX: Duration = Duration::from_hours(1);

#[derive(Debug)]
pub(super) struct Desk {
    pub(super) store: Store,
    registrar: Registrar,
    /// In memory as well, for a disk that takes nothing.
    pending: Option<Pending>,
    name: String,
}

/// A certificate that was just issued.
#[derive(Debug)]
pub(super) struct Issued {
    /// Key and chain, as they are stored.
    pub(super) pem: Secret,
    pub(super) certificate: Arc<Certificate>,
}

impl Desk {
    pub(super) fn new(config: &Config, directory: &Directory) -> Self {
        let store = Store::new(&config.state, directory);
        let registrar = Registrar::new(store.clone(), directory.url().to_owned(), config.email.clone());
        let name = file_name(config);
        Self { store, registrar, pending: None, name }
    }

    /// Orders, or takes up the order that was interrupted.
    pub(super) async fn order(
        &mut self,
        config: &Config,
        http: &Http,
        conduct: &Conduct,
        served: Option<&Certificate>,
        aside: &mut Aside,
    ) -> Result<Issued, AcmeError> {
        let mut registered_again = false;
        let mut taken_up_in_vain = false;
        for _ in 0..TRIES_MAX {
            match self.attempt(config, http, conduct, served, aside).await {
                Err(error) if error.is_bad_nonce() => {}
                Err(error) if error.is_unknown_account() && !registered_again => {
                    registered_again = true;
                    self.registrar.forget_registration();
                    self.forget_pending();
                }
                // The last order, still there because the disk did not take its certificate.
                Ok(issued) if is_served(&issued, served) && !taken_up_in_vain => {
                    taken_up_in_vain = true;
                    self.forget_pending();
                }
                Ok(issued) if is_served(&issued, served) => {
                    self.forget_pending();
                    return Err(AcmeError::Issued("is the one that is served already".to_owned()));
                }
                Err(error) => {
                    if error.ends_order() {
                        self.forget_pending();
                    }
                    return Err(error);
                }
                Ok(issued) => return Ok(issued),
            }
        }
        Err(AcmeError::Nonces(TRIES_MAX))
    }

    /// The stored certificate to begin with: one that still lasts, is for most of our domains, and of these the one that
    /// lasts longest. After a change of the domains the old one goes on for those that it has, and one that has expired
    /// is still better than none: people are told what is wrong.
    pub(super) fn stored(&self, config: &Config, now: i64) -> Option<Certificate> {
        let read = |text: String| Certificate::from_pem(text.as_bytes(), text.as_bytes()).ok();
        let certificates = self.store.certificates().into_iter().filter_map(|(_, text)| read(text));
        let use_of = |certificate: &Certificate| {
            let count = config.domains.iter().filter(|domain| certificate.covers(domain)).count();
            (!certificate.is_expired(now), count, certificate.not_after())
        };
        certificates.filter(|certificate| use_of(certificate).1 > 0).max_by_key(use_of)
    }

    /// The account, if we have one already.
    pub(super) async fn account(&mut self, http: &Http) -> Result<Option<Account>, AcmeError> {
        self.registrar.existing(http).await
    }

    /// The order is done with: its certificate is kept, or it can give none.
    pub(super) fn forget_pending(&mut self) {
        self.pending = None;
        // Left over it is too old before long, and is ignored.
        let _ = self.store.remove(&self.pending_name());
    }

    async fn attempt(
        &mut self,
        config: &Config,
        http: &Http,
        conduct: &Conduct,
        served: Option<&Certificate>,
        aside: &mut Aside,
    ) -> Result<Issued, AcmeError> {
        let account = self.registrar.account(http, aside).await?;
        let (mut order, pending) = match self.taken_up(config, &account).await? {
            Some(taken_up) => taken_up,
            None => self.placed(config, &account, served, aside).await?,
        };
        let chain = finish(&mut order, &pending, conduct).await?;
        checked(&chain, &pending, unix_now())
    }

    /// The order from before an interruption, if it can still be one.
    async fn taken_up(
        &mut self,
        config: &Config,
        account: &Account,
    ) -> Result<Option<(Order, Pending)>, AcmeError> {
        if self.pending.is_none() {
            let stored = self.store.read(&self.pending_name()).ok().flatten();
            self.pending = stored.and_then(|text| serde_json::from_str(&text).ok());
        }
        let Some(pending) = self.pending.clone() else { return Ok(None) };
        let age = u64::try_from(unix_now().saturating_sub(pending.placed)).unwrap_or(u64::MAX);
        if pending.names != config.domains || age > PENDING_AGE_MAX.as_secs() {
            return Ok(None);
        }
        let fault = |error| AcmeError::Directory { doing: "asking for the order", error };
        match account.order(pending.url.clone()).await.map_err(fault) {
            Ok(order) => Ok(Some((order, pending))),
            Err(error) if error.ends_order() && !error.is_unknown_account() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A new order. Its key and its URL are on the disk before anything is asked for.
    async fn placed(
        &mut self,
        config: &Config,
        account: &Account,
        served: Option<&Certificate>,
        aside: &mut Aside,
    ) -> Result<(Order, Pending), AcmeError> {
        let key = Secret::new(KeyPair::generate()?.serialize_pem());
        let replaces = served.filter(|served| same_names(served, config)).and_then(identifier);
        let order = place(account, config, replaces.as_ref()).await?;
        let url = order.url().to_owned();
        let pending = Pending { url, key, names: config.domains.clone(), placed: unix_now() };
        self.pending = Some(pending.clone());
        let text = serde_json::json!(pending).to_string();
        let back = pending.clone();
        let verify = move |text: &str| match serde_json::from_str::<Pending>(text) {
            Ok(read) if read == back => Ok(()),
            Ok(_) => Err("it differs".to_owned()),
            Err(error) => Err(error.to_string()),
        };
        // Without it an interruption costs one more order, and nothing else.
        if let Err(error) = self.store.put(self.pending_name(), text, verify).await {
            aside.not_stored = Some(error);
        }
        Ok((order, pending))
    }

    fn pending_name(&self) -> String {
        format!("orders/{}.json", self.name)
    }

    pub(super) fn certificate_name(&self) -> String {
        format!("certificates/{}.pem", self.name)
    }
}

/// The first domain names the files; all of these are host names or addresses, so there is no slash in it.
fn file_name(config: &Config) -> String {
    config.domains.first().cloned().unwrap_or_default()
}

/// What the directory calls a certificate; `None` for one that was issued without an authority's key identifier.
pub(super) fn identifier(certificate: &Certificate) -> Option<CertificateIdentifier<'static>> {
    let leaf = certificate.leaf()?;
    CertificateIdentifier::try_from(leaf).ok().map(CertificateIdentifier::into_owned)
}

pub(super) fn same_names(certificate: &Certificate, config: &Config) -> bool {
    certificate.names().len() == config.domains.len() && covers_all(certificate, config)
}

pub(super) fn covers_all(certificate: &Certificate, config: &Config) -> bool {
    config.domains.iter().all(|domain| certificate.covers(domain))
}

fn is_served(issued: &Issued, served: Option<&Certificate>) -> bool {
    served.is_some_and(|served| served.leaf() == issued.certificate.leaf())
}

/// Nothing is served that was not looked at.
fn checked(chain: &str, pending: &Pending, now: i64) -> Result<Issued, AcmeError> {
    let pem = Secret::new(format!("{}{chain}", pending.key.pem()));
    let certificate = Certificate::from_pem(chain.as_bytes(), pending.key.pem().as_bytes())
        .map_err(|error| AcmeError::Issued(error.to_string()))?;
    if let Some(domain) = pending.names.iter().find(|domain| !certificate.covers(domain)) {
        return Err(AcmeError::Issued(format!("is not for {domain}")));
    }
    if certificate.is_expired(now) {
        return Err(AcmeError::Issued("has expired already: is this host's clock right?".to_owned()));
    }
    Ok(Issued { pem, certificate: Arc::new(certificate) })
}
