//! What is ours and what it costs: the front beside a proxy of hyper's connections alone, built and trained in the same way.

use std::path::{Path, PathBuf};

use crate::bench::Setting;
use crate::bench::figure::Figure;
use crate::bench::front::ground::{self, Ground};
use crate::bench::front::proxy::{Kind, Proxy};
use crate::bench::front::speed::Case;
use crate::bench::front::upstream::Upstream;
use crate::bench::front::{race, speed};
use crate::error::Result;
use crate::guided;

/// Routing, statistics, limits, the hold, and being ready to send again.
const COST_RATIO_MAX: f64 = 1.1;
/// So many times as many samples as of other cases: on a busy machine the medians of ten differ by a tenth for nothing.
const SAMPLES_MORE: usize = 5;

pub(super) fn run(setting: &Setting<'_>) -> Result<Vec<Figure>> {
    ground::bring(&["nginx", "wrk"])?;
    let ground = Ground::new(setting)?;
    let upstream = Upstream::start(&ground)?;
    let start = |kind| Proxy::start(setting, kind, &ground, upstream.port);
    let (bare, ours) = (start(Kind::Bare)?, start(Kind::Plimsoll)?);
    let count = speed::samples(setting) * SAMPLES_MORE;
    let lanes = race::run(&[&bare, &ours], count, |proxy| Case::KeepAlive.take(proxy, &upstream))?;
    Ok(speed::costs(&lanes, COST_RATIO_MAX))
}

pub(super) fn build_bare(setting: &Setting<'_>) -> Result<PathBuf> {
    guided::build_example(setting.workspace, "plimsoll-front", "bare", |counting| train(setting, counting))
}

/// As ours is, in all that this one can: it has no TLS.
fn train(setting: &Setting<'_>, counting: &Path) -> Result<()> {
    let ground = Ground::new(setting)?;
    let upstream = Upstream::start(&ground)?;
    let proxy = Proxy::start_bare(counting, upstream.port)?;
    let mut cases = [Case::KeepAlive, Case::NewConnections, Case::LargeBody].into_iter();
    cases.try_for_each(|case| case.take(&proxy, &upstream).map(drop))
}
