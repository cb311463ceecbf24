//! Sockets by inode, from a process's own view of the network (`/proc/PID/net`).

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Instant;

/// A state of TCP, named as `ss` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TcpState {
    Established,
    SynSent,
    SynRecv,
    FinWait1,
    FinWait2,
    TimeWait,
    Close,
    CloseWait,
    LastAck,
    Listen,
    Closing,
    Unknown,
}

impl TcpState {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Established => "ESTAB",
            Self::SynSent => "SYN-SENT",
            Self::SynRecv => "SYN-RECV",
            Self::FinWait1 => "FIN-WAIT-1",
            Self::FinWait2 => "FIN-WAIT-2",
            Self::TimeWait => "TIME-WAIT",
            Self::Close => "UNCONN",
            Self::CloseWait => "CLOSE-WAIT",
            Self::LastAck => "LAST-ACK",
            Self::Listen => "LISTEN",
            Self::Closing => "CLOSING",
            Self::Unknown => "UNKNOWN",
        }
    }

    fn from_hex(code: &str) -> Self {
        match code {
            "01" => Self::Established,
            "02" => Self::SynSent,
            // 0C is a request socket before it has been accepted.
            "03" | "0C" => Self::SynRecv,
            "04" => Self::FinWait1,
            "05" => Self::FinWait2,
            "06" => Self::TimeWait,
            "07" => Self::Close,
            "08" => Self::CloseWait,
            "09" => Self::LastAck,
            "0A" => Self::Listen,
            "0B" => Self::Closing,
            _ => Self::Unknown,
        }
    }
}

/// A line of `net/tcp`, `net/udp` and their IPv6 siblings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) state: TcpState,
    pub(super) local: SocketAddr,
    pub(super) peer: SocketAddr,
    pub(super) inode: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Socket {
    Tcp(Entry),
    Udp,
    Unix,
}

/// Sockets by inode; `complete` is false when the deadline cut the reading.
pub(super) struct Sockets {
    pub(super) by_inode: HashMap<u64, Socket>,
    pub(super) complete: bool,
}

impl Sockets {
    pub(super) fn read(net: &Path, deadline: Instant) -> Self {
        let mut found = Self { by_inode: HashMap::new(), complete: true };
        for name in ["tcp", "tcp6"] {
            found.take(&net.join(name), deadline, |line| {
                Some((entry(line)?.inode, Socket::Tcp(entry(line)?)))
            });
        }
        for name in ["udp", "udp6"] {
            found.take(&net.join(name), deadline, |line| Some((entry(line)?.inode, Socket::Udp)));
        }
        found.take(&net.join("unix"), deadline, |line| {
            let inode = line.split_ascii_whitespace().nth(6)?.parse().ok()?;
            Some((inode, Socket::Unix))
        });
        found
    }

    fn take(&mut self, path: &Path, deadline: Instant, parse: impl Fn(&str) -> Option<(u64, Socket)>) {
        self.complete &= each_line(path, deadline, |line| {
            self.by_inode.extend(parse(line));
        });
    }

    pub(super) fn listening_ports(&self) -> Vec<u16> {
        let listens = |socket: &Socket| match socket {
            Socket::Tcp(entry) if entry.state == TcpState::Listen => Some(entry.local.port()),
            Socket::Tcp(_) | Socket::Udp | Socket::Unix => None,
        };
        self.by_inode.values().filter_map(listens).collect()
    }
}

/// Calls for each line until the deadline; false if that cut it. A file that is not there (no IPv6) has no lines.
pub(super) fn each_line(path: &Path, deadline: Instant, mut take: impl FnMut(&str)) -> bool {
    const LINES_BETWEEN_LOOKS: usize = 256;
    let Ok(file) = File::open(path) else { return true };
    for (number, line) in BufReader::new(file).lines().enumerate() {
        let Ok(line) = line else { return false };
        if number % LINES_BETWEEN_LOOKS == 0 && Instant::now() >= deadline {
            return false;
        }
        take(&line);
    }
    true
}

/// `  0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000 0 12345 1 …`
pub(super) fn entry(line: &str) -> Option<Entry> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let (local, peer) = (address(fields.next()?)?, address(fields.next()?)?);
    let state = TcpState::from_hex(fields.next()?);
    Some(Entry { state, local, peer, inode: fields.nth(5)?.parse().ok()? })
}

/// Addresses are words in the machine's byte order, printed as hexadecimal numbers; ports are plain numbers.
fn address(field: &str) -> Option<SocketAddr> {
    let (address, port) = field.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word =
        |at: usize| u32::from_str_radix(address.get(at * 8..at * 8 + 8)?, 16).ok().map(u32::to_ne_bytes);
    let address = match address.len() {
        8 => IpAddr::V4(Ipv4Addr::from(word(0)?)),
        32 => {
            let mut octets = [0; 16];
            for (at, chunk) in octets.chunks_exact_mut(4).enumerate() {
                chunk.copy_from_slice(&word(at)?);
            }
            IpAddr::V6(Ipv6Addr::from(octets)).to_canonical()
        }
        _ => return None,
    };
    Some(SocketAddr::new(address, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn a_line_of_net_tcp_is_read() {
        let line = "   3: 0100007F:1F90 0200007F:C350 08 00000000:00000001 00:00000000 00000000  1000        0 77777 1";
        let found = entry(line).unwrap();
        assert_eq!(found.state, TcpState::CloseWait);
        assert_eq!(found.local, "127.0.0.1:8080".parse().unwrap());
        assert_eq!(found.peer, "127.0.0.2:50000".parse().unwrap());
        assert_eq!(found.inode, 77777);
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn an_ipv4_address_in_ipv6_clothes_is_an_ipv4_address() {
        assert_eq!(address("0000000000000000FFFF00000100007F:0050"), Some("127.0.0.1:80".parse().unwrap()));
        assert_eq!(address("00000000000000000000000001000000:0050"), Some("[::1]:80".parse().unwrap()));
        assert_eq!(address("0100:0050"), None);
    }

    #[test]
    fn the_heading_is_no_socket() {
        assert_eq!(
            entry("  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid"),
            None
        );
    }
}
