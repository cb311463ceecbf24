//! The pattern of a path: what differs from one request of a route to the next is taken for an id.

/// Patterns of one service; what comes after is counted as one.
pub const PATTERNS_MAX: usize = 200;
/// Segments that are looked at; deeper ones are one.
const SEGMENTS_MAX: usize = 8;
/// A segment longer than this is a value and no name.
const NAME_BYTES_MAX: usize = 32;
/// Hexadecimal words from this length on, with a digit in them, are ids.
const HEX_BYTES_MIN: usize = 8;
const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0100_0000_01b3;

/// Where ids stand in a pattern.
const ID: &str = ":id";

/// FNV-1a over the pattern and the method, without making the text.
pub(crate) fn hash(method: &str, path: &str) -> u64 {
    let mut hash = BASIS;
    let mut add = |text: &str| {
        for byte in text.bytes() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(PRIME);
        }
        hash = (hash ^ 0x2f).wrapping_mul(PRIME);
    };
    add(method);
    each(path, add);
    hash
}

/// `/reports/:id/pages`
pub(crate) fn of(path: &str) -> String {
    let mut text = String::new();
    each(path, |segment| {
        text.push('/');
        text.push_str(segment);
    });
    if text.is_empty() { "/".to_owned() } else { text }
}

fn each(path: &str, mut take: impl FnMut(&str)) {
    let mut segments = path.split('/').filter(|it| !it.is_empty());
    for segment in segments.by_ref().take(SEGMENTS_MAX) {
        take(if is_id(segment) { ID } else { segment });
    }
    if segments.next().is_some() {
        take("…");
    }
}

fn is_id(segment: &str) -> bool {
    let bytes = segment.as_bytes();
    let digits = bytes.iter().filter(|byte| byte.is_ascii_digit()).count();
    let is_number =
        digits > 0 && bytes.iter().all(|byte| byte.is_ascii_digit() || matches!(byte, b'-' | b'.' | b'_'));
    let is_hex = bytes.len() >= HEX_BYTES_MIN
        && digits > 0
        && bytes.iter().all(|byte| byte.is_ascii_hexdigit() || *byte == b'-');
    let is_odd = bytes.iter().any(|byte| matches!(byte, b'@' | b'%' | b'=' | b':' | b','));
    // A word with as many digits as this is a name of one thing: `user8472`, an order's number.
    let is_numbered = digits >= 4 && digits * 2 >= bytes.len();
    is_number || is_hex || is_odd || is_numbered || bytes.len() > NAME_BYTES_MAX || !segment.is_ascii()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_every_kind_are_one_pattern() {
        for id in [
            "17",
            "2026-11-23",
            "550e8400-e29b-41d4-a716-446655440000",
            "9f86d081884c7d65",
            "a@example.org",
            "ord84721",
            "an-article-with-a-title-that-goes-on-and-on",
            "größe",
        ] {
            assert_eq!(of(&format!("/reports/{id}/pages")), "/reports/:id/pages", "{id}");
        }
    }

    #[test]
    fn names_stay() {
        for path in ["/", "/api/v2/reports", "/feedback", "/static/app.js", "/deadbeef"] {
            assert_eq!(of(path), path);
        }
        assert_eq!(of("//api//"), "/api");
    }

    #[test]
    fn depth_is_bounded() {
        assert_eq!(of("/a/b/c/d/e/f/g/h/i/j"), "/a/b/c/d/e/f/g/h/…");
    }

    #[test]
    fn the_hash_goes_with_the_pattern() {
        assert_eq!(hash("GET", "/reports/1"), hash("GET", "/reports/2"));
        assert_ne!(hash("GET", "/reports/1"), hash("POST", "/reports/1"));
        assert_ne!(hash("GET", "/a/b"), hash("GET", "/ab"));
    }
}
