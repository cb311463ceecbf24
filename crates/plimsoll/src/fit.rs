//! Walls that fit into what somebody else has put around us: in a container of 256 MiB a wall of 512 MiB is none, and the
//! container's end would take us with it.

use plimsoll_core::MemoryConfig;
use plimsoll_core::units::Bytes;

use crate::config::Config;

/// What init, guard and front may need beside the services.
const OWN: Bytes = Bytes::mib(48);
/// Of a small room no more than this part.
const OWN_PART: u64 = 8;

/// Lowers every wall that would not fit alone, with soft limit and line in proportion, and says so. How many instances
/// there may be together is `check`'s to warn of.
pub(crate) fn fit(config: &mut Config, room: Option<Bytes>) -> Vec<String> {
    let Some(room) = room else { return Vec::new() };
    let most = room - OWN.min(room.scaled(1, OWN_PART));
    let mut said = Vec::new();
    for service in config.services.iter_mut().filter(|it| it.memory.hard > most) {
        let before = service.memory.hard;
        service.memory = fitted(&service.memory, most);
        let (name, line) = (&service.name, service.memory.recycle);
        said.push(format!(
            "{name}: the wall is {most} instead of {before}, and the line {line}: all of us together may use {room} here"
        ));
    }
    said
}

fn fitted(memory: &MemoryConfig, most: Bytes) -> MemoryConfig {
    let part = |of: Bytes| {
        let scaled = u128::from(of.0) * u128::from(most.0) / u128::from(memory.hard.0.max(1));
        Bytes(u64::try_from(scaled).unwrap_or(u64::MAX))
    };
    MemoryConfig { hard: most, soft: part(memory.soft), recycle: part(memory.recycle), ..*memory }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wall_that_is_too_high_is_lowered_with_all_that_stands_under_it() {
        let memory = fitted(&MemoryConfig::default(), Bytes::mib(256));
        assert_eq!(
            (memory.hard, memory.soft, memory.recycle),
            (Bytes::mib(256), Bytes::mib(128), Bytes::mib(150))
        );
    }
}
