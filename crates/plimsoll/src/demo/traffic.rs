//! Steady traffic, open-loop: a request is due every 20 ms whether or not the ones before were answered, and its time
//! counts from when it was due. Otherwise a service that stands still would hold up its own complaints.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use hyper::Method;
use hyper::header::HeaderValue;
use plimsoll_front::REASON;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout_at};

use super::board::Board;
use super::http::{self, Connection, HttpError};

pub(super) const PER_SECOND: u32 = 50;
const PERIOD: Duration = Duration::from_millis(1000 / PER_SECOND as u64);
/// A request that takes longer has failed. A hang is over after half of it.
pub(super) const TIMEOUT: Duration = Duration::from_secs(10);
/// Under way at once. The timeout allows no more than five hundred; past this a late host is not asked for more.
const UNDER_WAY_MAX: usize = 600;
/// Connections kept open between requests.
const IDLE_MAX: usize = 8;

/// Sends for as long as it is polled.
pub(super) async fn send(board: Rc<Board>, address: SocketAddr) {
    let client = Rc::new(Client { address, idle: RefCell::default() });
    let mut under_way = JoinSet::new();
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    for number in 0_u64.. {
        let intended = ticks.tick().await.into_std();
        while under_way.try_join_next().is_some() {}
        if under_way.len() < UNDER_WAY_MAX {
            under_way.spawn_local(one(Rc::clone(&board), Rc::clone(&client), number, intended));
        } else {
            board.write(|scene| {
                let ticket = scene.tally.sent();
                scene.tally.failed(ticket, Instant::now());
            });
        }
    }
}

async fn one(board: Rc<Board>, client: Rc<Client>, number: u64, intended: Instant) {
    let ticket = board.write(|scene| scene.tally.sent());
    let answer = timeout_at((intended + TIMEOUT).into(), client.ask(number)).await;
    board.write(|scene| match answer {
        Ok(Ok(Said::Answer)) => scene.tally.answered(ticket, intended, Instant::now()),
        Ok(Ok(Said::MayHaveRun)) => scene.tally.unsure(ticket, Instant::now()),
        Ok(Ok(Said::Failure) | Err(_)) | Err(_) => scene.tally.failed(ticket, Instant::now()),
    });
}

/// What came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    Answer,
    /// The front says that the service died with it, and that nobody knows whether it was carried out.
    MayHaveRun,
    Failure,
}

#[derive(Debug)]
struct Client {
    address: SocketAddr,
    idle: RefCell<Vec<Connection>>,
}

impl Client {
    /// Of four requests two are POSTs and two GETs, and of each one goes over a connection of its own. Nothing is
    /// sent a second time.
    async fn ask(&self, number: u64) -> Result<Said, HttpError> {
        let (post, keep) = (number.is_multiple_of(2), number % 4 < 2);
        let request = if post {
            let report = format!(r#"{{"title":"report {number}","body":"sent by plimsoll demo"}}"#);
            http::request(Method::POST, "/reports", report, keep)
        } else {
            http::request(Method::GET, "/reports?limit=5", String::new(), keep)
        };
        let mut connection = match keep.then(|| self.idle()).flatten() {
            Some(idle) => idle,
            None => http::over_tcp(self.address).await?,
        };
        let (head, _) = http::exchange(&mut connection, request).await?;
        if keep && self.idle.borrow().len() < IDLE_MAX {
            self.idle.borrow_mut().push(connection);
        }
        let reason = head.headers.get(REASON).map(HeaderValue::as_bytes);
        Ok(match reason {
            _ if head.status.is_success() => Said::Answer,
            Some(b"may-have-run") => Said::MayHaveRun,
            Some(_) | None => Said::Failure,
        })
    }

    /// A connection that was not closed meanwhile.
    fn idle(&self) -> Option<Connection> {
        let mut idle = self.idle.borrow_mut();
        idle.retain(|connection| !connection.is_closed());
        let ready = idle.iter().position(Connection::is_ready)?;
        Some(idle.swap_remove(ready))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;
    use tokio::task::LocalSet;

    #[test]
    fn a_service_that_never_answers_is_still_asked_at_the_same_rate() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        LocalSet::new().block_on(&runtime, async {
            // Accepts by the kernel alone.
            let deaf = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let board = Rc::new(Board::new());
            let sending =
                tokio::task::spawn_local(send(Rc::clone(&board), deaf.local_addr().expect("bound")));
            let deadline = Instant::now() + Duration::from_secs(10);
            // The board is looked at when something ends, and here nothing does.
            let asked = async {
                while board.look(|scene| scene.tally.window(0).sent) < 90 {
                    tokio::time::sleep(PERIOD).await;
                }
            };
            let asked = timeout_at(deadline.into(), asked).await;
            sending.abort();
            assert_eq!(asked, Ok(()));
            let window = board.look(|scene| scene.tally.window(0));
            assert_eq!(window.failed, 0, "{window:?}: two seconds of traffic, and nobody has given up yet");
        });
    }
}
