//! Several segments as one object, each as it was stored: so that a vault without the key, which can open none of them,
//! has not to keep ten a second.
//!
//! ```text
//! "PLIMPACK" · of each segment: its length, 4 bytes · as it was stored
//! ```

use crate::error::{Error, Result};
use crate::seal::Seal;
use crate::segment::{Merger, Segment};

const MAGIC: &[u8; 8] = b"PLIMPACK";

/// Gathers them.
#[derive(Debug)]
pub struct Pack(Vec<u8>);

impl Default for Pack {
    fn default() -> Self {
        Self(MAGIC.to_vec())
    }
}

impl Pack {
    pub fn bytes(&self) -> usize {
        self.0.len()
    }

    /// Adds one, or all that are in another pack. `name` is for the error.
    pub fn push(&mut self, stored: &[u8], name: &str) -> Result<()> {
        for part in parts(stored, name)? {
            let length = u32::try_from(part.len()).map_err(|_| spoiled(name, "it is larger than 4 GiB"))?;
            self.0.extend(length.to_be_bytes());
            self.0.extend(part);
        }
        Ok(())
    }

    pub fn finish(self) -> Vec<u8> {
        self.0
    }
}

/// Opens what is stored under the name of a segment: one, or several as one. `name` is for the error.
pub fn open(seal: &Seal, stored: &[u8], name: &str) -> Result<Segment> {
    let failed = |source| Error::Segment { name: name.to_owned(), source };
    let opened = |part: &[u8]| Segment::parse(seal.open(part, name)?).map_err(failed);
    if !stored.starts_with(MAGIC) {
        return opened(stored);
    }
    let mut merger = Merger::default();
    for part in parts(stored, name)? {
        merger.push(&opened(part)?).map_err(failed)?;
    }
    merger.finish().ok_or_else(|| spoiled(name, "there is no segment in it"))
}

/// What is in it; what is no pack is itself.
pub(crate) fn parts<'a>(stored: &'a [u8], name: &str) -> Result<Vec<&'a [u8]>> {
    let Some(mut rest) = stored.strip_prefix(MAGIC) else { return Ok(vec![stored]) };
    let mut parts = Vec::new();
    while !rest.is_empty() {
        let cut_off = || spoiled(name, "it is cut off");
        let (length, behind) = rest.split_first_chunk().ok_or_else(cut_off)?;
        let length = u32::from_be_bytes(*length) as usize;
        let (part, behind) = behind.split_at_checked(length).ok_or_else(cut_off)?;
        if part.starts_with(MAGIC) {
            return Err(spoiled(name, "there is a pack in it"));
        }
        parts.push(part);
        rest = behind;
    }
    Ok(parts)
}

fn spoiled(name: &str, why: &str) -> Error {
    Error::Spoiled { name: name.to_owned(), why: why.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_in_comes_out_and_packs_do_not_nest() {
        let mut one = Pack::default();
        one.push(b"a", "x").unwrap();
        one.push(b"", "x").unwrap();
        let mut two = Pack::default();
        two.push(b"bc", "x").unwrap();
        two.push(&one.finish(), "x").unwrap();
        assert_eq!(two.bytes(), 8 + 6 + 5 + 4);
        let stored = two.finish();
        assert_eq!(parts(&stored, "x").unwrap(), [b"bc".as_slice(), b"a", b""]);
        for length in 0..stored.len() {
            let told = parts(&stored[..length], "log/7").map_err(|error| error.to_string());
            // At the end of a part it is whole; what was stored is known by its hash.
            let is_whole = matches!(length, 8 | 14 | 19) || length < 8;
            assert!(is_whole == told.is_ok() && told.err().is_none_or(|it| it.contains("log/7")), "{length}");
        }
        let nested = [MAGIC.as_slice(), &8_u32.to_be_bytes(), MAGIC].concat();
        assert!(parts(&nested, "x").is_err());
        assert!(open(&Seal::default(), MAGIC, "x").unwrap_err().to_string().contains("no segment"));
    }
}
