//! Descriptors that are held for the next guard, each under a key of the guard's.

use std::os::fd::OwnedFd;

/// Listeners, the control socket, the lock, the state: a few.
const KEPT_MAX: usize = 64;

#[derive(Debug, Default)]
pub(crate) struct Kept {
    files: Vec<(String, OwnedFd)>,
}

impl Kept {
    /// Instead of what was there under this key; what does not fit any more is not held.
    pub(crate) fn keep(&mut self, key: String, file: OwnedFd) {
        self.drop_key(&key);
        if self.files.len() < KEPT_MAX {
            self.files.push((key, file));
        }
    }

    pub(crate) fn has(&self, key: &str) -> bool {
        self.files.iter().any(|(known, _)| known == key)
    }

    pub(crate) fn drop_key(&mut self, key: &str) {
        self.files.retain(|(known, _)| known != key);
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &OwnedFd)> {
        self.files.iter().map(|(key, file)| (key.as_str(), file))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    #[test]
    fn a_key_holds_one_file_and_the_number_of_keys_is_bounded() {
        let null = || OwnedFd::from(File::open("/dev/null").unwrap());
        let mut kept = Kept::default();
        for number in 0..KEPT_MAX + 5 {
            kept.keep(format!("key {number}"), null());
        }
        kept.keep("key 1".to_owned(), null());
        assert_eq!(kept.iter().count(), KEPT_MAX);
        kept.drop_key("key 1");
        assert!(kept.iter().all(|(key, _)| key != "key 1"));
    }
}
