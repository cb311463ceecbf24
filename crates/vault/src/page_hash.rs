//! What tells one page from another: its whole hash for the chain, and eight bytes of it for the table.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageHash(blake3::Hash);

impl PageHash {
    pub fn of(page: &[u8]) -> Self {
        Self(blake3::hash(page))
    }

    pub(crate) fn bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }

    /// Enough to tell pages apart that nobody made alike on purpose.
    pub(crate) fn number(&self) -> u64 {
        let (words, _) = self.0.as_bytes().as_chunks::<8>();
        u64::from_le_bytes(words[0])
    }
}
