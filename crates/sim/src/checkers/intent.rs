//! A service that is wanted down never starts, never gets ready and never gets a request.

use plimsoll_core::{Action, Intent, Kind};

use super::{Checker, rule};
use crate::facts::Step;

#[derive(Debug, Default)]
pub(crate) struct Intents;

impl Checker for Intents {
    fn name(&self) -> &'static str {
        "intent"
    }

    fn check(&mut self, step: &Step<'_>) -> Result<(), String> {
        let down = |id| step.service(id).intent == Intent::Down;
        for (view, service) in step.views.iter().zip(&step.facts.services) {
            rule(view.intent == service.intent, || format!("an order to {} got lost", service.config.name))?;
        }
        for action in step.actions {
            match action {
                Action::Spawn { instance } | Action::Admit { instance } => {
                    rule(!down(instance.service), || format!("{action:?} though wanted down"))?;
                }
                Action::Tell(record) if matches!(record.kind, Kind::Ready { .. }) => {
                    rule(!down(record.service), || "ready though wanted down".into())?;
                }
                Action::Sample { .. }
                | Action::Probe { .. }
                | Action::Withdraw { .. }
                | Action::KeepEvidence { .. }
                | Action::Signal { .. }
                | Action::KillTree { .. }
                | Action::SetHigh { .. }
                | Action::Release { .. }
                | Action::Stand { .. }
                | Action::Tell(_) => {}
            }
        }
        Ok(())
    }
}
