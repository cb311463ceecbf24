//! Bugs planted on purpose. The simulator must catch each of them, or it proves nothing.
//!
//! Without the `planted` feature, which no shipped binary has, every question here is answered `false` at compile time.

/// Each is a mistake that a real supervisor was seen to make, or that a careless change to this one would bring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planted {
    /// `hold` starts the new one while the old one still runs.
    SpawnBeforeGone,
    /// Nothing follows a stop signal that is ignored.
    NoKillAfterGrace,
    /// An instance counts as gone when its main process is.
    ForgetChildren,
    /// A crash after `stop` starts the service again.
    RestartWhenDown,
    /// Restart at once, always.
    NoBackoff,
    /// After ten crashes it is left dead.
    GiveUp,
    /// Recycles without end.
    BudgetIgnored,
    /// A recycle wipes the record of crashes.
    RecycleForgivesCrashes,
    /// A failed measurement counts as nothing used.
    FailedSampleIsZero,
    /// The old one is stopped although the new one never got ready.
    StopOldAnyway,
    /// Traffic goes to the new one before it is ready.
    AdmitUnready,
    /// A late answer counts as no answer.
    LateIsDead,
    /// Every cause opens an incident and a recycle of its own.
    ManyDeciders,
    /// A line under the baseline is accepted.
    LineUnderBaseline,
    /// What a gone instance held is kept.
    ForgetRelease,
    /// One spike is remembered for ever.
    SpikeIsForEver,
    /// A probe that never comes back is waited for.
    WaitForLostProbe,
    /// Growth towards the wall is not looked at.
    SlopeIgnored,
    /// Near the wall there is still time for a drain.
    DrainAtTheWall,
    /// Requests still go to an instance that is being stopped.
    ForgetWithdraw,
    /// Starting has no deadline.
    WaitForStart,
    /// A kill is sent once, and believed.
    KillOnce,
    /// An instance that hangs waits for a successor that was called for another reason.
    DeafWaits,
    /// New settings wipe out what the service was seen to need just to run.
    ReloadForgetsBaseline,
    /// A spare that takes over is replaced at once, however often that happens.
    SparesWithoutBackoff,
    /// Successors come however many former ones will not die.
    PileUp,
    /// The time it takes to die counts as a healthy life.
    DyingIsLiving,
    /// After a failed measurement the next look comes no sooner, however near the wall.
    BlindLooksSeldom,
    /// A client that leaves the line does not free its place.
    HoldLeaksPlace,
    /// Bodies of held requests are not counted.
    HoldBytesIgnored,
    /// All that wait go at once to whoever is ready first.
    ReleaseAll,
    /// Who came last goes first.
    Overtake,
    /// What is not safe to repeat is sent again after a death.
    ReplayPost,
    /// A request that was in flight at two deaths is sent a third time.
    PoisonReplayed,
    /// A stop leaves those waiting who wait.
    ForgetHeldOnStop,
    /// New requests still go to an instance that drains.
    ReleaseToWithdrawn,
    /// Who has left the line is answered all the same.
    AnswerTwice,
    /// A request that comes back waits from the beginning.
    WaitBeginsAnew,
    /// A stall is due on an instance that drains, where nobody deals with it.
    DrainingStalls,
    /// Nobody looks at the line again once a pause is over.
    CrowdForgotten,
    /// The last instance is left out for failing.
    EjectLast,
    /// Streams are left to the stop signal.
    StreamsNeverClosed,
    /// A client that leaves is in flight for ever.
    LeftIsNotDone,
    /// A new guard believes that nothing of the last one's instances is left.
    AdoptNobody,
    /// What was being started when a guard ended is taken for never started.
    AdoptNoStarts,
    /// An operator's `stop` is forgotten with the guard that heard it.
    AdoptAsUp,
    /// However many wait, there is room for one more.
    HoldCountIgnored,
    /// Whose time in the line is over is dropped and never answered.
    ExpiredUntold,
    /// The first answer of a fresh instance opens the gate wide.
    RampForgotten,
    /// One instance may have any number of requests.
    InFlightUnbounded,
    /// Requests are sent again without end.
    ReplaysWithoutBudget,
    /// What killed an instance twice is not remembered for the next that asks the same.
    PoisonForgotten,
    /// Nobody is told that requests wait for an answer that does not come.
    StallUntold,
    /// An instance that was left out for failing gets requests all the same.
    EjectedGetsMore,
    /// Several replicas are replaced at once.
    AllAtOnce,
}

impl Planted {
    /// Those that only show where guards end.
    pub const OF_ADOPTION: [Self; 3] = [Self::AdoptNobody, Self::AdoptNoStarts, Self::AdoptAsUp];

    pub const ALL: [Self; 52] = [
        Self::SpawnBeforeGone,
        Self::NoKillAfterGrace,
        Self::ForgetChildren,
        Self::RestartWhenDown,
        Self::NoBackoff,
        Self::GiveUp,
        Self::BudgetIgnored,
        Self::RecycleForgivesCrashes,
        Self::FailedSampleIsZero,
        Self::StopOldAnyway,
        Self::AdmitUnready,
        Self::LateIsDead,
        Self::ManyDeciders,
        Self::LineUnderBaseline,
        Self::ForgetRelease,
        Self::SpikeIsForEver,
        Self::WaitForLostProbe,
        Self::SlopeIgnored,
        Self::DrainAtTheWall,
        Self::ForgetWithdraw,
        Self::WaitForStart,
        Self::KillOnce,
        Self::DeafWaits,
        Self::ReloadForgetsBaseline,
        Self::SparesWithoutBackoff,
        Self::PileUp,
        Self::DyingIsLiving,
        Self::BlindLooksSeldom,
        Self::HoldLeaksPlace,
        Self::HoldBytesIgnored,
        Self::ReleaseAll,
        Self::Overtake,
        Self::ReplayPost,
        Self::PoisonReplayed,
        Self::ForgetHeldOnStop,
        Self::ReleaseToWithdrawn,
        Self::AnswerTwice,
        Self::WaitBeginsAnew,
        Self::DrainingStalls,
        Self::CrowdForgotten,
        Self::EjectLast,
        Self::StreamsNeverClosed,
        Self::LeftIsNotDone,
        Self::HoldCountIgnored,
        Self::ExpiredUntold,
        Self::RampForgotten,
        Self::InFlightUnbounded,
        Self::ReplaysWithoutBudget,
        Self::PoisonForgotten,
        Self::StallUntold,
        Self::EjectedGetsMore,
        Self::AllAtOnce,
    ];
}

/// The bug at work in this head or gate, if any.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Plant(pub(crate) Option<Planted>);

impl Plant {
    pub(crate) fn has(self, bug: Planted) -> bool {
        cfg!(feature = "planted") && self.0 == Some(bug)
    }
}
