//! What users lose: 200 requests a second, from when each is due, while the service is recycled, killed and hangs.
//!
//! All blows of a series fall under one guard, with `backoff_max = "1ms"`: a guard that backed off from a service which
//! is killed every second would be measured for its patience. Everything is seen from the users' side; the titles of
//! what they posted are looked for in the service's own store afterwards.

use crate::bench::Setting;
use crate::bench::figure::Figure;
use crate::bench::front::ground;
use crate::bench::front::proxy::Kind;
use crate::bench::front::series::{Fault, Series};
use crate::bench::guard::service::Program;
use crate::error::Result;

const HANDOVERS: [&str; 3] = ["hold", "overlap", "standby"];

pub(super) fn run(setting: &Setting<'_>) -> Result<Vec<Figure>> {
    println!("  one guard per series, with backoff_max = \"1ms\": each kill is like a first one");
    let mut fronts = setting.only.clone();
    if fronts.is_empty() {
        fronts.push(Kind::Plimsoll);
    }
    let programs = fronts.iter().filter_map(|front| match front {
        Kind::Plimsoll | Kind::Bare => None,
        Kind::Nginx => Some("nginx"),
        Kind::Haproxy => Some("haproxy"),
    });
    ground::bring(&programs.collect::<Vec<_>>())?;
    ground::bring(&["node"])?;
    let all = fronts.into_iter().flat_map(|front| Program::ALL.map(|program| (front, program)));
    let mut figures = Vec::new();
    for series in all.flat_map(|(front, program)| series(front, program)) {
        // What the others took minutes to measure is not thrown away for it.
        figures.extend(series.run(setting).unwrap_or_else(|error| vec![series.unmeasured(&error)]));
    }
    Ok(figures)
}

fn series(front: Kind, program: Program) -> Vec<Series> {
    let one = |fault, handover| Series { front, program, fault, handover };
    if front != Kind::Plimsoll {
        // With one address, one instance at a time is all there can be; and nobody tells the guard of requests that wait.
        return [Fault::Recycle, Fault::Kill].map(|fault| one(fault, "hold")).into();
    }
    let mut series: Vec<Series> = HANDOVERS.map(|handover| one(Fault::Recycle, handover)).into();
    series.extend(["hold", "standby"].map(|handover| one(Fault::Kill, handover)));
    series.push(one(Fault::Hang, "hold"));
    series
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ours_goes_through_every_handover_and_others_through_what_they_can() {
        let of =
            |front| series(front, Program::Node).iter().map(|it| (it.fault, it.handover)).collect::<Vec<_>>();
        let ours = of(Kind::Plimsoll);
        assert_eq!(ours.len(), 6);
        assert!(HANDOVERS.iter().all(|handover| ours.contains(&(Fault::Recycle, handover))));
        assert!(ours.contains(&(Fault::Kill, "standby")));
        assert!(of(Kind::Nginx).iter().all(|(_, handover)| *handover == "hold"));
    }
}
