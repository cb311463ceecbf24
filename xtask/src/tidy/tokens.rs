//! What may not stand in Rust code, looked for in its tokens: comments and strings do not count, macros do.

use proc_macro2::{Delimiter, Group, Span, TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{Attribute, ItemFn, ItemMod};

use crate::tidy::Complaint;
use crate::tidy::source::Tree;

/// The one package whose code may be `unsafe`.
const MAY_BE_UNSAFE: &str = "crates/kernel/";

pub(super) fn check(tree: &Tree) -> Vec<Complaint> {
    tree.rust().flat_map(|(path, file)| check_file(path, file, &tree.files[path].text)).collect()
}

fn check_file(path: &str, file: &syn::File, text: &str) -> Vec<Complaint> {
    let mut found = Vec::new();
    // The text parsed as a file, so it has tokens.
    let tokens: Vec<TokenTree> = text.parse::<TokenStream>().map(Vec::from_iter).unwrap_or_default();
    let mut unfinished = |line, what: &str| found.push(Complaint::at(path, line, what));
    walk(&tokens, &mut |here| {
        let line = here[0].span().start().line;
        if is_ident(&here[0], "unsafe") && !path.starts_with(MAY_BE_UNSAFE) {
            unfinished(line, "unsafe code outside of crates/kernel");
        }
        if ["todo", "unimplemented"].iter().any(|name| is_macro(here, name)) {
            unfinished(line, "unfinished: todo! or unimplemented!");
        }
        if is_ignore(here) {
            unfinished(line, "a test is ignored");
        }
    });
    let in_tests = path.contains("/tests/") || path.ends_with("/tests.rs");
    let mut sleeps = Sleeps {
        path,
        in_tests: in_tests && !pauses_the_clock(&file.items),
        polling: Polling::No,
        found: &mut found,
    };
    sleeps.visit_file(file);
    found
}

/// Calls `look` with every position in the tokens, those in groups too: the rest of the slice from there on.
fn walk(tokens: &[TokenTree], look: &mut dyn FnMut(&[TokenTree])) {
    for (index, token) in tokens.iter().enumerate() {
        look(&tokens[index..]);
        if let TokenTree::Group(group) = token {
            walk(&Vec::from_iter(group.stream()), look);
        }
    }
}

fn is_ident(token: &TokenTree, name: &str) -> bool {
    matches!(token, TokenTree::Ident(ident) if ident == name)
}

fn is_punct(token: Option<&TokenTree>, symbol: char) -> bool {
    matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == symbol)
}

fn group(token: Option<&TokenTree>, delimiter: Delimiter) -> Option<&Group> {
    match token {
        Some(TokenTree::Group(group)) if group.delimiter() == delimiter => Some(group),
        _ => None,
    }
}

fn is_macro(here: &[TokenTree], name: &str) -> bool {
    is_ident(&here[0], name) && is_punct(here.get(1), '!') && matches!(here.get(2), Some(TokenTree::Group(_)))
}

/// `#[ignore]`, `#[ignore = "…"]` and `#[cfg_attr(…, ignore)]`.
fn is_ignore(here: &[TokenTree]) -> bool {
    let Some(attribute) =
        is_punct(here.first(), '#').then(|| group(here.get(1), Delimiter::Bracket)).flatten()
    else {
        return false;
    };
    let inside = Vec::from_iter(attribute.stream());
    match inside.first() {
        Some(first) if is_ident(first, "ignore") => true,
        Some(first) if is_ident(first, "cfg_attr") => group(inside.get(1), Delimiter::Parenthesis)
            .is_some_and(|group| group.stream().into_iter().any(|token| is_ident(&token, "ignore"))),
        _ => false,
    }
}

/// `#[cfg(test)]`, and `test` anywhere in a larger condition that is not a `not`.
pub(super) fn is_cfg_test(attribute: &Attribute) -> bool {
    let syn::Meta::List(list) = &attribute.meta else { return false };
    let (mut test, mut not) = (false, false);
    walk(&Vec::from_iter(list.tokens.clone()), &mut |here| {
        test |= is_ident(&here[0], "test");
        not |= is_ident(&here[0], "not");
    });
    list.path.is_ident("cfg") && test && !not
}

/// Finds `sleep(` in test code. Two kinds are no waste of time and no gamble, and are let through: the pause between
/// two looks in a loop that ends at a deadline, and any sleep under a clock that tokio has paused.
struct Sleeps<'a> {
    path: &'a str,
    in_tests: bool,
    polling: Polling,
    found: &'a mut Vec<Complaint>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Polling {
    No,
    /// In a function that speaks of a deadline.
    Deadline,
    /// And in a loop of it.
    Loop,
}

impl Sleeps<'_> {
    fn note(&mut self, here: Span) {
        let what = "a test sleeps; wait in a loop for a condition, with a deadline";
        self.found.push(Complaint::at(self.path, here.start().line, what));
    }

    fn visit_function(&mut self, block: &syn::Block) {
        let outer = self.polling;
        self.polling = if speaks_of_a_deadline(block) { Polling::Deadline } else { Polling::No };
        visit::visit_block(self, block);
        self.polling = outer;
    }

    fn visit_loop(&mut self, go_on: impl FnOnce(&mut Self)) {
        let outer = self.polling;
        if outer == Polling::Deadline {
            self.polling = Polling::Loop;
        }
        go_on(self);
        self.polling = outer;
    }
}

impl<'ast> Visit<'ast> for Sleeps<'_> {
    fn visit_item_mod(&mut self, module: &'ast ItemMod) {
        let outer = self.in_tests;
        let items = module.content.as_ref().map_or(&[][..], |(_, items)| items);
        self.in_tests |= module.attrs.iter().any(is_cfg_test);
        self.in_tests &= !pauses_the_clock(items);
        visit::visit_item_mod(self, module);
        self.in_tests = outer;
    }

    fn visit_item_fn(&mut self, function: &'ast ItemFn) {
        self.visit_function(&function.block);
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        self.visit_function(&function.block);
    }

    fn visit_expr_while(&mut self, expression: &'ast syn::ExprWhile) {
        self.visit_loop(|this| visit::visit_expr_while(this, expression));
    }

    fn visit_expr_loop(&mut self, expression: &'ast syn::ExprLoop) {
        self.visit_loop(|this| visit::visit_expr_loop(this, expression));
    }

    fn visit_expr_call(&mut self, call: &'ast syn::ExprCall) {
        if let syn::Expr::Path(function) = &*call.func
            && let Some(last) = function.path.segments.last()
            && last.ident == "sleep"
            && self.in_tests
            && self.polling != Polling::Loop
        {
            self.note(last.ident.span());
        }
        visit::visit_expr_call(self, call);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        if !self.in_tests {
            return;
        }
        walk(&Vec::from_iter(call.tokens.clone()), &mut |here| {
            if is_ident(&here[0], "sleep") && group(here.get(1), Delimiter::Parenthesis).is_some() {
                self.note(here[0].span());
            }
        });
    }
}

/// Is there a `#[tokio::test(start_paused = true)]` among the items?
fn pauses_the_clock(items: &[syn::Item]) -> bool {
    let pauses = |attribute: &Attribute| match &attribute.meta {
        syn::Meta::List(list) => {
            list.tokens.clone().into_iter().any(|token| is_ident(&token, "start_paused"))
        }
        syn::Meta::Path(_) | syn::Meta::NameValue(_) => false,
    };
    items.iter().any(|item| matches!(item, syn::Item::Fn(function) if function.attrs.iter().any(pauses)))
}

fn speaks_of_a_deadline(block: &syn::Block) -> bool {
    struct Deadline(bool);
    impl<'ast> Visit<'ast> for Deadline {
        fn visit_ident(&mut self, ident: &'ast syn::Ident) {
            self.0 |= ident.to_string().to_lowercase().contains("deadline");
        }
    }
    let mut deadline = Deadline(false);
    deadline.visit_block(block);
    deadline.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaints(path: &str, text: &str) -> Vec<String> {
        check(&Tree::of(&[(path, text)])).into_iter().map(|complaint| complaint.what).collect()
    }

    #[test]
    fn unsafe_code_is_found_in_blocks_functions_and_macros_but_not_in_the_kernel_package() {
        for text in [
            "fn f() { unsafe { g() } }",
            "unsafe fn f() {}",
            "m!({ unsafe { g() } });",
            "unsafe impl A for B {}",
        ] {
            assert_eq!(complaints("crates/guard/src/a.rs", text).len(), 1, "{text}");
            assert_eq!(complaints("crates/kernel/src/a.rs", text).len(), 0, "{text}");
        }
        assert_eq!(complaints("a.rs", "/// unsafe\nfn f() { g(\"unsafe {}\") } // unsafe").len(), 0);
    }

    #[test]
    fn unfinished_code_is_found() {
        assert_eq!(complaints("a.rs", "fn f() { todo!() }"), ["unfinished: todo! or unimplemented!"]);
        assert_eq!(complaints("a.rs", "fn f() { if x { unimplemented!(\"later\") } }").len(), 1);
        assert_eq!(complaints("a.rs", "fn todo() { let todo = 1; f(todo) }").len(), 0);
    }

    #[test]
    fn an_ignored_test_is_found_in_each_spelling() {
        for text in [
            "#[test] #[ignore] fn f() {}",
            "#[ignore = \"why\"] fn f() {}",
            "#[cfg_attr(x, ignore)] fn f() {}",
        ] {
            assert_eq!(complaints("a.rs", text), ["a test is ignored"], "{text}");
        }
        assert_eq!(complaints("a.rs", "fn f() { ignore(a[ignore]) }").len(), 0);
    }

    #[test]
    fn a_test_that_sleeps_is_found_in_modules_folders_and_macros() {
        let module = "#[cfg(test)] mod tests { #[test] fn f() { std::thread::sleep(LONG); } }";
        assert_eq!(complaints("crates/a/src/lib.rs", module).len(), 1);
        let asynchronous = "#[tokio::test] async fn f() { tokio::time::sleep(LONG).await; }";
        assert_eq!(complaints("crates/a/tests/b.rs", asynchronous).len(), 1);
        assert_eq!(complaints("crates/a/tests/b.rs", "fn f() { join!(sleep(LONG), g()); }").len(), 1);
        assert_eq!(complaints("crates/a/src/tests.rs", "fn f() { sleep(LONG) }").len(), 1);
    }

    #[test]
    fn code_may_sleep_and_so_may_a_loop_with_a_deadline_and_a_test_under_a_paused_clock() {
        assert_eq!(complaints("crates/a/src/lib.rs", "fn f() { sleep(LONG) }").len(), 0);
        let polls = "fn until(done: impl Fn() -> bool) { let deadline = now() + LONG;
            while !done() { if now() > deadline { panic!() } sleep(POLL) } }";
        assert_eq!(complaints("crates/a/tests/b.rs", polls).len(), 0);
        let paused = "#[tokio::test(start_paused = true)] async fn f() {} async fn g() { sleep(LONG).await }";
        assert_eq!(complaints("crates/a/tests/b.rs", paused).len(), 0);
        let not = "#[cfg(not(test))] mod m { fn f() { sleep(LONG) } }";
        assert_eq!(complaints("crates/a/src/lib.rs", not).len(), 0);
        assert_eq!(complaints("crates/a/tests/b.rs", "fn f() { run(\"sleep(1)\") }").len(), 0);
    }

    #[test]
    fn a_deadline_or_a_loop_alone_does_not_excuse_a_sleep() {
        let no_loop = "fn f(deadline: Instant) { sleep(LONG); assert!(now() < deadline) }";
        assert_eq!(complaints("crates/a/tests/b.rs", no_loop).len(), 1);
        assert_eq!(complaints("crates/a/tests/b.rs", "fn f() { while !done() { sleep(POLL) } }").len(), 1);
    }
}
