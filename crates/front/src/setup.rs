//! What can be changed while requests run, taken as one.

use crate::config::{FrontConfig, Hsts, Limits, Network};
use crate::route::Routes;

/// Every thread holds one of these and looks for a newer one at each request.
#[derive(Debug, Default)]
pub(crate) struct Setup {
    pub(crate) limits: Limits,
    pub(crate) routes: Routes,
    pub(crate) trusted: Vec<Network>,
    pub(crate) proxy_protocol: Vec<Network>,
    /// The port that plain HTTP is sent to, where it is.
    pub(crate) redirect: Option<u16>,
    pub(crate) hsts: Option<Hsts>,
    pub(crate) fence: bool,
}

impl Setup {
    pub(crate) fn of(config: &FrontConfig) -> Self {
        let tls_port = config.listeners.iter().find(|it| it.tls).map(|it| it.address.port());
        Self {
            limits: config.limits,
            routes: Routes::new(&config.routes),
            trusted: config.trusted.clone(),
            proxy_protocol: config.proxy_protocol.clone(),
            redirect: tls_port.filter(|_| config.redirect),
            hsts: config.hsts,
            fence: config.fence,
        }
    }
}
