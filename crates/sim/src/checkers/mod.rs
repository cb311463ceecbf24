//! The rules. Each file is one, looks at every step, and says in words how it was broken.

mod backoff;
mod bounds;
mod budget;
mod handover;
mod health;
mod incidents;
mod intent;
mod lives;
mod memory;
mod slots;
mod stages;
mod traffic;
mod turns;

use plimsoll_core::{Action, InstanceId};

use crate::facts::Step;
use crate::world::Left;

/// The rules that hold whatever happens to the guard; the others are about what one guard does in its life.
pub(crate) const BEYOND_DEATH: [&str; 3] = ["slots", "lives", "intent"];

pub(crate) trait Checker {
    fn name(&self) -> &'static str;

    /// `Err` says what rule was broken, and how.
    fn check(&mut self, step: &Step<'_>) -> Result<(), String>;

    /// These were decided by a guard that was killed before it did them; the next one may know of them, or not.
    fn lost(&mut self, _actions: &[Action], _left: Left, _is_held: &dyn Fn(InstanceId) -> bool) {}

    /// The next guard knows of nothing but what is held for it.
    fn forgotten(&mut self, _is_held: &dyn Fn(InstanceId) -> bool) {}
}

pub(crate) fn all() -> Vec<Box<dyn Checker>> {
    vec![
        Box::<slots::Slots>::default(),
        Box::<lives::Lives>::default(),
        Box::<stages::Stages>::default(),
        Box::<intent::Intents>::default(),
        Box::<traffic::Traffic>::default(),
        Box::<handover::Handovers>::default(),
        Box::<turns::Turns>::default(),
        Box::<memory::Memory>::default(),
        Box::<budget::Budget>::default(),
        Box::<backoff::Backoff>::default(),
        Box::<health::Health>::default(),
        Box::<incidents::Incidents>::default(),
        Box::<bounds::Bounds>::default(),
    ]
}

/// `Err` with this text unless the rule holds.
fn rule(holds: bool, text: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(text()) }
}
