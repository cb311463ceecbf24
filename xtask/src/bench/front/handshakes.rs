//! New TLS connections, one request each, as many as can be had: a client that resumes nothing and believes every
//! certificate, so that the work is the server's.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use crate::bench::front::ground::{LOAD_CORE, stay_on_core};
use crate::bench::front::sample::Achieved;
use crate::bench::stats::Summary;
use crate::error::{Error, Result};

const AT_ONCE: usize = 32;
const EACH_WITHIN: Duration = Duration::from_secs(10);
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

/// On the load's core, in a thread of its own.
pub(super) fn run(port: u16, lasts: Duration) -> Result<Achieved> {
    let thread = std::thread::spawn(move || {
        stay_on_core(LOAD_CORE)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.map_err(Error::file("start", "the runtime"))?.block_on(all(port, lasts))
    });
    thread.join().unwrap_or_else(|_| Err(Error::Check("the generator of TLS connections panicked".into())))
}

async fn all(port: u16, lasts: Duration) -> Result<Achieved> {
    let connector = TlsConnector::from(Arc::new(config()?));
    let begun = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..AT_ONCE {
        let connector = connector.clone();
        tasks.spawn(async move {
            let mut took = Vec::new();
            while begun.elapsed() < lasts {
                let one = Instant::now();
                let failed =
                    |error: &dyn std::fmt::Display| Error::Check(format!("a TLS connection: {error}"));
                match tokio::time::timeout(EACH_WITHIN, exchange(&connector, port)).await {
                    Ok(Ok(())) => took.push(one.elapsed().as_secs_f64()),
                    Ok(Err(error)) => return Err(failed(&error)),
                    Err(error) => return Err(failed(&error)),
                }
            }
            Ok(took)
        });
    }
    let mut took = Vec::new();
    while let Some(task) = tasks.join_next().await {
        took.extend(task.unwrap_or_else(|error| Err(Error::Check(error.to_string())))?);
    }
    let whole = begun.elapsed();
    let summary =
        Summary::of(&took).ok_or_else(|| Error::Check("no TLS connection came to its end".into()))?;
    Ok(Achieved {
        done: took.len() as u64,
        took: whole,
        p50: Duration::from_secs_f64(summary.median),
        p99: Duration::from_secs_f64(summary.p99),
    })
}

async fn exchange(connector: &TlsConnector, port: u16) -> std::io::Result<()> {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    stream.set_nodelay(true)?;
    let name = ServerName::try_from("localhost").map_err(std::io::Error::other)?;
    let mut stream = connector.connect(name, stream).await?;
    stream.write_all(REQUEST).await?;
    let mut answer = Vec::with_capacity(1024);
    match stream.read_to_end(&mut answer).await {
        // Not every server says goodbye; that it answered is seen below.
        Err(error) if error.kind() != std::io::ErrorKind::UnexpectedEof => return Err(error),
        Ok(_) | Err(_) => {}
    }
    if answer.starts_with(b"HTTP/1.1 200") {
        return Ok(());
    }
    let line = String::from_utf8_lossy(&answer).lines().next().unwrap_or_default().to_owned();
    Err(std::io::Error::other(format!("the answer was `{line}`")))
}

fn config() -> Result<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::Check(format!("TLS: {error}")))?;
    let mut config =
        builder.dangerous().with_custom_certificate_verifier(Arc::new(Believer)).with_no_client_auth();
    config.resumption = Resumption::disabled();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// Checks nothing: whom we talk to is known, and a client that checks would be the slower side.
#[derive(Debug)]
struct Believer;

impl ServerCertVerifier for Believer {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}
