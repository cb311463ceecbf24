//! Which service a request is for.

use std::time::Duration;

use plimsoll_core::ServiceId;

use crate::config::{ReplayPolicy, RouteConfig};

/// Where a request goes and what holds for it there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Destination {
    pub(crate) service: ServiceId,
    pub(crate) replay: ReplayPolicy,
    pub(crate) timeout: Option<Duration>,
}

/// Sorted so that the first that matches is the one.
#[derive(Debug, Default)]
pub(crate) struct Routes {
    routes: Vec<RouteConfig>,
}

impl Routes {
    pub(crate) fn new(routes: &[RouteConfig]) -> Self {
        let mut routes = routes.to_vec();
        // Stable: of two that are alike, the first in the file wins.
        routes.sort_by_key(|route| {
            let host = match &route.host {
                Some(host) if host.starts_with("*.") => 1,
                Some(_) => 0,
                None => 2,
            };
            let path = route.path.as_ref().map_or(0, |path| path.trim_end_matches('/').len());
            (host, std::cmp::Reverse(path))
        });
        Self { routes }
    }

    /// `host` as the request names it, with or without port.
    pub(crate) fn find(&self, host: &str, path: &str) -> Option<Destination> {
        let host = name_of(host);
        let route = self.routes.iter().find(|route| matches(route, host, path))?;
        Some(Destination { service: route.service, replay: route.replay, timeout: route.timeout })
    }
}

fn matches(route: &RouteConfig, host: &str, path: &str) -> bool {
    let host_fits = match &route.host {
        None => true,
        Some(wanted) => match wanted.strip_prefix("*.") {
            Some(domain) => host.split_once('.').is_some_and(|(_, rest)| rest.eq_ignore_ascii_case(domain)),
            None => wanted.eq_ignore_ascii_case(host),
        },
    };
    host_fits && route.path.as_deref().is_none_or(|prefix| is_under(path, prefix))
}

/// `/api` holds `/api` and `/api/reports`, not `/apish`.
fn is_under(path: &str, prefix: &str) -> bool {
    let prefix = prefix.trim_end_matches('/');
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The host without its port.
pub(crate) fn name_of(host: &str) -> &str {
    if host.starts_with('[') {
        return host.find(']').map_or(host, |end| &host[..=end]);
    }
    // Nearer than a search that is made for long texts.
    host.bytes().rposition(|byte| byte == b':').map_or(host, |colon| &host[..colon])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(host: Option<&str>, path: Option<&str>, service: u32) -> RouteConfig {
        RouteConfig {
            host: host.map(Into::into),
            path: path.map(Into::into),
            service: ServiceId(service),
            replay: ReplayPolicy::Safe,
            timeout: None,
        }
    }

    fn found(routes: &Routes, host: &str, path: &str) -> Option<u32> {
        routes.find(host, path).map(|to| to.service.0)
    }

    #[test]
    fn the_longest_path_wins_and_a_host_before_none() {
        let routes = Routes::new(&[
            route(None, None, 0),
            route(None, Some("/api"), 1),
            route(None, Some("/api/v2/"), 2),
            route(Some("admin.example.org"), None, 3),
            route(Some("*.example.org"), None, 4),
        ]);
        assert_eq!(found(&routes, "example.org", "/"), Some(0));
        assert_eq!(found(&routes, "example.org:8080", "/api"), Some(1));
        assert_eq!(found(&routes, "x", "/api/v2/reports"), Some(2));
        assert_eq!(found(&routes, "x", "/apish"), Some(0));
        assert_eq!(found(&routes, "Admin.Example.org:443", "/api"), Some(3));
        assert_eq!(found(&routes, "shop.example.org", "/api"), Some(4));
        assert_eq!(found(&routes, "a.b.example.org", "/api"), Some(1));
    }

    #[test]
    fn without_a_route_that_matches_there_is_none() {
        let routes = Routes::new(&[route(Some("example.org"), Some("/api"), 1)]);
        assert_eq!(found(&routes, "example.org", "/"), None);
        assert_eq!(found(&routes, "example.com", "/api"), None);
    }

    #[test]
    fn a_host_is_read_without_its_port() {
        assert_eq!(name_of("[::1]:8080"), "[::1]");
        assert_eq!(name_of("[::1]"), "[::1]");
        assert_eq!(name_of("localhost:80"), "localhost");
    }
}
