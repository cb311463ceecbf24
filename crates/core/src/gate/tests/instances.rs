//! Who gets the next request, and how much of it.

use super::*;

const SECOND: Duration = Duration::from_secs(1);
const HALF: Duration = Duration::from_millis(500);
const COOL: Duration = Duration::from_millis(50);

fn ejected(world: &mut World) -> Vec<(u64, Duration)> {
    let eject = |action| match action {
        GateAction::Tell { what: GateRecord::Ejected { instance, pause }, .. } => {
            Some((instance.number, pause))
        }
        GateAction::Tell { .. }
        | GateAction::Release { .. }
        | GateAction::Refuse { .. }
        | GateAction::InFlight { .. }
        | GateAction::Stalled { .. }
        | GateAction::CloseStreams { .. } => None,
    };
    world.actions().into_iter().filter_map(eject).collect()
}

/// Fails as often in a row as nobody may.
fn fail(world: &mut World, number: u64) {
    for _ in 0..3 {
        world.done(number, Outcome::Lost);
    }
}

#[test]
fn a_crowd_flows_out_at_the_rate_that_the_fresh_instance_stands() {
    let mut world = World::new();
    for _ in 0..40 {
        world.wait();
    }
    world.admit(1);
    assert_eq!(world.released().len(), 8);
    world.serve(1);
    assert_eq!(world.released().len(), 2, "one for the one that is done, and one more");
    for _ in 0..9 {
        world.serve(1);
    }
    assert_eq!(world.released().len(), 18);
}

#[test]
fn a_crowd_before_slow_answers_moves_all_the_same() {
    let mut world = World::new();
    for _ in 0..40 {
        world.wait();
    }
    world.admit(1);
    assert_eq!(world.released().len(), 8);
    assert_eq!(world.next(), HALF);
    assert_eq!(world.released().len(), 8);
    assert_eq!(world.next(), HALF);
    assert_eq!(world.released().len(), 8);
}

#[test]
fn after_the_crowd_there_is_no_window() {
    let mut world = World::new();
    world.wait();
    world.admit(1);
    world.serve(1);
    world.actions();
    for _ in 0..100 {
        world.go();
    }
}

#[test]
fn no_instance_has_more_than_it_may() {
    let mut world = World::with(GateConfig { in_flight_max: 2, ..GateConfig::default() });
    world.admit(1);
    world.go();
    world.go();
    let ticket = world.wait();
    world.serve(1);
    assert_eq!(world.released(), [ticket]);
}

#[test]
fn with_no_place_at_all_one_at_a_time_still_goes() {
    let mut world = World::with(GateConfig { in_flight_max: 0, ..GateConfig::default() });
    world.admit(1);
    world.go();
    world.wait();
}

#[test]
fn the_lighter_of_two_gets_the_next() {
    let mut world = World::with_instances(2);
    let mut counts = [0u32; 2];
    for draw in 0..100u32 {
        let (_, answer) = world.gate.arrive(world.now, SERVICE, NONE, draw.wrapping_mul(0x9e37_79b9));
        let Answer::Go { instance } = answer else { panic!("both have room") };
        counts[usize::try_from(instance.number - 1).expect("one of two")] += 1;
    }
    assert_eq!(counts, [50, 50]);
}

#[test]
fn streams_weigh_less_than_requests() {
    let mut world = World::with_instances(2);
    let first = world.go();
    world.stream(first);
    let second = world.go();
    assert_ne!(first, second, "of equals the one without streams");
    assert_eq!(world.go(), first, "a stream is hardly any work");
}

#[test]
fn those_that_wait_are_spread_over_all_instances() {
    let mut world = World::with(GateConfig { in_flight_max: 1, ..GateConfig::default() });
    for number in 1..=3 {
        world.admit(number);
        world.go();
    }
    for _ in 0..30 {
        world.wait();
    }
    let mut served = [0u32; 3];
    for turn in 0..30u64 {
        // Two become free together, so that there is a choice.
        let number = turn % 3 + 1;
        served[usize::try_from(number - 1).expect("one of three")] += 1;
        world.serve(number);
    }
    assert_eq!(served, [10, 10, 10]);
    assert_eq!(world.gate.held(), 0);
}

#[test]
fn a_stream_takes_no_place() {
    let mut world = World::with(GateConfig { in_flight_max: 1, ..GateConfig::default() });
    world.admit(1);
    world.go();
    let ticket = world.wait();
    world.actions();
    world.stream(1);
    assert_eq!(world.released(), [ticket]);
    assert_eq!(world.gate.in_flight(id(1)), 2);
    world.gate.done(world.now, id(1), Phase::Streaming, Outcome::Left);
    world.serve(1);
    assert_eq!(world.gate.in_flight(id(1)), 0);
}

#[test]
fn streams_are_closed_shortly_before_the_drain_is_over_and_told_once() {
    let mut world = World::with_instances(1);
    world.go();
    world.go();
    world.stream(1);
    assert_eq!(world.gate.withdraw(world.now, id(1), DRAIN), 2);
    world.actions();
    assert_eq!(world.next(), DRAIN.saturating_sub(Duration::from_millis(250)));
    assert_eq!(world.actions(), [GateAction::CloseStreams { instance: id(1) }]);
    assert_eq!(world.gate.next_deadline(), None);
    world.stream(1);
    assert_eq!(world.next(), Duration::ZERO, "one that begins too late is closed too");
    assert_eq!(world.actions(), [GateAction::CloseStreams { instance: id(1) }]);
}

#[test]
fn streams_yield_to_a_crowd_once_they_are_all_that_is_left() {
    let mut world = World::with_instances(1);
    world.go();
    world.go();
    world.stream(1);
    world.gate.withdraw(world.now, id(1), DRAIN);
    world.wait();
    world.actions();
    world.pass(SECOND * 2);
    world.gate.handle_deadline(world.now);
    assert_eq!(world.actions(), [], "a request is still being answered");
    world.gate.done(world.now, id(1), Phase::Waiting, Outcome::Served);
    assert_eq!(world.actions(), [GateAction::InFlight { instance: id(1), count: 1 }]);
    world.next();
    assert_eq!(world.actions(), [GateAction::CloseStreams { instance: id(1) }]);
}

#[test]
fn a_withdrawal_is_answered_down_to_none() {
    let mut world = World::with_instances(1);
    world.go();
    world.go();
    assert_eq!(world.gate.withdraw(world.now, id(1), DRAIN), 2);
    world.serve(1);
    world.serve(1);
    let told = |count| GateAction::InFlight { instance: id(1), count };
    assert_eq!(world.actions(), [told(1), told(0)]);
    assert_eq!(world.gate.withdraw(world.now, id(9), DRAIN), 0, "one that is not known has none");
}

#[test]
fn nothing_new_goes_to_one_that_was_withdrawn_or_is_gone() {
    let mut world = World::with_instances(1);
    world.gate.withdraw(world.now, id(1), DRAIN);
    world.wait();
    world.gate.forget(world.now, id(1));
    world.wait();
    world.actions();
    world.admit(2);
    assert_eq!(world.released().len(), 2);
    assert_eq!(world.gate.in_flight(id(2)), 2);
    assert_eq!(world.gate.in_flight(id(1)), 0);
}

#[test]
fn what_ends_on_one_that_is_gone_changes_nothing() {
    let mut world = World::with_instances(1);
    world.go();
    world.gate.forget(world.now, id(1));
    world.done(1, Outcome::Lost);
    world.admit(2);
    assert_eq!(world.traffic().in_flight, 0);
}

#[test]
fn an_instance_that_refuses_connections_cools_and_then_one_finds_out() {
    let mut world = World::with_instances(1);
    world.go();
    world.go();
    world.done(1, Outcome::Unreachable);
    let waiting = [world.wait(), world.wait()];
    world.done(1, Outcome::Unreachable);
    world.actions();
    assert_eq!(world.next(), COOL);
    assert_eq!(world.released(), waiting[..1]);
    world.done(1, Outcome::Unreachable);
    assert_eq!(world.next(), COOL * 2, "twice as long each time");
    assert_eq!(world.released(), waiting[1..]);
    world.serve(1);
    world.go();
    world.done(1, Outcome::Unreachable);
    world.wait();
    assert_eq!(world.next(), COOL, "from the beginning after a success");
}

#[test]
fn cooling_has_an_end() {
    let mut world = World::with_instances(1);
    world.go();
    for _ in 0..40 {
        world.done(1, Outcome::Unreachable);
        world.wait();
        assert!(world.next() <= Duration::from_secs(5));
    }
}

#[test]
fn after_a_refused_connection_one_finds_out_even_if_nobody_waited() {
    let mut world = World::with_instances(1);
    world.go();
    world.done(1, Outcome::Unreachable);
    world.pass(COOL);
    world.go();
    world.wait();
}

#[test]
fn an_instance_that_fails_three_times_in_a_row_is_left_out() {
    let mut world = World::with_instances(2);
    for _ in 0..10 {
        world.go();
    }
    world.done(1, Outcome::Lost);
    world.done(1, Outcome::Lost);
    world.serve(1);
    world.done(1, Outcome::Lost);
    assert_eq!(ejected(&mut world), [], "one success in between");
    fail(&mut world, 2);
    assert_eq!(ejected(&mut world), [(2, SECOND)]);
    for _ in 0..10 {
        assert_eq!(world.go(), 1);
    }
    world.done(2, Outcome::Left);
    world.done(2, Outcome::Left);
    world.pass(SECOND);
    assert_eq!(world.go(), 2, "then one finds out");
    assert_eq!(world.go(), 1, "and only one");
}

#[test]
fn a_slow_answer_does_not_starve_one_that_failed_while_the_others_have_room() {
    let mut world = World::with_instances(2);
    for _ in 0..10 {
        world.go();
    }
    fail(&mut world, 2);
    world.pass(SECOND + HALF);
    assert_eq!(world.go(), 2, "two slow ones are still there");
}

#[test]
fn the_last_instance_is_never_left_out() {
    let mut world = World::with_instances(1);
    for _ in 0..6 {
        world.go();
    }
    fail(&mut world, 1);
    assert_eq!(ejected(&mut world), []);
    world.go();
    let mut world = World::with_instances(2);
    for _ in 0..12 {
        world.go();
    }
    fail(&mut world, 1);
    fail(&mut world, 2);
    assert_eq!(ejected(&mut world), [(1, SECOND)], "the other one is the last");
    assert_eq!(world.go(), 2);
}

#[test]
fn one_that_was_left_out_is_taken_back_when_the_others_go() {
    for gone in [false, true] {
        let mut world = World::with_instances(2);
        for _ in 0..6 {
            world.go();
        }
        fail(&mut world, 1);
        if gone {
            world.gate.forget(world.now, id(2));
        } else {
            world.gate.withdraw(world.now, id(2), DRAIN);
        }
        assert_eq!(world.go(), 1);
        world.wait();
    }
}

#[test]
fn a_stall_is_told_once_for_each_hang_while_requests_wait_for_an_answer() {
    let mut world = World::with_instances(1);
    world.go();
    world.pass(SECOND);
    world.go();
    assert_eq!(world.next(), HANG.saturating_sub(SECOND));
    assert_eq!(world.actions(), [GateAction::Stalled { instance: id(1) }]);
    assert_eq!(world.next(), HANG);
    assert_eq!(world.actions(), [GateAction::Stalled { instance: id(1) }]);
    world.pass(SECOND);
    world.gate.answered(world.now, id(1));
    assert_eq!(world.next(), HANG, "an answer is a sign of life");
    world.actions();
    world.gate.answered(world.now, id(1));
    assert_eq!(world.gate.next_deadline(), None, "nobody waits for an answer any more");
}

#[test]
fn one_that_stalls_gets_a_request_now_and_then_until_it_shows_that_it_lives() {
    let mut world = World::with_instances(1);
    world.go();
    world.go();
    assert_eq!(world.next(), HANG);
    assert_eq!(world.actions(), [GateAction::Stalled { instance: id(1) }]);
    world.go();
    for _ in 0..20 {
        world.wait();
    }
    for _ in 0..3 {
        assert_eq!(world.next(), HALF);
        assert_eq!(world.released().len(), 1, "what it gets may be lost");
    }
    world.gate.answered(world.now, id(1));
    assert_eq!(world.released().len(), 8, "it was slow: those kept back go on as a crowd does");
}

#[test]
fn others_take_what_one_that_stalls_does_not_get() {
    let mut world = World::with_instances(2);
    assert_ne!(world.go(), world.go());
    world.serve(2);
    world.next();
    let went: Vec<u64> = (0..10).map(|_| world.go()).collect();
    assert_eq!(went.iter().filter(|number| **number == 1).count(), 1, "{went:?}");
}

#[test]
fn a_stall_is_not_told_of_one_that_drains() {
    let mut world = World::with_instances(1);
    world.go();
    world.gate.withdraw(world.now, id(1), DRAIN);
    assert_eq!(world.gate.next_deadline(), None);
    world.pass(HANG);
    world.gate.handle_deadline(world.now);
    assert_eq!(world.actions(), []);
}

#[test]
fn a_hang_of_no_time_does_not_spin() {
    let mut world = World::with_instances(1);
    world.gate.add(SERVICE, Duration::ZERO);
    world.go();
    assert!(world.next() > Duration::ZERO);
}
