//! Adopting orphans. Alone in its binary: it reaps whatever child it can get.

mod common;

use common::{command, until};
use plimsoll_kernel::spawn::spawn;
use plimsoll_kernel::{Exit, become_subreaper, reap_next};

#[test]
fn a_daemon_becomes_our_child_and_its_exit_is_seen() {
    become_subreaper().unwrap();
    // The shell is gone at once, and what it left behind is nobody's but ours.
    let (command, _output) = command(&["sh", "-c", "( (exit 9) & ); exit 3"]);
    let child = spawn(&command).unwrap();
    let mut exits = Vec::new();
    until("both exits", || {
        exits.extend(reap_next());
        exits.iter().any(|(_, exit)| *exit == Exit::Code(9))
            && exits.iter().any(|(_, exit)| *exit == Exit::Code(3))
    });
    assert!(exits.contains(&(child.identity.pid, Exit::Code(3))));
    until("nobody to be left", || reap_next().is_none());
}
