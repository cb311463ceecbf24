//! A vault's agent, and waiting for what it shows and tells.

use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use plimsoll_vault::VaultConfig;
use plimsoll_vault::agent::Agent;
use plimsoll_vault::shared::Teller;
use plimsoll_vault::status::{News, Status};

pub fn start(config: VaultConfig) -> (Agent, Receiver<News>) {
    let (news, told) = sync_channel(1000);
    let teller = Teller::new(move |it| drop(news.try_send(it)));
    (Agent::start(config, teller), told)
}

/// Looks until it is so.
pub fn until(within: Duration, agent: &Agent, what: &str, mut is_so: impl FnMut(&Status) -> bool) -> Status {
    let began = Instant::now();
    loop {
        let status = agent.status();
        if is_so(&status) {
            return status;
        }
        assert!(began.elapsed() < within, "never {what}: {status:#?}");
        std::thread::yield_now();
    }
}

pub fn until_told(within: Duration, told: &Receiver<News>, kind: &str) -> News {
    let began = Instant::now();
    let mut all = Vec::new();
    while let Ok(news) = told.recv_timeout(within.saturating_sub(began.elapsed())) {
        if news.kind == kind {
            return news;
        }
        all.push(news);
    }
    panic!("never told {kind}: {all:#?}")
}
