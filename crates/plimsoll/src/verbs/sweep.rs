//! `plimsoll sweep`: look for strays now, and end them only when told to.

use std::io::Write;

use plimsoll_core::units::Bytes;
use plimsoll_guard::sweep::{self, Finding, Outcome, SweepRule};
use plimsoll_guard::tell::span_words;
use plimsoll_kernel::Roots;

use super::table::Table;
use crate::cli::{Exit, Global, Sweep};
use crate::config::{Config, ConfigErrors, file_or_default};
use crate::settings;

#[derive(Debug, thiserror::Error)]
pub enum SweepError {
    #[error("{0}")]
    Config(ConfigErrors),
    #[error(
        "nothing to look for: name it by --exe with --over or --orphan-after, or write a [[sweep]] table"
    )]
    NoRule,
    #[error("--exe needs --over or --orphan-after: every process of that program would be a stray")]
    NoLimit,
    #[error("cannot look at the host's processes: {0}")]
    Hunt(plimsoll_kernel::Error),
    #[error("cannot print: {0}")]
    Print(#[from] std::io::Error),
}

impl SweepError {
    pub fn exit(&self) -> Exit {
        match self {
            Self::Config(_) | Self::NoRule | Self::NoLimit => Exit::Usage,
            Self::Hunt(error) if error.is_denied() => Exit::NotPermitted,
            Self::Hunt(_) | Self::Print(_) => Exit::Internal,
        }
    }
}

pub fn run(args: &Sweep, global: &Global, out: &mut dyn Write) -> Result<Exit, SweepError> {
    let roots = Roots::default();
    let mut findings = Vec::new();
    for rule in rules(args, global)? {
        let mut found = sweep::hunt(&roots, &rule, None).map_err(SweepError::Hunt)?;
        if args.act {
            sweep::end(&roots, &mut found, sweep::GRACE);
        }
        findings.append(&mut found);
    }
    if args.json {
        serde_json::to_writer(&mut *out, &findings).map_err(std::io::Error::from)?;
        writeln!(out)?;
    } else {
        print(&findings, args.act, out)?;
    }
    let left = findings.iter().any(|it| matches!(it.outcome, Outcome::Reported | Outcome::Failed { .. }));
    Ok(if left { Exit::No } else { Exit::Done })
}

fn rules(args: &Sweep, global: &Global) -> Result<Vec<SweepRule>, SweepError> {
    if let Some(exe) = &args.exe {
        if args.over.is_none() && args.orphan_after.is_none() {
            return Err(SweepError::NoLimit);
        }
        return Ok(vec![SweepRule {
            exe: exe.clone(),
            args: args.args.clone(),
            over: args.over,
            orphan_after: args.orphan_after,
            every: std::time::Duration::ZERO,
            act: args.act,
        }]);
    }
    let (config, _) = Config::load(&file_or_default(global.config.as_deref())).map_err(SweepError::Config)?;
    if config.sweeps.is_empty() {
        return Err(SweepError::NoRule);
    }
    Ok(config.sweeps.iter().map(settings::sweep).collect())
}

fn print(findings: &[Finding], act: bool, out: &mut dyn Write) -> std::io::Result<()> {
    if findings.is_empty() {
        return writeln!(out, "no strays");
    }
    let mut table = Table::new(&[">PID", ">MEMORY", ">AGE", "WHY", "DONE", "COMMAND"]);
    for finding in findings {
        table.row([
            finding.pid.to_string(),
            Bytes(finding.memory_bytes).to_string(),
            span_words(std::time::Duration::from_secs(finding.age_seconds)),
            finding.reason.clone(),
            done(&finding.outcome),
            format!("{} {}", finding.exe.display(), finding.args),
        ]);
    }
    table.print(out)?;
    if !act {
        writeln!(
            out,
            "\nnothing was touched; --act ends them (SIGTERM, then SIGKILL after {} s)",
            sweep::GRACE.as_secs()
        )?;
    }
    Ok(())
}

fn done(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Reported => "reported".to_owned(),
        Outcome::Terminated => "ended".to_owned(),
        Outcome::Killed => "killed".to_owned(),
        Outcome::Gone => "gone by itself".to_owned(),
        Outcome::Failed { why } => why.clone(),
    }
}
