//! Every event is legal in every state: whatever comes in whatever order, the head goes on and comes to rest.

use std::time::Duration;

use plimsoll_core::units::{Bytes, Instant};
use plimsoll_core::{
    Action, Event, Exit, Handover, Head, InstanceId, MemoryConfig, Notice, OomDelta, Order, ProbeOutcome,
    Sample, ServiceConfig, ServiceId, SpawnFailure,
};
use proptest::prelude::*;

/// More than any single event can call for.
const ACTIONS_MAX: usize = 200;

#[derive(Clone, Debug)]
enum Input {
    Event(Box<Event>),
    Pass(Duration),
}

fn told(event: Event) -> Input {
    Input::Event(Box::new(event))
}

fn config() -> impl Strategy<Value = ServiceConfig> {
    let handover = prop_oneof![Just(Handover::Hold), Just(Handover::Overlap), Just(Handover::Standby)];
    (1u16..4, handover, any::<bool>(), 0u64..3000, 1u32..4).prop_map(
        |(replicas, handover, probed, millis, count)| {
            let mut config = ServiceConfig::named("any");
            config.replicas = replicas;
            config.recovery.handover = handover;
            config.recovery.drain = Duration::from_millis(millis);
            config.recovery.stop_grace = Duration::from_millis(millis / 2);
            config.recovery.recycles_per_hour = count;
            config.health.probed = probed;
            config.health.retries = count;
            config.memory = MemoryConfig::with_defaults(None, Some(Bytes::mib(64)), Some(Bytes::mib(40)));
            config.memory.persistence = Duration::from_millis(millis);
            config
        },
    )
}

fn exit() -> impl Strategy<Value = Exit> {
    prop_oneof![Just(Exit::Code(0)), Just(Exit::Code(137)), Just(Exit::Signal(9)), Just(Exit::Unknown)]
}

fn outcome() -> impl Strategy<Value = ProbeOutcome> {
    let took = Duration::from_secs(1);
    prop_oneof![
        Just(ProbeOutcome::Passed { took }),
        Just(ProbeOutcome::Late { took }),
        Just(ProbeOutcome::Refused),
        Just(ProbeOutcome::Unanswered),
        Just(ProbeOutcome::NotAsked),
    ]
}

/// What an instance can be said to have done; few numbers, so that many of them meet a living one.
fn about_an_instance() -> impl Strategy<Value = Event> {
    let id =
        (0u32..3, 1u64..9).prop_map(|(service, number)| InstanceId { service: ServiceId(service), number });
    let failure = prop_oneof![
        Just(SpawnFailure::Exhausted),
        Just(SpawnFailure::AddressTaken),
        Just(SpawnFailure::Refused)
    ];
    let notice = prop_oneof![Just(Notice::TripWire), Just(Notice::OomKill), Just(Notice::Pressure)];
    let sample = (0u64..80, 0u64..10_000);
    id.prop_flat_map(move |instance| {
        prop_oneof![
            4 => Just(Event::Spawned { instance }),
            1 => failure.clone().prop_map(move |failure| Event::SpawnFailed { instance, failure }),
            2 => (exit(), 0u64..2, any::<bool>()).prop_map(move |(exit, kills, tree_empty)| {
                Event::Exited { instance, exit, oom: OomDelta { kills }, tree_empty }
            }),
            1 => Just(Event::Emptied { instance }),
            5 => sample.clone().prop_map(move |(mib, descriptors)| {
                let working_set = Bytes::mib(mib);
                let descriptors = Some(descriptors);
                Event::Sampled { instance, sample: Sample { working_set, charged: working_set, descriptors } }
            }),
            1 => Just(Event::SampleFailed { instance }),
            1 => notice.clone().prop_map(move |notice| Event::Noticed { instance, notice }),
            5 => outcome().prop_map(move |outcome| Event::Probed { instance, outcome }),
            1 => Just(Event::EvidenceKept { instance }),
            1 => (0u32..3).prop_map(move |count| Event::InFlight { instance, count }),
            1 => Just(Event::Stalled { instance }),
        ]
    })
}

fn input() -> impl Strategy<Value = Input> {
    let order =
        prop_oneof![Just(Order::Start), Just(Order::Stop), Just(Order::Restart), Just(Order::Recycle)];
    let service = (0u32..3).prop_map(ServiceId);
    prop_oneof![
        12 => about_an_instance().prop_map(told),
        2 => (service.clone(), order)
            .prop_map(|(service, order)| told(Event::Ordered { service, order })),
        1 => (service, config())
            .prop_map(|(service, config)| told(Event::Configured { service, config })),
        6 => (0u64..4000).prop_map(|millis| Input::Pass(Duration::from_millis(millis))),
        1 => Just(Input::Pass(Duration::from_hours(2))),
    ]
}

fn drain(head: &mut Head) -> Vec<Action> {
    std::iter::from_fn(|| head.next_action()).take(ACTIONS_MAX + 1).collect()
}

/// Settling once more, by an event that says nothing about nobody.
fn settle_again(head: &mut Head, now: Instant) -> Vec<Action> {
    for service in 0..2 {
        let instance = InstanceId { service: ServiceId(service), number: u64::MAX };
        head.handle(now, Event::EvidenceKept { instance });
    }
    drain(head)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn any_events_in_any_order_end_in_rest(
        configs in (config(), config()),
        inputs in proptest::collection::vec(input(), 1..120),
    ) {
        let mut head = Head::new(1);
        head.add(configs.0, 1);
        head.add(configs.1, 1);
        let mut now = Instant(1_000_000_000);
        for input in inputs {
            match input.clone() {
                Input::Event(event) => head.handle(now, *event),
                Input::Pass(span) => {
                    now = now + span;
                    head.handle_deadline(now);
                    prop_assert!(head.next_deadline().is_none_or(|at| at > now), "due again at once");
                }
            }
            let actions = drain(&mut head);
            prop_assert!(actions.len() <= ACTIONS_MAX, "no end of actions after {input:?}");
            let again = settle_again(&mut head, now);
            prop_assert!(again.is_empty(), "not at rest after {input:?}: {again:?}");
        }
    }
}
