//! Connections that are silent give their buffers back, and nobody notices.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

use crate::common::client::{connect, connect_tls};
use crate::common::upstream::Upstream;
use crate::common::wire::Wire;
use crate::common::{World, pass, until};

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: front.test\r\n\r\n";

async fn rested(world: &World) {
    let resting = || (world.front.counts().connections_resting == 1).then_some(());
    until("the connection to rest", resting).await;
}

async fn works(world: &World) {
    until("the connection to work", || (world.front.counts().connections_resting == 0).then_some(())).await;
}

async fn goes_on<T: AsyncRead + AsyncWrite + Unpin>(world: &World, mut wire: Wire<T>) {
    for _ in 0..2 {
        rested(world).await;
        wire.send(GET).await;
        assert_eq!(wire.response().await.unwrap().status(), 200);
        works(world).await;
    }
    // A head that comes in pieces, and a body larger than what is read at first.
    rested(world).await;
    wire.send(b"POST / HTTP/1.1\r\nHo").await;
    works(world).await;
    wire.send(b"st: front.test\r\nContent-Length: 9000\r\n\r\n").await;
    wire.send(vec![b'x'; 9000]).await;
    assert_eq!(wire.response().await.unwrap().status(), 200);
}

#[tokio::test]
async fn one_that_rested_goes_on_as_if_it_had_not() {
    let upstream = Upstream::recording().await;
    let world = World::before(&upstream, |_| {});
    goes_on(&world, connect(world.http).await).await;
    let bodies: Vec<usize> = upstream.take().iter().map(|it| it.body.len()).collect();
    assert_eq!(bodies, [0, 0, 9000]);
}

#[tokio::test]
async fn so_it_does_with_tls() {
    let upstream = Upstream::recording().await;
    let world = World::with_tls(|_| {});
    world.admit(1, &upstream.endpoint);
    goes_on(&world, Wire::new(connect_tls(world.https(), "http/1.1").await)).await;
}

#[tokio::test]
async fn half_a_head_behind_a_request_is_not_forgotten_and_has_its_time() {
    let upstream = Upstream::recording().await;
    let world = World::before(&upstream, |config| config.limits.head_wait = Duration::from_secs(4));
    let mut wire = connect(world.http).await;
    wire.send([GET, b"GET /second HTT"].concat()).await;
    assert_eq!(wire.response().await.unwrap().status(), 200);
    pass(Duration::from_secs(2)).await;
    wire.send(b"P/1.1\r\nHost: a.test\r\n\r\n").await;
    assert_eq!(wire.response().await.unwrap().status(), 200);
    assert!(upstream.take()[1].first().starts_with("GET /second "));
    wire.send([GET, b"GET /second HTT"].concat()).await;
    assert_eq!(wire.response().await.unwrap().status(), 200);
    assert_eq!(wire.rest().await, b"");
    assert_eq!(world.front.counts().ended_head, 1);
}

#[tokio::test]
async fn who_leaves_at_rest_is_gone_and_a_front_that_closes_closes_it() {
    let upstream = Upstream::recording().await;
    let world = World::before(&upstream, |_| {});
    let leaver = connect(world.http).await;
    rested(&world).await;
    drop(leaver);
    until("it to be gone", || (world.front.counts().connections == 0).then_some(())).await;
    let mut stayer = connect(world.http).await;
    rested(&world).await;
    world.front.close();
    assert_eq!(stayer.rest().await, b"");
}
