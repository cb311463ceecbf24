//! Bytes made small and, where there are recipients, unreadable to all but those with the key.

use std::cell::RefCell;
use std::fmt;
use std::io::{Read, Write};
use std::path::Path;

use age::x25519::{Identity, Recipient};

use crate::error::{Error, Result};

/// How much effort compression takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effort {
    /// While transactions are waiting, ten times a second, for a folder: they are packed anew within a minute or two.
    Fleeting,
    /// While transactions are waiting.
    Quick,
    /// Beside, once a minute, over many versions of the same pages.
    Thorough,
}

impl Effort {
    /// As zstd has them: below 1 it looks for long matches alone, and what is left is kept as it is.
    const fn level(self) -> i32 {
        match self {
            Self::Fleeting => -3,
            Self::Quick => 1,
            Self::Thorough => 3,
        }
    }
}

/// What begins each encrypted object, in the format's own words.
const AGE_MAGIC: &[u8] = b"age-encryption.org/v1";
/// Versions of one page can be so far apart and still be found alike: 128 MiB.
const WINDOW_LOG: u32 = 27;
/// No object unpacks to more.
const UNPACKED_BYTES_MAX: u64 = 2 << 30;

thread_local! {
    /// Ten times a second its memory would be had and given back.
    static QUICK: RefCell<Option<zstd::bulk::Compressor<'static>>> = const { RefCell::new(None) };
}

/// Packs and opens.
#[derive(Clone, Default)]
pub struct Seal {
    recipients: Vec<Recipient>,
    identities: Vec<Identity>,
}

impl fmt::Debug for Seal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Seal({} recipients, {} identities)", self.recipients.len(), self.identities.len())
    }
}

/// Is this a recipient, `age1…`?
pub fn parse_recipient(text: &str) -> Result<Recipient, &'static str> {
    text.trim().parse()
}

impl Seal {
    pub fn new(recipients: Vec<Recipient>) -> Self {
        Self { recipients, identities: Vec::new() }
    }

    /// Adds the identities of a file as `age-keygen` writes it.
    pub fn with_identity(mut self, text: &str, named: &Path) -> Result<Self> {
        let lines = text.lines().map(str::trim).filter(|it| !it.is_empty() && !it.starts_with('#'));
        for line in lines {
            let identity = line.parse::<Identity>().map_err(|why| Error::Key {
                name: named.display().to_string(),
                why: format!("it holds no identity (AGE-SECRET-KEY-1…): {why}"),
            })?;
            self.identities.push(identity);
        }
        Ok(self)
    }

    pub fn is_encrypting(&self) -> bool {
        !self.recipients.is_empty()
    }

    pub fn can_open(&self) -> bool {
        !self.is_encrypting() || !self.identities.is_empty()
    }

    pub fn pack(&self, raw: &[u8], effort: Effort) -> Result<Vec<u8>> {
        let failed = |why: String| Error::Spoiled { name: "an object to be stored".to_owned(), why };
        let small = compress(raw, effort).map_err(|error| failed(error.to_string()))?;
        if self.recipients.is_empty() {
            return Ok(small);
        }
        let recipients = self.recipients.iter().map(|it| it as &dyn age::Recipient);
        let encryptor =
            age::Encryptor::with_recipients(recipients).map_err(|error| failed(error.to_string()))?;
        let mut sealed = Vec::with_capacity(small.len() + 512);
        let mut writer = encryptor.wrap_output(&mut sealed).map_err(|error| failed(error.to_string()))?;
        writer.write_all(&small).map_err(|error| failed(error.to_string()))?;
        writer.finish().map_err(|error| failed(error.to_string()))?;
        Ok(sealed)
    }

    /// `name` is for the error.
    pub fn open(&self, stored: &[u8], name: &str) -> Result<Vec<u8>> {
        if !stored.starts_with(AGE_MAGIC) {
            return decompress(stored, name);
        }
        let key = |why: String| Error::Key { name: name.to_owned(), why };
        if self.identities.is_empty() {
            return Err(key("no identity is given; name the file with --identity or `identity`".to_owned()));
        }
        let decryptor = age::Decryptor::new(stored).map_err(|error| key(error.to_string()))?;
        let identities = self.identities.iter().map(|it| it as &dyn age::Identity);
        let reader = decryptor.decrypt(identities).map_err(|error| {
            let is_other = matches!(error, age::DecryptError::NoMatchingKeys);
            key(if is_other {
                "the identity is not one of its recipients".to_owned()
            } else {
                error.to_string()
            })
        })?;
        let mut small = Vec::with_capacity(stored.len());
        let mut reader = reader;
        reader.read_to_end(&mut small).map_err(|error| Error::Spoiled {
            name: name.to_owned(),
            why: format!("it cannot be decrypted: {error}"),
        })?;
        decompress(&small, name)
    }
}

fn compress(raw: &[u8], effort: Effort) -> std::io::Result<Vec<u8>> {
    match effort {
        Effort::Fleeting | Effort::Quick => QUICK.with_borrow_mut(|kept| {
            let compressor = match kept {
                Some(compressor) => compressor,
                None => kept.insert(zstd::bulk::Compressor::new(effort.level())?),
            };
            compressor.set_compression_level(effort.level())?;
            // What is fetched is compared with the hash in its name; for what lasts, this is a second one.
            compressor.include_checksum(effort != Effort::Fleeting)?;
            compressor.compress(raw)
        }),
        Effort::Thorough => {
            let mut compressor = zstd::bulk::Compressor::new(effort.level())?;
            compressor.include_checksum(true)?;
            compressor.long_distance_matching(true)?;
            compressor.window_log(WINDOW_LOG)?;
            compressor.compress(raw)
        }
    }
}

fn decompress(small: &[u8], name: &str) -> Result<Vec<u8>> {
    let spoiled = |why: String| Error::Spoiled { name: name.to_owned(), why };
    let mut decoder =
        zstd::stream::read::Decoder::with_buffer(small).map_err(|error| spoiled(error.to_string()))?;
    decoder.window_log_max(WINDOW_LOG).map_err(|error| spoiled(error.to_string()))?;
    // As it says itself, which is not believed without a limit.
    let bytes = zstd::zstd_safe::get_frame_content_size(small).ok().flatten().unwrap_or(0);
    let mut raw = Vec::with_capacity(usize::try_from(bytes).unwrap_or(usize::MAX).min(16 << 20));
    let mut limited = decoder.take(UNPACKED_BYTES_MAX);
    limited.read_to_end(&mut raw).map_err(|error| spoiled(format!("it cannot be unpacked: {error}")))?;
    Ok(raw)
}

#[cfg(test)]
mod tests {
    use age::secrecy::ExposeSecret as _;

    use super::*;

    #[test]
    fn what_was_packed_is_opened_with_the_right_key_alone() {
        let (one, other) = (Identity::generate(), Identity::generate());
        let seal = Seal::new(vec![one.to_public()]);
        let key = |it: &Identity| {
            let text = format!("# a comment\n{}\n", it.to_string().expose_secret());
            seal.clone().with_identity(&text, Path::new("key")).unwrap()
        };
        let raw = vec![7; 100_000];
        for effort in [Effort::Fleeting, Effort::Quick, Effort::Fleeting] {
            assert_eq!(key(&one).open(&seal.pack(&raw, effort).unwrap(), "x").unwrap(), raw);
        }
        let stored = seal.pack(&raw, Effort::Quick).unwrap();
        assert!(stored.len() < 1000);
        assert_eq!(key(&one).open(&stored, "x").unwrap(), raw);
        for (seal, why) in
            [(seal.clone(), "no identity is given"), (key(&other), "not one of its recipients")]
        {
            let error = seal.open(&stored, "chunk 7").unwrap_err();
            assert!(matches!(error, Error::Key { .. }) && error.to_string().contains(why), "{error}");
        }
        // What was stored before there were recipients is still read.
        let plain = Seal::default().pack(&raw, Effort::Thorough).unwrap();
        assert_eq!(key(&one).open(&plain, "x").unwrap(), raw);
    }

    #[test]
    fn a_flipped_bit_anywhere_is_noticed() {
        let raw: Vec<u8> = (0..2000_u32).flat_map(u32::to_be_bytes).collect();
        let identity = Identity::generate();
        let text = identity.to_string().expose_secret().to_owned();
        let sealing = Seal::new(vec![identity.to_public()]).with_identity(&text, Path::new("key")).unwrap();
        for seal in [Seal::default(), sealing] {
            let stored = seal.pack(&raw, Effort::Quick).unwrap();
            for at in (0..stored.len() * 8).step_by(97) {
                let mut spoiled = stored.clone();
                spoiled[at / 8] ^= 1 << (at % 8);
                assert!(seal.open(&spoiled, "x").map_or(true, |it| it == raw), "bit {at}");
            }
        }
    }
}
