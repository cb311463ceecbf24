//! The control socket: HTTP and JSON over a Unix socket, with the contract's records. It asks the driver, which alone
//! knows and decides; nothing here touches a service.

pub mod client;
mod routes;
mod server;

use std::path::PathBuf;

use tokio::sync::{mpsc, oneshot};

use crate::records::Status;
use plimsoll_core::Order;

pub use server::{ControlError, Server};

/// Questions waiting for the driver at once; a caller beyond that waits.
pub const ASKS_MAX: usize = 64;

/// What the control socket may ask of the driver.
#[derive(Debug)]
pub enum Ask {
    Status(oneshot::Sender<Status>),
    Order {
        service: String,
        order: Order,
        reply: oneshot::Sender<Result<(), OrderError>>,
    },
    Reload(oneshot::Sender<Result<String, String>>),
    /// Replace the guard by the program at this path. Answered when it stands ready to take over, or does not.
    Upgrade {
        path: PathBuf,
        reply: oneshot::Sender<Result<String, String>>,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    #[error("no service is named {0:?}; `plimsoll status` lists them")]
    UnknownService(String),
    #[error("the guard is shutting down")]
    ShuttingDown,
}

/// How the control socket reaches the driver.
pub type Asker = mpsc::Sender<Ask>;
