//! Sweeps on schedule: each rule at its own pace, beside the driver.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use super::{Driver, Report};
use crate::beside;
use crate::sweep::{self, Finding, Orphans, Outcome, SweepRule};

#[derive(Debug)]
pub(super) struct Sweeper {
    rules: Vec<Patrol>,
}

#[derive(Debug)]
struct Patrol {
    rule: SweepRule,
    due: Instant,
    /// Shared with the hunt that is out, if any; one hunt per rule at a time.
    orphans: Arc<Mutex<Orphans>>,
}

impl Sweeper {
    pub(super) fn new(rules: &[SweepRule]) -> Self {
        let mut sweeper = Self { rules: Vec::new() };
        sweeper.change(rules);
        sweeper
    }

    /// Takes over new rules; those that stay keep what they know.
    pub(super) fn change(&mut self, rules: &[SweepRule]) {
        let mut before = std::mem::take(&mut self.rules);
        for rule in rules {
            let known = before.iter().position(|it| it.rule == *rule).map(|index| before.swap_remove(index));
            self.rules.push(known.unwrap_or_else(|| Patrol {
                rule: rule.clone(),
                due: Instant::now() + rule.every,
                orphans: Arc::default(),
            }));
        }
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.rules.iter().map(|rule| rule.due).min()
    }
}

impl Driver {
    pub(super) fn sweep(&mut self) {
        let now = Instant::now();
        for rule in self.sweeper.rules.iter_mut().filter(|rule| rule.due <= now) {
            rule.due = now + rule.rule.every.max(Duration::from_secs(1));
            let (wanted, orphans) = (rule.rule.clone(), Arc::clone(&rule.orphans));
            let (ground, reporter) = (Arc::clone(&self.ground), self.reporter.clone());
            // Without a thread for it, the next round comes soon enough: nothing of ours depends on it.
            let _ = beside::start(move || {
                // Taken means that the last hunt is still out.
                let Ok(mut orphans) = orphans.try_lock() else { return };
                let report = match sweep::hunt(&ground.roots, &wanted, Some(&mut orphans)) {
                    Ok(mut findings) => {
                        if wanted.act {
                            sweep::end(&ground.roots, &mut findings, sweep::GRACE);
                        }
                        Report::Swept { findings, problem: None }
                    }
                    Err(error) => Report::Swept { findings: Vec::new(), problem: Some(error.to_string()) },
                };
                let _ = reporter.blocking_send(report);
            });
        }
    }

    pub(super) fn swept(&mut self, findings: Vec<Finding>, problem: Option<String>) {
        if let Some(problem) = problem {
            self.say("sweep", "sweep_failed", "warning", &format!("could not look for strays: {problem}"));
        }
        for finding in findings {
            let (kind, done) = match &finding.outcome {
                Outcome::Reported => ("stray_found", "reported only, the rule does not act".to_owned()),
                Outcome::Terminated => ("stray_ended", "ended by SIGTERM".to_owned()),
                Outcome::Killed => ("stray_ended", "ended by SIGKILL".to_owned()),
                Outcome::Gone => ("stray_gone", "gone before it was signalled".to_owned()),
                Outcome::Failed { why } => ("stray_failed", why.clone()),
            };
            let message = format!(
                "stray pid {} {} {}: {}, {done}",
                finding.pid,
                finding.exe.display(),
                finding.args,
                finding.reason
            );
            self.say("sweep", kind, "warning", &message);
        }
    }
}
