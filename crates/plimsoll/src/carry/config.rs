//! The configuration turned into the front's.

use std::path::Path;

use plimsoll_core::ServiceId;
use plimsoll_core::gate::{GateConfig, IN_FLIGHT_MAX_DEFAULT};
use plimsoll_front::acme::{self, ChallengeKinds, Directory, Intervals};
use plimsoll_front::config::{FrontConfig, Hsts, Limits, ListenerConfig, RouteConfig, ServedConfig};
use plimsoll_front::tls::{CertificateConfig, FilePair};
use plimsoll_kernel::limits;

use crate::config::{Config, Front as FrontTable, Route, Tls};

/// Descriptors that clients may not take: the guard's own work needs them.
const DESCRIPTORS_RESERVED: u64 = 512;
const CONNECTIONS_MAX: u32 = 100_000;
const CONNECTIONS_MIN: u32 = 64;

/// What the front is started with; `None` where the configuration has no `[front]`. Services have their places in the
/// file for ids, as the guard gives them.
pub(crate) fn config(config: &Config, state: &Path) -> Option<FrontConfig> {
    let id = |name: &str| {
        let index = config.services.iter().position(|it| it.name == name)?;
        u32::try_from(index).ok().map(ServiceId)
    };
    front_config(config, state, &id)
}

/// `id` is what the guard calls a service.
pub(super) fn front_config(
    config: &Config,
    state: &Path,
    id: &dyn Fn(&str) -> Option<ServiceId>,
) -> Option<FrontConfig> {
    let table = config.front.as_ref()?;
    let descriptors = limits::own_descriptors().soft;
    let served = |service: &crate::config::Service| {
        let hang = service.head().health.hang;
        Some(ServedConfig {
            id: id(&service.name)?,
            name: service.name.clone(),
            hang,
            protocol: service.protocol,
        })
    };
    Some(FrontConfig {
        listeners: listeners(table),
        gate: GateConfig {
            hold_wait: table.hold_wait,
            hold_requests: table.hold_requests,
            hold_bytes: table.hold_bytes,
            in_flight_max: IN_FLIGHT_MAX_DEFAULT,
        },
        limits: Limits {
            connections: table.connections.unwrap_or(u32::MAX).min(connections(descriptors)),
            ..table.limits
        },
        services: config.services.iter().filter_map(served).collect(),
        routes: routes(table, config, id),
        trusted: table.trusted.clone(),
        proxy_protocol: table.proxy_protocol.clone(),
        access_log: table.access_log.clone(),
        fence: table.fence,
        certificate: table.tls.as_ref().map(|tls| certificate(tls, table, state)),
        redirect: table.redirect,
        hsts: table.hsts.map(|max_age| Hsts { max_age }),
        ..FrontConfig::default()
    })
}

fn listeners(table: &FrontTable) -> Vec<ListenerConfig> {
    let plain = table.http.map(|address| ListenerConfig { address, tls: false });
    let tls = table.https.map(|address| ListenerConfig { address, tls: true });
    plain.into_iter().chain(tls).collect()
}

fn certificate(tls: &Tls, table: &FrontTable, state: &Path) -> CertificateConfig {
    match tls {
        Tls::Files { certificate, key } => {
            CertificateConfig::Files(FilePair { certificate: certificate.clone(), key: key.clone() })
        }
        Tls::Acme { domains, email, directory, roots, staging_first } => {
            CertificateConfig::Acme(Box::new(acme::Config {
                domains: domains.clone(),
                email: Some(email.clone()),
                directory: directory.clone(),
                rehearsal: staging_first.then_some(Directory::LetsEncryptStaging),
                roots: roots.clone(),
                profile: None,
                kinds: ChallengeKinds { http_01: table.http.is_some(), tls_alpn_01: table.https.is_some() },
                state: state.to_owned(),
                intervals: Intervals::default(),
            }))
        }
    }
}

/// The written ones; with none and one service, everything goes there.
fn routes(table: &FrontTable, config: &Config, id: &dyn Fn(&str) -> Option<ServiceId>) -> Vec<RouteConfig> {
    let route = |route: &Route| {
        let service = id(&route.service)?;
        let Route { host, path, replay, timeout, .. } = route.clone();
        Some(RouteConfig { host, path, service, replay, timeout })
    };
    match (table.routes.as_slice(), config.services.as_slice()) {
        ([], [only]) => route(&Route::all(&only.name)).into_iter().collect(),
        (routes, _) => routes.iter().filter_map(route).collect(),
    }
}

/// A request takes two descriptors: its client's and its instance's.
fn connections(descriptors: Option<u64>) -> u32 {
    let spare = descriptors.unwrap_or(u64::MAX).saturating_sub(DESCRIPTORS_RESERVED) / 2;
    u32::try_from(spare).unwrap_or(u32::MAX).clamp(CONNECTIONS_MIN, CONNECTIONS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_leave_descriptors_for_the_guard() {
        assert_eq!(connections(Some(1024)), 256);
        assert_eq!(connections(Some(100)), CONNECTIONS_MIN);
        assert_eq!(connections(None), CONNECTIONS_MAX);
    }
}
