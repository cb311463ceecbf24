//! `cargo xtask tidy`: the rules that no compiler checks. Each check takes data in and hands complaints back, so that
//! its tests can prove that it is able to fail.

mod docs;
mod edges;
mod lengths;
mod licences;
mod numbers;
mod source;
mod tokens;
mod words;

use crate::error::{Error, Result};
use crate::tidy::source::Tree;
use crate::workspace::Workspace;

pub(crate) use licences::run as check_licences;

/// Something that a check found, where it found it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Complaint {
    /// Relative to the root; with `:line` where there is one.
    place: String,
    what: String,
}

impl Complaint {
    fn new(place: impl Into<String>, what: impl Into<String>) -> Self {
        Self { place: place.into(), what: what.into() }
    }

    fn at(path: &str, line: usize, what: impl Into<String>) -> Self {
        Self::new(format!("{path}:{line}"), what)
    }
}

pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let tree = Tree::read(&workspace.root, &workspace.target)?;
    for warning in lengths::warnings(&tree) {
        println!("warning: {}: {}", warning.place, warning.what);
    }
    let mut complaints = edges::check(&workspace.packages, &tree);
    complaints.extend(tree.broken());
    complaints.extend(lengths::check(&tree));
    complaints.extend(tokens::check(&tree));
    complaints.extend(words::check(&tree, &workspace.root));
    complaints.extend(numbers::check(&tree));
    complaints.extend(docs::check(&tree));
    complaints.sort();
    complaints.dedup();
    for complaint in &complaints {
        println!("{}: {}", complaint.place, complaint.what);
    }
    println!("tidy: {} files, {}", tree.files.len(), lengths::summary(&tree));
    match complaints.len() {
        0 => Ok(()),
        1 => Err(Error::Check("tidy has one complaint".into())),
        many => Err(Error::Check(format!("tidy has {many} complaints"))),
    }
}
