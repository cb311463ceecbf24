//! Which package may use which; and that the head depends on nothing at all.

use syn::{Attribute, Item};

use crate::tidy::Complaint;
use crate::tidy::source::Tree;
use crate::tidy::tokens::is_cfg_test;
use crate::workspace::{Dependency, Package};

/// Every allowed edge: a package and those of ours that it may use. What is not here fails.
const EDGES: [(&str, &[&str]); 13] = [
    ("plimsoll-core", &[]),
    ("plimsoll-kernel", &[]),
    ("plimsoll-init", &["plimsoll-kernel"]),
    ("plimsoll-guard", &["plimsoll-core", "plimsoll-kernel", "plimsoll-init"]),
    ("plimsoll-front", &["plimsoll-core"]),
    ("plimsoll-docker", &["plimsoll-core", "plimsoll-kernel"]),
    ("plimsoll-vault", &["plimsoll-core"]),
    ("plimsoll-watch", &["plimsoll-core"]),
    ("plimsoll-prove", &["plimsoll-core", "plimsoll-kernel"]),
    ("plimsoll-sim", &["plimsoll-core"]),
    ("plimsoll-fuzz", &["plimsoll", "plimsoll-front", "plimsoll-guard", "plimsoll-kernel", "plimsoll-vault"]),
    (
        "plimsoll",
        &[
            "plimsoll-core",
            "plimsoll-kernel",
            "plimsoll-init",
            "plimsoll-guard",
            "plimsoll-front",
            "plimsoll-docker",
            "plimsoll-vault",
            "plimsoll-watch",
            "plimsoll-prove",
        ],
    ),
    ("xtask", &[]),
];

/// The package that is pure: no clock, no I/O. `no_std` with nothing to depend on proves it.
const HEAD: &str = "plimsoll-core";
const HEAD_ROOT: &str = "crates/core/src/lib.rs";

pub(super) fn check(packages: &[Package], tree: &Tree) -> Vec<Complaint> {
    let mut complaints: Vec<Complaint> =
        packages.iter().flat_map(|package| edges_of(package, packages)).collect();
    complaints.extend(head_is_pure(packages, tree));
    complaints
}

fn edges_of(package: &Package, packages: &[Package]) -> Vec<Complaint> {
    let Some((_, allowed)) = EDGES.iter().find(|(name, _)| *name == package.name) else {
        return vec![Complaint::new(
            "Cargo.toml",
            format!("package {} is not in the table of edges", package.name),
        )];
    };
    let ours =
        |name: &str| name.starts_with("plimsoll") || packages.iter().any(|package| package.name == name);
    // Its own tests may ask a package for a feature of it.
    let is_itself = |dependency: &Dependency| {
        dependency.name == package.name && dependency.kind.as_deref() == Some("dev")
    };
    let forbidden = package.dependencies.iter().filter(|dependency| {
        ours(&dependency.name) && !allowed.contains(&dependency.name.as_str()) && !is_itself(dependency)
    });
    forbidden
        .map(|dependency| {
            let kind = dependency.kind.as_deref().map(|kind| format!(" ({kind})")).unwrap_or_default();
            Complaint::new(
                format!("{}/Cargo.toml", package.folder().display()),
                format!("{} may not use {}{kind}", package.name, dependency.name),
            )
        })
        .collect()
}

fn head_is_pure(packages: &[Package], tree: &Tree) -> Vec<Complaint> {
    let Some(head) = packages.iter().find(|package| package.name == HEAD) else {
        return vec![Complaint::new("Cargo.toml", format!("the workspace has no package {HEAD}"))];
    };
    let shipped = head.dependencies.iter().filter(|dependency| dependency.kind.as_deref() != Some("dev"));
    let mut complaints: Vec<Complaint> = shipped
        .map(|dependency| {
            Complaint::new("crates/core/Cargo.toml", format!("the head may not use {}", dependency.name))
        })
        .collect();
    let root = tree.rust().find(|(path, _)| *path == HEAD_ROOT).map(|(_, file)| file);
    if !root.is_some_and(|file| file.attrs.iter().any(|attribute| attribute.path().is_ident("no_std"))) {
        complaints.push(Complaint::new(HEAD_ROOT, "the head is not `#![no_std]`"));
    }
    let in_head = tree.rust().filter(|(path, _)| path.starts_with("crates/core/src/"));
    complaints.extend(
        in_head
            .filter(|(_, file)| file.items.iter().any(brings_std_in))
            .map(|(path, _)| Complaint::new(path, "the head may use std in its tests only")),
    );
    complaints
}

fn brings_std_in(item: &Item) -> bool {
    let tests_only = |attributes: &[Attribute]| attributes.iter().any(is_cfg_test);
    matches!(item, Item::ExternCrate(item) if item.ident == "std" && !tests_only(&item.attrs))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::Dependency;

    fn package(name: &str, dependencies: &[(&str, Option<&str>)]) -> Package {
        let dependencies = dependencies
            .iter()
            .map(|(name, kind)| Dependency { name: (*name).to_owned(), kind: kind.map(str::to_owned) });
        Package {
            name: name.to_owned(),
            version: "0.1.0".to_owned(),
            license: None,
            source: None,
            manifest_path: "/x/Cargo.toml".into(),
            dependencies: dependencies.collect(),
            targets: Vec::new(),
        }
    }

    fn pure() -> (Package, Tree) {
        let text = "#![no_std]\n#[cfg(test)]\nextern crate std;";
        (package(HEAD, &[("proptest", Some("dev"))]), Tree::of(&[(HEAD_ROOT, text)]))
    }

    fn complaints(packages: &[Package]) -> Vec<String> {
        let (head, tree) = pure();
        let packages: Vec<Package> = packages.iter().cloned().chain([head]).collect();
        check(&packages, &tree).into_iter().map(|complaint| complaint.what).collect()
    }

    #[test]
    fn edges_of_the_table_and_packages_of_others_are_fine() {
        let itself = ("plimsoll-guard", Some("dev"));
        let guard =
            package("plimsoll-guard", &[(HEAD, None), ("tokio", None), ("tempfile", Some("dev")), itself]);
        assert_eq!(complaints(&[guard]), Vec::<String>::new());
    }

    #[test]
    fn an_edge_that_is_not_in_the_table_fails_even_for_tests() {
        let kernel = package("plimsoll-kernel", &[(HEAD, Some("dev"))]);
        assert_eq!(complaints(&[kernel]), ["plimsoll-kernel may not use plimsoll-core (dev)"]);
        let binary = package("plimsoll", &[("plimsoll-sim", None)]);
        assert_eq!(complaints(&[binary]), ["plimsoll may not use plimsoll-sim"]);
    }

    #[test]
    fn a_package_that_is_not_in_the_table_fails() {
        assert_eq!(
            complaints(&[package("plimsoll-misc", &[])]),
            ["package plimsoll-misc is not in the table of edges"]
        );
    }

    #[test]
    fn the_head_may_use_nothing_and_not_even_std() {
        let tree = Tree::of(&[(HEAD_ROOT, "extern crate std;")]);
        let found = check(&[package(HEAD, &[("libm", None)])], &tree);
        let found: Vec<&str> = found.iter().map(|complaint| complaint.what.as_str()).collect();
        let expected = [
            "the head may not use libm",
            "the head is not `#![no_std]`",
            "the head may use std in its tests only",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_workspace_without_the_head_fails() {
        assert_eq!(check(&[package("xtask", &[])], &Tree::default()).len(), 1);
    }
}
