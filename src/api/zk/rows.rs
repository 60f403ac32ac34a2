//! Bodies of an import: lots of rows as they come, and single steps.

use std::time::Duration;

use axum::body::{Body, Bytes};
use futures::StreamExt;

use crate::api::error::Problem;
use crate::limits::{API_BODY_WAIT_MS, ZK_CHUNK_BYTES_MAX};
use crate::migrate::zookeeper::pipe::Pipe;

const PATIENCE: Duration = Duration::from_millis(API_BODY_WAIT_MS);

/// Sends the lots of a body on as they come, and waits until all are durable.
pub(super) async fn send_on(body: Body, mut pipe: Pipe) -> Result<(), Problem> {
    let mut stream = body.into_data_stream();
    // Arrived, and not yet a whole lot.
    let mut held: Vec<u8> = Vec::new();
    loop {
        let bytes = match tokio::time::timeout(PATIENCE, stream.next()).await {
            Ok(Some(bytes)) => bytes,
            Ok(None) => break,
            Err(_) => return Err(Problem::bad_request("no more rows came for too long")),
        };
        held.extend_from_slice(&bytes.map_err(|error| {
            Problem::bad_request(format!("the rows did not arrive whole: {error}"))
        })?);
        let mut used = 0;
        while let Some(length) = held[used..].first_chunk() {
            let length = u32::from_be_bytes(*length) as usize;
            if length > ZK_CHUNK_BYTES_MAX {
                return Err(Problem::too_large(format!(
                    "a lot of {length} bytes of rows; the most is {ZK_CHUNK_BYTES_MAX}"
                )));
            }
            let Some(lot) = held.get(used + 4..used + 4 + length) else { break };
            pipe.send(Bytes::copy_from_slice(lot)).await?;
            used += 4 + length;
        }
        held.drain(..used);
    }
    pipe.finish().await?;
    match held.is_empty() {
        true => Ok(()),
        false => Err(Problem::bad_request("the rows end within a lot")),
    }
}

/// A body with one step's bytes.
pub(super) async fn whole(body: Body) -> Result<Vec<u8>, Problem> {
    let read = axum::body::to_bytes(body, ZK_CHUNK_BYTES_MAX);
    match tokio::time::timeout(PATIENCE, read).await {
        Ok(Ok(bytes)) => Ok(bytes.to_vec()),
        Ok(Err(_)) => Err(Problem::too_large(format!(
            "the body did not arrive whole, or has more than {ZK_CHUNK_BYTES_MAX} bytes"
        ))),
        Err(_) => Err(Problem::bad_request("the body did not arrive in time")),
    }
}
