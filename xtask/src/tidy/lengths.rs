//! How long files and functions may be.

use syn::visit::{self, Visit};

use crate::tidy::Complaint;
use crate::tidy::source::{Tree, has_extension};

const FILE_LINES_AIM: usize = 300;
const FILE_LINES_MAX: usize = 600;
const FUNCTION_LINES_MAX: usize = 70;

/// Code is what people read in full; the rest of the files have no length rule.
const CODE: [&str; 7] = ["rs", "js", "py", "java", "sh", "css", "html"];

pub(super) fn check(tree: &Tree) -> Vec<Complaint> {
    let files = files_longer_than(tree, FILE_LINES_MAX).map(|(path, lines)| {
        Complaint::new(path, format!("{lines} lines, and {FILE_LINES_MAX} are the most"))
    });
    let functions =
        functions(tree).into_iter().filter(|function| function.lines > FUNCTION_LINES_MAX).map(|function| {
            let what = format!(
                "fn {} has {} lines, and {FUNCTION_LINES_MAX} are the most",
                function.name, function.lines
            );
            Complaint::at(&function.path, function.line, what)
        });
    files.chain(functions).collect()
}

pub(super) fn warnings(tree: &Tree) -> Vec<Complaint> {
    let long = files_longer_than(tree, FILE_LINES_AIM).filter(|(_, lines)| *lines <= FILE_LINES_MAX);
    long.map(|(path, lines)| Complaint::new(path, format!("{lines} lines; aim at {FILE_LINES_AIM}")))
        .collect()
}

/// One line for the end of the run.
pub(super) fn summary(tree: &Tree) -> String {
    let mut lines: Vec<usize> = functions(tree).iter().map(|function| function.lines).collect();
    lines.sort_unstable();
    let median = lines.get(lines.len() / 2).copied().unwrap_or_default();
    format!("{} functions, the median has {median} lines", lines.len())
}

fn files_longer_than(tree: &Tree, limit: usize) -> impl Iterator<Item = (&str, usize)> {
    let code = tree.texts().filter(|(path, _)| has_extension(path, &CODE));
    code.map(|(path, text)| (path, text.lines().count())).filter(move |(_, lines)| *lines > limit)
}

struct Function {
    path: String,
    name: String,
    line: usize,
    lines: usize,
}

fn functions(tree: &Tree) -> Vec<Function> {
    let mut found = Vec::new();
    for (path, file) in tree.rust() {
        let mut functions = Functions { path, found: &mut found };
        functions.visit_file(file);
    }
    found
}

struct Functions<'a> {
    path: &'a str,
    found: &'a mut Vec<Function>,
}

impl Functions<'_> {
    /// From the line of its `fn` to its closing brace; doc comments and attributes are not counted.
    fn note(&mut self, signature: &syn::Signature, block: &syn::Block) {
        let first = signature.fn_token.span.start().line;
        let last = block.brace_token.span.close().end().line;
        let name = signature.ident.to_string();
        self.found.push(Function { path: self.path.to_owned(), name, line: first, lines: last + 1 - first });
    }
}

impl<'ast> Visit<'ast> for Functions<'_> {
    fn visit_item_fn(&mut self, function: &'ast syn::ItemFn) {
        self.note(&function.sig, &function.block);
        visit::visit_item_fn(self, function);
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        self.note(&function.sig, &function.block);
        visit::visit_impl_item_fn(self, function);
    }

    fn visit_trait_item_fn(&mut self, function: &'ast syn::TraitItemFn) {
        if let Some(block) = &function.default {
            self.note(&function.sig, block);
        }
        visit::visit_trait_item_fn(self, function);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function_of(lines: usize) -> String {
        format!("/// Documented.\n#[inline]\nfn long() {{\n{}}}\n", "    call();\n".repeat(lines - 2))
    }

    #[test]
    fn a_function_of_71_lines_fails_and_one_of_70_does_not() {
        assert_eq!(check(&Tree::of(&[("a.rs", &function_of(70))])), []);
        let complaints = check(&Tree::of(&[("a.rs", &function_of(71))]));
        assert_eq!(complaints, [Complaint::at("a.rs", 3, "fn long has 71 lines, and 70 are the most")]);
    }

    #[test]
    fn methods_and_functions_in_modules_and_traits_are_counted_too() {
        let long = function_of(71);
        let text = format!("impl A {{ {long} }}\nmod m {{ {long} }}\ntrait T {{ {long} fn short(); }}");
        assert_eq!(check(&Tree::of(&[("a.rs", &text)])).len(), 3);
    }

    #[test]
    fn a_file_of_601_lines_fails_and_one_of_301_is_warned_about() {
        let complaints = check(&Tree::of(&[("a.js", &"\n".repeat(601)), ("b.md", &"\n".repeat(601))]));
        assert_eq!(complaints, [Complaint::new("a.js", "601 lines, and 600 are the most")]);
        let tree = Tree::of(&[("a.rs", &"\n".repeat(301)), ("b.rs", &"\n".repeat(300))]);
        assert_eq!(check(&tree), []);
        assert_eq!(warnings(&tree), [Complaint::new("a.rs", "301 lines; aim at 300")]);
    }

    #[test]
    fn the_summary_names_the_median() {
        let tree = Tree::of(&[("a.rs", "fn a() {}\nfn b() {\n}\nfn c() {\n\n\n}")]);
        assert_eq!(summary(&tree), "3 functions, the median has 2 lines");
    }
}
