//! What is sent again.

use super::*;

const MINUTE: Duration = Duration::from_mins(1);

/// A GET that was lost once.
const GET: Plea =
    Plea { reach: Reach::Sent, safe: true, repeatable: false, body_kept: true, deaths: 1, fingerprint: 1 };
const POST: Plea = Plea { safe: false, fingerprint: 2, ..GET };

fn plead(world: &mut World, plea: Plea) -> Ruling {
    world.gate.plead(world.now, SERVICE, &plea)
}

#[test]
fn what_was_never_sent_goes_again_whatever_the_method() {
    let mut world = World::new();
    for deaths in 0..5 {
        let plea = Plea { reach: Reach::NotSent, deaths, ..POST };
        assert_eq!(plead(&mut world, plea), Ruling::Again);
    }
}

#[test]
fn a_safe_request_without_an_answer_goes_again_once() {
    let mut world = World::new();
    assert_eq!(plead(&mut world, GET), Ruling::Again);
    assert_eq!(plead(&mut world, Plea { deaths: 2, ..GET }), Ruling::GiveUp(Why::Poison));
    assert_eq!(world.traffic().replayed, 1);
}

#[test]
fn a_post_never_goes_twice() {
    let mut world = World::new();
    assert_eq!(plead(&mut world, POST), Ruling::GiveUp(Why::MayHaveRun));
}

#[test]
fn an_idempotency_key_lets_a_post_go_again() {
    let mut world = World::new();
    assert_eq!(plead(&mut world, Plea { repeatable: true, ..POST }), Ruling::Again);
}

#[test]
fn once_an_answer_has_begun_nothing_goes_again() {
    let mut world = World::new();
    let plea = Plea { reach: Reach::Answered, repeatable: true, ..GET };
    assert_eq!(plead(&mut world, plea), Ruling::GiveUp(Why::Answered));
}

#[test]
fn a_body_that_is_gone_cannot_go_again_and_says_what_may_have_been() {
    let mut world = World::new();
    let sent = Plea { body_kept: false, repeatable: true, ..POST };
    assert_eq!(plead(&mut world, sent), Ruling::GiveUp(Why::MayHaveRun));
    let not_sent = Plea { reach: Reach::NotSent, ..sent };
    assert_eq!(plead(&mut world, not_sent), Ruling::GiveUp(Why::BodyGone));
}

#[test]
fn one_that_was_in_flight_at_two_deaths_is_remembered_for_ten_minutes() {
    let mut world = World::new();
    plead(&mut world, Plea { deaths: 2, ..GET });
    assert!(world.gate.is_poison(world.now, SERVICE, GET.fingerprint));
    assert!(!world.gate.is_poison(world.now, SERVICE, POST.fingerprint));
    assert_eq!(plead(&mut world, GET), Ruling::GiveUp(Why::Poison), "the next one like it, at its first");
    world.pass((MINUTE * 10).saturating_sub(Duration::from_nanos(1)));
    assert!(world.gate.is_poison(world.now, SERVICE, GET.fingerprint));
    world.pass(Duration::from_nanos(1));
    assert!(!world.gate.is_poison(world.now, SERVICE, GET.fingerprint));
    assert_eq!(plead(&mut world, GET), Ruling::Again);
}

#[test]
fn the_memory_for_poison_is_bounded_and_keeps_the_latest() {
    let mut world = World::new();
    for fingerprint in 0..100 {
        plead(&mut world, Plea { deaths: 2, fingerprint, ..GET });
    }
    let known: Vec<u64> = (0..100).filter(|it| world.gate.is_poison(world.now, SERVICE, *it)).collect();
    assert_eq!(known, (36..100).collect::<Vec<u64>>());
}

#[test]
fn replays_have_a_budget_that_comes_back_with_time() {
    let mut world = World::new();
    let allowed = |world: &mut World| (0..1000).take_while(|_| plead(world, GET) == Ruling::Again).count();
    assert_eq!(allowed(&mut world), 200);
    assert_eq!(plead(&mut world, GET), Ruling::GiveUp(Why::Budget));
    world.pass(Duration::from_secs(9));
    assert_eq!(allowed(&mut world), 0);
    world.pass(Duration::from_secs(1));
    assert_eq!(allowed(&mut world), 200);
}

#[test]
fn the_budget_grows_with_the_traffic() {
    let mut world = World::with_instances(1);
    for _ in 0..2000 {
        world.go();
    }
    assert_eq!((0..1000).filter(|_| plead(&mut world, GET) == Ruling::Again).count(), 400);
    let never_sent = Plea { reach: Reach::NotSent, ..GET };
    assert_eq!(plead(&mut world, never_sent), Ruling::Again, "that costs nobody anything");
}
