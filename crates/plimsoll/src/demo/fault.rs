//! The faults of the show, in their order, and what each is expected to set off.

use plimsoll_core::Layer;

/// One fault, injected through the sample service's own switches.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) name: &'static str,
    /// The switch: target of a POST to the sample service.
    pub(super) switch: &'static str,
    /// The layer whose work this is.
    pub(super) layer: Layer,
    pub(super) shows: Shows,
    /// The guard is stopped until the service is dead: what holds then, holds without the guard.
    pub(super) guard_sleeps: bool,
    /// The instance is handed over, so that not even a request of an unknown outcome is allowed.
    pub(super) planned: bool,
}

/// From when on the fault could be detected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shows {
    AtOnce,
    /// Once memory passes the recycle line.
    OverMemoryLine,
    /// Once the descriptors reach their recycle line.
    AtDescriptorLine,
}

/// What only recycles comes first: after some crashes in a row an incident stays open until the service was
/// well for ten seconds, and the show has to wait for that.
///
/// - The leaks are slow enough to be seen coming, as the incident's was.
/// - The first spike ends under the strip at the wall where instances are killed, so that stopping gently is right.
/// - The second one takes twice the wall in one go. The guard, were it awake, would race the kernel for it and often win.
pub(super) const FAULTS: [Fault; 6] = [
    Fault {
        name: "heap leak, 30 MiB/s",
        switch: "/fault/leak-heap?rate=30MiB&total=400MiB",
        layer: Layer::KillSwitch,
        shows: Shows::OverMemoryLine,
        guard_sleeps: false,
        planned: true,
    },
    Fault {
        name: "descriptor leak, 40/s",
        switch: "/fault/leak-descriptors?rate=40&kind=pipe",
        layer: Layer::Descriptors,
        shows: Shows::AtDescriptorLine,
        guard_sleeps: false,
        planned: true,
    },
    Fault {
        name: "spike, 80 MiB in 0.3 s",
        switch: "/fault/spike?size=80MiB&over=300ms&for=20s",
        layer: Layer::KillSwitch,
        shows: Shows::OverMemoryLine,
        guard_sleeps: false,
        planned: false,
    },
    Fault {
        name: "spike past the wall",
        switch: "/fault/spike?size=256MiB&over=10ms&for=20s",
        layer: Layer::HardWall,
        shows: Shows::AtOnce,
        guard_sleeps: true,
        planned: false,
    },
    Fault {
        name: "crash",
        switch: "/fault/crash?code=1",
        layer: Layer::Recovery,
        shows: Shows::AtOnce,
        guard_sleeps: false,
        planned: false,
    },
    Fault {
        name: "hang",
        switch: "/fault/hang",
        layer: Layer::Health,
        shows: Shows::AtOnce,
        guard_sleeps: false,
        planned: false,
    },
];

impl Fault {
    /// The layer whose work it is on this host. Where no cgroup can be had nothing stops a spike at the wall but the
    /// sampling of the kill-switch.
    pub(super) const fn expected(&self, wall_by_kernel: bool) -> Layer {
        if matches!(self.layer, Layer::HardWall) && !wall_by_kernel {
            return Layer::KillSwitch;
        }
        self.layer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_layer_that_acts_by_itself_has_its_fault() {
        for layer in Layer::ALL.into_iter().filter(|layer| *layer != Layer::SoftLimit) {
            assert!(FAULTS.iter().any(|fault| fault.layer == layer), "{layer:?}");
        }
    }

    #[test]
    fn without_a_cgroup_the_wall_is_left_to_sampling() {
        let wall = FAULTS.iter().find(|fault| fault.layer == Layer::HardWall).expect("it has its fault");
        assert_eq!(wall.expected(true), Layer::HardWall);
        assert_eq!(wall.expected(false), Layer::KillSwitch);
    }
}
