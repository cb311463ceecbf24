//! Where a copy stands: the epoch, the transaction, and the chain of hashes that leads there.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::page_hash::PageHash;
use crate::wal::Frame;

/// One uninterrupted series of transactions, by one writer. A gap begins a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Epoch {
    pub number: u32,
    /// Drawn by the writer that began it, so that two of them never mean the same.
    pub nonce: u32,
}

impl fmt::Display for Epoch {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:08x}{:08x}", self.number, self.nonce)
    }
}

impl FromStr for Epoch {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        if text.len() != 16 || !text.bytes().all(|it| matches!(it, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(());
        }
        let half = |text: &str| u32::from_str_radix(text, 16).map_err(|_| ());
        Ok(Self { number: half(&text[..8])?, nonce: half(&text[8..])? })
    }
}

/// Transactions are counted from the first epoch on and never counted twice; a gap counts as one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Tx(pub u64);

impl Tx {
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Tx {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

/// A hash over all transactions of an epoch up to here, whatever segments they were shipped in.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Chain(pub [u8; 16]);

impl Chain {
    /// Of an epoch, before its first transaction.
    pub fn of(epoch: Epoch) -> Self {
        let hash = blake3::hash(epoch.to_string().as_bytes());
        Self(half(&hash))
    }
}

/// Adds one transaction to a chain, frame by frame.
#[derive(Clone, Debug)]
pub struct Link(blake3::Hasher);

impl Link {
    pub fn after(chain: Chain) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&chain.0);
        Self(hasher)
    }

    /// Each page is hashed by itself, so that its hash can be used elsewhere too.
    pub fn add(&mut self, frame: Frame<'_>) -> PageHash {
        let hash = PageHash::of(frame.data);
        self.0.update(&frame.page.to_be_bytes());
        self.0.update(&frame.commit_pages.to_be_bytes());
        self.0.update(hash.bytes());
        hash
    }

    pub fn finish(&self) -> Chain {
        Chain(half(&self.0.finalize()))
    }
}

fn half(hash: &blake3::Hash) -> [u8; 16] {
    let mut half = [0; 16];
    half.copy_from_slice(&hash.as_bytes()[..16]);
    half
}

impl fmt::Display for Chain {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
    }
}

impl fmt::Debug for Chain {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Chain({self})")
    }
}

impl FromStr for Chain {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        if text.len() != 32 || !text.is_ascii() {
            return Err(());
        }
        let mut bytes = [0; 16];
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[index * 2..index * 2 + 2], 16).map_err(|_| ())?;
        }
        Ok(Self(bytes))
    }
}

/// Where the copy stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    pub epoch: Epoch,
    pub tx: Tx,
    pub chain: Chain,
}

impl Position {
    /// The beginning of `epoch`: `tx` is what was counted before it.
    pub fn begin(epoch: Epoch, tx: Tx) -> Self {
        Self { epoch, tx, chain: Chain::of(epoch) }
    }
}

/// As text in records, by `Display` and `FromStr`.
macro_rules! as_text {
    ($kind:ty) => {
        impl Serialize for $kind {
            fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $kind {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let text = String::deserialize(from)?;
                text.parse().map_err(|()| serde::de::Error::custom(concat!("not a ", stringify!($kind))))
            }
        }
    };
}
as_text!(Epoch);
as_text!(Chain);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_read_as_it_was_written() {
        let position = Position::begin(Epoch { number: 3, nonce: 0x9f2a_7c11 }, Tx(17));
        let text = serde_json::to_string(&position).unwrap();
        assert!(text.starts_with("{\"epoch\":\"000000039f2a7c11\",\"tx\":17,"), "{text}");
        assert_eq!(serde_json::from_str::<Position>(&text).unwrap(), position);
        assert!("000000039f2a7c1".parse::<Epoch>().is_err() && "+0000003+f2a7c11".parse::<Epoch>().is_err());
    }

    #[test]
    fn chains_of_two_epochs_and_of_two_orders_differ() {
        let epochs = [1, 2].map(|nonce| Chain::of(Epoch { number: 1, nonce }));
        assert_ne!(epochs[0], epochs[1]);
        let chain = |fills: [u8; 2]| {
            fills.iter().fold(epochs[0], |chain, fill| {
                let mut link = Link::after(chain);
                link.add(Frame { page: 1, commit_pages: 1, data: &[*fill; 512] });
                link.finish()
            })
        };
        assert_ne!(chain([1, 2]), chain([2, 1]));
    }
}
