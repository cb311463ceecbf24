//! What the head needs to know of a service. Parsing is the binary's; the defaults are the incident's numbers.

use alloc::string::String;
use core::time::Duration;

use crate::units::{Bytes, Share};

pub const SOFT_DEFAULT: Bytes = Bytes::mib(256);
pub const HARD_DEFAULT: Bytes = Bytes::mib(512);
pub const RECYCLE_DEFAULT: Bytes = Bytes::mib(300);
pub const PERSISTENCE_DEFAULT: Duration = Duration::from_secs(5);
pub const DESCRIPTOR_LIMIT_DEFAULT: u64 = 8192;
pub const DESCRIPTOR_SHARE_DEFAULT: u16 = 900;
pub const TASKS_DEFAULT: u32 = 4096;
pub const DRAIN_DEFAULT: Duration = Duration::from_secs(30);
pub const STOP_GRACE_DEFAULT: Duration = Duration::from_secs(10);
pub const BACKOFF_MAX_DEFAULT: Duration = Duration::from_secs(10);
pub const RECYCLES_PER_HOUR_DEFAULT: u32 = 12;
pub const PROBE_INTERVAL_DEFAULT: Duration = Duration::from_secs(30);
pub const PROBE_TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);
pub const PROBE_RETRIES_DEFAULT: u32 = 3;
pub const START_PERIOD_DEFAULT: Duration = Duration::from_secs(40);
pub const HANG_DEFAULT: Duration = Duration::from_secs(2);

/// One service as the head sees it: only what a decision depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceConfig {
    pub name: String,
    /// Running copies; at least 1.
    pub replicas: u16,
    pub memory: MemoryConfig,
    pub descriptors: DescriptorConfig,
    pub recovery: RecoveryConfig,
    pub health: HealthConfig,
}

impl ServiceConfig {
    pub fn named(name: &str) -> Self {
        Self {
            name: name.into(),
            replicas: 1,
            memory: MemoryConfig::default(),
            descriptors: DescriptorConfig::default(),
            recovery: RecoveryConfig::default(),
            health: HealthConfig::default(),
        }
    }
}

/// Layers 1, 2 and 4: `soft`, `hard` and `recycle` are working-set sizes of one instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryConfig {
    pub soft: Bytes,
    pub hard: Bytes,
    pub recycle: Bytes,
    /// `for`: how long over the line before a gentle recycle.
    pub persistence: Duration,
    /// Whether an out-of-memory kill takes the whole instance or one process of it.
    pub group_kill: bool,
    /// Whether the kernel speaks up when memory crosses a mark. Where it does not, samples come more often.
    pub kernel_wakes_us: bool,
}

impl MemoryConfig {
    /// Fills what the user left out: half of `hard` for the soft limit, 0.6 of it for the line. With nothing said
    /// these are the incident's own numbers.
    pub fn with_defaults(soft: Option<Bytes>, hard: Option<Bytes>, recycle: Option<Bytes>) -> Self {
        let line_of = |hard: Bytes| if hard == HARD_DEFAULT { RECYCLE_DEFAULT } else { hard.scaled(6, 10) };
        let hard = hard.unwrap_or(HARD_DEFAULT);
        Self {
            soft: soft.unwrap_or(hard.scaled(1, 2)),
            hard,
            recycle: recycle.unwrap_or_else(|| line_of(hard)),
            persistence: PERSISTENCE_DEFAULT,
            group_kill: true,
            kernel_wakes_us: true,
        }
    }
}

/// The soft limit of a runtime that aborts at it, where the user named none: seven eighths of the wall.
///
/// Half of the wall, the default of the others, would end V8 before the line is ever reached: with 256 MiB, Node 20 was
/// seen to abort at a working set of 271 to 300 MiB, under the line of 300. With 448 it aborts at 477 and above, where
/// the instance has been recycled, or is being killed for nearing the wall.
pub fn soft_of_aborting_runtime(hard: Bytes) -> Bytes {
    hard.scaled(7, 8)
}

impl Default for MemoryConfig {
    fn default() -> Self {
        Self::with_defaults(Some(SOFT_DEFAULT), Some(HARD_DEFAULT), Some(RECYCLE_DEFAULT))
    }
}

/// Layer 3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DescriptorConfig {
    pub limit: u64,
    pub recycle: Share,
}

impl Default for DescriptorConfig {
    fn default() -> Self {
        let recycle = Share::per_mille(DESCRIPTOR_SHARE_DEFAULT).expect("the default is a share");
        Self { limit: DESCRIPTOR_LIMIT_DEFAULT, recycle }
    }
}

/// How one instance gives way to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handover {
    /// The old one stops first while requests are held; never two copies at once.
    Hold,
    /// The new one gets ready first, then the old one drains.
    Overlap,
    /// A booted spare stands by.
    Standby,
}

/// Layer 5.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecoveryConfig {
    pub handover: Handover,
    pub drain: Duration,
    pub stop_grace: Duration,
    pub backoff_max: Duration,
    pub recycles_per_hour: u32,
}

impl Default for RecoveryConfig {
    fn default() -> Self {
        Self {
            handover: Handover::Hold,
            drain: DRAIN_DEFAULT,
            stop_grace: STOP_GRACE_DEFAULT,
            backoff_max: BACKOFF_MAX_DEFAULT,
            recycles_per_hour: RECYCLES_PER_HOUR_DEFAULT,
        }
    }
}

/// Layer 6. What is asked (path, command) is the driver's; the head only knows whether anything is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthConfig {
    /// False: no check at all; an instance is ready once it runs.
    pub probed: bool,
    pub interval: Duration,
    pub timeout: Duration,
    pub retries: u32,
    pub start_period: Duration,
    /// No progress for this long with requests waiting: probe at once.
    pub hang: Duration,
}

impl Default for HealthConfig {
    fn default() -> Self {
        Self {
            probed: true,
            interval: PROBE_INTERVAL_DEFAULT,
            timeout: PROBE_TIMEOUT_DEFAULT,
            retries: PROBE_RETRIES_DEFAULT,
            start_period: START_PERIOD_DEFAULT,
            hang: HANG_DEFAULT,
        }
    }
}
