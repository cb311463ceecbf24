//! Clients: raw bytes over TCP or TLS.

use std::net::SocketAddr;

use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::wire::{Message, Wire};
use super::{NAME, anybody, soon};

/// In the clear.
pub(crate) async fn connect(address: SocketAddr) -> Wire<TcpStream> {
    let stream = soon("a connection", TcpStream::connect(address)).await.unwrap();
    stream.set_nodelay(true).unwrap();
    Wire::new(stream)
}

/// By TLS, with one protocol in ALPN.
pub(crate) async fn connect_tls(address: SocketAddr, alpn: &str) -> TlsStream<TcpStream> {
    let tcp = connect(address).await.io;
    let name = ServerName::try_from(NAME).unwrap();
    let stream = soon("a handshake", anybody::connector(&[alpn]).connect(name, tcp)).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(alpn.as_bytes()));
    stream
}

/// One request on a connection of its own.
pub(crate) async fn ask(address: SocketAddr, request: impl AsRef<[u8]>) -> Message {
    let mut client = connect(address).await;
    client.send(request).await;
    client.response().await.unwrap()
}

pub(crate) async fn get(address: SocketAddr, path: &str) -> Message {
    ask(address, format!("GET {path} HTTP/1.1\r\nHost: {NAME}\r\n\r\n")).await
}
