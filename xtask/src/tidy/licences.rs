//! What `cargo deny` would say where it is not installed: licences, sources and doubled packages.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::{Error, Result};
use crate::workspace::{Package, Workspace};

/// Licences that one may ship under MIT or Apache-2.0. `deny.toml` holds the same list.
const ALLOWED: [&str; 10] = [
    "MIT",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "ISC",
    // The libFuzzer runtime's, which no shipped binary has.
    "NCSA",
    "Unicode-3.0",
    "Zlib",
];

/// Of these, two major versions in one binary cost real size or real trouble.
const HEAVY: [&str; 12] = [
    "clap",
    "hyper",
    "jiff",
    "libc",
    "libsqlite3-sys",
    "ratatui",
    "rusqlite",
    "rustix",
    "rustls",
    "serde",
    "tokio",
    "toml",
];
/// Second versions that are part of no binary: `age` reads the names of its translations with this while it is built.
const BORNE: [(&str, &str); 1] = [("toml", "0.5")];

const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let packages = workspace.graph()?;
    let complaints = check(&packages);
    for complaint in &complaints {
        println!("{complaint}");
    }
    println!("{} packages looked at", packages.len());
    if complaints.is_empty() {
        return Ok(());
    }
    Err(Error::Check(format!("{} complaints about dependencies", complaints.len())))
}

fn check(packages: &[Package]) -> Vec<String> {
    let mut complaints: Vec<String> = packages.iter().filter_map(wrong_with).collect();
    complaints.extend(doubled(packages));
    complaints
}

fn wrong_with(package: &Package) -> Option<String> {
    let Package { name, version, license, source, .. } = package;
    if source.as_deref().is_some_and(|source| source != REGISTRY) {
        return Some(format!("{name} {version} comes from {}", source.as_deref().unwrap_or_default()));
    }
    let Some(license) = license else { return Some(format!("{name} {version} names no licence")) };
    (!allowed(license)).then(|| format!("{name} {version} is under {license}, which is not allowed"))
}

fn doubled(packages: &[Package]) -> Vec<String> {
    let mut versions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let is_borne = |package: &Package| BORNE.contains(&(package.name.as_str(), compatible(&package.version)));
    let heavy = packages.iter().filter(|package| HEAVY.contains(&package.name.as_str()));
    for package in heavy.filter(|package| !is_borne(package)) {
        versions.entry(&package.name).or_default().insert(compatible(&package.version));
    }
    let doubled = versions.into_iter().filter(|(_, versions)| versions.len() > 1);
    doubled.map(|(name, versions)| format!("{name} is there more than once: {}", join(versions))).collect()
}

fn join(versions: BTreeSet<&str>) -> String {
    versions.into_iter().collect::<Vec<_>>().join(", ")
}

/// The part of a version that decides compatibility: `1` of 1.2.3, `0.3` of 0.3.4.
fn compatible(version: &str) -> &str {
    let dots: Vec<usize> = version.match_indices('.').map(|(index, _)| index).collect();
    let keep = usize::from(version.starts_with("0."));
    dots.get(keep).map_or(version, |end| &version[..*end])
}

/// Is there a choice in the SPDX expression that is allowed? `/` is an old spelling of `OR`.
fn allowed(expression: &str) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = words.as_slice();
    any_of(&mut rest) == Some(true) && rest.is_empty()
}

/// `a OR b …`; `None` where the expression is malformed, as below.
fn any_of(words: &mut &[&str]) -> Option<bool> {
    let mut fine = all_of(words)?;
    while take(words, "OR") {
        fine |= all_of(words)?;
    }
    Some(fine)
}

/// `a AND b …`
fn all_of(words: &mut &[&str]) -> Option<bool> {
    let mut fine = one(words)?;
    while take(words, "AND") {
        fine &= one(words)?;
    }
    Some(fine)
}

/// A licence, perhaps with an exception, or an expression in parentheses.
fn one(words: &mut &[&str]) -> Option<bool> {
    if take(words, "(") {
        let fine = any_of(words)?;
        return take(words, ")").then_some(fine);
    }
    let (licence, rest) = words.split_first()?;
    *words = rest;
    if let ["WITH", exception, rest @ ..] = rest {
        *words = rest;
        return Some(ALLOWED.contains(&format!("{licence} WITH {exception}").as_str()));
    }
    Some(ALLOWED.contains(licence))
}

fn take(words: &mut &[&str], word: &str) -> bool {
    let found = words.first() == Some(&word);
    if found {
        *words = &words[1..];
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, version: &str, license: Option<&str>, source: Option<&str>) -> Package {
        Package {
            name: name.to_owned(),
            version: version.to_owned(),
            license: license.map(str::to_owned),
            source: source.map(str::to_owned),
            manifest_path: "/x/Cargo.toml".into(),
            dependencies: Vec::new(),
            targets: Vec::new(),
        }
    }

    #[test]
    fn an_expression_is_allowed_when_one_of_its_choices_is() {
        for fine in [
            "MIT",
            "MIT/Apache-2.0",
            "GPL-3.0 OR MIT",
            "(MIT OR Apache-2.0) AND Unicode-3.0",
            "BSD-3-Clause AND MIT",
        ] {
            assert!(allowed(fine), "{fine}");
        }
        assert!(allowed("Apache-2.0 WITH LLVM-exception OR GPL-2.0"));
        for bad in [
            "GPL-3.0",
            "MIT AND GPL-3.0",
            "",
            "(MIT",
            "MIT)",
            "MIT OR",
            "GPL-2.0 WITH Classpath-exception-2.0",
        ] {
            assert!(!allowed(bad), "{bad}");
        }
    }

    #[test]
    fn a_bad_licence_none_at_all_and_a_strange_source_fail() {
        assert_eq!(
            check(&[
                package("a", "1.0.0", Some("MIT"), Some(REGISTRY)),
                package("b", "1.0.0", Some("MIT"), None)
            ])
            .len(),
            0
        );
        assert_eq!(check(&[package("a", "1.0.0", Some("AGPL-3.0"), Some(REGISTRY))]).len(), 1);
        assert_eq!(check(&[package("a", "1.0.0", None, Some(REGISTRY))]).len(), 1);
        assert_eq!(check(&[package("a", "1.0.0", Some("MIT"), Some("git+https://example.org/a"))]).len(), 1);
    }

    #[test]
    fn two_incompatible_versions_of_a_heavy_package_fail() {
        let of = |versions: [&str; 2]| {
            versions.map(|version| package("rustix", version, Some("MIT"), Some(REGISTRY)))
        };
        assert_eq!(check(&of(["1.0.0", "1.2.0"])).len(), 0);
        assert_eq!(check(&of(["0.38.1", "1.0.0"])), ["rustix is there more than once: 0.38, 1"]);
        assert_eq!(check(&of(["0.37.0", "0.38.0"])).len(), 1);
    }
}
