//! Where objects are kept: a folder, or a bucket of somebody's. Five verbs, blocking, by names relative to `to`.
//!
//! What stands in the way of all of them is the same everywhere: retries with a deadline, a limit on bandwidth, errors
//! that name the store and the object. Nothing is visible before it is whole: a folder gets a temporary file that is
//! synced and renamed, a bucket shows an object once all of it has arrived.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use futures_util::TryStreamExt as _;
use futures_util::stream::BoxStream;
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::local::LocalFileSystem;
use object_store::path::Path as ObjectPath;
use object_store::{
    BackoffConfig, ClientOptions, ObjectMeta, ObjectStore, ObjectStoreExt as _, PutMode, PutOptions,
    PutPayload, RetryConfig,
};
use tokio::runtime::Runtime;
use url::Url;

use crate::error::{Error, Result};
use crate::fault;
use crate::names::Millis;

const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// One attempt of one object, which is a few MiB at the most.
const REQUEST_WITHIN: Duration = Duration::from_mins(1);
/// All attempts of one call. What is to be stored is kept and tried again later; what is asked for fails.
const RETRY_WITHIN: Duration = Duration::from_secs(30);
const RETRIES_MAX: usize = 5;
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// What is so small goes past the limit on bandwidth: a sign of life does not wait behind a snapshot.
const SMALL_BYTES: usize = 1024;
const BLOCKING_THREADS: usize = 4;
const STACK_BYTES: usize = 512 * 1024;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreConfig {
    /// `file://`, `s3://`, `gs://` or `az://`.
    pub to: String,
    /// Bytes a second, both ways.
    pub bandwidth: Option<u64>,
}

impl StoreConfig {
    /// Where it is a folder on this machine.
    fn folder(&self) -> Option<PathBuf> {
        let url = Url::parse(&self.to).ok().filter(|url| url.scheme() == "file")?;
        url.to_file_path().ok()
    }
}

/// One object, as a listing tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    pub name: String,
    pub bytes: u64,
    pub changed: Millis,
}

type Listing = BoxStream<'static, object_store::Result<ObjectMeta>>;

#[derive(Clone)]
pub struct Store {
    inner: Arc<dyn ObjectStore>,
    /// For a bucket. Files of a folder are written by the thread that calls: to hand them to another one ten times a
    /// second costs more than a folder is worth.
    runtime: Option<Arc<Runtime>>,
    prefix: ObjectPath,
    to: String,
    pace: Option<Arc<Mutex<Pace>>>,
    /// Of a folder: what has to be there before anything is stored.
    mark: Option<PathBuf>,
}

impl fmt::Debug for Store {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Store({})", self.to)
    }
}

impl Store {
    /// Opens the address; a folder is made where it is missing, and nothing is asked of a bucket yet.
    pub fn open(config: &StoreConfig) -> Result<Self> {
        if let Some(path) = config.folder() {
            let refused = |error| Error::Address {
                store: config.to.clone(),
                why: format!("cannot make {}: {error}", path.display()),
            };
            std::fs::create_dir_all(&path).map_err(refused)?;
        }
        Self::look(config)
    }

    /// The same for whoever reads only: nothing is made.
    pub fn look(config: &StoreConfig) -> Result<Self> {
        let refused = |why: String| Error::Address { store: config.to.clone(), why };
        let url = Url::parse(&config.to).map_err(|error| refused(format!("not an address: {error}")))?;
        let (inner, prefix) = connect(&url).map_err(&refused)?;
        let runtime = match url.scheme() {
            "file" => None,
            _ => Some(Arc::new(runtime().map_err(|error| refused(format!("no thread to be had: {error}")))?)),
        };
        Ok(Self {
            inner,
            runtime,
            prefix,
            to: config.to.clone(),
            pace: config.bandwidth.map(|rate| Arc::new(Mutex::new(Pace::new(rate)))),
            mark: None,
        })
    }

    /// From here on nothing is stored in a folder that has no object of this name: where its disk is not mounted any more,
    /// another one would be filled.
    #[must_use]
    pub fn marked_by(self, config: &StoreConfig, name: &str) -> Self {
        Self { mark: config.folder().map(|it| it.join(name)), ..self }
    }

    pub fn address(&self) -> &str {
        &self.to
    }

    /// A folder on this machine, where each call takes milliseconds.
    pub fn is_local(&self) -> bool {
        self.runtime.is_none()
    }

    fn wait<T>(&self, call: impl Future<Output = T>) -> T {
        match &self.runtime {
            Some(runtime) => runtime.block_on(call),
            None => futures_executor::block_on(call),
        }
    }

    pub fn put(&self, name: &str, bytes: impl Into<PutPayload>) -> Result<()> {
        self.put_as(name, bytes.into(), PutMode::Overwrite).map(drop)
    }

    /// Stores it unless there is one of this name already; whether it did.
    pub fn put_new(&self, name: &str, bytes: Vec<u8>) -> Result<bool> {
        self.put_as(name, bytes.into(), PutMode::Create)
    }

    fn put_as(&self, name: &str, bytes: PutPayload, mode: PutMode) -> Result<bool> {
        self.refuse_unmarked(name)?;
        self.wait_for(bytes.content_length());
        let options = PutOptions { mode, ..PutOptions::default() };
        let path = self.path(name);
        fault::step().map_err(|error| self.faulty("store", name, &error))?;
        let put = self.wait(self.inner.put_opts(&path, bytes, options));
        // It may be there, and nobody have heard of it.
        fault::step().map_err(|error| self.faulty("store", name, &error))?;
        match put {
            Ok(_) => Ok(true),
            Err(object_store::Error::AlreadyExists { .. }) => Ok(false),
            Err(error) => Err(self.failed("store", name, &error)),
        }
    }

    fn refuse_unmarked(&self, name: &str) -> Result<()> {
        let Some(mark) = self.mark.as_ref().filter(|it| !it.exists()) else { return Ok(()) };
        let gone = std::io::Error::other(format!("{} is gone: is its disk mounted?", mark.display()));
        Err(self.faulty("store", name, &gone))
    }

    pub fn get(&self, name: &str) -> Result<Vec<u8>> {
        let path = self.path(name);
        let got = self.wait(async { self.inner.get(&path).await?.bytes().await });
        let bytes = got.map_err(|error| self.failed("fetch", name, &error))?;
        self.wait_for(bytes.len());
        Ok(bytes.into())
    }

    /// As [`get`](Self::get), checked against the hash that its name carries.
    pub fn get_checked(&self, name: &str, hash: crate::names::Hash) -> Result<Vec<u8>> {
        let bytes = self.get(name)?;
        if crate::names::Hash::of(&bytes) != hash {
            let why = "its bytes are not those that were stored: the hash is another".to_owned();
            return Err(Error::Spoiled { name: name.to_owned(), why });
        }
        Ok(bytes)
    }

    /// Everything below a folder, in no order.
    pub fn list(&self, folder: &str) -> Result<Vec<Listed>> {
        self.listed(folder, self.inner.list(Some(&self.path(folder))))
    }

    /// The same, of names behind this one alone: in a bucket with many objects each thousand of them is a request.
    pub fn list_after(&self, folder: &str, name: &str) -> Result<Vec<Listed>> {
        self.listed(folder, self.inner.list_with_offset(Some(&self.path(folder)), &self.path(name)))
    }

    fn listed(&self, folder: &str, listing: Listing) -> Result<Vec<Listed>> {
        let found: Vec<_> =
            self.wait(listing.try_collect()).map_err(|error| self.failed("list", folder, &error))?;
        let listed = found.into_iter().filter_map(|meta| {
            let name = meta.location.prefix_match(&self.prefix)?;
            let name: Vec<_> = name.map(|part| part.as_ref().to_owned()).collect();
            let changed = Millis(u64::try_from(meta.last_modified.timestamp_millis()).unwrap_or(0));
            Some(Listed { name: name.join("/"), bytes: meta.size, changed })
        });
        Ok(listed.collect())
    }

    /// Done where it was not there.
    pub fn delete(&self, name: &str) -> Result<()> {
        fault::step().map_err(|error| self.faulty("delete", name, &error))?;
        match self.wait(self.inner.delete(&self.path(name))) {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.failed("delete", name, &error)),
        }
    }

    fn path(&self, name: &str) -> ObjectPath {
        let parts = self.prefix.parts().map(|part| part.as_ref().to_owned());
        parts.chain(name.split('/').map(str::to_owned)).collect()
    }

    fn wait_for(&self, bytes: usize) {
        let Some(pace) = self.pace.as_ref().filter(|_| bytes > SMALL_BYTES) else { return };
        let wait = match pace.lock() {
            Ok(mut pace) => pace.take(bytes as u64, Instant::now()),
            Err(_) => Duration::ZERO,
        };
        std::thread::sleep(wait);
    }

    fn faulty(&self, verb: &'static str, name: &str, error: &std::io::Error) -> Error {
        let (store, name, why) = (self.to.clone(), name.to_owned(), error.to_string());
        Error::Store { store, verb, name, why, is_missing: false }
    }

    fn failed(&self, verb: &'static str, name: &str, error: &object_store::Error) -> Error {
        Error::Store {
            store: self.to.clone(),
            verb,
            name: name.to_owned(),
            why: root_cause(error),
            is_missing: matches!(error, object_store::Error::NotFound { .. }),
        }
    }
}

/// The library wraps the same words several times; the innermost says what happened.
fn root_cause(error: &object_store::Error) -> String {
    if matches!(error, object_store::Error::NotFound { .. }) {
        return "it is not there".to_owned();
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

fn connect(url: &Url) -> Result<(Arc<dyn ObjectStore>, ObjectPath), String> {
    // The TLS library asks for one provider in the process; whoever is first sets it, and all set the same.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let text = |error: object_store::Error| root_cause(&error);
    let path = ObjectPath::parse(url.path()).map_err(|error| error.to_string())?;
    let store: Arc<dyn ObjectStore> = match url.scheme() {
        "file" => return folder(url),
        "s3" => Arc::new(
            AmazonS3Builder::from_env()
                .with_url(url.as_str())
                .with_retry(retries())
                .with_client_options(client("AWS_ALLOW_HTTP"))
                .build()
                .map_err(text)?,
        ),
        "gs" => Arc::new(
            GoogleCloudStorageBuilder::from_env()
                .with_url(url.as_str())
                .with_retry(retries())
                .with_client_options(client("GOOGLE_ALLOW_HTTP"))
                .build()
                .map_err(text)?,
        ),
        "az" => Arc::new(
            MicrosoftAzureBuilder::from_env()
                .with_url(url.as_str())
                .with_retry(retries())
                .with_client_options(client("AZURE_ALLOW_HTTP"))
                .build()
                .map_err(text)?,
        ),
        other => return Err(format!("{other}:// is not a store; there are file://, s3://, gs:// and az://")),
    };
    Ok((store, path))
}

fn runtime() -> std::io::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_stack_size(STACK_BYTES)
        .thread_name("plimsoll-store")
        .enable_all()
        .build()
}

fn folder(url: &Url) -> Result<(Arc<dyn ObjectStore>, ObjectPath), String> {
    let path =
        url.to_file_path().map_err(|()| "write file:// and the whole path: file:///var/backups/reports")?;
    if !path.is_dir() {
        return Err("there is no such folder".to_owned());
    }
    let store = LocalFileSystem::new_with_prefix(&path).map_err(|error| root_cause(&error))?;
    Ok((Arc::new(store.with_fsync(true)), ObjectPath::default()))
}

/// Plain HTTP only where the environment asks for it, as the libraries of the stores have it.
fn client(allow_http: &str) -> ClientOptions {
    let asked = std::env::var(allow_http).is_ok_and(|it| matches!(it.as_str(), "1" | "true"));
    ClientOptions::new()
        .with_allow_http(asked)
        .with_connect_timeout(CONNECT_WITHIN)
        .with_timeout(REQUEST_WITHIN)
}

fn retries() -> RetryConfig {
    let backoff = BackoffConfig { init_backoff: BACKOFF_FIRST, max_backoff: BACKOFF_MAX, base: 2.0 };
    RetryConfig { backoff, max_retries: RETRIES_MAX, retry_timeout: RETRY_WITHIN }
}

/// Spreads bytes over time.
#[derive(Debug)]
struct Pace {
    rate: u64,
    /// When all that was let through so far would have been sent.
    free_at: Option<Instant>,
}

impl Pace {
    fn new(rate: u64) -> Self {
        Self { rate: rate.max(1), free_at: None }
    }

    /// How long to wait before so many bytes.
    fn take(&mut self, bytes: u64, now: Instant) -> Duration {
        let free_at = self.free_at.map_or(now, |it| it.max(now));
        let micros = bytes.saturating_mul(1_000_000) / self.rate;
        self.free_at = Some(free_at + Duration::from_micros(micros));
        free_at - now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_spread_over_time() {
        let now = Instant::now();
        let mut pace = Pace::new(1000);
        let waits = [500, 500, 1000].map(|bytes| pace.take(bytes, now).as_millis());
        assert_eq!(waits, [0, 500, 1000]);
        assert_eq!(pace.take(1, now + Duration::from_secs(9)), Duration::ZERO);
    }

    #[test]
    fn an_address_that_is_none_is_refused_with_what_would_be_right() {
        for (to, why) in [
            ("reports", "not an address"),
            ("ftp://x/y", "there are file://"),
            ("file://host/x", "whole path"),
        ] {
            let error =
                Store::open(&StoreConfig { to: to.to_owned(), bandwidth: None }).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }
}
