//! Every promised number in `SPECIFICATION.md` names a test or bench, and that exists.
//!
//! A row of a table whose last column is headed `shown by` holds names in backticks there:
//! `test:kernel::cgroup_v1::the_wall_holds` (package, file, function) or `bench:guard::spike` (bench, part).

use std::collections::BTreeSet;

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};

use crate::tidy::Complaint;
use crate::tidy::source::Tree;

const SPECIFICATION: &str = "SPECIFICATION.md";
const COLUMN: &str = "shown by";

pub(super) fn check(tree: &Tree) -> Vec<Complaint> {
    let Some(text) = tree.text(SPECIFICATION) else {
        return vec![Complaint::new(SPECIFICATION, "is missing: the promised numbers have no home")];
    };
    let rows = rows(text);
    if rows.is_empty() {
        return vec![Complaint::new(SPECIFICATION, format!("has no table with a last column `{COLUMN}`"))];
    }
    rows.iter().flat_map(|row| check_row(row, tree)).collect()
}

struct Row<'a> {
    line: usize,
    shown_by: &'a str,
}

/// The rows of all tables whose last column is headed [`COLUMN`].
fn rows(text: &str) -> Vec<Row<'_>> {
    let mut rows = Vec::new();
    let mut in_table = None;
    for (index, line) in text.lines().enumerate() {
        let Some(last) = last_cell(line) else {
            in_table = None;
            continue;
        };
        match in_table {
            None => in_table = Some(last.eq_ignore_ascii_case(COLUMN)),
            Some(true) if !is_rule(last) => rows.push(Row { line: index + 1, shown_by: last }),
            Some(_) => {}
        }
    }
    rows
}

fn last_cell(line: &str) -> Option<&str> {
    let cells = line.trim().strip_prefix('|')?.strip_suffix('|')?;
    cells.rsplit('|').next().map(str::trim)
}

fn is_rule(cell: &str) -> bool {
    !cell.is_empty() && cell.chars().all(|symbol| symbol == '-' || symbol == ':')
}

fn check_row(row: &Row<'_>, tree: &Tree) -> Vec<Complaint> {
    let names: Vec<&str> = row.shown_by.split('`').skip(1).step_by(2).collect();
    if names.is_empty() {
        return vec![Complaint::at(SPECIFICATION, row.line, "a number that no test or bench shows")];
    }
    let missing = names.iter().filter_map(|name| missing(name, tree));
    missing.map(|what| Complaint::at(SPECIFICATION, row.line, what)).collect()
}

/// What is wrong with a name, if anything.
fn missing(name: &str, tree: &Tree) -> Option<String> {
    let (kind, path) = name.split_once(':').unwrap_or(("", name));
    let segments: Vec<&str> = path.split("::").collect();
    let exists = match (kind, segments.as_slice()) {
        ("test", [package, file @ .., function]) if !file.is_empty() => {
            test_exists(tree, package, file, function)
        }
        ("bench", [bench, part]) => bench_exists(tree, bench, part),
        _ => return Some(format!("`{name}` is neither test:PACKAGE::FILE::FUNCTION nor bench:NAME::PART")),
    };
    (!exists).then(|| format!("`{name}` does not exist"))
}

fn test_exists(tree: &Tree, package: &str, file: &[&str], function: &str) -> bool {
    let folder = match package.trim_start_matches("plimsoll-") {
        "xtask" => "xtask/".to_owned(),
        short => format!("crates/{short}/"),
    };
    // The module `tests` inside of a file is no file of its own, mostly.
    let file = file.strip_suffix(&["tests"]).filter(|file| !file.is_empty()).unwrap_or(file);
    let end = format!("/{}", file.join("/"));
    let fits = |path: &str| {
        let module = path.trim_end_matches(".rs").trim_end_matches("/mod").trim_end_matches("/tests");
        path.starts_with(&folder) && (module.ends_with(&end) || path.trim_end_matches(".rs").ends_with(&end))
    };
    tree.rust().filter(|(path, _)| fits(path)).any(|(_, file)| tests_in(file).contains(function))
}

/// A bench's part is a file of its own in the bench's folder, or a function in it.
fn bench_exists(tree: &Tree, bench: &str, part: &str) -> bool {
    let folder = format!("xtask/src/bench/{bench}/");
    let mut files = tree.rust().filter(|(path, _)| path.starts_with(&folder));
    files.any(|(path, file)| {
        path[folder.len()..] == format!("{part}.rs")
            || file
                .items
                .iter()
                .any(|item| matches!(item, syn::Item::Fn(function) if function.sig.ident == part))
    })
}

/// The names of all test functions of a file, also of those inside macros such as `proptest!`.
fn tests_in(file: &syn::File) -> BTreeSet<String> {
    let mut tests = Tests::default();
    tests.visit_file(file);
    tests.0
}

#[derive(Default)]
struct Tests(BTreeSet<String>);

impl<'ast> Visit<'ast> for Tests {
    fn visit_item_fn(&mut self, function: &'ast syn::ItemFn) {
        let is_test = |attribute: &syn::Attribute| {
            attribute.path().segments.last().is_some_and(|segment| segment.ident == "test")
        };
        if function.attrs.iter().any(is_test) {
            self.0.insert(function.sig.ident.to_string());
        }
        visit::visit_item_fn(self, function);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        functions_in(call.tokens.clone(), &mut self.0);
    }
}

/// `#[test] fn NAME`, with other attributes between them perhaps, anywhere in the tokens.
fn functions_in(tokens: TokenStream, found: &mut BTreeSet<String>) {
    let mut after_test = false;
    let mut after_fn = false;
    for token in tokens {
        match token {
            TokenTree::Ident(ident) if after_fn => {
                if after_test {
                    found.insert(ident.to_string());
                }
                (after_test, after_fn) = (false, false);
            }
            TokenTree::Ident(ident) => after_fn = ident == "fn",
            TokenTree::Group(group) => {
                after_test |= group.stream().to_string() == "test";
                functions_in(group.stream(), found);
            }
            TokenTree::Punct(_) | TokenTree::Literal(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILES: [(&str, &str); 5] = [
        ("crates/kernel/tests/cgroup_v1.rs", "#[test] fn the_wall_holds() {} fn helper() {}"),
        ("crates/core/src/layers/health.rs", "mod tests { #[test] fn busy_is_not_hung() {} }"),
        ("crates/core/src/hold/tests.rs", "proptest! { #[test] fn never_above_capacity(a in 0..9) {} }"),
        ("crates/guard/tests/run/main.rs", "#[tokio::test] async fn it_runs() {}"),
        ("xtask/src/bench/guard/spike.rs", "pub(crate) fn overshoot() {}"),
    ];

    fn complaints(shown_by: &str) -> Vec<String> {
        let table = format!("# S\n\n| what | figure | shown by |\n|---|---|---|\n| a | 1 | {shown_by} |\n");
        let mut files = FILES.to_vec();
        files.push((SPECIFICATION, &table));
        check(&Tree::of(&files)).into_iter().map(|complaint| complaint.what).collect()
    }

    #[test]
    fn tests_and_benches_that_exist_are_found() {
        for name in [
            "test:kernel::cgroup_v1::the_wall_holds",
            "test:plimsoll-kernel::cgroup_v1::the_wall_holds",
            "test:core::layers::health::busy_is_not_hung",
            "test:core::health::tests::busy_is_not_hung",
            "test:core::hold::never_above_capacity",
            "test:guard::run::main::it_runs",
            "bench:guard::spike",
            "bench:guard::overshoot",
        ] {
            assert_eq!(complaints(&format!("`{name}`")), Vec::<String>::new(), "{name}");
        }
    }

    #[test]
    fn names_of_nothing_fail() {
        for name in [
            "test:kernel::cgroup_v1::the_wall_falls",
            "test:kernel::cgroup_v1::helper",
            "test:guard::cgroup_v1::the_wall_holds",
            "test:kernel::v1::the_wall_holds",
            "bench:guard::nothing",
            "bench:front::spike",
        ] {
            assert_eq!(complaints(&format!("`{name}`")), [format!("`{name}` does not exist")]);
        }
        assert_eq!(complaints("`bench:guard::spike`, `bench:guard::gone`").len(), 1);
    }

    #[test]
    fn a_number_without_a_name_or_with_an_odd_one_fails() {
        assert_eq!(complaints("soon"), ["a number that no test or bench shows"]);
        assert_eq!(complaints("").len(), 1);
        assert_eq!(complaints("`the_wall_holds`").len(), 1);
        assert_eq!(complaints("`test:kernel::the_wall_holds`").len(), 1);
    }

    #[test]
    fn a_specification_that_is_missing_or_has_no_table_fails() {
        assert_eq!(check(&Tree::default()).len(), 1);
        assert_eq!(check(&Tree::of(&[(SPECIFICATION, "| what | figure |\n|---|---|\n| a | 1 |")])).len(), 1);
    }

    #[test]
    fn other_tables_and_rules_are_no_rows() {
        let text = "| a | shown by |\n|:-:|---:|\n| 1 | x |\n\n| a | b |\n|---|---|\n| 2 | y |\n";
        assert_eq!(rows(text).iter().map(|row| row.line).collect::<Vec<_>>(), [3]);
    }
}
