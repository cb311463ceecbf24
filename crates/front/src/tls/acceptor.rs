//! The handshake: which certificate, which protocol, and no longer than the patience.

use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use rustls::crypto::ring;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio_rustls::server::TlsStream;
use tokio_rustls::{LazyConfigAcceptor, StartHandshake};

use super::certificates::Certificates;
use super::error::TlsError;
use super::names::normal;
use crate::acme::Challenges;

const H2: &[u8] = b"h2";
const HTTP1: &[u8] = b"http/1.1";
/// RFC 8737: the protocol of a validation, in which nothing but the handshake happens.
const ACME: &[u8] = b"acme-tls/1";

/// A fatal alert `unrecognized_name` (RFC 6066, 3) as a plaintext record. rustls says `access_denied` where a resolver
/// has nothing, which sends people looking for permissions.
const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alpn {
    /// Also where the client does not know of ALPN.
    Http1,
    Http2,
}

#[derive(Debug)]
pub enum Accepted<T> {
    Stream {
        stream: Box<TlsStream<T>>,
        alpn: Alpn,
        /// Normalised. Without it the only site was shown, and the host of a request says nothing about the handshake.
        sni: Option<String>,
    },
    /// A validation of the certificate authority was answered; the connection is done with.
    Challenge,
}

/// Shakes hands. Cheap to clone; one serves all threads, so that sessions resume on any.
#[derive(Clone, Debug)]
pub struct Acceptor {
    certificates: Arc<Certificates>,
    challenges: Arc<Challenges>,
    sites: Arc<ServerConfig>,
    validation: Arc<ServerConfig>,
}

/// What a ClientHello asks for.
struct Wish {
    validation: bool,
    name: Option<String>,
}

impl Acceptor {
    pub fn new(certificates: Arc<Certificates>, challenges: Arc<Challenges>) -> Result<Self, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let builder = || {
            ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()
        };
        let mut sites =
            builder()?.with_no_client_auth().with_cert_resolver(Arc::<Certificates>::clone(&certificates));
        sites.alpn_protocols = vec![H2.to_vec(), HTTP1.to_vec()];
        // The keys are rolled by rustls every six hours; a session is bound to its name, so a swap of certificates
        // does not let it into another site.
        sites.ticketer = ring::Ticketer::new()?;
        let mut validation =
            builder()?.with_no_client_auth().with_cert_resolver(Arc::<Challenges>::clone(&challenges));
        validation.alpn_protocols = vec![ACME.to_vec()];
        validation.send_tls13_tickets = 0;
        Ok(Self { certificates, challenges, sites: Arc::new(sites), validation: Arc::new(validation) })
    }

    /// The whole handshake, from the first byte on, within `patience`; then the connection is dropped.
    pub async fn accept<T>(&self, io: T, patience: Duration) -> Result<Accepted<T>, TlsError>
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        let handshake = tokio::time::timeout(patience, self.shake(io)).await;
        handshake.unwrap_or(Err(TlsError::Patience(patience)))
    }

    async fn shake<T>(&self, io: T) -> Result<Accepted<T>, TlsError>
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        let start = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), io)
            .await
            .map_err(TlsError::Handshake)?;
        let wish = Wish::of(&start);
        if let Err(error) = self.known(&wish) {
            return Err(turn_away(start.io, error).await);
        }
        if wish.validation {
            let mut stream =
                start.into_stream(Arc::clone(&self.validation)).await.map_err(TlsError::Handshake)?;
            // The authority has what it came for; whether it waits for our farewell is its own affair.
            let _ = stream.shutdown().await;
            return Ok(Accepted::Challenge);
        }
        let stream = start.into_stream(Arc::clone(&self.sites)).await.map_err(TlsError::Handshake)?;
        let alpn = match stream.get_ref().1.alpn_protocol() {
            Some(H2) => Alpn::Http2,
            Some(_) | None => Alpn::Http1,
        };
        Ok(Accepted::Stream { stream: Box::new(stream), alpn, sni: wish.name })
    }

    fn known(&self, wish: &Wish) -> Result<(), TlsError> {
        let name = wish.name.as_deref();
        if wish.validation {
            let known = name.is_some_and(|name| self.challenges.has_name(name));
            let named = || TlsError::UnknownChallenge(name.unwrap_or("no name").to_owned());
            return if known { Ok(()) } else { Err(named()) };
        }
        if self.certificates.find(name).is_some() {
            return Ok(());
        }
        Err(name.map_or(TlsError::NoName, |name| TlsError::UnknownName(name.to_owned())))
    }
}

impl Wish {
    fn of<T>(start: &StartHandshake<T>) -> Self
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        let hello = start.client_hello();
        let validation = hello.alpn().is_some_and(|mut protocols| protocols.any(|protocol| protocol == ACME));
        Self { validation, name: hello.server_name().map(normal) }
    }
}

/// Says the alert; the reason comes back, since a client that is gone already changes nothing about it.
async fn turn_away<T: AsyncWrite + Unpin>(mut io: T, reason: TlsError) -> TlsError {
    if io.write_all(&UNRECOGNIZED_NAME).await.is_ok() {
        let _ = io.shutdown().await;
    }
    reason
}
