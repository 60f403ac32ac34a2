//! Sessions that copy files from a task or to it, as tar streams.

use tokio::sync::mpsc;
use tonic::Streaming;

use super::runtime::{ExecInput, ExecOutput};
use super::sessions::{Failure, Session, only};
use super::view::View;
use crate::limits::{FILE_PATH_BYTES_MAX, SESSION_QUEUE_MAX};
use crate::rpc::v1::session_frame::Frame;
use crate::rpc::v1::{FilesAction, FilesRequest, Opened, SessionFrame};

impl Session {
    pub(super) async fn files(
        &self,
        views: &[View],
        request: FilesRequest,
        incoming: &mut Streaming<SessionFrame>,
    ) -> Result<(), Failure> {
        let view = only(views)?;
        let (key, path) = (&view.key, request.path.as_str());
        if path.is_empty() || path.len() > FILE_PATH_BYTES_MAX || path.contains('\0') {
            let text = format!("a path has 1 to {FILE_PATH_BYTES_MAX} bytes, none of them 0");
            return Err(Failure("refused", text));
        }
        let Some(runtime) = &view.runtime else {
            let text = format!("the runtime of task {} is away", key.task);
            return Err(Failure("unreachable", text));
        };
        let Some(handle) = &view.handle else {
            return Err(Failure("refused", format!("task {} has not started yet", key.task)));
        };
        match FilesAction::try_from(request.action) {
            Ok(FilesAction::Look) => {
                let info = runtime.look_at(key, handle, path).await?;
                self.send(Frame::File(info)).await
            }
            Ok(FilesAction::Read) => {
                let (output, mut pieces) = mpsc::channel(SESSION_QUEUE_MAX);
                let read = runtime.read_files(key, handle, path, output);
                let pass = async {
                    while let Some(piece) = pieces.recv().await {
                        if let ExecOutput::Stdout(bytes) = piece {
                            self.send(Frame::Stdout(bytes)).await?;
                        }
                    }
                    Ok::<_, Failure>(())
                };
                let left = async { while let Ok(Some(_)) = incoming.message().await {} };
                tokio::select! {
                    (read, passed) = futures::future::join(read, pass) => {
                        passed?;
                        Ok(read?)
                    }
                    () = left => Err(Failure("failed", "the reader left".to_owned())),
                }
            }
            Ok(FilesAction::Write) => {
                // A directory that is not there is said before anything is sent.
                let into = runtime.look_at(key, handle, path).await?;
                if !into.directory {
                    return Err(Failure("refused", format!("{path} is no directory")));
                }
                self.send(Frame::Opened(Opened {})).await?;
                let (feed, input) = mpsc::channel(SESSION_QUEUE_MAX);
                let write = runtime.write_files(key, handle, path, input);
                let pass = async {
                    // The sender lives to the end of the line: dropping it ends the work.
                    while let Ok(Some(frame)) = incoming.message().await {
                        let item = match frame.frame {
                            Some(Frame::Stdin(bytes)) => ExecInput::Stdin(bytes),
                            Some(Frame::StdinEnd(_)) => ExecInput::StdinEnd,
                            _ => continue,
                        };
                        if feed.send(item).await.is_err() {
                            // What went wrong is about to be said.
                            return std::future::pending().await;
                        }
                    }
                    drop(feed);
                };
                tokio::select! {
                    written = write => Ok(written?),
                    () = pass => Err(Failure("failed", "the writer left".to_owned())),
                }
            }
            Err(_) => Err(Failure("refused", "nothing known is to be done with files".to_owned())),
        }
    }
}
