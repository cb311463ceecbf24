//! Where the head's state is saved: a file of memory that init holds, so that no full disk and no slow one stands
//! between a decision and its record.
//!
//! It has two places, written by turns, each with the number of its turn: a guard that is killed in the middle of one
//! leaves the other as it was.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;

use plimsoll_core::{Saved, Unreadable};
use rustix::fs::{MemfdFlags, memfd_create};

/// More than ten thousand services need.
const PLACE_BYTES: u64 = 32 << 20;
/// The turn, and the same with every bit turned over.
const TURN_BYTES: u64 = 16;

#[derive(Debug)]
pub(crate) struct StateFile {
    file: File,
    turn: u64,
}

impl StateFile {
    pub(crate) fn create() -> std::io::Result<Self> {
        let file = memfd_create("plimsoll-state", MemfdFlags::CLOEXEC)?;
        Ok(Self { file: file.into(), turn: 0 })
    }

    /// The file that an earlier guard wrote, and what it last saved there. An error says why that cannot be known.
    pub(crate) fn open(file: OwnedFd) -> (Self, Result<Saved, Unreadable>) {
        let file = File::from(file);
        let mut read: Vec<(u64, Result<Saved, Unreadable>)> = [0, 1].map(|place| read(&file, place)).to_vec();
        read.sort_by_key(|(turn, _)| *turn);
        let turn = read.last().map_or(0, |(turn, _)| *turn);
        let newest = read.iter().rev().find(|(_, saved)| saved.is_ok());
        let saved = newest.or(read.last()).map_or(Err(Unreadable::Torn), |(_, saved)| saved.clone());
        (Self { file, turn }, saved)
    }

    pub(crate) const fn file(&self) -> &File {
        &self.file
    }

    /// What [`Saved::encode`] gives.
    pub(crate) fn write(&mut self, saved: &[u8]) -> std::io::Result<()> {
        self.turn += 1;
        let place = (self.turn % 2) * PLACE_BYTES;
        self.file.write_all_at(saved, place + TURN_BYTES)?;
        // Last, so that it stands only where the rest does.
        let turn = [self.turn.to_le_bytes(), (!self.turn).to_le_bytes()].concat();
        self.file.write_all_at(&turn, place)
    }
}

fn read(file: &File, place: u64) -> (u64, Result<Saved, Unreadable>) {
    let start = place * PLACE_BYTES;
    let turn = |at| {
        let mut bytes = [0; 8];
        file.read_exact_at(&mut bytes, at).ok().map(|()| u64::from_le_bytes(bytes))
    };
    let Some(number) = turn(start).filter(|number| turn(start + 8) == Some(!*number)) else {
        return (0, Err(Unreadable::Torn));
    };
    let length = file.metadata().map_or(0, |it| it.len()).saturating_sub(start + TURN_BYTES).min(PLACE_BYTES);
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
    let saved = match file.read_exact_at(&mut bytes, start + TURN_BYTES) {
        Ok(()) => Saved::decode(&bytes),
        Err(_) => Err(Unreadable::Torn),
    };
    (number, saved)
}

#[cfg(test)]
mod tests {
    use super::*;
    use plimsoll_core::{Head, ServiceConfig};

    fn saved(incidents: u64) -> Saved {
        let mut head = Head::new(incidents);
        head.add(ServiceConfig::named("reports"), 1);
        head.save()
    }

    fn copy(state: &StateFile) -> OwnedFd {
        state.file.try_clone().unwrap().into()
    }

    #[test]
    fn what_was_written_last_is_read_and_writing_goes_on() {
        let mut state = StateFile::create().unwrap();
        assert_eq!(StateFile::open(copy(&state)).1, Err(Unreadable::Torn));
        for number in 1..=5 {
            state.write(&saved(number).encode()).unwrap();
            let (again, read) = StateFile::open(copy(&state));
            assert_eq!(read, Ok(saved(number)));
            state = again;
        }
    }

    #[test]
    fn one_that_was_torn_leaves_the_one_before_it() {
        let mut state = StateFile::create().unwrap();
        state.write(&saved(1).encode()).unwrap();
        state.write(&saved(2).encode()).unwrap();
        // Killed while it wrote the third over the first.
        state.file.write_all_at(b"torn", PLACE_BYTES + TURN_BYTES).unwrap();
        assert_eq!(StateFile::open(copy(&state)).1, Ok(saved(2)));
        // Both: then nothing is known, and that is said.
        state.file.write_all_at(b"torn", TURN_BYTES).unwrap();
        assert_eq!(StateFile::open(copy(&state)).1, Err(Unreadable::Torn));
    }
}
