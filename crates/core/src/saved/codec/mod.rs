//! The form in which a head is saved: little-endian numbers behind a head of its own that tells a whole one from a torn
//! one and from one of a later version.

mod read;
mod write;

use alloc::vec::Vec;

use super::{Saved, SavedService};
use read::Reader;
use write::Writer;

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cause::{Axis, Cause, Urgency};
    use crate::event::Exit;
    use crate::instance::{Doom, Life, Role, Stage};
    use crate::saved::{SavedIncident, SavedInstance, SavedSlot};
    use crate::units::{Bytes, BytesPerSecond, Instant};
    use crate::view::Intent;
    use alloc::string::ToString;
    use alloc::vec;
    use core::time::Duration;

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
