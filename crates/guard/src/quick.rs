//! A map for keys that are our own: instances and their names. The standard one defends itself against keys that an
//! enemy has chosen, which a thousand samples a second would pay for twice each.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

pub(crate) type QuickMap<K, V> = HashMap<K, V, BuildHasherDefault<Mixer>>;

/// Odd, with bits all over: each bit of a product with it depends on all bits below it in the other factor.
const FACTOR: u64 = 0xf135_7aea_2e62_a9c5;
/// The map goes by the lowest bits too, which know the least: they are told what the upper half knows.
const HALF: u32 = 32;
const WORD: usize = size_of::<u64>();

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Mixer(u64);

impl Hasher for Mixer {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(WORD) {
            let mut word = [0; WORD];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u8(&mut self, byte: u8) {
        self.write_u64(byte.into());
    }

    fn write_u32(&mut self, word: u32) {
        self.write_u64(word.into());
    }

    fn write_u64(&mut self, word: u64) {
        let product = (self.0 ^ word).wrapping_mul(FACTOR);
        self.0 = product ^ (product >> HALF);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::hash::BuildHasher;

    use super::*;

    #[test]
    fn names_that_differ_by_a_number_are_spread() {
        let hasher = BuildHasherDefault::<Mixer>::default();
        let all: Vec<u64> = (0..1000).map(|number| hasher.hash_one(format!("idle-{number}.1"))).collect();
        let places: HashSet<u64> = all.iter().map(|hash| hash % 1024).collect();
        // By chance alone it would be 638 of 1,024.
        assert!(places.len() > 500, "{}", places.len());
        let tags: HashSet<u64> = all.iter().map(|hash| hash >> 57).collect();
        assert!(tags.len() > 100, "{}", tags.len());
    }

    #[test]
    fn numbers_are_spread() {
        let hasher = BuildHasherDefault::<Mixer>::default();
        let places: HashSet<u64> = (0..1000_u32).map(|it| hasher.hash_one((it, 1_u64)) % 1024).collect();
        assert!(places.len() > 500, "{}", places.len());
    }
}
