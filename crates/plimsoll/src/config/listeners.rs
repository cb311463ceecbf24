//! Two listeners on one address: the second could never start.

use std::net::{IpAddr, SocketAddr};

use toml::Spanned;

use super::finding::Log;
use super::service::Read;

/// Compares every fixed address with those before it.
pub(super) fn check<'n>(
    log: &Log,
    services: &[Read],
    others: impl Iterator<Item = (&'n str, Spanned<SocketAddr>)>,
) {
    let of_service = |read: &Read| {
        let who = format!("service {}", read.service.name);
        read.address.clone().map(|address| (who, address))
    };
    let mut all: Vec<(String, Spanned<SocketAddr>)> = services.iter().filter_map(of_service).collect();
    all.extend(others.map(|(who, address)| (who.to_owned(), address)));
    all.sort_by_key(|(_, address)| address.span().start);
    for (at, (_, address)) in all.iter().enumerate() {
        let earlier = all[..at].iter().find(|(_, other)| collide(*address.get_ref(), *other.get_ref()));
        if let Some((who, _)) = earlier {
            let message = format!("{} is already taken by {who}", address.get_ref());
            log.error(address.span(), message, "give each a port of its own");
        }
    }
}

/// The same port, and one of the two on every interface or both on the same one.
fn collide(one: SocketAddr, other: SocketAddr) -> bool {
    let everywhere = one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() == other.port() && (everywhere || plain(one.ip()) == plain(other.ip()))
}

fn plain(ip: IpAddr) -> IpAddr {
    ip.to_canonical()
}
