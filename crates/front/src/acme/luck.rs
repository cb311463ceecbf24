//! Numbers from 0 to 1 that spread what many hosts would do at one moment. Nothing secret hangs on them, so the seed of a
//! hash map is random enough.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, DefaultHasher, Hash, Hasher};

use crate::tls::Certificate;

/// A new one each time.
pub(super) fn luck() -> f64 {
    unit(RandomState::new().build_hasher().finish())
}

/// Always the same for one certificate, also after a restart.
pub(super) fn luck_of(certificate: &Certificate) -> f64 {
    let mut hasher = DefaultHasher::new();
    certificate.leaf().map(AsRef::<[u8]>::as_ref).hash(&mut hasher);
    unit(hasher.finish())
}

fn unit(bits: u64) -> f64 {
    // 32 bits fit into the float without loss.
    let upper = u32::try_from(bits >> 32).unwrap_or(u32::MAX);
    f64::from(upper) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn luck_is_between_nothing_and_everything_and_not_always_the_same() {
        let some: Vec<f64> = std::iter::repeat_with(luck).take(100).collect();
        assert!(some.iter().all(|luck| (0.0..=1.0).contains(luck)));
        assert!(some.iter().any(|luck| *luck < 0.5) && some.iter().any(|luck| *luck >= 0.5));
    }
}
