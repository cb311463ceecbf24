//! The processes that were started for a guard, until a guard says that it is done with them.

use std::os::fd::OwnedFd;
use std::time::Instant;

use plimsoll_kernel::Exit;
use plimsoll_kernel::process::Identity;
use plimsoll_kernel::spawn::{Pending, SpawnError};

use crate::protocol::ChildKind;

/// A thousand services in an overlap, each with a check: more is a guard that has lost its mind.
const CHILDREN_MAX: usize = 8192;

#[derive(Debug)]
pub(crate) struct Child {
    pub(crate) kind: ChildKind,
    pub(crate) name: String,
    pub(crate) note: String,
    pub(crate) identity: Identity,
    /// The read end of its output: open as long as it is here, so that no end of a guard breaks its pipe.
    pub(crate) output: Option<OwnedFd>,
    pub(crate) state: State,
}

#[derive(Debug)]
pub(crate) enum State {
    /// On its way to its program, asked for by this number. It may have ended already. Goes to `Running`, or is gone.
    Starting { token: u64, pending: Pending, ended: Option<Exit>, handed_over: bool },
    /// Goes to `Ended`.
    Running,
    /// Kept until it is forgotten by a guard.
    Ended(Exit),
}

/// What became of a start.
#[derive(Debug)]
pub(crate) enum Born {
    Spawned {
        token: u64,
        identity: Identity,
        ended: Option<Exit>,
    },
    Failed {
        token: u64,
        error: SpawnError,
    },
    /// No program came to be of what the present guard holds for a running child.
    Lost {
        identity: Identity,
        exit: Exit,
    },
}

/// As shells have it for a command that could not be run.
const NOT_STARTED: Exit = Exit::Code(127);

#[derive(Debug, Default)]
pub(crate) struct Children {
    table: Vec<Child>,
}

impl Children {
    pub(crate) fn is_full(&self) -> bool {
        self.table.len() >= CHILDREN_MAX
    }

    pub(crate) fn add(&mut self, child: Child) {
        self.table.push(child);
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Child> {
        self.table.iter()
    }

    /// Those whose outcome is awaited.
    pub(crate) fn starting(&self) -> impl Iterator<Item = &Pending> {
        self.table.iter().filter_map(|child| match &child.state {
            State::Starting { pending, .. } => Some(pending),
            State::Running | State::Ended(_) => None,
        })
    }

    /// Some process of this pid has ended. What it was, where it is one of ours.
    pub(crate) fn ended(&mut self, pid: i32, exit: Exit) -> Ended {
        let ours = self.table.iter_mut().find(|it| it.identity.pid == pid && it.is_unreaped());
        let Some(child) = ours else { return Ended::Orphan };
        match &mut child.state {
            State::Starting { ended, .. } => {
                *ended = Some(exit);
                Ended::Unborn
            }
            State::Running | State::Ended(_) => {
                child.state = State::Ended(exit);
                Ended::Child(child.identity)
            }
        }
    }

    /// The outcomes that are known by now.
    pub(crate) fn born(&mut self, now: Instant) -> Vec<Born> {
        let mut born = Vec::new();
        for mut child in std::mem::take(&mut self.table) {
            let State::Starting { token, pending, ended, handed_over } = child.state else {
                self.table.push(child);
                continue;
            };
            child.state = match pending.outcome(now) {
                Err(pending) => State::Starting { token, pending, ended, handed_over },
                Ok(Ok(spawned)) => {
                    born.push(Born::Spawned { token, identity: spawned.identity, ended });
                    ended.map_or(State::Running, State::Ended)
                }
                // Another guard than the one that asked knows it as running.
                Ok(Err(_)) if handed_over => {
                    let exit = ended.unwrap_or(NOT_STARTED);
                    born.push(Born::Lost { identity: child.identity, exit });
                    State::Ended(exit)
                }
                Ok(Err(error)) => {
                    born.push(Born::Failed { token, error });
                    continue;
                }
            };
            self.table.push(child);
        }
        born
    }

    /// The present guard has been told of all of them.
    pub(crate) fn handed_over(&mut self) {
        for child in &mut self.table {
            if let State::Starting { handed_over, .. } = &mut child.state {
                *handed_over = true;
            }
        }
    }

    pub(crate) fn forget(&mut self, identity: Identity) {
        // One that lives is not forgotten, whatever a guard says: it would be an orphan.
        self.table.retain(|it| it.identity != identity || it.is_unreaped());
        if self.table.is_empty() {
            // After the busiest hour, the room it took is given back.
            self.table.shrink_to(16);
        }
    }

    /// Nothing runs that was started for a guard.
    pub(crate) fn are_over(&self) -> bool {
        !self.table.iter().any(Child::is_unreaped)
    }
}

impl Child {
    fn is_unreaped(&self) -> bool {
        match &self.state {
            State::Starting { ended, .. } => ended.is_none(),
            State::Running => true,
            State::Ended(_) => false,
        }
    }

    pub(crate) const fn end(&self) -> Option<Exit> {
        match self.state {
            State::Starting { ended, .. } => ended,
            State::Running => None,
            State::Ended(exit) => Some(exit),
        }
    }
}

/// Whose end it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Child(Identity),
    /// One whose start is not reported yet: its end is told with its start.
    Unborn,
    /// A process that we adopted.
    Orphan,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn running(pid: i32, start_time: u64) -> Child {
        Child {
            kind: ChildKind::Instance,
            name: format!("reports.{pid}"),
            note: String::new(),
            identity: Identity { pid, start_time },
            output: None,
            state: State::Running,
        }
    }

    #[test]
    fn an_end_is_kept_until_it_is_forgotten() {
        let mut children = Children::default();
        children.add(running(10, 1));
        let identity = Identity { pid: 10, start_time: 1 };
        children.forget(identity);
        assert_eq!(children.iter().count(), 1, "it lives");
        assert_eq!(children.ended(10, Exit::Code(3)), Ended::Child(identity));
        assert_eq!(children.iter().next().and_then(Child::end), Some(Exit::Code(3)));
        assert!(children.are_over());
        children.forget(identity);
        assert_eq!(children.iter().count(), 0);
    }

    #[test]
    fn a_pid_that_came_again_is_the_new_childs() {
        let mut children = Children::default();
        children.add(running(10, 1));
        children.ended(10, Exit::Code(0));
        children.add(running(10, 2));
        assert_eq!(children.ended(10, Exit::Code(7)), Ended::Child(Identity { pid: 10, start_time: 2 }));
        children.forget(Identity { pid: 10, start_time: 1 });
        assert_eq!(children.iter().map(Child::end).collect::<Vec<_>>(), [Some(Exit::Code(7))]);
    }

    #[test]
    fn a_process_that_nobody_asked_for_is_an_orphan() {
        assert_eq!(Children::default().ended(99, Exit::Code(0)), Ended::Orphan);
    }
}
