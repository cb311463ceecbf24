//! Our account at a directory: made once, kept, and never made twice.
//!
//! The key is on the disk before the directory hears of it. A directory answers a known key with the account it has, so
//! an interruption at any point ends in the same account.

use instant_acme::{Account, Key};
use rcgen::KeyPair;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde::{Deserialize, Serialize};

use super::error::AcmeError;
use super::http::Http;
use super::secret::Secret;
use super::store::Store;

const KEY: &str = "account.key";
const REGISTRATION: &str = "account.json";

#[derive(Debug)]
pub(super) struct Registrar {
    store: Store,
    url: String,
    email: Option<String>,
    /// PEM. In memory as well, so that a disk that takes nothing does not cost a new account for each try.
    key: Option<Secret>,
    registration: Option<Registration>,
    /// What the disk did not take yet.
    unsaved: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Registration {
    /// The account's URL.
    id: String,
    /// What the directory was told last.
    email: Option<String>,
}

/// What went wrong beside the point.
#[derive(Debug, Default)]
pub(super) struct Aside {
    pub(super) not_stored: Option<AcmeError>,
    pub(super) contact_refused: Option<AcmeError>,
}

impl Registrar {
    pub(super) fn new(store: Store, url: String, email: Option<String>) -> Self {
        Self { store, url, email, key: None, registration: None, unsaved: false }
    }

    /// The account, made if there is none.
    pub(super) async fn account(&mut self, http: &Http, aside: &mut Aside) -> Result<Account, AcmeError> {
        self.load()?;
        if self.key.is_none() {
            self.key = Some(Secret::new(KeyPair::generate()?.serialize_pem()));
            self.unsaved = true;
        }
        aside.not_stored = self.save().await.err();
        let account = match self.restored(http).await? {
            Some(account) => account,
            None => self.register(http).await?,
        };
        aside.contact_refused = self.tell_contact(&account).await.err();
        aside.not_stored = self.save().await.err().or(aside.not_stored.take());
        Ok(account)
    }

    /// The account if there is one; nothing is made.
    pub(super) async fn existing(&mut self, http: &Http) -> Result<Option<Account>, AcmeError> {
        self.load()?;
        self.restored(http).await
    }

    /// The directory does not know it any more; the key stays, and is registered again.
    pub(super) fn forget_registration(&mut self) {
        self.registration = None;
        self.unsaved = true;
        // Where it cannot be removed it is written anew a moment later, or forgotten again.
        let _ = self.store.remove(REGISTRATION);
    }

    fn load(&mut self) -> Result<(), AcmeError> {
        if self.key.is_some() {
            return Ok(());
        }
        if let Some(pem) = self.store.read(KEY)? {
            let name = format!("{KEY} of {}", self.url);
            key_of(&pem).map_err(|why| AcmeError::StoreContent {
                path: name.into(),
                why: format!("{why}; move it away for a new account"),
            })?;
            self.key = Some(Secret::new(pem));
            // One that cannot be read is asked for again, by the key.
            self.registration =
                self.store.read(REGISTRATION)?.and_then(|text| serde_json::from_str(&text).ok());
        }
        Ok(())
    }

    async fn save(&mut self) -> Result<(), AcmeError> {
        if !self.unsaved {
            return Ok(());
        }
        let stored = self.store.read(KEY).ok().flatten();
        if let Some(key) = self.key.as_ref().filter(|key| stored.as_deref() != Some(key.pem())) {
            let verify = |text: &str| key_of(text).map(|_| ());
            self.store.put(KEY.to_owned(), key.pem().to_owned(), verify).await?;
        }
        if let Some(registration) = self.registration.clone() {
            let text = serde_json::json!(registration).to_string();
            let verify = move |text: &str| match serde_json::from_str::<Registration>(text) {
                Ok(back) if back == registration => Ok(()),
                Ok(_) => Err("it differs".to_owned()),
                Err(error) => Err(error.to_string()),
            };
            self.store.put(REGISTRATION.to_owned(), text, verify).await?;
            self.unsaved = false;
        }
        Ok(())
    }

    async fn restored(&self, http: &Http) -> Result<Option<Account>, AcmeError> {
        let (Some(registration), Some(der)) = (&self.registration, self.der()) else { return Ok(None) };
        let builder = Account::builder_with_http(Box::new(http.clone()));
        let account = builder.from_parts(registration.id.clone(), der, self.url.clone()).await;
        account.map(Some).map_err(|error| AcmeError::Directory { doing: "asking the directory", error })
    }

    async fn register(&mut self, http: &Http) -> Result<Account, AcmeError> {
        let fault = |error| AcmeError::Directory { doing: "registering our account", error };
        let der = self.der().ok_or(AcmeError::Interrupted)?;
        let key = Key::from_pkcs8_der(der.clone_key()).map_err(fault)?;
        let builder = Account::builder_with_http(Box::new(http.clone()));
        let created = builder.create_from_key((key, PrivateKeyDer::Pkcs8(der)), self.url.clone()).await;
        let (account, _) = created.map_err(fault)?;
        self.registration = Some(Registration { id: account.id().to_owned(), email: None });
        self.unsaved = true;
        Ok(account)
    }

    async fn tell_contact(&mut self, account: &Account) -> Result<(), AcmeError> {
        let Some(registration) = &mut self.registration else { return Ok(()) };
        if registration.email == self.email {
            return Ok(());
        }
        let contact = self.email.as_ref().map(|email| format!("mailto:{email}"));
        let contacts: Vec<&str> = contact.iter().map(String::as_str).collect();
        let told = account.update_contacts(&contacts).await;
        told.map_err(|error| AcmeError::Directory { doing: "telling the contact address", error })?;
        registration.email.clone_from(&self.email);
        self.unsaved = true;
        Ok(())
    }

    fn der(&self) -> Option<PrivatePkcs8KeyDer<'static>> {
        self.key.as_ref().and_then(|key| key_of(key.pem()).ok())
    }
}

fn key_of(pem: &str) -> Result<PrivatePkcs8KeyDer<'static>, String> {
    let der = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).map_err(|error| error.to_string())?;
    Key::from_pkcs8_der(der.clone_key()).map_err(|error| error.to_string())?;
    Ok(der)
}

#[cfg(test)]
mod tests {
    use super::super::config::Directory;
    use super::*;

    fn registrar(state: &std::path::Path) -> Registrar {
        Registrar::new(Store::new(state, &Directory::LetsEncrypt), "https://ca.example/dir".to_owned(), None)
    }

    #[tokio::test]
    async fn a_key_and_its_registration_are_found_again() {
        let state = tempfile::tempdir().unwrap();
        let mut first = registrar(state.path());
        first.key = Some(Secret::new(KeyPair::generate().unwrap().serialize_pem()));
        first.registration = Some(Registration { id: "https://ca.example/1".to_owned(), email: None });
        first.unsaved = true;
        first.save().await.unwrap();
        let mut second = registrar(state.path());
        second.load().unwrap();
        assert_eq!((second.key, second.registration), (first.key, first.registration));
    }

    #[test]
    fn a_broken_key_is_never_silently_replaced() {
        let state = tempfile::tempdir().unwrap();
        let mut registrar = registrar(state.path());
        registrar.store.write(KEY, "rubbish", |_| Ok(())).unwrap();
        let error = registrar.load().unwrap_err().to_string();
        assert!(error.contains("account.key") && error.contains("move it away"), "{error}");
    }
}
