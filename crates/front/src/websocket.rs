//! Where one WebSocket frame ends and the next begins, so that a last one can be put between them.

/// Follows the frames of one direction (RFC 6455, 5.2) without keeping any of them.
#[derive(Debug, Default)]
pub struct Frames {
    /// What is known of the head of the present frame, and how much of it.
    head: [u8; 14],
    have: usize,
    /// Bytes of its payload still to come.
    payload_left: u64,
}

impl Frames {
    /// These bytes went by.
    pub fn passed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.payload_left > 0 {
                let now = usize::try_from(self.payload_left).unwrap_or(usize::MAX).min(bytes.len());
                self.payload_left -= now as u64;
                bytes = &bytes[now..];
                continue;
            }
            self.head[self.have] = bytes[0];
            self.have += 1;
            bytes = &bytes[1..];
            if self.have == self.head_length() {
                self.payload_left = self.payload_length();
                self.have = 0;
            }
        }
    }

    /// Whether a frame may begin here.
    pub const fn is_between(&self) -> bool {
        self.have == 0 && self.payload_left == 0
    }

    fn head_length(&self) -> usize {
        if self.have < 2 {
            return 2;
        }
        let extended = match self.head[1] & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let mask = if self.head[1] & 0x80 == 0 { 0 } else { 4 };
        2 + extended + mask
    }

    fn payload_length(&self) -> u64 {
        match self.head[1] & 0x7f {
            126 => u64::from(u16::from_be_bytes([self.head[2], self.head[3]])),
            127 => {
                let mut bytes = [0; 8];
                bytes.copy_from_slice(&self.head[2..10]);
                u64::from_be_bytes(bytes)
            }
            short => u64::from(short),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(length: usize, masked: bool) -> Vec<u8> {
        let mut bytes = vec![0x82];
        let mask = if masked { 0x80 } else { 0 };
        match u16::try_from(length) {
            Ok(short) if short < 126 => bytes.push(mask | u8::try_from(short).expect("short")),
            Ok(middle) => {
                bytes.push(mask | 0x7e);
                bytes.extend(middle.to_be_bytes());
            }
            Err(_) => {
                bytes.push(mask | 0x7f);
                bytes.extend((length as u64).to_be_bytes());
            }
        }
        if masked {
            bytes.extend([1, 2, 3, 4]);
        }
        bytes.extend(std::iter::repeat_n(0xff, length));
        bytes
    }

    proptest! {
        #[test]
        fn frames_end_where_they_end_however_they_are_cut(
            lengths in prop::collection::vec((prop_oneof![0..200usize, 65_000..66_000usize], any::<bool>()), 1..6),
            cut in 1..5_000usize,
        ) {
            let mut frames = Frames::default();
            for (length, masked) in lengths {
                let bytes = frame(length, masked);
                let (rest, last) = bytes.split_at(bytes.len() - 1);
                for piece in rest.chunks(cut) {
                    frames.passed(piece);
                    prop_assert!(!frames.is_between());
                }
                frames.passed(last);
                prop_assert!(frames.is_between());
            }
        }

        #[test]
        fn whatever_comes_is_followed_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..4096)) {
            Frames::default().passed(&bytes);
        }
    }
}
