//! One thread of the front: a runtime of its own, and a share of the connections.

use std::io;
use std::net::TcpListener as StdListener;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustix::net::sockopt;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::config::ListenerConfig;
use crate::connection;
use crate::local::Local;
use crate::tls::{Chores, Severity, TlsEvent};

/// Connections are looked at, and the coarse clock set, this often while there are any.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(200);
/// The gate's deadlines are kept this closely while it has any.
const TICK: Duration = Duration::from_millis(20);
/// Out of descriptors or memory, nothing is accepted for this long.
const PAUSE: Duration = Duration::from_millis(100);
/// After it was told to close, connections get this long.
const CLOSE_WITHIN: Duration = Duration::from_secs(10);

/// What the threads are to do, as of now.
#[derive(Clone, Debug, Default)]
pub(crate) struct Orders {
    pub(crate) listeners: Vec<(ListenerConfig, Arc<StdListener>)>,
    /// Another process accepts from now on; what is connected may finish.
    pub(crate) leaving: bool,
    pub(crate) closing: bool,
}

/// The body of a thread. `first`: it keeps the gate's deadlines for all.
pub(crate) fn run(
    local: Local,
    orders: watch::Receiver<Orders>,
    first: bool,
    chores: Option<Chores>,
) -> io::Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
    runtime.block_on(async move {
        let local = Rc::new(local);
        if first {
            tokio::task::spawn_local(keep_deadlines(Rc::clone(&local)));
        }
        if let Some(Chores { task, mut news }) = chores {
            tokio::task::spawn_local(task);
            let local = Rc::clone(&local);
            tokio::task::spawn_local(async move {
                while let Some(TlsEvent { severity, kind, message }) = news.recv().await {
                    local.shared.reporter.say(kind.name(), worth(severity), message);
                }
            });
        }
        tokio::task::spawn_local(look_around(Rc::clone(&local)));
        tokio::task::spawn_local(drop_withdrawn(Rc::clone(&local)));
        follow(&local, orders).await;
    });
    Ok(())
}

/// A certificate that fails or is about to end needs a person.
const fn worth(severity: Severity) -> &'static str {
    match severity {
        Severity::Info => "info",
        Severity::Warning => "warning",
        Severity::Error => "page",
    }
}

/// Listens where it is told to, until it is told to close.
async fn follow(local: &Rc<Local>, mut orders: watch::Receiver<Orders>) {
    let mut accepting: Vec<(ListenerConfig, JoinHandle<()>)> = Vec::new();
    loop {
        let now = orders.borrow_and_update().clone();
        accepting.retain(|(config, task)| {
            let wanted =
                !now.closing && !now.leaving && now.listeners.iter().any(|(other, _)| other == config);
            if !wanted {
                task.abort();
            }
            wanted
        });
        if now.closing {
            local.close();
            let _ = tokio::time::timeout(CLOSE_WITHIN, no_connections(local)).await;
            return;
        }
        if now.leaving {
            local.leave();
        }
        for (config, listener) in now.listeners.into_iter().filter(|_| !now.leaving) {
            if accepting.iter().all(|(other, _)| *other != config) {
                let task = tokio::task::spawn_local(accept(Rc::clone(local), listener, config));
                accepting.push((config, task));
            }
        }
        if orders.changed().await.is_err() {
            return;
        }
    }
}

async fn no_connections(local: &Local) {
    while local.has_connections() {
        tokio::time::sleep(TICK).await;
    }
}

async fn accept(local: Rc<Local>, listener: Arc<StdListener>, config: ListenerConfig) {
    let listener = match listener.try_clone().and_then(TcpListener::from_std) {
        Ok(listener) => listener,
        Err(error) => {
            let message = format!("cannot listen on {}: {error}", config.address);
            local.shared.reporter.say("listen_failed", "page", message);
            return;
        }
    };
    prepare(&listener);
    let mut short = false;
    loop {
        room(&local).await;
        match listener.accept().await {
            Ok((stream, peer)) => {
                short = false;
                local.shared.connections.fetch_add(1, Ordering::Relaxed);
                connection::start(&local, stream, peer, config.tls);
            }
            Err(error) if is_shortage(&error) => {
                if !std::mem::replace(&mut short, true) {
                    let message = format!("no connection can be accepted on {}: {error}", config.address);
                    local.shared.reporter.say("accept_paused", "warning", message);
                }
                tokio::time::sleep(PAUSE).await;
            }
            // That client has gone already.
            Err(_) => tokio::task::yield_now().await,
        }
    }
}

/// What it accepts inherits these. With the second, a client that vanished without a word is found in the end.
fn prepare(listener: &TcpListener) {
    let _ = sockopt::set_tcp_nodelay(listener, true);
    let _ = sockopt::set_socket_keepalive(listener, true);
}

/// Waits while as many connections are open as may be.
async fn room(local: &Local) {
    loop {
        let closed = local.shared.connection_closed.notified();
        tokio::pin!(closed);
        closed.as_mut().enable();
        if local.shared.connections.load(Ordering::Relaxed) < local.setup().limits.connections {
            return;
        }
        // One that closes wakes one of the threads; the others look again by themselves.
        let _ = tokio::time::timeout(PAUSE, closed).await;
    }
}

fn is_shortage(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let short = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
    error.raw_os_error().is_some_and(|code| short.iter().any(|it| it.raw_os_error() == code))
}

async fn keep_deadlines(local: Rc<Local>) {
    loop {
        while local.shared.tick() {
            tokio::time::sleep(TICK).await;
        }
        local.shared.busy.notified().await;
    }
}

async fn look_around(local: Rc<Local>) {
    loop {
        local.shared.clock.look();
        local.sweep();
        local.patience.look();
        if local.has_nothing() {
            local.something.notified().await;
        } else {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

async fn drop_withdrawn(local: Rc<Local>) {
    let mut withdrawals = local.shared.withdrawals.subscribe();
    while withdrawals.changed().await.is_ok() {
        let wanted = local.shared.wanted();
        local.pool.drop_others(|id| wanted.contains(&id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_accepted_connection_does_not_wait_for_more_to_send_and_is_found_when_it_is_dead() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        prepare(&listener);
        let _client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        assert!(sockopt::tcp_nodelay(&stream).unwrap());
        assert!(sockopt::socket_keepalive(&stream).unwrap());
    }
}
