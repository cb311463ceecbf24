//! The text of a configuration file, and its places as a person counts them.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// A longer line is cut around the fault.
const SHOWN_MAX: usize = 100;
/// How much is kept before the fault in a line that is cut.
const SHOWN_BEFORE: usize = 40;

#[derive(Debug)]
pub(super) struct Source {
    file: PathBuf,
    text: String,
    /// Values that may be secrets; they are never shown.
    private: Vec<Range<usize>>,
}

/// A place in a file, counted from 1, with the line it is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub line: usize,
    /// In characters, not bytes.
    pub column: usize,
    shown: String,
    /// Characters before the caret, and under it.
    before: usize,
    width: usize,
}

impl Source {
    pub(super) fn new(file: PathBuf, text: String) -> Self {
        Self { file, text, private: Vec::new() }
    }

    pub(super) fn hide(&mut self, private: Vec<Range<usize>>) {
        self.private = private;
    }

    pub(super) fn file(&self) -> &Path {
        &self.file
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    pub(super) fn place(&self, span: &Range<usize>) -> Place {
        let start = self.boundary(span.start);
        let line_start = self.text[..start].rfind('\n').map_or(0, |at| at + 1);
        let line_end = self.text[start..].find('\n').map_or(self.text.len(), |at| start + at);
        let end = self.boundary(span.end).clamp(start, line_end);
        let line = self.text[..line_start].matches('\n').count() + 1;
        let before = self.text[line_start..start].chars().count();
        let width = self.text[start..end].chars().count().max(1);
        let letters = self.visible(line_start..line_end);
        cut(Place { line, column: before + 1, shown: String::new(), before, width }, &letters)
    }

    /// The line without secrets and control characters, letter for letter as long as it is.
    fn visible(&self, line: Range<usize>) -> Vec<char> {
        let start = line.start;
        let show = |(at, letter): (usize, char)| {
            let at = start + at;
            if self.private.iter().any(|hidden| hidden.contains(&at)) {
                '*'
            } else if letter.is_control() {
                ' '
            } else {
                letter
            }
        };
        self.text[line].trim_end().char_indices().map(show).collect()
    }

    /// The nearest place at or before `at` where a character begins.
    fn boundary(&self, at: usize) -> usize {
        self.text.floor_char_boundary(at)
    }
}

fn cut(mut place: Place, letters: &[char]) -> Place {
    let skip = if letters.len() > SHOWN_MAX { place.before.saturating_sub(SHOWN_BEFORE) } else { 0 };
    place.shown = letters.iter().skip(skip).take(SHOWN_MAX).collect();
    place.before -= skip;
    place.width = place.width.min(SHOWN_MAX.saturating_sub(place.before).max(1));
    place
}

impl fmt::Display for Place {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (line, gap, carets) = (self.line, " ".repeat(self.before), "^".repeat(self.width));
        write!(out, "{line:>5} | {}\n      | {gap}{carets}", self.shown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str, span: Range<usize>) -> Place {
        Source::new("x.toml".into(), text.to_owned()).place(&span)
    }

    #[test]
    fn a_place_counts_characters_and_lines_from_one() {
        let place = place("a = 1\nä = \"x\"\n", 11..14);
        assert_eq!((place.line, place.column), (2, 5));
        assert_eq!(place.to_string(), "    2 | ä = \"x\"\n      |     ^^^");
    }

    #[test]
    fn a_span_at_the_end_or_past_it_still_has_a_place() {
        assert_eq!(place("", 0..0).to_string(), "    1 | \n      | ^");
        assert_eq!(place("a", 9..12).line, 1);
        assert_eq!(place("a = [\n1", 4..7).to_string(), "    1 | a = [\n      |     ^");
    }

    #[test]
    fn a_long_line_is_cut_around_the_fault() {
        let text = format!("a = \"{}\" b", "x".repeat(500));
        let place = place(&text, 507..508);
        assert_eq!(place.column, 508);
        assert!(place.shown.chars().count() <= SHOWN_MAX);
        assert_eq!(place.before, SHOWN_BEFORE);
    }

    #[test]
    fn a_secret_and_an_escape_sequence_are_not_shown() {
        let mut source = Source::new("x.toml".into(), "a\u{1b}[2J = \"hush\"".to_owned());
        source.hide(std::iter::once(8..14).collect());
        assert_eq!(source.place(&(0..1)).shown, "a [2J = ******");
    }
}
