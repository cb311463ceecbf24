//! Words that may not stand in any text of the tree, code or not.

use std::path::{Component, Path};

use crate::tidy::Complaint;
use crate::tidy::source::Tree;

/// A word and what to do instead. In pieces, so that this file does not find itself.
const FORBIDDEN: [(&str, &str); 9] = [
    (concat!("FIX", "ME"), "fix it now or open an issue"),
    (concat!("XX", "X:"), "fix it now or open an issue"),
    (concat!("TO", "DO"), "do it now or open an issue"),
    (concat!("<<<<<", "<< "), "a merge was left half done"),
    (concat!(">>>>>", ">> "), "a merge was left half done"),
    (concat!("kill", "switch"), "the layer is the kill-switch"),
    (concat!("white", "list"), "say what is allowed"),
    (concat!("black", "list"), "say what is refused"),
    (concat!("Lorem ", "ipsum"), "write the real text"),
];

pub(super) fn check(tree: &Tree, root: &Path) -> Vec<Complaint> {
    let checkout = checkout(root);
    let mut complaints = Vec::new();
    for (path, text) in tree.texts() {
        for (index, line) in text.lines().enumerate() {
            let words = FORBIDDEN.iter().filter(|(word, _)| line.contains(word));
            complaints.extend(
                words.map(|(word, instead)| Complaint::at(path, index + 1, format!("`{word}`: {instead}"))),
            );
            if checkout.as_deref().is_some_and(|checkout| holds_path(line, checkout)) {
                let what = "names the folder of this checkout; nobody else has it";
                complaints.push(Complaint::at(path, index + 1, what));
            }
        }
    }
    complaints
}

/// The root of the checkout as text, unless it is so short (`/src`) that it may well mean something else.
fn checkout(root: &Path) -> Option<String> {
    let names = root.components().filter(|component| matches!(component, Component::Normal(_))).count();
    (names >= 2).then(|| root.to_string_lossy().into_owned())
}

/// Does the absolute path stand in the line, not as the end of a longer one?
fn holds_path(line: &str, path: &str) -> bool {
    let inside_of_another =
        |before: &str| before.ends_with(|last: char| last.is_alphanumeric() || "._-".contains(last));
    line.match_indices(path).any(|(index, _)| !inside_of_another(&line[..index]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaints(text: &str) -> usize {
        check(&Tree::of(&[("docs/a.md", text)]), Path::new("/builds/plimsoll")).len()
    }

    #[test]
    fn every_forbidden_word_is_found_with_its_line() {
        for (word, instead) in FORBIDDEN {
            let found = check(&Tree::of(&[("a.rs", &format!("// fine\n// {word} here"))]), Path::new("/"));
            assert_eq!(found, [Complaint::at("a.rs", 2, format!("`{word}`: {instead}"))]);
        }
        assert_eq!(complaints("the kill-switch, and what is allowed"), 0);
    }

    #[test]
    fn the_folder_of_the_checkout_is_found() {
        assert_eq!(complaints("see /builds/plimsoll/docs"), 1);
        assert_eq!(complaints("(/builds/plimsoll)"), 1);
        assert_eq!(complaints("see crates/builds/plimsoll"), 0);
        assert_eq!(checkout(Path::new("/src")), None);
    }
}
