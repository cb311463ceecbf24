//! Into bytes.

use alloc::vec::Vec;
use core::time::Duration;

use crate::cause::{Axis, Cause, Urgency};
use crate::event::Exit;
use crate::instance::{Doom, Life, Role, Stage};
use crate::saved::{SavedIncident, SavedInstance, SavedService, SavedSlot};
use crate::units::Instant;
use crate::view::Intent;

pub(super) struct Writer(pub(super) Vec<u8>);

impl Writer {
    fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    fn flag(&mut self, value: bool) {
        self.u8(u8::from(value));
    }

    pub(super) fn u64(&mut self, value: u64) {
        self.0.extend(value.to_le_bytes());
    }

    fn u32(&mut self, value: u32) {
        self.u64(u64::from(value));
    }

    fn i64(&mut self, value: i64) {
        self.u64(value.cast_unsigned());
    }

    fn at(&mut self, value: Instant) {
        self.u64(value.0);
    }

    fn span(&mut self, value: Duration) {
        self.u64(u64::try_from(value.as_nanos()).unwrap_or(u64::MAX));
    }

    fn text(&mut self, value: &str) {
        self.u64(value.len() as u64);
        self.0.extend(value.as_bytes());
    }

    fn option<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        self.flag(value.is_some());
        if let Some(value) = value {
            write(self, value);
        }
    }

    fn list<T>(&mut self, values: &[T], write: impl Fn(&mut Self, &T)) {
        self.u64(values.len() as u64);
        for value in values {
            write(self, value);
        }
    }

    pub(super) fn service(&mut self, it: &SavedService) {
        self.text(&it.name);
        self.flag(it.intent == Intent::Up);
        self.u64(it.next_number);
        self.u64(it.recycles);
        self.u64(it.restarts);
        self.option(it.dark_since, Self::at);
        self.span(it.dark_total);
        self.flag(it.was_lit);
        self.span(it.boot_time);
        self.flag(it.line_refusal_told);
        self.flag(it.stop_told);
        self.list(&it.budget_spent, |to, at| to.at(*at));
        self.flag(it.budget_paged);
        self.list(&it.slots, Self::slot);
        self.option(it.incident.as_ref(), Self::incident);
        self.option(it.calm_due, Self::at);
        self.list(&it.instances, Self::instance);
    }

    fn slot(&mut self, it: &SavedSlot) {
        for count in [it.streak, it.relief_streak, it.lead_failures, it.relief_failures] {
            self.u32(count);
        }
        self.option(it.lead_due, Self::at);
        self.option(it.relief_due, Self::at);
    }

    fn incident(&mut self, it: &SavedIncident) {
        self.u64(it.id);
        self.at(it.opened);
        self.span(it.dark_before);
        self.list(&it.causes, |to, (number, name)| {
            to.u64(*number);
            to.text(name);
        });
    }

    fn instance(&mut self, it: &SavedInstance) {
        self.u64(it.number);
        self.u32(u32::from(it.slot));
        self.u8(match it.role {
            Role::Lead => 0,
            Role::Relief => 1,
            Role::Former => 2,
        });
        self.life(it.life);
        self.option(it.doom, Self::doom);
        self.option(it.exit, Self::exit);
        self.option(it.first_ready, Self::at);
        self.option(it.left, Self::at);
        self.flag(it.admitted);
        self.option(it.baseline, |to, bytes| to.u64(bytes.0));
        self.option(it.stage_due, Self::at);
        self.option(it.probe_due, Self::at);
    }

    fn life(&mut self, life: Life) {
        match life {
            Life::Spawning => self.u8(0),
            Life::Starting { since } => {
                self.u8(1);
                self.at(since);
            }
            Life::Ready => self.u8(2),
            Life::Unready => self.u8(3),
            Life::Leaving { stage, cause } => {
                self.u8(4);
                self.stage(stage);
                self.cause(cause);
            }
        }
    }

    fn stage(&mut self, stage: Stage) {
        match stage {
            Stage::Draining { evidence_until, drain_until, then_kill } => {
                self.u8(0);
                self.option(evidence_until, Self::at);
                self.option(drain_until, Self::at);
                self.flag(then_kill);
            }
            Stage::Stopping => self.u8(1),
            Stage::Killing { since, told } => {
                self.u8(2);
                self.at(since);
                self.flag(told);
            }
        }
    }

    fn cause(&mut self, cause: Cause) {
        match cause {
            Cause::Memory { axis, working_set, slope } => {
                self.u8(0);
                self.u8(match axis {
                    Axis::Persistence => 0,
                    Axis::Slope => 1,
                    Axis::Level => 2,
                });
                self.u64(working_set.0);
                self.i64(slope.0);
            }
            Cause::OutOfMemory { exit } => {
                self.u8(1);
                self.exit(exit);
            }
            Cause::Descriptors { count, limit } => {
                self.u8(2);
                self.u64(count);
                self.u64(limit);
            }
            Cause::Died { exit } => {
                self.u8(3);
                self.exit(exit);
            }
            Cause::Daemonized => self.u8(4),
            Cause::Unhealthy { failures } => {
                self.u8(5);
                self.u32(failures);
            }
            Cause::Hung => self.u8(6),
            Cause::StartTimedOut => self.u8(7),
            Cause::SpawnFailed => self.u8(8),
            Cause::Ordered => self.u8(9),
        }
    }

    fn exit(&mut self, exit: Exit) {
        match exit {
            Exit::Code(code) => {
                self.u8(0);
                self.i64(i64::from(code));
            }
            Exit::Signal(signal) => {
                self.u8(1);
                self.i64(i64::from(signal));
            }
            Exit::Unknown => self.u8(2),
        }
    }

    fn doom(&mut self, doom: Doom) {
        self.cause(doom.cause);
        self.u8(match doom.urgency {
            Urgency::Gentle => 0,
            Urgency::Urgent => 1,
            Urgency::Hard => 2,
        });
        self.flag(doom.over_budget);
    }
}
