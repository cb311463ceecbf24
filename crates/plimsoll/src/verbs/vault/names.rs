//! The database's own name in a service's arguments and variables, and the copy's name in its place.

use std::path::Path;

/// How the database may be written: whole, or below the folder of the configuration or of the service.
#[derive(Debug)]
pub(super) struct Names(Vec<String>);

impl Names {
    pub(super) fn new(folder: &Path, cwd: &Path, database: &Path) -> Self {
        let under = |base: &Path| database.strip_prefix(base).ok().map(|it| it.display().to_string());
        let absolute = Some(database.display().to_string());
        // The longest first, so that no part of it is replaced alone.
        let mut names: Vec<String> = [absolute, under(folder), under(cwd)].into_iter().flatten().collect();
        names.sort_by_key(|it| std::cmp::Reverse(it.len()));
        names.dedup();
        Self(names)
    }

    /// `text` with `copy` wherever it names the database; `None` where it does not.
    pub(super) fn replace(&self, text: &str, copy: &Path) -> Option<String> {
        let mut replaced = String::new();
        let mut rest = text;
        while let Some((at, length)) = self.first(text, text.len() - rest.len()) {
            let before = text.len() - rest.len();
            replaced.push_str(&text[before..at]);
            replaced.push_str(&copy.display().to_string());
            rest = &text[at + length..];
        }
        let is_named = rest.len() < text.len();
        replaced.push_str(rest);
        is_named.then_some(replaced)
    }

    /// Where the first of the names stands at or behind `from`, and how long it is there: `./` before it belongs to it.
    fn first(&self, text: &str, from: usize) -> Option<(usize, usize)> {
        let found = self.0.iter().flat_map(|name| {
            let places = text[from..].match_indices(name.as_str());
            places.filter_map(move |(at, _)| whole(text, from + at, name.len()))
        });
        found.min_by_key(|(at, length)| (*at, std::cmp::Reverse(*length)))
    }
}

/// The name at `at` stands for itself, and is no part of another file's: `old-a.db`, `a.db-wal`, `/else/a.db`.
fn whole(text: &str, at: usize, length: usize) -> Option<(usize, usize)> {
    let start = if text[..at].ends_with("./") { at - 2 } else { at };
    let goes_on = |letter: char| letter.is_alphanumeric() || matches!(letter, '_' | '-' | '.' | '/');
    let before = text[..start].chars().next_back();
    let after = text[at + length..].chars().next();
    // `file:///srv/a.db`: what stands before a whole path is the address's own.
    let is_whole_path = text[at..].starts_with('/') && !before.is_some_and(char::is_alphanumeric);
    let begins = is_whole_path || !before.is_some_and(goes_on);
    (begins && !after.is_some_and(goes_on)).then_some((start, at + length - start))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on_copy(text: &str) -> Option<String> {
        let names =
            Names::new(Path::new("/srv/app"), Path::new("/srv/app/api"), Path::new("/srv/app/api/data/a.db"));
        names.replace(text, Path::new("/tmp/c.db"))
    }

    #[test]
    fn the_database_is_found_however_it_is_written() {
        for (text, changed) in [
            ("--db=/srv/app/api/data/a.db", "--db=/tmp/c.db"),
            ("sqlite:api/data/a.db?mode=rw", "sqlite:/tmp/c.db?mode=rw"),
            ("sqlite:///srv/app/api/data/a.db", "sqlite:///tmp/c.db"),
            ("data/a.db", "/tmp/c.db"),
            ("./data/a.db", "/tmp/c.db"),
            ("data/a.db,data/a.db", "/tmp/c.db,/tmp/c.db"),
        ] {
            assert_eq!(on_copy(text).as_deref(), Some(changed), "{text}");
        }
    }

    #[test]
    fn another_file_is_left_alone() {
        for text in ["server.js", "data/a.db-wal", "old-data/a.db", "/else/data/a.db", "data/a.db.old", ""] {
            assert_eq!(on_copy(text), None, "{text}");
        }
    }
}
