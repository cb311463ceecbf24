//! What is ours and what it costs: the front beside a proxy of hyper's connections alone, built in the same way.

use crate::bench::Setting;
use crate::bench::figure::Figure;
use crate::bench::front::ground::{self, Ground};
use crate::bench::front::proxy::{Kind, Proxy};
use crate::bench::front::upstream::Upstream;
use crate::bench::front::{race, speed};
use crate::dist;
use crate::error::Result;

/// Routing, statistics, limits, the hold, and being ready to send again.
const COST_RATIO_MAX: f64 = 1.1;

pub(super) fn run(setting: &Setting<'_>) -> Result<Vec<Figure>> {
    ground::bring(&["nginx", "wrk"])?;
    // Neither of them trained: a training would tell them apart by itself.
    let plimsoll = dist::build(setting.workspace)?;
    let setting = &Setting { workspace: setting.workspace, plimsoll, runs: setting.runs, only: Vec::new() };
    let ground = Ground::new(setting)?;
    let upstream = Upstream::start(&ground)?;
    let start = |kind| Proxy::start(setting, kind, &ground, upstream.port);
    let (bare, ours) = (start(Kind::Bare)?, start(Kind::Plimsoll)?);
    let lanes = race::run(&[&bare, &ours], speed::samples(setting), |proxy| {
        speed::Case::KeepAlive.take(proxy, &upstream)
    })?;
    Ok(speed::costs(&lanes, COST_RATIO_MAX))
}
