//! A request's body as it is taken in: a small one whole, a large one as it comes.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};

use crate::answer::Answer;
use crate::body::{Progress, RequestBody, Upload};
use crate::line::Line;
use crate::setup::Setup;
use crate::trace::Trace;

/// What was taken in.
#[derive(Debug)]
pub(super) struct Intake {
    pub(super) body: RequestBody,
    /// How far it has come. `None` where nothing comes.
    pub(super) progress: Option<Arc<Progress>>,
}

impl Intake {
    pub(super) const NOTHING: Self = Self { body: RequestBody::Nothing, progress: None };

    /// A small body is read now: it can be sent again then, and a slow client keeps no instance busy.
    pub(super) async fn take(
        incoming: Incoming,
        line: &Line,
        setup: &Setup,
        trace: &mut Trace,
    ) -> Result<Self, Answer> {
        let limits = &setup.limits;
        let told = incoming.size_hint();
        if told.lower() > limits.body_bytes {
            return Err(too_large());
        }
        trace.request_bytes = told.lower();
        let small = told.exact().is_some_and(|bytes| bytes <= limits.keep_bytes as u64);
        let progress = Arc::<Progress>::default();
        let upload = Upload::new(incoming, line, limits.body_bytes, Arc::clone(&progress));
        let mut body = RequestBody::Passing(Box::new(upload));
        if small {
            body = RequestBody::Kept(Some(read_whole(&mut body).await?));
        }
        Ok(Self { body, progress: Some(progress) })
    }
}

async fn read_whole(body: &mut RequestBody) -> Result<Bytes, Answer> {
    let mut whole: Option<Bytes> = None;
    let mut more = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| broken())?;
        let Ok(data) = frame.into_data() else { continue };
        // Most bodies come in one piece, which needs no copy.
        match whole.take() {
            None if more.is_empty() => whole = Some(data),
            None => more.extend_from_slice(&data),
            Some(first) => {
                more.extend_from_slice(&first);
                more.extend_from_slice(&data);
            }
        }
    }
    Ok(whole.unwrap_or_else(|| more.freeze()))
}

pub(super) const fn too_large() -> Answer {
    Answer::refused(StatusCode::PAYLOAD_TOO_LARGE, "body-too-large", "The body is larger than is taken here.")
}

pub(super) const fn broken() -> Answer {
    Answer::refused(StatusCode::BAD_REQUEST, "bad-body", "The body is not framed as it says.")
}
