//! The listener: connections in, bounded in number and in patience.

use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::context::Context;
use super::router::router;
use crate::limits::{API_CONNECTIONS_MAX, API_HEAD_WAIT_MS};
use crate::net::{Connection, Listener};

/// How long open requests have to end when the server stops.
const STOP_GRACE: Duration = Duration::from_millis(1500);
/// After an error of the listener, such as too many open files.
const PAUSE: Duration = Duration::from_millis(100);
/// A silent connection is asked this often whether its other end is still there.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// Serves until `context.stop`, then gives open requests a moment to end.
pub async fn serve(mut listener: Listener, context: Context) {
    let stop = context.stop.clone();
    let service = TowerToHyperService::new(router(context));
    let room = Arc::new(Semaphore::new(API_CONNECTIONS_MAX));
    let connections = TaskTracker::new();
    loop {
        // Who comes when there is no room waits in the system's own queue.
        let permit = tokio::select! {
            () = stop.cancelled() => break,
            permit = room.clone().acquire_owned() => permit,
        };
        let stream = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "a connection to the API could not be taken");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            },
        };
        let (service, stop) = (service.clone(), stop.clone());
        connections.spawn(async move {
            carry(stream, service, stop).await;
            drop(permit);
        });
    }
    connections.close();
    if tokio::time::timeout(STOP_GRACE, connections.wait()).await.is_err() {
        tracing::info!(open = connections.len(), "requests were cut off at the end");
    }
}

async fn carry(
    stream: Connection,
    service: TowerToHyperService<axum::Router>,
    stop: CancellationToken,
) {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_millis(API_HEAD_WAIT_MS));
    builder.http2().timer(TokioTimer::new()).keep_alive_interval(KEEP_ALIVE);
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection to the API broke");
    }
}
