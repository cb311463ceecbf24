//! The front, from its users' side: what they lose, how fast it is beside nginx and HAProxy, and how many it can keep
//! waiting. All traffic is over loopback.

mod body;
mod client;
mod crowd;
mod ground;
mod handshakes;
mod load;
mod loss;
mod own;
mod proxy;
mod race;
mod sample;
mod scale;
mod series;
mod speed;
mod store;
mod subject;
mod upstream;
mod verdict;
mod wrk;

pub(super) use proxy::Kind;
pub(super) use speed::train;

use crate::bench::Part;

/// A file each; a new one is entered here.
pub(super) const PARTS: &[Part] = &[
    Part { name: "loss", run: loss::run },
    Part { name: "speed", run: speed::run },
    Part { name: "own", run: own::run },
    Part { name: "scale", run: scale::run },
];
