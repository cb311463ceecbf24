//! What a binary does whose counts tell the compiler which paths are hot: all that a busy one does, each for a moment.

use std::path::Path;
use std::process::Command;

use crate::bench::{Setting, front, vault};
use crate::error::Result;
use crate::shell;
use crate::workspace::Workspace;

pub(crate) fn train(workspace: &Workspace, plimsoll: &Path) -> Result<()> {
    let setting = Setting { workspace, plimsoll: plimsoll.to_owned(), runs: 1, only: Vec::new() };
    println!("training: the layers …");
    shell::output(Command::new(plimsoll).args(["demo", "--plain"]))?;
    println!("training: the front …");
    front::train(&setting)?;
    println!("training: the vault …");
    vault::train(&setting)
}
