//! Reads the command line and hands over to the verb.

use std::ffi::OsString;
use std::fmt::Display;
use std::io::{self, Write};
use std::process::{ExitCode, Termination as _};

use clap::Parser as _;
use plimsoll::cli::{Cli, Exit, Verb};
use plimsoll::verbs::order::Order;
use plimsoll::verbs::{self, reach::ReachError};
use plimsoll_init::init;

/// musl's own takes a lock for each call, and maps and unmaps the buffers of every few requests (ADR 17).
#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let mut words = std::env::args_os().skip(1);
    // Before anything else is touched: init is to stay small.
    match words.next() {
        Some(word) if word == init::INIT_WORD => ExitCode::from(init::run(&words.collect::<Vec<_>>())),
        Some(word) if word == init::GUARD_WORD => {
            let words = std::iter::once(OsString::from("plimsoll")).chain(words);
            as_guard(Cli::parse_from(words)).report()
        }
        Some(_) | None => act(Cli::parse()).report(),
    }
}

/// The guard that init starts with the words that it was started with.
fn as_guard(cli: Cli) -> Exit {
    let Cli { global, verb: Verb::Run(args) } = cli else { return Exit::Usage };
    told(verbs::run::as_child(&args, &global), verbs::run::RunError::exit)
}

fn act(Cli { global, verb }: Cli) -> Exit {
    // Not locked: `run` prints from its own callbacks.
    let mut out = io::stdout();
    let order = |order, args, out: &mut dyn Write| reached(verbs::order::run(order, args, &global, out));
    match &verb {
        Verb::Init(args) => told(verbs::init::run(args, &mut out), verbs::init::InitError::exit),
        Verb::Check(args) => told(verbs::check::run(args, &global, &mut out), verbs::check::CheckError::exit),
        Verb::Run(args) => told(verbs::run::run(args, &global), verbs::run::RunError::exit),
        Verb::Status(args) => reached(verbs::status::run(args, &global, &mut out)),
        Verb::Events(args) => reached(verbs::events::run(args, &global, &mut out)),
        Verb::Incidents(args) => reached(verbs::incidents::run(args, &global, &mut out)),
        Verb::Logs(args) => reached(verbs::logs::run(args, &global, &mut out)),
        Verb::Recycle(args) => order(Order::Recycle, args, &mut out),
        Verb::Restart(args) => order(Order::Restart, args, &mut out),
        Verb::Stop(args) => order(Order::Stop, args, &mut out),
        Verb::Start(args) => order(Order::Start, args, &mut out),
        Verb::Reload(args) => reached(verbs::reload::run(args, &global, &mut out)),
        Verb::Upgrade(args) => reached(verbs::upgrade::run(args, &global, &mut out)),
        Verb::Sweep(args) => told(verbs::sweep::run(args, &global, &mut out), verbs::sweep::SweepError::exit),
        Verb::Export(args) => {
            told(verbs::export::run(args, &global, &mut out), verbs::export::ExportError::exit)
        }
        Verb::Vault(args) => told(verbs::vault::run(args, &global, &mut out), verbs::vault::VaultError::exit),
        Verb::Demo(args) => told(plimsoll::demo::run(args, &mut out), plimsoll::demo::DemoError::exit),
        Verb::Completions(args) => {
            reached(verbs::completions::run(args, &mut out).map(|()| Exit::Done).map_err(ReachError::Print))
        }
        Verb::SampleService(args) => verbs::sample_service::run(args),
    }
}

fn reached(outcome: Result<Exit, ReachError>) -> Exit {
    told(outcome, ReachError::exit)
}

/// What went wrong, in one line and by its exit code.
fn told<E: Display>(outcome: Result<Exit, E>, exit: impl FnOnce(&E) -> Exit) -> Exit {
    outcome.unwrap_or_else(|error| {
        let exit = exit(&error);
        if exit != Exit::Done {
            // Where even that cannot be written, the exit code has to do.
            let _ = writeln!(io::stderr(), "plimsoll: {error}");
        }
        exit
    })
}
