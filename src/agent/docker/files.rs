//! Files of containers, running or not: the engine's own archives.

use std::time::Duration;

use bollard::Docker as Engine;
use bollard::query_parameters::{
    ContainerArchiveInfoOptionsBuilder, DownloadFromContainerOptionsBuilder,
    UploadToContainerOptionsBuilder,
};
use futures::StreamExt as _;
use tokio::sync::mpsc;

use crate::agent::runtime::{ExecInput, ExecOutput, RuntimeError};
use crate::limits::SESSION_PIECE_BYTES;
use crate::rpc::v1::FileInfo;

/// The engine answers an upload when all of it has come, however long that takes.
const UPLOAD_LIMIT: Duration = Duration::from_secs(24 * 60 * 60);
/// As Go's file modes have them.
const MODE_DIRECTORY: u32 = 1 << 31;
const MODE_LINK: u32 = 1 << 27;
/// Pipe, socket, device, irregular.
const MODE_OTHER: u32 = 1 << 25 | 1 << 24 | 1 << 26 | 1 << 21 | 1 << 19;

fn failed(path: &str, error: bollard::errors::Error) -> RuntimeError {
    use bollard::errors::Error::DockerResponseServerError;
    match error {
        DockerResponseServerError { status_code: 404, message } => {
            if message.contains("No such container") {
                RuntimeError::NotFound(message)
            } else {
                RuntimeError::NotFound(format!("there is no {path} in the container"))
            }
        }
        DockerResponseServerError { status_code: 400 | 403, message } => {
            RuntimeError::Refused(format!("{path}: {}", message.trim()))
        }
        other => super::engine::error(other),
    }
}

/// Engines take paths from the root alone.
fn absolute(path: &str) -> Result<(), RuntimeError> {
    if path.starts_with('/') {
        return Ok(());
    }
    Err(RuntimeError::Refused(format!("{path}: write the whole path in the container, as /{path}")))
}

/// What lies at a path.
pub(super) async fn look_at(
    engine: &Engine,
    handle: &str,
    path: &str,
) -> Result<FileInfo, RuntimeError> {
    absolute(path)?;
    let ask = |path: &str| {
        let options = ContainerArchiveInfoOptionsBuilder::new().path(path).build();
        engine.get_container_archive_info(handle, Some(options))
    };
    let found = ask(path).await.map_err(|error| failed(path, error))?;
    let mode = found.file_mode;
    let is = |bits: u32| mode & bits != 0;
    let kind = match () {
        () if is(MODE_DIRECTORY) => "directory",
        () if is(MODE_LINK) => "link",
        () if is(MODE_OTHER) => "other",
        () => "file",
    };
    // With a slash behind it the engine follows a link.
    let behind = async || {
        let through = ask(&format!("{}/", path.trim_end_matches('/'))).await;
        through.is_ok_and(|there| there.file_mode & MODE_DIRECTORY != 0)
    };
    Ok(FileInfo {
        name: found.name,
        size: u64::try_from(found.size).unwrap_or_default(),
        mode: mode & 0o777,
        modified: modified(found.modification_time.as_deref()),
        kind: kind.to_owned(),
        directory: kind == "directory" || (kind == "link" && behind().await),
        link_target: found.link_target,
    })
}

fn modified(at: Option<&str>) -> u64 {
    let at = at.and_then(|at| at.parse::<jiff::Timestamp>().ok());
    at.and_then(|at| u64::try_from(at.as_millisecond()).ok()).unwrap_or_default()
}

/// Sends what lies at a path.
pub(super) async fn read(
    engine: &Engine,
    handle: &str,
    path: &str,
    output: mpsc::Sender<ExecOutput>,
) -> Result<(), RuntimeError> {
    absolute(path)?;
    let options = DownloadFromContainerOptionsBuilder::new().path(path).build();
    let mut stream = std::pin::pin!(engine.download_from_container(handle, Some(options)));
    while let Some(bytes) = stream.next().await {
        let mut bytes = bytes.map_err(|error| failed(path, error))?;
        while !bytes.is_empty() {
            let piece = bytes.split_to(bytes.len().min(SESSION_PIECE_BYTES));
            if output.send(ExecOutput::Stdout(piece)).await.is_err() {
                return Err(RuntimeError::Cancelled);
            }
        }
    }
    Ok(())
}

/// Unpacks what comes.
pub(super) async fn write(
    engine: &Engine,
    handle: &str,
    path: &str,
    input: mpsc::Receiver<ExecInput>,
) -> Result<(), RuntimeError> {
    absolute(path)?;
    // A stream that breaks off must not look like one that ends.
    let pieces = futures::stream::unfold(Some(input), |input| async {
        let mut input = input?;
        loop {
            match input.recv().await {
                Some(ExecInput::Stdin(bytes)) => return Some((Ok(bytes), Some(input))),
                Some(ExecInput::StdinEnd) => return None,
                Some(_) => {}
                None => {
                    let gone = std::io::Error::new(
                        std::io::ErrorKind::UnexpectedEof,
                        "whoever sent it left",
                    );
                    return Some((Err(gone), None));
                }
            }
        }
    });
    let options = UploadToContainerOptionsBuilder::new().path(path).build();
    let body = bollard::body_try_stream(pieces);
    let engine = engine.clone().with_timeout(UPLOAD_LIMIT);
    let sent = engine.upload_to_container(handle, Some(options), body).await;
    sent.map_err(|e| match error_text(&e) {
        Some(text) => RuntimeError::Failed(format!("{path}: {text}")),
        None => failed(path, e),
    })
}

/// What the engine says of a stream that it could not unpack.
fn error_text(e: &bollard::errors::Error) -> Option<String> {
    match e {
        bollard::errors::Error::DockerResponseServerError { status_code: 500, message } => {
            Some(message.trim().to_owned())
        }
        _ => None,
    }
}
