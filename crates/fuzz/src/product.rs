//! The configuration file.

use std::path::Path;

use plimsoll::config::{Config, parse_size, parse_span};

/// A `plimsoll.toml`. What is wrong is told with places that are in the file.
pub(crate) fn config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let lines = text.lines().count().max(1);
    match Config::parse(Path::new("/fuzz/plimsoll.toml"), text.to_owned(), None) {
        Ok((config, warnings)) => {
            let _ = format!("{config:?}{warnings:?}");
        }
        Err(errors) => {
            let told = errors.to_string();
            assert!(told.contains("error"), "refused without a reason: {told:?}");
            for word in told.lines().filter_map(|line| line.strip_prefix("/fuzz/plimsoll.toml:")) {
                let line = word.split(':').next().and_then(|number| number.parse::<usize>().ok());
                assert!(line.is_none_or(|line| line <= lines + 1), "{word:?} in a file of {lines} lines");
            }
        }
    }
    let first = text.lines().next().unwrap_or_default();
    let _ = parse_size(first);
    let _ = parse_span(first);
}
