//! A small ACME directory that says what it is told to say: renewal windows, refusals, wrong certificates. It checks no
//! signatures and validates nothing; pebble does.

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rcgen::CertificateSigningRequestParams;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer, PrivateKeyDer};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::authority::Authority;

pub(crate) struct Directory {
    pub(crate) url: String,
    folder: TempDir,
    state: Arc<State>,
}

/// What it is told to say.
pub(crate) struct Script {
    /// The renewal window, as seconds from now.
    pub(crate) window: (i64, i64),
    /// Orders are refused as too many, with this many seconds to wait.
    pub(crate) limited_seconds: Option<u32>,
    /// Orders that replace something are refused.
    pub(crate) replaced_already: bool,
    /// Certificates are issued for this name instead.
    pub(crate) forged: Option<&'static str>,
}

/// What it was asked.
#[derive(Default)]
pub(crate) struct Asked {
    pub(crate) accounts: u32,
    pub(crate) windows: Vec<String>,
    /// When each order came, and what it replaces.
    pub(crate) orders: Vec<(Instant, Option<String>)>,
    chain: String,
    names: Value,
}

struct State {
    base: String,
    authority: Authority,
    script: Mutex<Script>,
    asked: Mutex<Asked>,
}

impl Directory {
    pub(crate) async fn start(script: Script) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::new();
        std::fs::write(folder.path().join("roots.pem"), &authority.pem).unwrap();
        let (chain, key) = authority.issue(&["localhost"]);
        let chain = vec![CertificateDer::from_pem_slice(chain.as_bytes()).unwrap()];
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap())
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("https://localhost:{}", listener.local_addr().unwrap().port());
        let state = Arc::new(State {
            base: base.clone(),
            authority,
            script: Mutex::new(script),
            asked: Mutex::default(),
        });
        tokio::spawn(serve(listener, TlsAcceptor::from(Arc::new(config)), Arc::clone(&state)));
        Self { url: format!("{base}/dir"), folder, state }
    }

    pub(crate) fn roots(&self) -> PathBuf {
        self.folder.path().join("roots.pem")
    }

    pub(crate) fn say(&self, change: impl FnOnce(&mut Script)) {
        change(&mut self.state.script.lock().unwrap());
    }

    pub(crate) fn asked<V>(&self, look: impl FnOnce(&Asked) -> V) -> V {
        look(&self.state.asked.lock().unwrap())
    }
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, state: Arc<State>) {
    while let Ok((tcp, _)) = listener.accept().await {
        let (acceptor, state) = (acceptor.clone(), Arc::clone(&state));
        tokio::spawn(async move {
            let Ok(tls) = acceptor.accept(tcp).await else { return };
            let answer = service_fn(|request| answer(request, Arc::clone(&state)));
            let _ = http1::Builder::new().serve_connection(TokioIo::new(tls), answer).await;
        });
    }
}

async fn answer(request: Request<Incoming>, state: Arc<State>) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path().to_owned();
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let envelope: Value = serde_json::from_slice(&body).unwrap_or_default();
    let payload = decoded(envelope["payload"].as_str().unwrap_or_default());
    let payload: Value = serde_json::from_slice(&payload).unwrap_or_default();
    let (path, rest) = path[1..].split_once('/').unwrap_or((&path[1..], ""));
    Ok(match path {
        "dir" => state.directory(),
        "ari" => state.window(rest),
        "account" => state.account(),
        "order" if rest.is_empty() => state.order(&payload),
        "order" => state.order_state(),
        "finalize" => state.finalize(&payload),
        "certificate" => response(StatusCode::OK, &[], state.asked.lock().unwrap().chain.clone()),
        _ => response(StatusCode::OK, &[], String::new()),
    })
}

impl State {
    fn at(&self, path: &str) -> String {
        format!("{}/{path}", self.base)
    }

    fn directory(&self) -> Response<Full<Bytes>> {
        let urls = json!({
            "newNonce": self.at("nonce"), "newAccount": self.at("account"), "newOrder": self.at("order"),
            "renewalInfo": self.at("ari"),
        });
        response(StatusCode::OK, &[], urls.to_string())
    }

    fn window(&self, id: &str) -> Response<Full<Bytes>> {
        self.asked.lock().unwrap().windows.push(id.to_owned());
        let (start, end) = self.script.lock().unwrap().window;
        let now = jiff::Timestamp::now().as_second();
        let date = |from_now: i64| jiff::Timestamp::from_second(now + from_now).unwrap().to_string();
        let window = json!({ "suggestedWindow": { "start": date(start), "end": date(end) } });
        response(StatusCode::OK, &[("Retry-After", "1")], window.to_string())
    }

    fn account(&self) -> Response<Full<Bytes>> {
        self.asked.lock().unwrap().accounts += 1;
        let location = self.at("me");
        response(StatusCode::CREATED, &[("Location", &location)], json!({ "status": "valid" }).to_string())
    }

    fn order(&self, payload: &Value) -> Response<Full<Bytes>> {
        let replaces = payload["replaces"].as_str().map(str::to_owned);
        {
            let mut asked = self.asked.lock().unwrap();
            asked.orders.push((Instant::now(), replaces.clone()));
            asked.names = payload["identifiers"].clone();
            asked.chain.clear();
        }
        let script = self.script.lock().unwrap();
        if let Some(seconds) = script.limited_seconds {
            let wait = seconds.to_string();
            return refusal(StatusCode::TOO_MANY_REQUESTS, "rateLimited", &[("Retry-After", &wait)]);
        }
        if script.replaced_already && replaces.is_some() {
            return refusal(StatusCode::CONFLICT, "alreadyReplaced", &[]);
        }
        let location = self.at("order/1");
        let mut order = self.order_json();
        order["replaces"] = json!(replaces);
        response(StatusCode::CREATED, &[("Location", &location)], order.to_string())
    }

    fn order_state(&self) -> Response<Full<Bytes>> {
        response(StatusCode::OK, &[], self.order_json().to_string())
    }

    fn order_json(&self) -> Value {
        let asked = self.asked.lock().unwrap();
        let issued = !asked.chain.is_empty();
        json!({
            "status": if issued { "valid" } else { "ready" },
            "identifiers": asked.names,
            "authorizations": [],
            "finalize": self.at("finalize"),
            "certificate": issued.then(|| self.at("certificate")),
        })
    }

    /// Ninety days, begun a while ago, so that it is not due by its own age.
    fn finalize(&self, payload: &Value) -> Response<Full<Bytes>> {
        let csr = CertificateSigningRequestDer::from(decoded(payload["csr"].as_str().unwrap()));
        let mut request = CertificateSigningRequestParams::from_der(&csr).unwrap();
        let day = 24 * 60 * 60;
        let now = jiff::Timestamp::now().as_second();
        let moment = |seconds: i64| {
            rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(u64::try_from(seconds).unwrap())
        };
        request.params.not_before = moment(now - day);
        request.params.not_after = moment(now + 89 * day);
        request.params.use_authority_key_identifier_extension = true;
        let chain = match self.script.lock().unwrap().forged {
            Some(name) => self.authority.issue(&[name]).0,
            None => request.signed_by(&self.authority.issuer).unwrap().pem(),
        };
        self.asked.lock().unwrap().chain = chain;
        self.order_state()
    }
}

fn refusal(status: StatusCode, kind: &str, headers: &[(&str, &str)]) -> Response<Full<Bytes>> {
    let problem = json!({ "type": format!("urn:ietf:params:acme:error:{kind}"), "detail": "as told" });
    response(status, headers, problem.to_string())
}

fn response(status: StatusCode, headers: &[(&str, &str)], body: String) -> Response<Full<Bytes>> {
    let mut response = Response::builder().status(status).header("Replay-Nonce", "nonce");
    for (name, value) in headers {
        response = response.header(*name, *value);
    }
    response.body(Full::from(body)).unwrap()
}

/// Base64url without padding.
fn decoded(text: &str) -> Vec<u8> {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let digit = |byte: u8| ALPHABET.iter().position(|letter| *letter == byte).unwrap();
    let mut bytes = Vec::new();
    for chunk in text.as_bytes().chunks(4) {
        let number =
            chunk.iter().fold(0, |number, byte| number << 6 | digit(*byte)) << (6 * (4 - chunk.len()));
        let three = u32::try_from(number).unwrap().to_be_bytes();
        bytes.extend_from_slice(&three[1..chunk.len()]);
    }
    bytes
}
