//! What samplers, probes and the kernel report, turned into accusations.

use core::time::Duration;

use super::{Cx, Service};
use crate::action::Action;
use crate::cause::{Axis, Cause, Urgency};
use crate::config::Handover;
use crate::deadlines::Due;
use crate::event::{Notice, ProbeOutcome, Sample};
use crate::instance::{Life, Role};
use crate::layers::hard_wall;
use crate::layers::health::{self, Health, Prober};
use crate::layers::kill_switch::{Crossing, INTERVAL_FAR, INTERVAL_NEAR, INTERVAL_OVER, Line};
use crate::planted::Planted;
use crate::record::Kind;
use crate::units::Bytes;

/// Samples that are far apart fall on this grid, so that a thousand services wake the guard four times a second.
const GRID: Duration = Duration::from_millis(250);
/// The trip-wire goes back to the line once memory has fallen this far below it: thousandths.
const REARM_PARTS: u64 = 900;

impl Service {
    pub(super) fn begin_starting(&mut self, cx: &mut Cx<'_>, index: usize) {
        let id = self.instances[index].id;
        self.instances[index].life = Life::Starting { since: cx.now };
        cx.tell(self.id, Some(id.number), None, Kind::Started);
        cx.due_in(Due::Sample(id), INTERVAL_NEAR);
        if !self.config.health.probed {
            self.become_ready(cx, index);
            return;
        }
        if !cx.plant.has(Planted::WaitForStart) {
            cx.due_in(Due::Started(id), self.config.health.start_period);
        }
        cx.due_in(Due::Probe(id), health::start_interval(Duration::ZERO, &self.config.health));
    }

    fn become_ready(&mut self, cx: &mut Cx<'_>, index: usize) {
        let instance = &mut self.instances[index];
        let id = instance.id;
        if let Life::Starting { since } = instance.life {
            let after = cx.now.since(since);
            self.boot_time = after;
            instance.first_ready = Some(cx.now);
            instance.baseline_due = true;
            cx.deadlines.set(Due::Sample(id), cx.now);
            cx.tell(self.id, Some(id.number), None, Kind::Ready { after, again: false });
        } else {
            cx.tell(self.id, Some(id.number), None, Kind::Ready { after: Duration::ZERO, again: true });
        }
        cx.deadlines.clear(Due::Started(id));
        instance.life = Life::Ready;
        if instance.role == Role::Relief {
            let slot = usize::from(instance.slot);
            self.slots[slot].relief_streak.forgive();
            self.slots[slot].relief_failures = 0;
        } else {
            self.admit(cx, index);
        }
    }

    pub(crate) fn start_due(&mut self, cx: &mut Cx<'_>, index: usize) {
        if matches!(self.instances[index].life, Life::Starting { .. }) {
            self.accuse(cx, index, Cause::StartTimedOut, Urgency::Urgent);
        }
    }

    pub(crate) fn sample_due(&mut self, cx: &mut Cx<'_>, index: usize) {
        let instance = &self.instances[index];
        let descriptors = instance.descriptors.is_due(cx.now, &self.config.descriptors);
        cx.act(Action::Sample { instance: instance.id, descriptors });
        // The answer moves this, unless it would fall there too; without an answer it is asked again.
        cx.deadlines.set(Due::Sample(instance.id), (cx.now + INTERVAL_FAR).aligned_down(GRID));
    }

    pub(crate) fn sampled(&mut self, cx: &mut Cx<'_>, index: usize, sample: Sample) {
        let number = self.instances[index].id.number;
        if self.instances[index].kill_switch.recovered() {
            cx.tell(self.id, Some(number), None, Kind::SampledAgain);
        }
        if let Some(count) = sample.descriptors {
            self.instances[index].descriptors.observe(cx.now, count);
        }
        self.observe_memory(cx, index, sample.working_set);
        self.rearm_wire(cx, index, sample.charged);
        self.schedule_sample(cx, index, sample.charged);
        self.judge_memory(cx, index);
        self.judge_descriptors(cx, index);
    }

    fn observe_memory(&mut self, cx: &mut Cx<'_>, index: usize, working_set: Bytes) {
        let memory = &self.config.memory;
        let line = memory.recycle;
        let instance = &mut self.instances[index];
        let number = instance.id.number;
        if instance.is_ready() && core::mem::take(&mut instance.baseline_due) {
            let refused = instance.kill_switch.settle_baseline(working_set, memory);
            if cx.plant.has(Planted::LineUnderBaseline) {
                instance.kill_switch.accept_any_line();
            } else if refused {
                self.tell_line_refused(cx, index, working_set);
            }
        }
        let instance = &mut self.instances[index];
        let crossing = instance.kill_switch.observe(cx.now, working_set, &self.config.memory, cx.plant);
        let armed = instance.kill_switch.line() == Line::Armed && !instance.is_leaving();
        let kind = match crossing {
            Crossing::Over if armed => Kind::OverLine { working_set, line },
            Crossing::Under if armed => Kind::UnderLine { working_set, line },
            Crossing::Over | Crossing::Under | Crossing::None => return,
        };
        cx.tell(self.id, Some(number), None, kind);
    }

    /// Once under the same settings; the replicas and the next instances will say the same.
    pub(super) fn tell_line_refused(&mut self, cx: &mut Cx<'_>, index: usize, baseline: Bytes) {
        if !core::mem::replace(&mut self.line_refusal_told, true) {
            let number = self.instances[index].id.number;
            let kind = Kind::LineRefused { baseline, line: self.config.memory.recycle };
            cx.tell(self.id, Some(number), None, kind);
        }
    }

    fn judge_memory(&mut self, cx: &mut Cx<'_>, index: usize) {
        let stop_time = self.stop_time(index);
        let instance = &self.instances[index];
        let Some(working_set) = instance.kill_switch.latest() else { return };
        let verdict = instance.kill_switch.verdict(cx.now, &self.config.memory, stop_time, cx.plant);
        let Some(verdict) = verdict else { return };
        let may_act = match instance.life {
            Life::Ready | Life::Unready => true,
            // While it starts, only the wall matters: the baseline is not known yet.
            Life::Starting { .. } | Life::Leaving { .. } => verdict.axis == Axis::Level,
            Life::Spawning => false,
        };
        if may_act {
            let cause = Cause::Memory { axis: verdict.axis, working_set, slope: verdict.slope };
            self.accuse(cx, index, cause, verdict.urgency);
        }
    }

    fn judge_descriptors(&mut self, cx: &mut Cx<'_>, index: usize) {
        let stop_time = self.stop_time(index);
        let instance = &self.instances[index];
        if instance.is_leaving() {
            return;
        }
        let Some(count) = instance.descriptors.latest() else { return };
        if let Some(urgency) = instance.descriptors.verdict(&self.config.descriptors, stop_time) {
            let cause = Cause::Descriptors { count, limit: self.config.descriptors.limit };
            self.accuse(cx, index, cause, urgency);
        }
    }

    /// How long it takes from a decision until the instance is gone, at worst.
    fn stop_time(&self, index: usize) -> Duration {
        let recovery = &self.config.recovery;
        let drain = if self.instances[index].in_flight.is_some() { recovery.drain } else { Duration::ZERO };
        let slot = usize::from(self.instances[index].slot);
        let successor_stands = self.relief_of(slot).is_some_and(|it| self.instances[it].is_ready());
        let boot = match recovery.handover {
            Handover::Overlap | Handover::Standby if !successor_stands => self.boot_time,
            Handover::Hold | Handover::Overlap | Handover::Standby => Duration::ZERO,
        };
        boot + drain + recovery.stop_grace
    }

    fn schedule_sample(&mut self, cx: &mut Cx<'_>, index: usize, charged: Bytes) {
        let instance = &self.instances[index];
        let memory = &self.config.memory;
        let pace = instance.kill_switch.interval(cx.now, memory, memory.kernel_wakes_us);
        // The kernel's mark counts page cache too. With that alone over it, it has spoken and will not speak again.
        let pace = if charged >= memory.recycle { pace.min(INTERVAL_OVER) } else { pace };
        let pace = match instance.descriptors.pace(&self.config.descriptors) {
            Some(limit) => pace.min(limit),
            None => pace,
        };
        let at = cx.now + pace;
        // Down, since every sample is a little late: up, each would be a whole step later than its pace.
        let at = if pace >= INTERVAL_FAR { at.aligned_down(GRID) } else { at };
        cx.deadlines.set(Due::Sample(instance.id), at);
    }

    fn rearm_wire(&mut self, cx: &mut Cx<'_>, index: usize, charged: Bytes) {
        let line = self.config.memory.recycle;
        let instance = &mut self.instances[index];
        if instance.wire_fired && !instance.is_leaving() && charged < line.scaled(REARM_PARTS, 1000) {
            instance.wire_fired = false;
            cx.act(Action::SetHigh { instance: instance.id, at: line });
        }
    }

    pub(crate) fn sample_failed(&mut self, cx: &mut Cx<'_>, index: usize) {
        if cx.plant.has(Planted::FailedSampleIsZero) {
            self.sampled(cx, index, Sample::default());
            return;
        }
        let failures = self.instances[index].kill_switch.failed();
        if failures.is_power_of_two() {
            let number = self.instances[index].id.number;
            cx.tell(self.id, Some(number), None, Kind::SampleFailed { failures });
        }
        self.schedule_sample(cx, index, Bytes(0));
        if cx.plant.has(Planted::BlindLooksSeldom) {
            cx.due_in(Due::Sample(self.instances[index].id), INTERVAL_FAR);
        }
    }

    pub(crate) fn noticed(&mut self, cx: &mut Cx<'_>, index: usize, notice: Notice) {
        let instance = &mut self.instances[index];
        let id = instance.id;
        match notice {
            Notice::TripWire => {
                if !core::mem::replace(&mut instance.wire_fired, true) {
                    let at = hard_wall::near(&self.config.memory);
                    cx.act(Action::SetHigh { instance: id, at });
                    cx.tell(self.id, Some(id.number), None, Kind::TripWire);
                }
            }
            Notice::OomKill => cx.tell(self.id, Some(id.number), None, Kind::OomKill),
            Notice::Pressure => {}
        }
        if cx.deadlines.is_set(Due::Sample(id)) {
            cx.deadlines.set(Due::Sample(id), cx.now);
        }
    }

    pub(crate) fn probe_due(&mut self, cx: &mut Cx<'_>, index: usize) {
        let id = self.instances[index].id;
        if self.instances[index].prober.is_asking() {
            if cx.plant.has(Planted::WaitForLostProbe) {
                return;
            }
            self.anomaly(cx, id, "a probe was never answered");
            self.probed(cx, index, ProbeOutcome::Unanswered);
            return;
        }
        let instance = &mut self.instances[index];
        let starting = matches!(instance.life, Life::Starting { .. });
        let (probe, lost_after) = instance.prober.ask(cx.now, &self.config.health, starting);
        cx.act(Action::Probe { instance: id, timeout: probe.timeout, patience: probe.patience });
        cx.due_in(Due::Probe(id), lost_after);
    }

    /// Requests wait and none moves: ask now rather than at the next interval.
    pub(crate) fn stalled(&mut self, cx: &mut Cx<'_>, index: usize) {
        let instance = &mut self.instances[index];
        let id = instance.id;
        match instance.life {
            // Asked already; asking anew would put the answer off for as long as stalls are reported.
            Life::Ready | Life::Unready if instance.prober.is_confirming() => {}
            Life::Ready | Life::Unready if self.config.health.probed => {
                let (probe, lost_after) = instance.prober.confirm(cx.now, &self.config.health);
                cx.act(Action::Probe { instance: id, timeout: probe.timeout, patience: probe.patience });
                cx.due_in(Due::Probe(id), lost_after);
            }
            Life::Ready | Life::Unready | Life::Spawning | Life::Starting { .. } | Life::Leaving { .. } => {}
        }
    }

    pub(crate) fn probed(&mut self, cx: &mut Cx<'_>, index: usize, outcome: ProbeOutcome) {
        let instance = &mut self.instances[index];
        let id = instance.id;
        if !instance.prober.is_asking() {
            return;
        }
        match instance.life {
            Life::Spawning | Life::Leaving { .. } => {}
            Life::Starting { since } => {
                if instance.prober.started(outcome) {
                    self.become_ready(cx, index);
                    cx.due_in(Due::Probe(id), self.config.health.interval);
                } else {
                    let pause = health::start_interval(cx.now.since(since), &self.config.health);
                    cx.due_in(Due::Probe(id), pause);
                }
            }
            Life::Ready | Life::Unready => {
                let asked = instance.prober.asked_at();
                let health = instance.prober.judge(outcome, &self.config.health, cx.plant);
                cx.deadlines.set(Due::Probe(id), Prober::next(asked, cx.now, &self.config.health));
                self.judge_health(cx, index, health);
            }
        }
    }

    fn judge_health(&mut self, cx: &mut Cx<'_>, index: usize, health: Health) {
        let number = self.instances[index].id.number;
        let was_unready = self.instances[index].life == Life::Unready;
        match health {
            Health::Well | Health::Busy { .. } => {
                if let Health::Busy { took } = health {
                    cx.tell(self.id, Some(number), None, Kind::ProbeLate { took });
                }
                if was_unready {
                    self.become_ready(cx, index);
                }
            }
            Health::Failing { failures, unready } => {
                cx.tell(self.id, Some(number), None, Kind::ProbeFailed { failures });
                if unready && !was_unready {
                    self.instances[index].life = Life::Unready;
                    cx.tell(self.id, Some(number), None, Kind::Unready);
                }
            }
            Health::Dead { failures } => {
                self.accuse(cx, index, Cause::Unhealthy { failures }, Urgency::Urgent);
            }
            Health::Hung => self.accuse(cx, index, Cause::Hung, Urgency::Urgent),
            Health::Unknown => self.anomaly(cx, self.instances[index].id, "a health check could not be made"),
        }
    }
}
