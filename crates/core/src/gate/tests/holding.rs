//! Who waits, for how long, and who goes first.

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn tight(requests: u32, bytes: u64) -> World {
    World::with(GateConfig { hold_requests: requests, hold_bytes: Bytes(bytes), ..GateConfig::default() })
}

#[test]
fn those_that_wait_go_in_the_order_of_their_arrival() {
    let mut world = World::new();
    let waiting: Vec<Ticket> = (0..5).map(|_| world.wait()).collect();
    world.actions();
    world.admit(1);
    assert_eq!(world.released(), waiting);
    assert_eq!(world.gate.in_flight(id(1)), 5);
}

#[test]
fn nobody_overtakes_those_that_wait() {
    let mut world = World::new();
    let waiting: Vec<Ticket> = (0..9).map(|_| world.wait()).collect();
    world.admit(1);
    assert_eq!(world.released(), waiting[..8]);
    let late = world.wait();
    world.serve(1);
    assert_eq!(world.released(), [waiting[8], late]);
}

#[test]
fn one_that_comes_back_goes_before_all_that_arrived_after_it() {
    let mut world = World::with_instances(1);
    let (first, _) = world.arrive();
    world.gate.withdraw(world.now, id(1), Duration::ZERO);
    let second = world.wait();
    world.done(1, Outcome::Lost);
    let back = Back { ticket: first, body: NONE, waited: Duration::ZERO };
    assert_eq!(world.gate.again(world.now, SERVICE, &back, 0), Answer::Held);
    world.actions();
    world.admit(2);
    assert_eq!(world.released(), [first, second]);
}

#[test]
fn no_more_wait_than_may_and_the_rest_is_told_when_to_come_back() {
    let mut world = tight(2, u64::MAX);
    world.wait();
    world.wait();
    assert_eq!(world.reason(), Reason::HoldFull);
    assert_eq!(world.gate.held(), 2);
    assert_eq!(world.traffic().refused, 1);
}

#[test]
fn bodies_that_wait_take_no_more_than_they_may() {
    let mut world = tight(10, 100);
    let arrive = |world: &mut World, body| world.gate.arrive(world.now, SERVICE, Bytes(body), 0);
    let (first, _) = arrive(&mut world, 60);
    assert!(matches!(
        arrive(&mut world, 41),
        (_, Answer::Refused(Refusal { reason: Reason::HoldBytes, .. }))
    ));
    assert_eq!(arrive(&mut world, 40).1, Answer::Held);
    world.gate.left(world.now, SERVICE, first);
    assert_eq!(arrive(&mut world, 60).1, Answer::Held);
}

#[test]
fn a_client_that_leaves_frees_its_place_at_once() {
    let mut world = tight(1, u64::MAX);
    let first = world.wait();
    world.gate.left(world.now, SERVICE, first);
    assert_eq!(world.gate.held(), 0);
    world.wait();
    world.gate.left(world.now, SERVICE, first);
    assert_eq!(world.gate.held(), 1, "leaving twice frees one place");
    assert_eq!(world.refused(), [], "who has left is not answered");
}

#[test]
fn a_ticket_that_comes_twice_takes_one_place_and_is_answered_once() {
    let mut world = tight(1, 100);
    let (ticket, _) = world.gate.arrive(world.now, SERVICE, Bytes(80), 0);
    let back = Back { ticket, body: Bytes(70), waited: SECOND };
    assert_eq!(world.gate.again(world.now, SERVICE, &back, 0), Answer::Held);
    assert_eq!(world.gate.held(), 1);
    world.admit(1);
    assert_eq!(world.released(), [ticket]);
    assert_eq!(world.gate.held(), 0);
}

#[test]
fn a_place_that_is_full_for_one_service_lets_another_pass() {
    let mut world = tight(1, u64::MAX);
    let other = ServiceId(1);
    world.gate.add(other, HANG);
    world.gate.stand(world.now, other, Standing::Expected { not_before: None });
    let instance = InstanceId { service: other, number: 1 };
    world.gate.admit(world.now, instance);
    world.wait();
    assert_eq!(world.gate.arrive(world.now, other, NONE, 0).1, Answer::Go { instance });
}

#[test]
fn who_has_waited_for_as_long_as_it_may_is_refused() {
    let mut world = World::new();
    let first = world.wait();
    world.pass(SECOND);
    let second = world.wait();
    world.actions();
    assert_eq!(world.next(), HOLD_WAIT_DEFAULT.saturating_sub(SECOND));
    let refusal = Refusal { reason: Reason::HoldTimeout, retry_after: RETRY_AFTER };
    assert_eq!(world.refused(), [(first, refusal)]);
    assert_eq!(world.next(), SECOND);
    assert_eq!(world.refused(), [(second, refusal)]);
    assert_eq!(world.gate.next_deadline(), None);
}

#[test]
fn all_waits_of_a_request_together_have_one_deadline() {
    let mut world = World::with_instances(1);
    let (ticket, _) = world.arrive();
    world.gate.withdraw(world.now, id(1), Duration::ZERO);
    world.done(1, Outcome::Lost);
    let waited = HOLD_WAIT_DEFAULT.saturating_sub(SECOND);
    let back = Back { ticket, body: NONE, waited };
    assert_eq!(world.gate.again(world.now, SERVICE, &back, 0), Answer::Held);
    assert_eq!(world.next(), SECOND);
    assert_eq!(world.refused().len(), 1);
    assert_eq!(world.traffic().longest_hold, HOLD_WAIT_DEFAULT);
    let back = Back { waited: HOLD_WAIT_DEFAULT, ..back };
    let refusal = Refusal { reason: Reason::HoldTimeout, retry_after: RETRY_AFTER };
    assert_eq!(world.gate.again(world.now, SERVICE, &back, 0), Answer::Refused(refusal));
}

#[test]
fn an_instance_that_gets_ready_at_the_last_moment_is_not_missed() {
    let mut world = World::new();
    let ticket = world.wait();
    world.pass(HOLD_WAIT_DEFAULT);
    world.admit(1);
    assert_eq!(world.released(), [ticket]);
}

#[test]
fn a_stop_refuses_all_that_wait_and_all_that_come() {
    let mut world = World::new();
    let waiting = [world.wait(), world.wait()];
    world.gate.stand(world.now, SERVICE, Standing::Stopped);
    let refused = world.refused();
    assert_eq!(refused.iter().map(|(ticket, _)| *ticket).collect::<Vec<_>>(), waiting);
    assert!(refused.iter().all(|(_, refusal)| refusal.reason == Reason::Stopped));
    assert_eq!(world.reason(), Reason::Stopped);
    assert_eq!(world.gate.held(), 0);
    assert_eq!(world.gate.next_deadline(), None);
}

#[test]
fn a_start_that_comes_too_late_refuses_at_once_and_one_in_time_does_not() {
    let mut world = World::new();
    let not_before = Some(world.now + HOLD_WAIT_DEFAULT);
    world.gate.stand(world.now, SERVICE, Standing::Expected { not_before });
    world.wait();
    let not_before = Some(world.now + HOLD_WAIT_DEFAULT + SECOND);
    world.gate.stand(world.now, SERVICE, Standing::Expected { not_before });
    let (_, answer) = world.arrive();
    let retry_after = HOLD_WAIT_DEFAULT + SECOND;
    assert_eq!(answer, Answer::Refused(Refusal { reason: Reason::BackingOff, retry_after }));
}

#[test]
fn a_service_that_is_not_known_is_gone() {
    let mut world = World::new();
    let (_, answer) = world.gate.arrive(world.now, ServiceId(9), NONE, 0);
    assert!(matches!(answer, Answer::Refused(Refusal { reason: Reason::Gone, .. })));
}

#[test]
fn a_hold_is_told_once_from_its_first_request_to_its_last() {
    let mut world = World::new();
    world.wait();
    world.pass(SECOND);
    world.wait();
    world.admit(1);
    let told: Vec<GateAction> =
        world.actions().into_iter().filter(|action| matches!(action, GateAction::Tell { .. })).collect();
    let tell = |what| GateAction::Tell { service: SERVICE, what };
    let ended = GateRecord::HoldEnded { requests: 2, refused: 0, longest: SECOND };
    assert_eq!(told, [tell(GateRecord::HoldBegan), tell(ended)]);
}

#[test]
fn who_is_refused_for_want_of_a_place_belongs_to_no_later_hold() {
    let mut world = tight(0, u64::MAX);
    world.reason();
    world.gate.configure(GateConfig::default());
    world.wait();
    world.admit(1);
    let ended = GateRecord::HoldEnded { requests: 1, refused: 0, longest: Duration::ZERO };
    assert!(world.actions().contains(&GateAction::Tell { service: SERVICE, what: ended }));
}

#[test]
fn new_bounds_are_used_at_once() {
    let mut world = World::with(GateConfig { in_flight_max: 1, ..GateConfig::default() });
    world.admit(1);
    world.go();
    let ticket = world.wait();
    world.actions();
    world.gate.configure(GateConfig::default());
    assert_eq!(world.next(), Duration::ZERO);
    assert_eq!(world.released(), [ticket]);
}
