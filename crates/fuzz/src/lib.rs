//! What parses bytes from outside, each as a target that takes any bytes at all.
//!
//! A target may refuse its bytes; it may not panic, hang, or take memory without a bound, and it checks the rules that
//! the parser promises. `cargo xtask fuzz` drives them with libFuzzer, the tests of this package with their corpus.
//! Never shipped.

mod guard;
mod heap;
mod kernel;
mod product;

pub use heap::bounded;

/// A parser, and any bytes for it.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Also the folder of its corpus.
    pub name: &'static str,
    pub run: fn(&[u8]),
}

pub const TARGETS: [Target; 17] = [
    Target { name: "proxy_protocol", run: plimsoll_front::fuzz::proxy_protocol },
    Target { name: "request", run: plimsoll_front::fuzz::request },
    Target { name: "path_pattern", run: plimsoll_front::fuzz::path_pattern },
    Target { name: "certificate", run: plimsoll_front::fuzz::certificate },
    Target { name: "websocket", run: plimsoll_front::fuzz::websocket },
    Target { name: "control", run: guard::control },
    Target { name: "ledger", run: guard::ledger },
    Target { name: "records", run: guard::records },
    Target { name: "placeholders", run: guard::placeholders },
    Target { name: "process_files", run: kernel::process_files },
    Target { name: "cgroup_files", run: plimsoll_kernel::fuzz::cgroup_files },
    Target { name: "user_files", run: kernel::user_files },
    Target { name: "config", run: product::config },
    Target { name: "vault_log", run: plimsoll_vault::fuzz::log },
    Target { name: "vault_segment", run: plimsoll_vault::fuzz::segment },
    Target { name: "vault_names", run: plimsoll_vault::fuzz::names },
    Target { name: "vault_records", run: plimsoll_vault::fuzz::records },
];

/// The target of this name.
pub fn target(name: &str) -> Option<Target> {
    TARGETS.into_iter().find(|target| target.name == name)
}
