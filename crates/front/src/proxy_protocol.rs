//! The PROXY protocol, versions 1 and 2: who the client of a listed peer is, said before its first byte.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::io::{AsyncRead, AsyncReadExt};

/// The shortest version 1 line is longer than this, and so is version 2's head.
const FIRST_BYTES: usize = 12;
const V2_SIGNATURE: [u8; FIRST_BYTES] = *b"\r\n\r\n\0\r\nQUIT\n";
/// `PROXY TCP6 …` at its longest, with its line end.
const V1_BYTES_MAX: usize = 107;
/// Addresses and some extensions; nobody sends more.
const V2_BYTES_MAX: usize = 1024;

#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    #[error("connection ended in its PROXY header: {0}")]
    Read(#[from] io::Error),
    #[error("no PROXY header where one is expected")]
    Missing,
    #[error("malformed PROXY header: {0}")]
    Malformed(&'static str),
}

/// Reads the header, and not a byte more. `None`: the peer speaks for itself (a health check, say).
pub(crate) async fn read<T: AsyncRead + Unpin>(io: &mut T) -> Result<Option<SocketAddr>, ProxyError> {
    let mut first = [0; FIRST_BYTES];
    io.read_exact(&mut first).await?;
    if first == V2_SIGNATURE {
        let mut head = [0; 4];
        io.read_exact(&mut head).await?;
        let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
        if length > V2_BYTES_MAX {
            return Err(ProxyError::Malformed("longer than anybody needs"));
        }
        let mut rest = vec![0; length];
        io.read_exact(&mut rest).await?;
        return parse_v2(head[0], head[1], &rest);
    }
    if !first.starts_with(b"PROXY ") {
        return Err(ProxyError::Missing);
    }
    let mut line = first.to_vec();
    while !line.ends_with(b"\r\n") {
        if line.len() == V1_BYTES_MAX {
            return Err(ProxyError::Malformed("line without an end"));
        }
        line.push(io.read_u8().await?);
    }
    parse_v1(&line)
}

/// A whole version 1 line, `\r\n` included.
pub fn parse_v1(line: &[u8]) -> Result<Option<SocketAddr>, ProxyError> {
    let text = std::str::from_utf8(line).map_err(|_| ProxyError::Malformed("not text"))?;
    let text = text.strip_suffix("\r\n").ok_or(ProxyError::Malformed("line without an end"))?;
    let mut words = text.split(' ');
    if words.next() != Some("PROXY") {
        return Err(ProxyError::Missing);
    }
    let family = words.next().ok_or(ProxyError::Malformed("no family"))?;
    if family == "UNKNOWN" {
        return Ok(None);
    }
    let mut word = || words.next().ok_or(ProxyError::Malformed("too few words"));
    let (source, target, source_port, target_port) = (word()?, word()?, word()?, word()?);
    if words.next().is_some() {
        return Err(ProxyError::Malformed("too many words"));
    }
    let address = |text: &str| -> Result<IpAddr, ProxyError> {
        let bad = ProxyError::Malformed("bad address");
        match family {
            "TCP4" => text.parse::<Ipv4Addr>().map(IpAddr::V4).map_err(|_| bad),
            "TCP6" => text.parse::<Ipv6Addr>().map(IpAddr::V6).map_err(|_| bad),
            _ => Err(ProxyError::Malformed("unknown family")),
        }
    };
    let port = |text: &str| {
        // "+1" and "01" parse as numbers, and are none here.
        let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
        text.parse::<u16>().ok().filter(|_| plain).ok_or(ProxyError::Malformed("bad port"))
    };
    address(target)?;
    port(target_port)?;
    Ok(Some(SocketAddr::new(address(source)?, port(source_port)?)))
}

/// What follows version 2's signature: version and command, family, and the bytes that the length counts.
pub fn parse_v2(command: u8, family: u8, rest: &[u8]) -> Result<Option<SocketAddr>, ProxyError> {
    if command >> 4 != 2 {
        return Err(ProxyError::Malformed("unknown version"));
    }
    match command & 0x0f {
        0 => return Ok(None),
        1 => {}
        _ => return Err(ProxyError::Malformed("unknown command")),
    }
    let port = |at: usize| rest.get(at..at + 2).map(|it| u16::from_be_bytes([it[0], it[1]]));
    let source = match family {
        0x11 => {
            let ip = rest.get(..4).and_then(|it| <[u8; 4]>::try_from(it).ok()).map(Ipv4Addr::from);
            rest.get(..12).and(ip).map(IpAddr::V4).zip(port(8))
        }
        0x21 => {
            let ip = rest.get(..16).and_then(|it| <[u8; 16]>::try_from(it).ok()).map(Ipv6Addr::from);
            rest.get(..36).and(ip).map(IpAddr::V6).zip(port(32))
        }
        // Unix sockets and what is unspecified have no address to name.
        _ => return Ok(None),
    };
    let (ip, port) = source.ok_or(ProxyError::Malformed("too short for its family"))?;
    Ok(Some(SocketAddr::new(ip, port)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn v1(line: &str) -> Result<Option<SocketAddr>, String> {
        parse_v1(line.as_bytes()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_line_names_the_client() {
        let client = v1("PROXY TCP4 192.0.2.7 10.0.0.1 51234 80\r\n");
        assert_eq!(client, Ok(Some("192.0.2.7:51234".parse().expect("an address"))));
        let client = v1("PROXY TCP6 2001:db8::7 ::1 51234 80\r\n");
        assert_eq!(client, Ok(Some("[2001:db8::7]:51234".parse().expect("an address"))));
        assert_eq!(v1("PROXY UNKNOWN ffff::1 ::1 1 2\r\n"), Ok(None));
    }

    #[test]
    fn a_line_that_is_not_right_is_refused() {
        for bad in [
            "PROXY TCP4 192.0.2.7 10.0.0.1 51234 80\n",
            "PROXY TCP4 192.0.2.7 10.0.0.1 51234\r\n",
            "PROXY TCP4 192.0.2.7 10.0.0.1 51234 80 1\r\n",
            "PROXY TCP4 ::1 10.0.0.1 51234 80\r\n",
            "PROXY TCP4 192.0.2.7 10.0.0.1 +1 80\r\n",
            "PROXY TCP4 192.0.2.7 10.0.0.1 99999 80\r\n",
            "PROXY UDP4 192.0.2.7 10.0.0.1 1 80\r\n",
            "PROXY  TCP4 192.0.2.7 10.0.0.1 1 80\r\n",
        ] {
            assert!(v1(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_binary_form_names_the_client_too() {
        let rest = [192, 0, 2, 7, 10, 0, 0, 1, 0xc8, 0x22, 0, 80];
        let client = parse_v2(0x21, 0x11, &rest).expect("a header");
        assert_eq!(client, Some("192.0.2.7:51234".parse().expect("an address")));
        assert_eq!(parse_v2(0x20, 0x00, &[]).expect("a local one"), None);
        assert!(parse_v2(0x21, 0x11, &rest[..11]).is_err());
        assert!(parse_v2(0x11, 0x11, &rest).is_err());
        assert!(parse_v2(0x22, 0x11, &rest).is_err());
    }

    proptest! {
        #[test]
        fn whatever_comes_is_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse_v1(&bytes);
            if let [command, family, rest @ ..] = bytes.as_slice() {
                let _ = parse_v2(*command, *family, rest);
            }
        }
    }
}
