//! The other end of the control socket, for the command line.

use std::io;
use std::path::{Path, PathBuf};

use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use crate::records::EventRecord;

#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error(
        "no guard answers at {path}: {source}; is `plimsoll run` running, and with the same --config, --state or --socket?"
    )]
    Unreachable { path: PathBuf, source: io::Error },
    #[error("not permitted to talk to the guard at {path}: it answers its own user and root")]
    NotPermitted { path: PathBuf },
    #[error("the guard closed the conversation at {path}: {why}")]
    Broken { path: PathBuf, why: String },
    /// There is no such thing; the guard's own words.
    #[error("{message}")]
    NotFound { message: String },
    /// The guard's own words.
    #[error("{message}")]
    Refused { message: String },
}

#[derive(Clone, Debug)]
pub struct Client {
    path: PathBuf,
}

impl Client {
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    pub async fn get<T: DeserializeOwned>(&self, target: &str) -> Result<T, ClientError> {
        self.call(Method::GET, target).await
    }

    pub async fn post<T: DeserializeOwned>(&self, target: &str) -> Result<T, ClientError> {
        self.call(Method::POST, target).await
    }

    /// Calls `each` for every event as it happens, until it returns false or the guard ends.
    pub async fn follow(
        &self,
        target: &str,
        mut each: impl FnMut(EventRecord) -> bool,
    ) -> Result<(), ClientError> {
        let mut body = self.send(Method::GET, target).await?.into_body();
        let mut pending = Vec::new();
        while let Some(frame) = body.frame().await {
            // The guard's end is the end of its events, however it goes.
            let Ok(frame) = frame else { return Ok(()) };
            let Some(bytes) = frame.data_ref() else { continue };
            pending.extend_from_slice(bytes);
            while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = pending.drain(..=end).collect();
                if let Ok(event) = serde_json::from_slice(&line)
                    && !each(event)
                {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    async fn call<T: DeserializeOwned>(&self, method: Method, target: &str) -> Result<T, ClientError> {
        let response = self.send(method, target).await?;
        let status = response.status();
        let bytes = response.into_body().collect().await.map_err(|error| self.broken(error))?.to_bytes();
        if !status.is_success() {
            let said: serde_json::Value = serde_json::from_slice(&bytes).unwrap_or_default();
            let message = said["error"].as_str().unwrap_or("the guard refused").to_owned();
            return Err(if status == hyper::StatusCode::NOT_FOUND {
                ClientError::NotFound { message }
            } else {
                ClientError::Refused { message }
            });
        }
        serde_json::from_slice(&bytes).map_err(|error| self.broken(error))
    }

    async fn send(&self, method: Method, target: &str) -> Result<Response<Incoming>, ClientError> {
        let unreached = |source: io::Error| {
            let path = self.path.clone();
            if source.kind() == io::ErrorKind::PermissionDenied {
                ClientError::NotPermitted { path }
            } else {
                ClientError::Unreachable { path, source }
            }
        };
        let stream = UnixStream::connect(&self.path).await.map_err(unreached)?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| self.broken(error))?;
        tokio::task::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(target)
            .header("host", "plimsoll")
            .body(Empty::<Bytes>::new())
            .map_err(|error| self.broken(error))?;
        sender.send_request(request).await.map_err(|error| self.broken(error))
    }

    fn broken(&self, error: impl std::fmt::Display) -> ClientError {
        ClientError::Broken { path: self.path.clone(), why: error.to_string() }
    }
}
