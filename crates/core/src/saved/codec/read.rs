//! And back. Whatever the bytes are, nothing worse than [`Unreadable`] comes of them.

use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use super::Unreadable;
use crate::cause::{Axis, Cause, Urgency};
use crate::event::Exit;
use crate::instance::{Doom, Life, Role, Stage};
use crate::saved::{SavedIncident, SavedInstance, SavedService, SavedSlot};
use crate::units::{Bytes, BytesPerSecond, Instant};
use crate::view::Intent;

type Read<T> = Result<T, Unreadable>;

pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Read<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Unreadable::Torn)?;
        self.0 = rest;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Read<[u8; N]> {
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

    pub(super) fn u64(&mut self) -> Read<u64> {
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

    pub(super) fn list<T>(&mut self, read: impl Fn(&mut Self) -> Read<T>) -> Read<Vec<T>> {
        (0..self.count()?).map(|_| read(self)).collect()
    }

    pub(super) fn service(&mut self) -> Read<SavedService> {
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
