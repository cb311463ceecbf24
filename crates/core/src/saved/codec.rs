//! The form in which a head is saved: little-endian numbers behind a head of its own that tells a whole one from a torn
//! one and from one of a later version.

use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use super::{Saved, SavedIncident, SavedInstance, SavedService, SavedSlot};
use crate::cause::{Axis, Cause, Urgency};
use crate::event::Exit;
use crate::instance::{Doom, Life, Role, Stage};
use crate::units::{Bytes, BytesPerSecond, Instant};
use crate::view::Intent;

const MAGIC: [u8; 8] = *b"plimsoll";
/// Raised whenever the form changes; an older one is read for as long as anybody upgrades from it.
const FORM: u16 = 1;
const HEAD_BYTES: usize = MAGIC.len() + 2 + 8 + 8;

/// Why nothing can be learned of what was saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// Cut short, mixed of two, or nothing of ours.
    Torn,
    /// Written by a later version, in this form.
    Later(u16),
}

impl core::fmt::Display for Unreadable {
    fn fmt(&self, out: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Torn => out.write_str("it is torn"),
            Self::Later(form) => write!(out, "a later version wrote it (form {form}, known up to {FORM})"),
        }
    }
}

impl Saved {
    pub fn encode(&self) -> Vec<u8> {
        let services: Vec<Vec<u8>> = self.services.iter().map(service).collect();
        whole(self.next_incident, &services)
    }

    /// Bytes behind the end are not looked at.
    pub fn decode(bytes: &[u8]) -> Result<Self, Unreadable> {
        let (head, rest) = bytes.split_at_checked(HEAD_BYTES).ok_or(Unreadable::Torn)?;
        let mut head = Reader(head);
        if head.array::<8>()? != MAGIC {
            return Err(Unreadable::Torn);
        }
        let form = u16::from_le_bytes(head.array()?);
        if form > FORM {
            return Err(Unreadable::Later(form));
        }
        let length = usize::try_from(head.u64()?).map_err(|_| Unreadable::Torn)?;
        let body = rest.get(..length).ok_or(Unreadable::Torn)?;
        if checksum(body) != head.u64()? {
            return Err(Unreadable::Torn);
        }
        let mut from = Reader(body);
        let saved = Self { next_incident: from.u64()?, services: from.list(Reader::service)? };
        if from.0.is_empty() { Ok(saved) } else { Err(Unreadable::Torn) }
    }
}

/// One service's part.
pub(super) fn service(saved: &SavedService) -> Vec<u8> {
    let mut to = Writer(Vec::new());
    to.service(saved);
    to.0
}

/// The parts put together, behind the head that tells a whole one from a torn one.
pub(super) fn whole(next_incident: u64, services: &[Vec<u8>]) -> Vec<u8> {
    let mut body = Writer(Vec::with_capacity(services.iter().map(Vec::len).sum()));
    body.u64(next_incident);
    body.u64(services.len() as u64);
    for service in services {
        body.0.extend(service);
    }
    let mut whole = Writer(Vec::with_capacity(HEAD_BYTES + body.0.len()));
    whole.0.extend(MAGIC);
    whole.0.extend(FORM.to_le_bytes());
    whole.u64(body.0.len() as u64);
    whole.u64(checksum(&body.0));
    whole.0.extend(body.0);
    whole.0
}

/// As FNV-1a, eight bytes at a time: against accidents, not against people.
fn checksum(bytes: &[u8]) -> u64 {
    const PRIME: u64 = 0x0100_0000_01b3;
    let (words, rest) = bytes.as_chunks::<8>();
    let hash = words.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, word| {
        (hash ^ u64::from_le_bytes(*word)).wrapping_mul(PRIME).rotate_left(23)
    });
    rest.iter().fold(hash, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(PRIME))
}

struct Writer(Vec<u8>);

impl Writer {
    fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    fn flag(&mut self, value: bool) {
        self.u8(u8::from(value));
    }

    fn u64(&mut self, value: u64) {
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

    fn service(&mut self, it: &SavedService) {
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

type Read<T> = Result<T, Unreadable>;

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Read<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Unreadable::Torn)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Read<[u8; N]> {
        self.take(N)?.try_into().map_err(|_| Unreadable::Torn)
    }

    fn u8(&mut self) -> Read<u8> {
        self.array().map(|[byte]| byte)
    }

    fn flag(&mut self) -> Read<bool> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Unreadable::Torn),
        }
    }

    fn u64(&mut self) -> Read<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn u32(&mut self) -> Read<u32> {
        u32::try_from(self.u64()?).map_err(|_| Unreadable::Torn)
    }

    fn i64(&mut self) -> Read<i64> {
        self.u64().map(u64::cast_signed)
    }

    fn i32(&mut self) -> Read<i32> {
        i32::try_from(self.i64()?).map_err(|_| Unreadable::Torn)
    }

    fn at(&mut self) -> Read<Instant> {
        self.u64().map(Instant)
    }

    fn span(&mut self) -> Read<Duration> {
        self.u64().map(Duration::from_nanos)
    }

    fn count(&mut self) -> Read<usize> {
        // Never more than could still follow: nothing is reserved for what is not there.
        let count = usize::try_from(self.u64()?).map_err(|_| Unreadable::Torn)?;
        if count <= self.0.len() { Ok(count) } else { Err(Unreadable::Torn) }
    }

    fn text(&mut self) -> Read<String> {
        let length = self.count()?;
        let bytes = self.take(length)?;
        core::str::from_utf8(bytes).map(String::from).map_err(|_| Unreadable::Torn)
    }

    fn option<T>(&mut self, read: impl FnOnce(&mut Self) -> Read<T>) -> Read<Option<T>> {
        if self.flag()? { read(self).map(Some) } else { Ok(None) }
    }

    fn list<T>(&mut self, read: impl Fn(&mut Self) -> Read<T>) -> Read<Vec<T>> {
        (0..self.count()?).map(|_| read(self)).collect()
    }

    fn service(&mut self) -> Read<SavedService> {
        Ok(SavedService {
            name: self.text()?,
            intent: if self.flag()? { Intent::Up } else { Intent::Down },
            next_number: self.u64()?,
            recycles: self.u64()?,
            restarts: self.u64()?,
            dark_since: self.option(Self::at)?,
            dark_total: self.span()?,
            was_lit: self.flag()?,
            boot_time: self.span()?,
            line_refusal_told: self.flag()?,
            stop_told: self.flag()?,
            budget_spent: self.list(Self::at)?,
            budget_paged: self.flag()?,
            slots: self.list(Self::slot)?,
            incident: self.option(Self::incident)?,
            calm_due: self.option(Self::at)?,
            instances: self.list(Self::instance)?,
        })
    }

    fn slot(&mut self) -> Read<SavedSlot> {
        Ok(SavedSlot {
            streak: self.u32()?,
            relief_streak: self.u32()?,
            lead_failures: self.u32()?,
            relief_failures: self.u32()?,
            lead_due: self.option(Self::at)?,
            relief_due: self.option(Self::at)?,
        })
    }

    fn incident(&mut self) -> Read<SavedIncident> {
        Ok(SavedIncident {
            id: self.u64()?,
            opened: self.at()?,
            dark_before: self.span()?,
            causes: self.list(|from| Ok((from.u64()?, from.text()?)))?,
        })
    }

    fn instance(&mut self) -> Read<SavedInstance> {
        Ok(SavedInstance {
            number: self.u64()?,
            slot: u16::try_from(self.u32()?).map_err(|_| Unreadable::Torn)?,
            role: match self.u8()? {
                0 => Role::Lead,
                1 => Role::Relief,
                2 => Role::Former,
                _ => return Err(Unreadable::Torn),
            },
            life: self.life()?,
            doom: self.option(Self::doom)?,
            exit: self.option(Self::exit)?,
            first_ready: self.option(Self::at)?,
            left: self.option(Self::at)?,
            admitted: self.flag()?,
            baseline: self.option(Self::u64)?.map(Bytes),
            stage_due: self.option(Self::at)?,
            probe_due: self.option(Self::at)?,
        })
    }

    fn life(&mut self) -> Read<Life> {
        Ok(match self.u8()? {
            0 => Life::Spawning,
            1 => Life::Starting { since: self.at()? },
            2 => Life::Ready,
            3 => Life::Unready,
            4 => Life::Leaving { stage: self.stage()?, cause: self.cause()? },
            _ => return Err(Unreadable::Torn),
        })
    }

    fn stage(&mut self) -> Read<Stage> {
        Ok(match self.u8()? {
            0 => Stage::Draining {
                evidence_until: self.option(Self::at)?,
                drain_until: self.option(Self::at)?,
                then_kill: self.flag()?,
            },
            1 => Stage::Stopping,
            2 => Stage::Killing { since: self.at()?, told: self.flag()? },
            _ => return Err(Unreadable::Torn),
        })
    }

    fn cause(&mut self) -> Read<Cause> {
        Ok(match self.u8()? {
            0 => Cause::Memory {
                axis: match self.u8()? {
                    0 => Axis::Persistence,
                    1 => Axis::Slope,
                    2 => Axis::Level,
                    _ => return Err(Unreadable::Torn),
                },
                working_set: Bytes(self.u64()?),
                slope: BytesPerSecond(self.i64()?),
            },
            1 => Cause::OutOfMemory { exit: self.exit()? },
            2 => Cause::Descriptors { count: self.u64()?, limit: self.u64()? },
            3 => Cause::Died { exit: self.exit()? },
            4 => Cause::Daemonized,
            5 => Cause::Unhealthy { failures: self.u32()? },
            6 => Cause::Hung,
            7 => Cause::StartTimedOut,
            8 => Cause::SpawnFailed,
            9 => Cause::Ordered,
            _ => return Err(Unreadable::Torn),
        })
    }

    fn exit(&mut self) -> Read<Exit> {
        Ok(match self.u8()? {
            0 => Exit::Code(self.i32()?),
            1 => Exit::Signal(self.i32()?),
            2 => Exit::Unknown,
            _ => return Err(Unreadable::Torn),
        })
    }

    fn doom(&mut self) -> Read<Doom> {
        Ok(Doom {
            cause: self.cause()?,
            urgency: match self.u8()? {
                0 => Urgency::Gentle,
                1 => Urgency::Urgent,
                2 => Urgency::Hard,
                _ => return Err(Unreadable::Torn),
            },
            over_budget: self.flag()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;
    use alloc::vec;

    fn instance(life: Life, doom: Option<Doom>, exit: Option<Exit>) -> SavedInstance {
        SavedInstance {
            number: 7,
            slot: 1,
            role: Role::Former,
            life,
            doom,
            exit,
            first_ready: Some(Instant(5)),
            left: None,
            admitted: true,
            baseline: Some(Bytes::mib(80)),
            stage_due: Some(Instant(9)),
            probe_due: None,
        }
    }

    fn full() -> Saved {
        let causes = [
            Cause::Memory { axis: Axis::Slope, working_set: Bytes(3), slope: BytesPerSecond(-4) },
            Cause::OutOfMemory { exit: Exit::Signal(9) },
            Cause::Descriptors { count: 8, limit: 9 },
            Cause::Died { exit: Exit::Code(-3) },
            Cause::Died { exit: Exit::Unknown },
            Cause::Daemonized,
            Cause::Unhealthy { failures: 3 },
            Cause::Hung,
            Cause::StartTimedOut,
            Cause::SpawnFailed,
            Cause::Ordered,
        ];
        let draining =
            Stage::Draining { evidence_until: Some(Instant(1)), drain_until: None, then_kill: true };
        let stages = [draining, Stage::Stopping, Stage::Killing { since: Instant(2), told: true }];
        let doom = |cause| Doom { cause, urgency: Urgency::Urgent, over_budget: true };
        let mut lives =
            vec![Life::Spawning, Life::Starting { since: Instant(4) }, Life::Ready, Life::Unready];
        lives.extend(causes.map(|cause| Life::Leaving { stage: draining, cause }));
        lives.extend(stages.map(|stage| Life::Leaving { stage, cause: Cause::Hung }));
        let dooms = causes.map(|cause| instance(Life::Ready, Some(doom(cause)), Some(Exit::Code(1))));
        let slot = SavedSlot {
            streak: 1,
            relief_streak: 2,
            lead_failures: 3,
            relief_failures: 4,
            lead_due: Some(Instant(5)),
            relief_due: None,
        };
        let causes = vec![(7, "memory".to_string())];
        let incident = SavedIncident { id: 3, opened: Instant(1), dark_before: Duration::ZERO, causes };
        let service = SavedService {
            name: "reports".to_string(),
            intent: Intent::Up,
            next_number: 8,
            recycles: 1,
            restarts: 2,
            dark_since: Some(Instant(3)),
            dark_total: Duration::from_secs(4),
            was_lit: true,
            boot_time: Duration::from_millis(5),
            line_refusal_told: true,
            stop_told: false,
            budget_spent: vec![Instant(1), Instant(2)],
            budget_paged: true,
            slots: vec![slot],
            incident: Some(incident),
            calm_due: Some(Instant(6)),
            instances: lives.into_iter().map(|life| instance(life, None, None)).chain(dooms).collect(),
        };
        Saved { next_incident: 4, services: vec![service] }
    }

    #[test]
    fn what_was_saved_is_read_as_it_was() {
        let saved = full();
        let mut bytes = saved.encode();
        assert_eq!(Saved::decode(&bytes), Ok(saved.clone()));
        bytes.extend([1, 2, 3]);
        assert_eq!(Saved::decode(&bytes), Ok(saved));
    }

    #[test]
    fn torn_anywhere_it_is_not_believed() {
        let bytes = full().encode();
        for end in 0..bytes.len() {
            assert_eq!(Saved::decode(&bytes[..end]), Err(Unreadable::Torn));
        }
        for place in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[place] ^= 0x40;
            assert!(Saved::decode(&changed).is_err(), "byte {place}");
        }
    }

    #[test]
    fn one_of_a_later_version_is_told_from_a_torn_one() {
        let mut bytes = full().encode();
        bytes[8] = 2;
        assert_eq!(Saved::decode(&bytes), Err(Unreadable::Later(2)));
        assert!(Unreadable::Later(2).to_string().contains("later version"));
    }
}
