//! `orch cp`: files from a copy of a job, or to it.

use std::io::{self, Read, Write};
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

use bytes::{Buf as _, Bytes};
use clap::Args;
use futures::StreamExt;
use reqwest::Method;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::client::{Call, byte_stream};
use super::context::Context;
use super::exec;
use super::failure::{Exit, Failure, Outcome};
use super::output::print_bytes;
use super::target::{CopyRef, ProjectFlag};
use crate::api::view::files::FileStatus;
use crate::api::view::query::{ReadFiles, WriteFiles};
use crate::archive::{self, ArchiveError, Top};
use crate::limits::{SESSION_PIECE_BYTES, SESSION_QUEUE_MAX};
use crate::model::name::TaskName;

const TAR: &str = "application/x-tar";

/// Flags of `orch cp`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  orch cp web.0:/etc/nginx/nginx.conf .     a file from a copy
  orch cp ./site web.0:/srv/                a directory into one that is there: /srv/site
  orch cp ./site/. web.0:/srv               only what is in it
  orch cp web.0:/var/log - | tar tv         a tar stream to standard output
  tar c site | orch cp - web.0:/srv         a tar stream from standard input
A path of a process is one in its own directory. Write a file of this machine whose name has a
colon as ./a:b.")]
pub(super) struct CpArgs {
    /// What to copy: a path here, JOB.N:PATH there, or - for a tar stream
    #[arg(value_name = "SRC")]
    from: Place,
    /// Where to: a path here, JOB.N:PATH there, or - for a tar stream
    #[arg(value_name = "DST")]
    to: Place,
    #[command(flatten)]
    project: ProjectFlag,
    /// The task, of a job with several
    #[arg(long, value_name = "TASK")]
    task: Option<TaskName>,
}

/// One side of a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Here(PathBuf),
    There { copy: CopyRef, path: String },
    Stream,
}

impl FromStr for Place {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            _ if text == "-" => Ok(Self::Stream),
            _ if text.is_empty() => Err("a path is missing".to_owned()),
            Some((copy, path)) if !copy.starts_with(['.', '/']) => {
                let copy = copy.parse().map_err(|error| {
                    format!("{error}; a file of this machine is written as ./{text}")
                })?;
                if path.is_empty() {
                    return Err(format!("a path is missing behind the colon, as {text}/etc"));
                }
                Ok(Self::There { copy, path: path.to_owned() })
            }
            _ => Ok(Self::Here(text.into())),
        }
    }
}

pub(super) async fn run(args: CpArgs, context: &Context) -> Outcome {
    let CpArgs { from, to, project, task } = args;
    let task = task.map(|task| task.to_string());
    match (from, to) {
        (Place::There { copy, path }, to @ (Place::Here(_) | Place::Stream)) => {
            let there = There::find(&copy, &project, task, context).await?;
            there.download(&path, to, context).await
        }
        (from @ (Place::Here(_) | Place::Stream), Place::There { copy, path }) => {
            let there = There::find(&copy, &project, task, context).await?;
            there.upload(from, &path, context).await
        }
        _ => Err(Failure::usage("one side must be a copy of a job, as web.0:/path, and not both")
            .hint("orch cp --help shows examples")),
    }
}

/// Writes a tar stream.
type Fill = Box<dyn FnOnce(Sink) -> Result<(), Failure> + Send>;

/// A task's files.
struct There {
    name: String,
    id: String,
    task: Option<String>,
}

impl There {
    async fn find(
        copy: &CopyRef,
        project: &ProjectFlag,
        task: Option<String>,
        context: &Context,
    ) -> Result<Self, Failure> {
        let job = copy.job.id(project)?;
        let id = exec::placed(&job, copy.index, context).await?.1;
        Ok(Self { name: job.to_string(), id, task })
    }

    fn call(&self, method: Method) -> Call {
        Call::new(method, ["allocations", self.id.as_str(), "files"])
    }

    /// What lies there; none if nothing does.
    async fn look(&self, path: &str, context: &Context) -> Result<Option<FileStatus>, Failure> {
        let query = ReadFiles { path: path.to_owned(), task: self.task.clone(), look: true };
        match context.client.json(self.call(Method::GET).query(&query)).await {
            Ok(found) => Ok(Some(found)),
            Err(failure) if failure.exit == Exit::NOT_FOUND => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    async fn download(&self, path: &str, to: Place, context: &Context) -> Outcome {
        // What is in a directory comes under the directory's name, which is dropped here.
        let asked = if is_contents(path) { &path[..path.len() - 1] } else { path };
        let asked = if asked.is_empty() { "./" } else { asked };
        let query = ReadFiles { path: asked.to_owned(), task: self.task.clone(), look: false };
        let call = self.call(Method::GET).query(&query).streaming(TAR);
        let mut stream = byte_stream(context.client.send(call).await?);
        let Place::Here(to) = to else {
            while let Some(bytes) = stream.next().await {
                print_bytes(&bytes?)?;
            }
            return Ok(Exit::DONE);
        };
        let (into, top) = destination(&to, path)?;
        let (feed, pieces) = mpsc::channel::<Result<Bytes, Failure>>(SESSION_QUEUE_MAX);
        let unpack = tokio::task::spawn_blocking(move || {
            let mut pieces = Pieces { pieces, rest: Bytes::new(), failure: None };
            let unpacked = archive::unpack(&mut pieces, &into, &top);
            match pieces.failure.take() {
                Some(failure) => Err(failure),
                None => unpacked.map_err(failed),
            }
        });
        while let Some(bytes) = stream.next().await {
            let bytes = bytes.map_err(|failure| {
                Failure::failed(format!("{}:{path}: {}", self.name, failure.what))
            });
            let broke = bytes.is_err();
            if feed.send(bytes).await.is_err() || broke {
                break;
            }
        }
        drop(feed);
        unpack.await.map_err(|error| Failure::failed(error.to_string()))??;
        Ok(Exit::DONE)
    }

    async fn upload(&self, from: Place, path: &str, context: &Context) -> Outcome {
        let (feed, pieces) = mpsc::channel::<io::Result<Bytes>>(SESSION_QUEUE_MAX);
        let (into, fill): (String, Fill) = match from {
            Place::Here(from) => {
                let target = self.target(&from, path, context).await?;
                let (into, name) = target;
                let fill = move |sink| archive::pack(&from, Path::new(&name), sink).map_err(failed);
                (into, Box::new(fill))
            }
            _ => (path.to_owned(), Box::new(pass_on)),
        };
        let pack = tokio::task::spawn_blocking(move || {
            let mut sink = Sink { feed, held: Vec::new() };
            let filled = fill(Sink { feed: sink.feed.clone(), held: Vec::new() });
            if let Err(failure) = &filled {
                // What breaks off must not look whole.
                sink.break_off(&failure.what);
            }
            filled
        });
        let query = WriteFiles { path: into, task: self.task.clone() };
        let body = reqwest::Body::wrap_stream(ReceiverStream::new(pieces));
        let call = self.call(Method::PUT).query(&query);
        let sent = context.client.upload(call, TAR, body).await;
        let packed = pack.await.map_err(|error| Failure::failed(error.to_string()))?;
        match (packed, sent) {
            // If the other side stops taking, it says why.
            (Err(failure), Err(answer)) if failure.passing => Err(answer),
            (Err(failure), _) => Err(failure),
            (Ok(()), sent) => sent.map(|_| Exit::DONE),
        }
    }

    /// The directory to unpack into there, and the name of what is packed here.
    async fn target(
        &self,
        from: &Path,
        path: &str,
        context: &Context,
    ) -> Result<(String, PathBuf), Failure> {
        let data = std::fs::symlink_metadata(from)
            .map_err(|error| Failure::failed(format!("{}: {error}", from.display())))?;
        let contents = is_contents(&from.to_string_lossy());
        let (is_dir, own) = (data.is_dir(), own_name(from)?);
        let found = self.look(path, context).await?;
        match found {
            Some(there) if there.directory => {
                let name = if contents { PathBuf::new() } else { own };
                return Ok((path.to_owned(), name));
            }
            Some(_) if is_dir => {
                let text = format!("{}:{path} is a file, and can't become a directory", self.name);
                return Err(Failure::new(Exit::REFUSED, text));
            }
            None if path.ends_with('/') && !is_dir => {
                let text = format!("there is no directory {}:{path}", self.name);
                return Err(Failure::new(Exit::NOT_FOUND, text));
            }
            _ => {}
        }
        // It gets the name that stands at the path's end.
        let path = path.trim_end_matches('/');
        let (parent, last) = match path.rsplit_once('/') {
            Some(("", last)) => ("/", last),
            Some((parent, last)) => (parent, last),
            None => (".", path),
        };
        match self.look(parent, context).await? {
            Some(there) if there.directory => Ok((parent.to_owned(), last.into())),
            _ => {
                let text = format!("there is no directory {}:{parent}", self.name);
                Err(Failure::new(Exit::NOT_FOUND, text).hint("make it first, with orch exec"))
            }
        }
    }
}

/// Whether what is in a directory is meant, and not it.
fn is_contents(path: &str) -> bool {
    path == "." || path.ends_with("/.")
}

/// What a path is called where it lies.
fn own_name(path: &Path) -> Result<PathBuf, Failure> {
    let named = path.components().next_back();
    match named {
        Some(Component::Normal(name)) => Ok(name.into()),
        Some(Component::CurDir) => Ok(PathBuf::new()),
        _ => {
            let full = std::fs::canonicalize(path)
                .map_err(|error| Failure::failed(format!("{}: {error}", path.display())))?;
            Ok(full.file_name().map(PathBuf::from).unwrap_or_default())
        }
    }
}

/// The directory to unpack into here, and what becomes of the name that things have there.
fn destination(to: &Path, path: &str) -> Result<(PathBuf, Top), Failure> {
    let contents = is_contents(path);
    if to.is_dir() {
        return Ok((to.to_owned(), if contents { Top::Drop } else { Top::Keep }));
    }
    let text = to.to_string_lossy();
    let parent = match to.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    if !parent.is_dir() {
        return Err(Failure::failed(format!("there is no directory {}", parent.display())));
    }
    match to.file_name() {
        Some(name) if !text.ends_with('/') => Ok((parent.to_owned(), Top::Rename(name.to_owned()))),
        _ => Err(Failure::failed(format!("there is no directory {text}"))),
    }
}

fn failed(error: ArchiveError) -> Failure {
    let passing = matches!(error, ArchiveError::Sink(_));
    let failure = Failure::failed(error.to_string());
    if passing { failure.passing() } else { failure }
}

/// A tar stream that is there already.
fn pass_on(mut sink: Sink) -> Result<(), Failure> {
    let mut stdin = io::stdin().lock();
    let mut piece = vec![0; SESSION_PIECE_BYTES];
    loop {
        let read = stdin
            .read(&mut piece)
            .map_err(|error| Failure::failed(format!("standard input: {error}")))?;
        let bytes = piece.get(..read).unwrap_or_default();
        if bytes.is_empty() {
            return sink.flush().map_err(|error| failed(ArchiveError::Sink(error)));
        }
        sink.write_all(bytes).map_err(|error| failed(ArchiveError::Sink(error)))?;
    }
}

/// Bytes on their way into a request.
struct Sink {
    feed: mpsc::Sender<io::Result<Bytes>>,
    held: Vec<u8>,
}

impl Sink {
    fn send(&mut self, bytes: io::Result<Bytes>) -> io::Result<()> {
        self.feed
            .blocking_send(bytes)
            .map_err(|_| io::Error::new(io::ErrorKind::BrokenPipe, "nobody takes it"))
    }

    fn break_off(&mut self, why: &str) {
        let _ = self.send(Err(io::Error::other(why.to_owned())));
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.held.extend_from_slice(bytes);
        if self.held.len() >= SESSION_PIECE_BYTES {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let held = std::mem::take(&mut self.held);
        if held.is_empty() { Ok(()) } else { self.send(Ok(held.into())) }
    }
}

/// Bytes out of an answer.
struct Pieces {
    pieces: mpsc::Receiver<Result<Bytes, Failure>>,
    rest: Bytes,
    /// Why there are no more.
    failure: Option<Failure>,
}

impl Read for Pieces {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            match self.pieces.blocking_recv() {
                Some(Ok(bytes)) => self.rest = bytes,
                Some(Err(failure)) => {
                    self.failure = Some(failure);
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                None => return Ok(0),
            }
        }
        let count = self.rest.len().min(into.len());
        if let Some(room) = into.get_mut(..count) {
            self.rest.copy_to_slice(room);
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_side_is_here_there_or_a_stream() {
        let place = |text: &str| text.parse::<Place>();
        let there = |copy: &str, path: &str| {
            Ok(Place::There { copy: copy.parse().unwrap(), path: path.to_owned() })
        };
        assert_eq!(place("web.0:/etc/x"), there("web.0", "/etc/x"));
        assert_eq!(place("shop/web:out.txt"), there("shop/web", "out.txt"));
        assert_eq!(place("-"), Ok(Place::Stream));
        for here in ["./a:b", "/a:b", "file", "../web.0:/x"] {
            assert_eq!(place(here), Ok(Place::Here(here.into())));
        }
        for bad in ["", "web.0:", "Web:/x", "a b:/x"] {
            assert!(place(bad).is_err(), "{bad}");
        }
        assert!(place("my file:1").unwrap_err().contains("./my file:1"));
    }

    #[test]
    fn what_is_copied_here_gets_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let here = |name: &str| dir.path().join(name);
        let to = |name: &str, path: &str| destination(&here(name), path).ok();
        let root = dir.path().to_owned();
        assert_eq!(to("", "/etc/x"), Some((here(""), Top::Keep)));
        assert_eq!(to("", "/etc/."), Some((here(""), Top::Drop)));
        assert_eq!(to("y", "/etc/x"), Some((root.clone(), Top::Rename("y".into()))));
        assert_eq!(to("y", "/etc/."), Some((root, Top::Rename("y".into()))));
        assert_eq!(to("no/such", "/etc/x"), None);
        assert_eq!(to("y/", "/etc/x"), None);
        assert_eq!(own_name(Path::new("a/b/")).unwrap(), Path::new("b"));
        assert_eq!(own_name(Path::new("a/b/.")).unwrap(), Path::new("b"));
    }
}
