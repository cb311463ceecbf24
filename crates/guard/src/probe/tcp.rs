//! Does anybody listen? The kernel answers for a program that hangs, so this tells less than an HTTP check.

use super::Answer;
use crate::endpoint::Endpoint;

pub(super) async fn ask(endpoint: &Endpoint) -> Answer {
    match endpoint.connect().await {
        Ok(_) => Answer::Yes,
        Err(error) => super::unconnected(endpoint, &error),
    }
}
