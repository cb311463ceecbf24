//! A TLS client that says what it was shown.

use std::net::SocketAddr;

use rustls::pki_types::ServerName;
use tokio::net::TcpStream;

#[path = "anybody.rs"]
mod anybody;

/// What a handshake showed.
#[derive(Debug)]
pub(crate) struct Shown {
    pub(crate) leaf: Vec<u8>,
    pub(crate) alpn: Option<Vec<u8>>,
}

/// Shakes hands; with `name` of an address no SNI is sent.
pub(crate) async fn visit(address: SocketAddr, name: &str, alpn: &[&str]) -> std::io::Result<Shown> {
    let tcp = TcpStream::connect(address).await?;
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let stream = anybody::connector(alpn).connect(name, tcp).await?;
    let (_, connection) = stream.get_ref();
    Ok(Shown {
        leaf: connection.peer_certificates().unwrap()[0].to_vec(),
        alpn: connection.alpn_protocol().map(<[u8]>::to_vec),
    })
}
