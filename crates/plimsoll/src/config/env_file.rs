//! `env_file`: lines of `NAME=value`, as the tools around `.env` files write them.
//!
//! Blank lines and lines that begin with `#` are skipped, `export ` in front is allowed, and a value may stand in
//! single quotes (kept as it is) or double quotes (`\n`, `\"`, `\\` and the like are read). Nothing is expanded.

use std::fmt;
use std::path::{Path, PathBuf};

const BYTES_MAX: u64 = 1024 * 1024;

/// What is wrong; never shows a line, since its value may be a secret.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum EnvFileError {
    Unreadable { path: PathBuf, reason: String },
    TooLong(PathBuf),
    NotText(PathBuf),
    NoAssignment { path: PathBuf, line: usize },
    BadName { path: PathBuf, line: usize, name: String },
    OpenQuote { path: PathBuf, line: usize },
    ZeroByte { path: PathBuf, line: usize },
}

impl EnvFileError {
    pub(super) fn hint(&self) -> &'static str {
        match self {
            Self::Unreadable { .. } => "env_file is relative to this file",
            Self::TooLong(_) | Self::NotText(_) => "write a text file with lines of NAME=value",
            Self::NoAssignment { .. } => "write NAME=value, or begin a comment with #",
            Self::BadName { .. } => "write letters, digits and _, not beginning with a digit",
            Self::OpenQuote { .. } => {
                "close the quote on the same line, with nothing but a # comment behind it"
            }
            Self::ZeroByte { .. } => "a variable cannot contain a zero byte",
        }
    }
}

impl fmt::Display for EnvFileError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { path, reason } => write!(out, "cannot read {}: {reason}", path.display()),
            Self::TooLong(path) => write!(out, "{} is longer than 1 MiB", path.display()),
            Self::NotText(path) => write!(out, "{} is not UTF-8 text", path.display()),
            Self::NoAssignment { path, line } => write!(out, "{}:{line}: no NAME=value", path.display()),
            Self::BadName { path, line, name } => {
                write!(out, "{}:{line}: \"{name}\" is not a variable name", path.display())
            }
            Self::OpenQuote { path, line } => write!(out, "{}:{line}: a quote is not closed", path.display()),
            Self::ZeroByte { path, line } => write!(out, "{}:{line}: a zero byte", path.display()),
        }
    }
}

/// Every variable in the order of the file, or everything that is wrong with it.
pub(super) fn read(path: &Path) -> Result<Vec<(String, String)>, Vec<EnvFileError>> {
    let unreadable = |error: std::io::Error| {
        vec![EnvFileError::Unreadable { path: path.to_owned(), reason: plain(&error) }]
    };
    let size = std::fs::metadata(path).map_err(unreadable)?.len();
    if size > BYTES_MAX {
        return Err(vec![EnvFileError::TooLong(path.to_owned())]);
    }
    let bytes = std::fs::read(path).map_err(unreadable)?;
    let text = String::from_utf8(bytes).map_err(|_| vec![EnvFileError::NotText(path.to_owned())])?;
    parse(path, &text)
}

/// The reason without Rust's own number behind it.
fn plain(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_lowercase()
}

fn parse(path: &Path, text: &str) -> Result<Vec<(String, String)>, Vec<EnvFileError>> {
    let (mut pairs, mut errors) = (Vec::new(), Vec::new());
    for (index, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        match pair(path, index + 1, line) {
            Ok(pair) => pairs.push(pair),
            Err(error) => errors.push(error),
        }
    }
    if errors.is_empty() { Ok(pairs) } else { Err(errors) }
}

fn pair(path: &Path, number: usize, line: &str) -> Result<(String, String), EnvFileError> {
    let path = || path.to_owned();
    let line = line.strip_prefix("export ").unwrap_or(line);
    let Some((name, value)) = line.split_once('=') else {
        return Err(EnvFileError::NoAssignment { path: path(), line: number });
    };
    let name = name.trim();
    if !is_variable(name) {
        return Err(EnvFileError::BadName { path: path(), line: number, name: name.to_owned() });
    }
    let value =
        value_of(value.trim()).ok_or_else(|| EnvFileError::OpenQuote { path: path(), line: number })?;
    if value.contains('\0') {
        return Err(EnvFileError::ZeroByte { path: path(), line: number });
    }
    Ok((name.to_owned(), value))
}

/// `None` for a quote that is not closed or has text behind it.
fn value_of(text: &str) -> Option<String> {
    let Some(quote) = text.chars().next().filter(|first| matches!(first, '"' | '\'')) else {
        // A comment begins at a # with a space before it; `a#b` is a value.
        let end = text.find(" #").unwrap_or(text.len());
        return Some(text[..end].trim_end().to_owned());
    };
    let mut value = String::new();
    let mut letters = text[1..].chars();
    while let Some(letter) = letters.next() {
        match letter {
            _ if letter == quote => {
                let rest = letters.as_str().trim_start();
                return (rest.is_empty() || rest.starts_with('#')).then_some(value);
            }
            '\\' if quote == '"' => value.push_str(&escaped(letters.next()?)),
            _ => value.push(letter),
        }
    }
    None
}

fn escaped(letter: char) -> String {
    match letter {
        'n' => "\n".to_owned(),
        'r' => "\r".to_owned(),
        't' => "\t".to_owned(),
        '"' | '\\' | '$' | '`' => letter.to_string(),
        other => format!("\\{other}"),
    }
}

/// A name that every shell could set.
pub(super) fn is_variable(name: &str) -> bool {
    let fine = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    name.chars().all(fine) && name.chars().next().is_some_and(|first| !first.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parsed(text: &str) -> Result<Vec<(String, String)>, Vec<EnvFileError>> {
        parse(Path::new(".env"), text)
    }

    #[test]
    fn values_are_read_as_people_write_them() {
        let text = "# comment\n\nexport A=1\nB = two words # comment\nC='single $X \\n'\nD=\"a\\nb \\\"q\\\"\" # c\nE=\nF=a#b\r\n";
        let pairs = parsed(text).expect("it is fine");
        let expected = [
            ("A", "1"),
            ("B", "two words"),
            ("C", "single $X \\n"),
            ("D", "a\nb \"q\""),
            ("E", ""),
            ("F", "a#b"),
        ];
        let pairs: Vec<(&str, &str)> = pairs.iter().map(|(name, value)| (&**name, &**value)).collect();
        assert_eq!(pairs, expected);
    }

    #[test]
    fn every_bad_line_is_named_by_number_and_never_shown() {
        let errors = parsed("A=1\nhush hush\n1X=hush\nB=\"hush\nC='x' hush\n").expect_err("four are bad");
        let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                ".env:2: no NAME=value",
                ".env:3: \"1X\" is not a variable name",
                ".env:4: a quote is not closed",
                ".env:5: a quote is not closed"
            ]
        );
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "(?s).{0,200}") {
            let _ = parsed(&text);
        }
    }
}
