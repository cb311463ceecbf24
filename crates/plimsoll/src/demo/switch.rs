//! The sample service's own switches, by which the faults are set off.

use std::time::Duration;

use hyper::Method;
use tokio::time::timeout;

use super::fault::Fault;
use super::http::{self, HttpError};
use super::stage::Stage;

/// For a switch to answer.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// Sets off the fault; the error says why it was not.
pub(super) async fn press(stage: &Stage, fault: &Fault) -> Result<(), String> {
    let answer = async {
        let mut connection = http::over_tcp(stage.address).await?;
        let request = http::request(Method::POST, fault.switch, String::new(), false);
        http::exchange(&mut connection, request).await
    };
    match timeout(ANSWER_MAX, answer).await {
        Ok(Ok((head, _))) if head.status.is_success() => Ok(()),
        Ok(Ok((head, body))) => {
            Err(format!("the sample service says {}: {}", head.status, String::from_utf8_lossy(&body)))
        }
        Ok(Err(HttpError::Connect(error))) => Err(format!("the sample service is not there: {error}")),
        // The fault may well have taken its own answer along.
        Ok(Err(HttpError::Broken(_) | HttpError::Answer(_))) | Err(_) => Ok(()),
    }
}
