//! What a service's guard does, as sentences. Each scenario is one life, told event by event.

mod bench;

use std::time::Duration;

use bench::{Bench, SERVICE, config, instance};
use plimsoll_core::units::Bytes;
use plimsoll_core::{
    Action, Cause, Event, Exit, Handover, InstanceState, Intent, Kind, OomDelta, Order, ProbeOutcome,
    ServiceState, SpawnFailure,
};

const CRASH: Exit = Exit::Code(1);

const fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

const fn spawn(number: u64) -> Action {
    Action::Spawn { instance: plimsoll_core::InstanceId { service: SERVICE, number } }
}

#[test]
fn a_service_is_down_until_somebody_wants_it_up() {
    let mut bench = Bench::started(config(Handover::Hold));
    assert_eq!(bench.did(), [spawn(1)]);
    assert_eq!(bench.view().intent, Intent::Up);
    bench.order(Order::Stop);
    bench.tell(Event::SpawnFailed { instance: instance(1), failure: SpawnFailure::Exhausted });
    assert_eq!(bench.view().state, ServiceState::Down);
    bench.did();
    bench.pass(Duration::from_hours(1));
    assert_eq!(bench.did(), []);
}

#[test]
fn requests_come_once_it_is_ready_and_stop_before_the_stop_signal() {
    let mut bench = Bench::started(config(Handover::Hold));
    bench.spawn(1);
    assert_eq!(bench.did(), [spawn(1)]);
    bench.pass(millis(20));
    bench.probed(1, ProbeOutcome::Passed { took: millis(1) });
    assert_eq!(bench.did(), [Action::Admit { instance: instance(1) }]);
    bench.order(Order::Stop);
    let end = [
        Action::Withdraw { instance: instance(1), drain: Duration::ZERO },
        Action::Signal { instance: instance(1) },
    ];
    assert_eq!(bench.did(), end);
}

#[test]
fn a_stop_signal_that_is_ignored_ends_in_a_kill_after_the_grace() {
    let mut bench = Bench::ready(config(Handover::Hold));
    bench.order(Order::Stop);
    bench.did();
    bench.pass(millis(9999));
    assert_eq!(bench.did(), []);
    bench.pass(millis(1));
    assert_eq!(bench.did(), [Action::KillTree { instance: instance(1) }]);
}

#[test]
fn a_kill_is_repeated_until_nothing_is_left_and_a_late_one_pages_once() {
    let mut bench = Bench::ready(config(Handover::Hold));
    bench.order(Order::Stop);
    bench.pass(Duration::from_secs(40));
    assert_eq!(bench.count_done(&Action::KillTree { instance: instance(1) }), 31);
    assert_eq!(bench.count_told(|kind| matches!(kind, Kind::KillLate { .. })), 1);
    bench.exited(1, Exit::Signal(9));
    assert_eq!(bench.view().state, ServiceState::Down);
}

#[test]
fn with_hold_the_next_one_starts_only_when_the_whole_tree_is_gone() {
    let mut bench = Bench::ready(config(Handover::Hold));
    bench.order(Order::Recycle);
    bench.did();
    let oom = OomDelta::default();
    bench.tell(Event::Exited { instance: instance(1), exit: Exit::Code(0), oom, tree_empty: false });
    assert_eq!(bench.did(), [Action::KillTree { instance: instance(1) }]);
    bench.tell(Event::Emptied { instance: instance(1) });
    assert_eq!(bench.did(), [Action::Release { instance: instance(1) }, spawn(2)]);
}

#[test]
fn with_overlap_the_old_one_serves_until_the_new_one_is_ready() {
    let mut bench = Bench::ready(config(Handover::Overlap));
    bench.did();
    bench.order(Order::Recycle);
    assert_eq!(bench.did(), [spawn(2)]);
    bench.get_ready(2);
    let handover = [
        Action::Admit { instance: instance(2) },
        Action::Withdraw { instance: instance(1), drain: Duration::ZERO },
        Action::Signal { instance: instance(1) },
    ];
    assert_eq!(bench.did(), handover);
}

#[test]
fn with_overlap_the_old_one_stays_when_the_new_one_never_gets_ready() {
    let mut bench = Bench::ready(config(Handover::Overlap));
    bench.order(Order::Recycle);
    for number in 2..8 {
        bench.spawn(number);
        bench.exited(number, CRASH);
        bench.pass(Duration::from_secs(10));
    }
    assert_eq!(bench.state(1), Some(InstanceState::Ready));
    assert_eq!(bench.count_told(|kind| matches!(kind, Kind::HandoverFailed { .. })), 6);
}

#[test]
fn with_standby_the_spare_serves_in_the_same_step_in_which_the_old_one_died() {
    let mut bench = Bench::ready(config(Handover::Standby));
    bench.get_ready(2);
    bench.did();
    bench.exited(1, CRASH);
    let did = bench.did();
    assert!(did.contains(&Action::Admit { instance: instance(2) }), "{did:?}");
}

#[test]
fn a_spare_that_took_over_gets_a_spare_of_its_own_at_once() {
    let mut bench = Bench::ready(config(Handover::Standby));
    bench.get_ready(2);
    bench.did();
    bench.order(Order::Recycle);
    assert!(bench.did().contains(&spawn(3)), "without waiting for the next event");
}

#[test]
fn a_crash_loop_with_standby_slows_down_as_any_other() {
    let mut bench = Bench::ready(config(Handover::Standby));
    bench.get_ready(2);
    for number in 1..60 {
        bench.exited(number, CRASH);
        bench.pass(millis(100));
        if bench.state(number + 2).is_some() {
            bench.get_ready(number + 2);
        } else if bench.state(number + 1).is_none() {
            break;
        }
    }
    assert!(bench.view().failures >= 3, "{:?}", bench.view());
    assert!(bench.view().instances.len() < 2, "nobody is started at once any more");
}

#[test]
fn a_crash_that_leaves_children_counts_although_the_spare_took_over() {
    let mut bench = Bench::ready(config(Handover::Standby));
    bench.get_ready(2);
    for number in 1..3 {
        let (instance, oom) = (instance(number), OomDelta::default());
        bench.tell(Event::Exited { instance, exit: CRASH, oom, tree_empty: false });
        bench.tell(Event::Emptied { instance });
    }
    assert_eq!(bench.view().failures, 2);
}

#[test]
fn the_dying_never_pile_up_in_a_slot() {
    let mut bench = Bench::ready(config(Handover::Overlap));
    for number in 2..10 {
        bench.order(Order::Recycle);
        bench.pass(Duration::from_secs(1));
        if bench.state(number).is_some() {
            bench.get_ready(number);
        }
    }
    assert_eq!(bench.view().instances.len(), 4, "three that will not die and one that serves");
    assert_eq!(bench.state(4), Some(InstanceState::Ready));
    bench.exited(1, Exit::Signal(9));
    assert!(bench.state(5).is_some(), "with one less, the next may come");
}

#[test]
fn a_service_that_hangs_does_not_wait_for_a_successor_that_was_called_for_another_reason() {
    let mut bench = Bench::ready(config(Handover::Overlap));
    for mib in [200, 310, 420] {
        bench.pass(millis(100));
        bench.sampled(1, mib);
    }
    assert_eq!(bench.state(1), Some(InstanceState::Ready), "it serves until its successor does");
    bench.tell(Event::Stalled { instance: instance(1) });
    bench.probed(1, ProbeOutcome::Unanswered);
    assert_eq!(bench.state(1), Some(InstanceState::Draining), "{:?}", bench.view());
}

#[test]
fn stalls_reported_again_and_again_do_not_put_the_verdict_off() {
    let mut bench = Bench::ready(config(Handover::Hold));
    for _ in 0..10 {
        bench.tell(Event::Stalled { instance: instance(1) });
        bench.pass(Duration::from_secs(1));
    }
    assert_ne!(bench.state(1), Some(InstanceState::Ready), "the probe was lost, and that is an answer too");
}

#[test]
fn breach_failed_probe_and_crash_in_one_second_are_one_recycle_and_one_incident() {
    let mut bench = Bench::ready(config(Handover::Hold));
    bench.pass(millis(100));
    bench.sampled(1, 310);
    bench.pass(millis(100));
    bench.tell(Event::Stalled { instance: instance(1) });
    bench.probed(1, ProbeOutcome::Unanswered);
    bench.sampled(1, 490);
    bench.exited(1, Exit::Signal(11));
    bench.get_ready(2);
    assert_eq!(bench.count_told(|kind| matches!(kind, Kind::IncidentOpened { .. })), 1);
    assert_eq!(bench.count_told(|kind| matches!(kind, Kind::IncidentClosed { .. })), 1);
    assert_eq!(bench.count_done(&spawn(2)), 1);
}

#[test]
fn evidence_is_waited_for_half_a_second_at_most() {
    let mut bench = Bench::ready(config(Handover::Hold));
    bench.sampled(1, 302);
    bench.pass(Duration::from_secs(5));
    bench.did();
    bench.sampled(1, 302);
    let (instance, incident) = (instance(1), plimsoll_core::IncidentId(1));
    let keep = Action::KeepEvidence { instance, incident, budget: millis(500) };
    let withdraw = Action::Withdraw { instance, drain: Duration::ZERO };
    assert_eq!(bench.did(), [withdraw, keep]);
    bench.pass(millis(499));
    assert_eq!(bench.did(), []);
    bench.pass(millis(1));
    assert_eq!(bench.did(), [Action::Signal { instance }]);
}

#[test]
fn a_line_under_the_baseline_is_refused_and_stays_so_over_a_reload() {
    let mut bench = Bench::started(config(Handover::Hold));
    bench.spawn(1);
    bench.pass(millis(20));
    bench.probed(1, ProbeOutcome::Passed { took: millis(1) });
    bench.sampled(1, 320);
    assert_eq!(bench.count_told(|kind| matches!(kind, Kind::LineRefused { .. })), 1);
    bench.tell(Event::Configured { service: SERVICE, config: config(Handover::Hold) });
    for _ in 0..20 {
        bench.pass(Duration::from_secs(1));
        bench.sampled(1, 320);
    }
    assert_eq!(bench.state(1), Some(InstanceState::Ready));
    let refused = bench.count_told(|kind| matches!(kind, Kind::LineRefused { .. }));
    assert_eq!(refused, 2, "once under each settings");
}

#[test]
fn a_failed_measurement_is_told_and_is_no_zero() {
    let mut bench = Bench::ready(config(Handover::Hold));
    bench.sampled(1, 310);
    bench.tell(Event::SampleFailed { instance: instance(1) });
    assert_eq!(bench.count_told(|kind| matches!(kind, Kind::SampleFailed { failures: 1 })), 1);
    assert_eq!(bench.count_told(|kind| matches!(kind, Kind::UnderLine { .. })), 0);
    assert_eq!(bench.view().instances[0].working_set, Some(Bytes::mib(310)));
}

#[test]
fn the_time_it_takes_to_die_is_no_healthy_life() {
    let mut bench = Bench::ready(config(Handover::Hold));
    bench.exited(1, CRASH);
    bench.get_ready(2);
    bench.sampled(2, 490);
    bench.pass(Duration::from_mins(5));
    bench.exited(2, Exit::Signal(9));
    assert_eq!(bench.view().failures, 2, "killed near the wall right after its start");
}

#[test]
fn a_trouble_that_is_over_is_not_the_next_ones_story() {
    let mut bench = Bench::ready(config(Handover::Hold));
    for number in 1..4 {
        bench.exited(number, CRASH);
        bench.pass(Duration::from_secs(1));
        bench.get_ready(number + 1);
    }
    assert_eq!(bench.view().failures, 3);
    bench.pass(Duration::from_secs(10));
    assert_eq!((bench.view().failures, bench.view().incident), (0, None));
}

#[test]
fn late_and_doubled_news_of_the_gone_hurt_nobody() {
    let mut bench = Bench::ready(config(Handover::Hold));
    bench.exited(1, CRASH);
    bench.get_ready(2);
    bench.did();
    bench.exited(1, Exit::Signal(9));
    bench.tell(Event::Emptied { instance: instance(1) });
    bench.sampled(1, 4000);
    assert_eq!(bench.count_told(|kind| matches!(kind, Kind::Anomaly { .. })), 2);
    assert_eq!(bench.did(), []);
    assert_eq!(bench.state(2), Some(InstanceState::Ready));
}

#[test]
fn restarts_are_at_once_then_slower_and_never_given_up() {
    let mut bench = Bench::ready(config(Handover::Hold));
    for number in 1..40 {
        bench.exited(number, CRASH);
        bench.pass(Duration::from_secs(10));
        assert_eq!(bench.state(number + 1), Some(InstanceState::Starting), "after {number} crashes");
        bench.spawn(number + 1);
    }
    assert_eq!(bench.count_told(|kind| matches!(kind, Kind::CrashLoop { .. })), 1);
}

#[test]
fn a_slow_answer_is_a_sign_of_life() {
    let mut bench = Bench::ready(config(Handover::Hold));
    for _ in 0..10 {
        bench.pass(Duration::from_secs(30));
        bench.probed(1, ProbeOutcome::Late { took: Duration::from_secs(20) });
    }
    assert_eq!(bench.state(1), Some(InstanceState::Ready));
    let blamed = bench.told().iter().filter(|record| record.cause.is_some_and(Cause::is_deaf)).count();
    assert_eq!(blamed, 0);
}
