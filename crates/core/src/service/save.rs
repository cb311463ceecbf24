//! What the next guard has to know of a service.

use super::{Service, Slot};
use crate::deadlines::{Deadlines, Due};
use crate::incident::Incident;
use crate::instance::Instance;
use crate::saved::{SavedInstance, SavedService, SavedSlot};

impl Service {
    pub(crate) fn save(&self, deadlines: &Deadlines) -> SavedService {
        let (budget_spent, budget_paged) = self.budget.saved();
        let slot = |(number, slot): (u16, &Slot)| SavedSlot {
            streak: slot.streak.0,
            relief_streak: slot.relief_streak.0,
            lead_failures: slot.lead_failures,
            relief_failures: slot.relief_failures,
            lead_due: deadlines.get(Due::Lead(self.id, number)),
            relief_due: deadlines.get(Due::Relief(self.id, number)),
        };
        SavedService {
            name: self.config.name.clone(),
            intent: self.intent,
            next_number: self.next_number,
            recycles: self.recycles,
            restarts: self.restarts,
            dark_since: self.dark_since,
            dark_total: self.dark_total,
            was_lit: self.was_lit,
            boot_time: self.boot_time,
            line_refusal_told: self.line_refusal_told,
            stop_told: self.stop_told,
            budget_spent,
            budget_paged,
            slots: (0..).zip(&self.slots).map(slot).collect(),
            incident: self.incident.as_ref().map(Incident::saved),
            calm_due: deadlines.get(Due::Calm(self.id)),
            instances: self.instances.iter().map(|it| it.save(deadlines)).collect(),
        }
    }
}

impl Instance {
    fn save(&self, deadlines: &Deadlines) -> SavedInstance {
        SavedInstance {
            number: self.id.number,
            slot: self.slot,
            role: self.role,
            life: self.life,
            doom: self.doom,
            exit: self.exit,
            first_ready: self.first_ready,
            left: self.left,
            admitted: self.admitted,
            baseline: self.kill_switch.baseline(),
            stage_due: deadlines.get(Due::Stage(self.id)),
            probe_due: deadlines.get(Due::Probe(self.id)),
        }
    }
}
