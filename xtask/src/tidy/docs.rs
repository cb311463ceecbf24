//! The documents: links that lead somewhere, decisions with all their sections, a changelog that is kept. And in the
//! documentation of code, no examples that nothing runs.

use crate::tidy::Complaint;
use crate::tidy::source::{Tree, has_extension};

const CHANGELOG: &str = "CHANGELOG.md";
const DECISIONS: &str = "docs/adr/";
const SECTIONS: [&str; 4] = ["context", "decision", "consequences", "alternatives"];

/// What every checkout has.
const DOCUMENTS: [&str; 6] =
    ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SPECIFICATION.md", "LICENSE-MIT", "LICENSE-APACHE"];

pub(super) fn check(tree: &Tree) -> Vec<Complaint> {
    let missing = DOCUMENTS.iter().filter(|path| !tree.paths.contains(**path));
    let mut complaints: Vec<Complaint> = missing.map(|path| Complaint::new(*path, "is missing")).collect();
    complaints.extend(check_changelog(tree));
    let sources = tree.texts().filter(|(path, _)| has_extension(path, &["rs"]));
    complaints.extend(sources.flat_map(|(path, text)| check_examples(path, text)));
    for (path, text) in tree.markdown() {
        complaints.extend(check_links(path, text, tree));
        if path.starts_with(DECISIONS) && !path.ends_with("README.md") {
            complaints.extend(check_decision(path, text));
        }
    }
    complaints
}

fn check_changelog(tree: &Tree) -> Option<Complaint> {
    let text = tree.text(CHANGELOG).unwrap_or_default();
    let unreleased =
        prose(text).any(|(_, line)| heading(line).is_some_and(|title| title.contains("unreleased")));
    (!unreleased).then(|| Complaint::new(CHANGELOG, "has no section `Unreleased`"))
}

/// rustdoc would build a program of each example, for a test as any other. No package has one, and to have rustdoc look
/// for them takes minutes.
fn check_examples(path: &str, text: &str) -> Vec<Complaint> {
    let mut complaints = Vec::new();
    let mut inside = false;
    for (index, line) in text.lines().enumerate() {
        let line = line.trim_start();
        let Some(said) = ["///", "//!"].into_iter().find_map(|begin| line.strip_prefix(begin)) else {
            inside = false;
            continue;
        };
        let Some(kind) = said.trim_start().strip_prefix("```") else { continue };
        inside = !inside;
        if inside && kind.trim() != "text" {
            let what = "an example that nothing runs: say `text` after its first fence, or write a test";
            complaints.push(Complaint::at(path, index + 1, what));
        }
    }
    complaints
}

fn check_decision(path: &str, text: &str) -> Vec<Complaint> {
    let wanting = SECTIONS.iter().filter(|section| !has_section(text, section));
    wanting
        .map(|section| Complaint::new(path, format!("has no section `{section}` with text in it")))
        .collect()
}

/// A heading that begins with the word, and a line of text below it before the next heading.
fn has_section(text: &str, section: &str) -> bool {
    let mut lines = prose(text)
        .map(|(_, line)| line)
        .skip_while(|line| !heading(line).is_some_and(|title| title.starts_with(section)));
    lines.next().is_some()
        && lines.take_while(|line| heading(line).is_none()).any(|line| !line.trim().is_empty())
}

/// The title of a heading, in lower case, without brackets around it.
fn heading(line: &str) -> Option<String> {
    let title = line.strip_prefix('#')?.trim_start_matches('#');
    title.starts_with(' ').then(|| title.trim().trim_matches(['[', ']']).to_lowercase())
}

fn check_links(path: &str, text: &str, tree: &Tree) -> Vec<Complaint> {
    let mut complaints = Vec::new();
    for (line, prose) in prose(text) {
        for target in link_targets(prose) {
            if !leads_somewhere(path, &target, tree) {
                complaints.push(Complaint::at(path, line, format!("the link to `{target}` leads nowhere")));
            }
        }
    }
    complaints
}

/// The lines outside of code blocks, with their numbers.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut in_code = false;
    text.lines().enumerate().filter_map(move |(index, line)| {
        let fence = line.trim_start().starts_with("```");
        in_code ^= fence;
        (!in_code && !fence).then_some((index + 1, line))
    })
}

/// The targets of `[text](target)` and of `[name]: target`; what stands in backticks is no link.
fn link_targets(line: &str) -> Vec<String> {
    let text: String = line.split('`').step_by(2).collect();
    let inline = text.split("](").skip(1).filter_map(|rest| rest.split([')', ' ']).next());
    let reference = text.strip_prefix('[').and_then(|rest| rest.split_once("]: ")).map(|(_, target)| target);
    inline.chain(reference).map(|target| target.trim().trim_matches(['<', '>']).to_owned()).collect()
}

fn leads_somewhere(from: &str, target: &str, tree: &Tree) -> bool {
    let file = target.split(['#', '?']).next().unwrap_or_default();
    if file.is_empty() || target.contains("://") || target.starts_with("mailto:") {
        return true;
    }
    resolve(from, file).is_some_and(|path| path.is_empty() || tree.paths.contains(&path))
}

/// A relative path against the document's folder; `None` when it leaves the tree.
fn resolve(from: &str, target: &str) -> Option<String> {
    let mut parts: Vec<&str> = match target.strip_prefix('/') {
        Some(_) => Vec::new(),
        None => from.split('/').collect(),
    };
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            name => parts.push(name),
        }
    }
    Some(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn links(text: &str) -> usize {
        let tree = Tree::of(&[("docs/a.md", text), ("docs/b.md", ""), ("README.md", "")]);
        check_links("docs/a.md", text, &tree).len()
    }

    #[test]
    fn links_to_files_that_exist_and_to_elsewhere_are_fine() {
        assert_eq!(
            links("[b](b.md), [b](./b.md#part), [top](../README.md), [web](https://example.org), [p](#part)"),
            0
        );
        assert_eq!(links("`[b](gone.md)`\n```\n[b](gone.md)\n```\n[root](/README.md) [all](..)"), 0);
    }

    #[test]
    fn links_to_nothing_fail() {
        assert_eq!(links("[b](c.md) and [d](../d.md \"title\")"), 2);
        assert_eq!(links("[b]: c.md"), 1);
        assert_eq!(links("[out](../../elsewhere.md)"), 1);
    }

    #[test]
    fn a_decision_needs_every_section_with_text() {
        let whole =
            "# 1. A\n\n## Context\na\n## Decision\nb\n## Consequences, both ways\nc\n## Alternatives\nd\n";
        assert_eq!(check_decision("docs/adr/0001-a.md", whole), []);
        let empty = whole.replace("c\n", "\n").replace("## Alternatives", "## Others");
        assert_eq!(check_decision("docs/adr/0001-a.md", &empty).len(), 2);
    }

    #[test]
    fn a_changelog_without_unreleased_fails() {
        assert_eq!(check_changelog(&Tree::of(&[(CHANGELOG, "# Changelog\n\n## [Unreleased]\n")])), None);
        assert!(
            check_changelog(&Tree::of(&[(CHANGELOG, "# Changelog\n\n## 0.1.0\n\nUnreleased\n")])).is_some()
        );
        assert!(check_changelog(&Tree::default()).is_some());
    }

    #[test]
    fn an_example_in_the_documentation_of_code_fails_and_a_drawing_does_not() {
        let examples = |text: &str| check_examples("a.rs", text).len();
        assert_eq!(
            examples("//! ```text\n//! a -> b\n//! ```\n\n    /// ``` text\n    /// a\n    /// ```\n"),
            0
        );
        assert_eq!(examples("let drawing = \"\n```\na\n```\n\";"), 0);
        assert_eq!(examples("/// ```\n/// a();\n/// ```\nfn a() {}\n//! ```no_run\n//! ```\n"), 2);
    }

    #[test]
    fn a_missing_document_fails() {
        assert_eq!(check(&Tree::default()).len(), DOCUMENTS.len() + 1);
    }
}
