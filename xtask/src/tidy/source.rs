//! The files of the tree, read once for all checks.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use crate::error::{Error, Result};
use crate::tidy::Complaint;

/// Folders that are never ours to check.
const SKIPPED: [&str; 4] = [".git", "target", "node_modules", "__pycache__"];

/// Larger files are data, and no check reads data.
const FILE_BYTES_MAX: u64 = 1 << 20;

#[derive(Default)]
pub(super) struct Tree {
    /// By path relative to the root, with `/`.
    pub(super) files: BTreeMap<String, File>,
    /// Every path there is, folders and unread files too: what a link may point to.
    pub(super) paths: BTreeSet<String>,
}

pub(super) struct File {
    pub(super) text: String,
    pub(super) rust: Rust,
}

/// A file as Rust, if it is.
pub(super) enum Rust {
    Parsed(syn::File),
    Broken(String),
    Other,
}

impl Tree {
    pub(super) fn read(root: &Path, target: &Path) -> Result<Self> {
        let mut tree = Self::default();
        tree.read_folder(root, root, target)?;
        Ok(tree)
    }

    fn read_folder(&mut self, root: &Path, folder: &Path, target: &Path) -> Result<()> {
        let entries = fs::read_dir(folder).map_err(Error::file("list", folder))?;
        for entry in entries {
            let entry = entry.map_err(Error::file("list", folder))?;
            let (path, name) = (entry.path(), entry.file_name());
            if path == target || SKIPPED.iter().any(|skipped| name == *skipped) {
                continue;
            }
            let relative = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned();
            let metadata = entry.metadata().map_err(Error::file("look at", &path))?;
            self.paths.insert(relative.clone());
            if metadata.is_dir() {
                self.read_folder(root, &path, target)?;
            } else if metadata.is_file() && metadata.len() <= FILE_BYTES_MAX {
                let bytes = fs::read(&path).map_err(Error::file("read", &path))?;
                // Not text: nothing to read in it.
                if let Ok(text) = String::from_utf8(bytes) {
                    self.insert(&relative, text);
                }
            }
        }
        Ok(())
    }

    fn insert(&mut self, path: &str, text: String) {
        let rust = match has_extension(path, &["rs"]).then(|| syn::parse_file(&text)) {
            None => Rust::Other,
            Some(Ok(parsed)) => Rust::Parsed(parsed),
            Some(Err(error)) => Rust::Broken(error.to_string()),
        };
        self.paths.insert(path.to_owned());
        self.files.insert(path.to_owned(), File { text, rust });
    }

    pub(super) fn rust(&self) -> impl Iterator<Item = (&str, &syn::File)> {
        self.files.iter().filter_map(|(path, file)| match &file.rust {
            Rust::Parsed(parsed) => Some((path.as_str(), parsed)),
            Rust::Broken(_) | Rust::Other => None,
        })
    }

    pub(super) fn texts(&self) -> impl Iterator<Item = (&str, &str)> {
        self.files.iter().map(|(path, file)| (path.as_str(), file.text.as_str()))
    }

    pub(super) fn markdown(&self) -> impl Iterator<Item = (&str, &str)> {
        self.texts().filter(|(path, _)| has_extension(path, &["md"]))
    }

    pub(super) fn text(&self, path: &str) -> Option<&str> {
        self.files.get(path).map(|file| file.text.as_str())
    }

    /// A Rust file that does not parse was not checked, so it is a complaint itself.
    pub(super) fn broken(&self) -> Vec<Complaint> {
        let broken = self.files.iter().filter_map(|(path, file)| match &file.rust {
            Rust::Broken(why) => Some(Complaint::new(path, format!("does not parse: {why}"))),
            Rust::Parsed(_) | Rust::Other => None,
        });
        broken.collect()
    }
}

pub(super) fn has_extension(path: &str, extensions: &[&str]) -> bool {
    let extension = Path::new(path).extension().and_then(|extension| extension.to_str());
    extension.is_some_and(|extension| extensions.contains(&extension))
}

#[cfg(test)]
impl Tree {
    /// A tree for tests: pairs of path and text.
    pub(super) fn of(files: &[(&str, &str)]) -> Self {
        let mut tree = Self::default();
        for (path, text) in files {
            tree.insert(path, (*text).to_owned());
        }
        tree
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_leaves_out_what_was_built_and_what_is_not_text() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, bytes: &[u8]| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        };
        write("crates/a/src/lib.rs", b"fn a() {}");
        write("target/debug/b.rs", b"fn b() {}");
        write("elsewhere/c.rs", b"fn c() {}");
        write("docs/picture.png", &[0xff, 0xfe]);
        let tree = Tree::read(root.path(), &root.path().join("elsewhere")).unwrap();
        assert_eq!(tree.files.keys().collect::<Vec<_>>(), ["crates/a/src/lib.rs"]);
        assert!(tree.paths.contains("docs/picture.png") && tree.paths.contains("crates/a"));
    }

    #[test]
    fn a_file_that_does_not_parse_is_a_complaint() {
        assert_eq!(Tree::of(&[("a.rs", "fn (")]).broken().len(), 1);
        assert_eq!(Tree::of(&[("a.rs", "fn a() {}"), ("b.md", "fn (")]).broken().len(), 0);
    }
}
