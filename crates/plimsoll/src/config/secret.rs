//! Secrets: named in the file, read when they are needed, never shown.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

/// A key or a token is short; whatever is longer is the wrong file.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// Where a secret is kept.
#[derive(Clone, PartialEq, Eq)]
pub enum SecretRef {
    /// `env:NAME`
    Variable(String),
    /// `file:PATH`, absolute.
    File(PathBuf),
    /// Written in the configuration itself, where that is allowed: an address without a password.
    Plain(String),
}

impl SecretRef {
    /// Reads `env:NAME` and `file:PATH`, the latter relative to `folder`; `None` for anything else.
    pub fn parse(text: &str, folder: &Path) -> Option<Self> {
        if let Some(name) = text.strip_prefix("env:") {
            return (!name.is_empty() && !name.contains(['=', '\0']))
                .then(|| Self::Variable(name.to_owned()));
        }
        let path = text.strip_prefix("file:").filter(|path| !path.is_empty())?;
        Some(Self::File(folder.join(path)))
    }

    /// The secret itself, now.
    pub fn resolve(&self) -> Result<Secret, SecretError> {
        self.resolve_with(|name| std::env::var_os(name))
    }

    pub(super) fn resolve_with(
        &self,
        environment: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Secret, SecretError> {
        match self {
            Self::Variable(name) => variable(name, environment(name)),
            Self::File(path) => file(path),
            Self::Plain(text) => Ok(Secret(text.clone())),
        }
    }
}

impl fmt::Debug for SecretRef {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Variable(name) => write!(out, "env:{name}"),
            Self::File(path) => write!(out, "file:{}", path.display()),
            Self::Plain(_) => out.write_str("***"),
        }
    }
}

fn variable(name: &str, value: Option<OsString>) -> Result<Secret, SecretError> {
    let value = value.ok_or_else(|| SecretError::Unset(name.to_owned()))?;
    let text = value.into_string().map_err(|_| SecretError::NotText(format!("the variable {name}")))?;
    secret(&text, || format!("the variable {name}"))
}

fn file(path: &Path) -> Result<Secret, SecretError> {
    let failed = |source| SecretError::Unreadable { path: path.to_owned(), source };
    let size = std::fs::metadata(path).map_err(failed)?.len();
    if size > FILE_BYTES_MAX {
        return Err(SecretError::TooLong(path.to_owned()));
    }
    let bytes = std::fs::read(path).map_err(failed)?;
    let text = String::from_utf8(bytes).map_err(|_| SecretError::NotText(path.display().to_string()))?;
    secret(&text, || path.display().to_string())
}

/// Without the line end that editors leave behind.
fn secret(text: &str, place: impl Fn() -> String) -> Result<Secret, SecretError> {
    let text = text.trim_end_matches(['\r', '\n']);
    if text.is_empty() { Err(SecretError::Empty(place())) } else { Ok(Secret(text.to_owned())) }
}

/// A secret that was read. `Debug` and `Display` show stars; [`expose`](Self::expose) is the only way to its text.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("***")
    }
}

/// Why a secret cannot be had; names the place, never the content.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    #[error("the environment variable {0} is not set")]
    Unset(String),
    #[error("cannot read the secret in {}: {source}", path.display())]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error("the secret in {} is longer than 64 KiB", .0.display())]
    TooLong(PathBuf),
    #[error("the secret in {0} is not text")]
    NotText(String),
    #[error("the secret in {0} is empty")]
    Empty(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(text: &str, value: Option<&str>) -> Result<Secret, SecretError> {
        let reference = SecretRef::parse(text, Path::new("/etc/plimsoll")).expect(text);
        reference.resolve_with(|_| value.map(OsString::from))
    }

    #[test]
    fn a_secret_is_read_and_never_shown() {
        let secret = resolve("env:TOKEN", Some("hush\n")).expect("it is set");
        assert_eq!(secret.expose(), "hush");
        assert_eq!(format!("{secret} {secret:?}"), "*** ***");
    }

    #[test]
    fn a_missing_variable_is_named() {
        let error = resolve("env:TOKEN", None).expect_err("it is not set");
        assert_eq!(error.to_string(), "the environment variable TOKEN is not set");
        assert_eq!(
            resolve("env:TOKEN", Some("\n")).expect_err("empty").to_string(),
            "the secret in the variable TOKEN is empty"
        );
    }

    #[test]
    fn a_file_is_relative_to_the_configuration() {
        let reference = SecretRef::parse("file:token", Path::new("/etc/plimsoll"));
        assert_eq!(reference, Some(SecretRef::File("/etc/plimsoll/token".into())));
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("token"), "hush\r\n").expect("written");
        let reference = SecretRef::parse("file:token", folder.path()).expect("a reference");
        assert_eq!(reference.resolve().expect("readable").expose(), "hush");
        std::fs::remove_file(folder.path().join("token")).expect("removed");
        assert!(matches!(reference.resolve(), Err(SecretError::Unreadable { .. })));
    }

    #[test]
    fn anything_else_is_no_reference() {
        for text in ["hush", "env:", "file:", "https://example.org", "env:A=B"] {
            assert_eq!(SecretRef::parse(text, Path::new("/")), None, "{text}");
        }
    }
}
