//! Restores while somebody writes, every fourth after a kill, a full disk, a torn segment or a gap: the test that does a
//! few of them in every run does two hundred here.

use crate::bench::Setting;
use crate::bench::figure::Figure;
use crate::error::{Error, Result};
use crate::shell;

const RESTORES: u64 = 200;

pub(super) fn run(setting: &Setting<'_>) -> Result<Vec<Figure>> {
    let arguments =
        ["test", "--quiet", "--package", "plimsoll-vault", "--test", "restores", "--", "--nocapture"];
    let mut command = setting.workspace.cargo(&arguments);
    command.env("PLIMSOLL_RESTORES", RESTORES.to_string());
    let said = shell::output(&mut command)?;
    let (intact, incidents) = counted(&said)
        .ok_or_else(|| Error::Check("the restores did not say how many there were".to_owned()))?;
    Ok(vec![
        Figure::counts("restores that were not intact, or not equal", &[RESTORES - intact.min(RESTORES)])
            .promised(0.0),
        Figure::counts("restores, intact and equal", &[intact]),
        Figure::counts("of them after a kill, a full disk, a torn segment or a gap", &[incidents]),
    ])
}

/// `restores: 200 of 200 intact and equal, 50 of them after an incident`
fn counted(said: &str) -> Option<(u64, u64)> {
    let line = said.lines().find_map(|line| line.split_once("restores: "))?.1;
    let mut numbers = line.split(' ').filter_map(|word| word.parse().ok());
    let (intact, _) = (numbers.next()?, numbers.next()?);
    Some((intact, numbers.next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_test_says_is_counted() {
        let said = "running 1 test\nrestores: 198 of 200 intact and equal, 50 of them after an incident\n.";
        assert_eq!(counted(said), Some((198, 50)));
        assert_eq!(counted("running 1 test"), None);
    }
}
