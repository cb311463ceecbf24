//! An upgraded connection: bytes both ways until one side ends, or until the instance's time is over and it is closed
//! as its protocol wants it closed.

use std::io;
use std::time::Duration;

use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use plimsoll_core::gate::Outcome;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};

use crate::shared::{Backend, Lease};
use crate::websocket::Frames;

/// A service whose client has ended gets this long to end as well, and a client whose service has.
const LAST_WORDS: Duration = Duration::from_secs(10);
const BUFFER_BYTES: usize = 8 * 1024;
/// A WebSocket close frame, server to client: 1001, going away (RFC 6455, 7.4.1).
const GOING_AWAY: [u8; 4] = [0x88, 0x02, 0x03, 0xe9];

/// `stall`: the client may take nothing for so long.
pub(crate) async fn run(
    client: OnUpgrade,
    service: OnUpgrade,
    lease: Lease,
    websocket: bool,
    stall: Duration,
) {
    let (Ok(client), Ok(service)) = tokio::join!(client, service) else { return };
    let (client_read, mut client_write) = tokio::io::split(TokioIo::new(client));
    let (mut service_read, service_write) = tokio::io::split(TokioIo::new(service));
    let up = pass(client_read, service_write);
    let outcome = {
        let down = down(&mut service_read, &mut client_write, &lease.backend, websocket, stall);
        tokio::pin!(up, down);
        tokio::select! {
            ended = &mut down => ended,
            _ = &mut up => {
                // The client said its last; the service may still answer it.
                tokio::time::timeout(LAST_WORDS, down).await.unwrap_or(Ok(()))
            }
        }
    };
    // It has ended either way.
    let _ = tokio::time::timeout(LAST_WORDS, client_write.shutdown()).await;
    lease.finish(if outcome.is_ok() { Outcome::Served } else { Outcome::Left });
}

async fn pass(
    mut from: ReadHalf<TokioIo<Upgraded>>,
    mut to: WriteHalf<TokioIo<Upgraded>>,
) -> io::Result<u64> {
    let passed = tokio::io::copy(&mut from, &mut to).await;
    to.shutdown().await?;
    passed
}

/// From the service to the client, until the instance's streams are to end.
async fn down(
    from: &mut ReadHalf<TokioIo<Upgraded>>,
    to: &mut WriteHalf<TokioIo<Upgraded>>,
    backend: &Backend,
    websocket: bool,
    stall: Duration,
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut frames = Frames::default();
    loop {
        let told = backend.end.notified();
        tokio::pin!(told);
        told.as_mut().enable();
        if backend.is_ending() {
            if websocket && frames.is_between() {
                to.write_all(&GOING_AWAY).await?;
            }
            return to.flush().await;
        }
        let count = tokio::select! {
            count = from.read(&mut buffer) => count?,
            () = told => continue,
        };
        if count == 0 {
            return Ok(());
        }
        if websocket {
            frames.passed(&buffer[..count]);
        }
        // Not asked how much of it was taken: a client that takes 8 KiB in all that time is as good as gone.
        tokio::time::timeout(stall, to.write_all(&buffer[..count]))
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
    }
}
