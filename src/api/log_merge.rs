//! Merges the output of several copies by time.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use super::view::allocation::LogLine;
use crate::model::allocation::Allocation;
use crate::rpc::v1::session_frame::Frame;
use crate::server::Session;

/// A followed copy that prints nothing for so long holds up no other.
const PATIENCE: Duration = Duration::from_millis(100);
/// Lines handed on at once.
const LINES_AT_ONCE: usize = 512;

/// The output of one copy.
#[derive(Debug)]
pub(super) struct Source {
    index: u32,
    id: String,
    session: Option<Session>,
    /// Read and not yet handed on, with their times in nanoseconds.
    lines: VecDeque<(u64, LogLine)>,
    /// It had nothing to say for a while.
    quiet: bool,
}

impl Source {
    pub(super) fn new(alloc: &Allocation, session: Session) -> Self {
        let (index, id) = (alloc.index, alloc.id.to_string());
        Self { index, id, session: Some(session), lines: VecDeque::new(), quiet: false }
    }

    /// One that could not be opened: it says so and no more.
    pub(super) fn broken(alloc: &Allocation, error: String) -> Self {
        let (index, id) = (alloc.index, alloc.id.to_string());
        let mut source = Self { index, id, session: None, lines: VecDeque::new(), quiet: false };
        source.fail(error);
        source
    }

    fn fail(&mut self, error: String) {
        let (index, id) = (self.index, self.id.clone());
        let at = self.lines.back().map_or(0, |(at, _)| *at);
        self.lines.push_back((at, LogLine { index, id, error: Some(error), ..LogLine::default() }));
        self.session = None;
    }

    fn take(&mut self, frame: Option<Frame>) {
        self.quiet = false;
        match frame {
            Some(Frame::Logs(logs)) => {
                for line in logs.lines {
                    let shown = LogLine {
                        at: nanos(line.at),
                        index: self.index,
                        id: self.id.clone(),
                        task: line.task,
                        stream: if line.stderr { "stderr" } else { "stdout" }.to_owned(),
                        line: String::from_utf8_lossy(&line.text).into_owned(),
                        error: None,
                    };
                    self.lines.push_back((line.at, shown));
                }
            }
            Some(Frame::Error(error)) => self.fail(error.message),
            Some(Frame::Exit(_)) => self.session = None,
            None => self.fail("the agent ended the output without a word".to_owned()),
            Some(_) => self.fail("the agent sent something that is no output".to_owned()),
        }
    }
}

fn nanos(at: u64) -> String {
    let at = jiff::Timestamp::from_nanosecond(i128::from(at)).unwrap_or(jiff::Timestamp::MAX);
    format!("{at:.9}")
}

/// Several copies' output.
#[derive(Debug)]
pub(super) struct Merge {
    sources: Vec<Source>,
}

impl Merge {
    pub(super) fn new(sources: Vec<Source>) -> Self {
        Self { sources }
    }

    pub(super) fn add(&mut self, source: Source) {
        self.sources.push(source);
    }

    /// Copies that have not ended.
    pub(super) fn len(&self) -> usize {
        self.sources.len()
    }

    /// The next lines; none when all copies have ended. Lines come in the order of their times;
    /// with `follow`, as far as that needs no waiting for a copy that prints nothing. May be
    /// given up and called again without losing any.
    pub(super) async fn next(&mut self, follow: bool) -> Option<Vec<LogLine>> {
        loop {
            self.sources.retain(|source| source.session.is_some() || !source.lines.is_empty());
            if self.sources.is_empty() {
                return None;
            }
            let something = self.sources.iter().any(|source| !source.lines.is_empty());
            let all = self
                .sources
                .iter()
                .all(|source| !source.lines.is_empty() || (follow && source.quiet));
            if something && all {
                return Some(self.sorted());
            }
            if follow && something {
                if tokio::time::timeout(PATIENCE, self.read()).await.is_err() {
                    for source in self.sources.iter_mut().filter(|s| s.lines.is_empty()) {
                        source.quiet = true;
                    }
                }
            } else {
                self.read().await;
            }
        }
    }

    /// Waits for a frame of any copy that has no line left.
    async fn read(&mut self) {
        poll_fn(|task| {
            let mut ready = false;
            for source in self.sources.iter_mut().filter(|source| source.lines.is_empty()) {
                let Some(session) = &mut source.session else { continue };
                if let Poll::Ready(frame) = session.from.poll_recv(task) {
                    source.take(frame.and_then(|frame| frame.frame));
                    ready = true;
                }
            }
            if ready { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// Lines in their order, until a copy runs out that may have an earlier one to come.
    fn sorted(&mut self) -> Vec<LogLine> {
        let mut sorted = Vec::new();
        while sorted.len() < LINES_AT_ONCE {
            let earliest = self
                .sources
                .iter_mut()
                .filter(|source| !source.lines.is_empty())
                .min_by_key(|source| source.lines.front().map(|(at, _)| *at));
            let Some(source) = earliest else { break };
            sorted.extend(source.lines.pop_front().map(|(_, line)| line));
            if source.lines.is_empty() && source.session.is_some() {
                break;
            }
        }
        sorted
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;
    use crate::rpc::v1::{Exit, LogLine as Line, LogLines, SessionFrame};

    type Feed = mpsc::Sender<SessionFrame>;

    fn source(index: u32) -> (Feed, Source) {
        let (feed, from) = mpsc::channel(16);
        let (to, _) = mpsc::channel(1);
        let session = Some(Session { to, from });
        let id = format!("a{index}");
        (feed, Source { index, id, session, lines: VecDeque::new(), quiet: false })
    }

    async fn print(feed: &Feed, times: &[u64]) {
        let lines = times
            .iter()
            .map(|at| Line { at: *at, text: at.to_string().into_bytes().into(), ..Line::default() })
            .collect();
        let frame = Some(Frame::Logs(LogLines { lines }));
        feed.send(SessionFrame { frame }).await.unwrap();
    }

    async fn end(feed: Feed) {
        feed.send(SessionFrame { frame: Some(Frame::Exit(Exit { code: 0 })) }).await.unwrap();
    }

    async fn all(mut merge: Merge, follow: bool) -> Vec<(u32, String)> {
        let mut lines = Vec::new();
        while let Some(more) = merge.next(follow).await {
            lines
                .extend(more.into_iter().map(|line| (line.index, line.error.unwrap_or(line.line))));
        }
        lines
    }

    #[tokio::test]
    async fn lines_come_in_the_order_of_their_times() {
        for follow in [false, true] {
            let ((first, one), (second, two)) = (source(0), source(1));
            print(&first, &[1, 4]).await;
            print(&first, &[5]).await;
            end(first).await;
            print(&second, &[2, 3, 6]).await;
            end(second).await;
            let lines = all(Merge::new(vec![one, two]), follow).await;
            let texts: Vec<&str> = lines.iter().map(|(_, text)| text.as_str()).collect();
            assert_eq!(texts, ["1", "2", "3", "4", "5", "6"]);
        }
    }

    #[tokio::test]
    async fn a_quiet_copy_holds_up_no_other_when_followed() {
        let ((loud, one), (quiet, two)) = (source(0), source(1));
        let mut merge = Merge::new(vec![one, two]);
        for at in 1..100 {
            print(&loud, &[at]).await;
            let lines = merge.next(true).await.unwrap();
            assert_eq!(lines[0].line, at.to_string());
        }
        end(loud).await;
        end(quiet).await;
        assert_eq!(merge.next(true).await, None);
    }

    #[tokio::test]
    async fn a_copy_that_breaks_off_says_so() {
        let ((first, one), (second, two)) = (source(0), source(1));
        print(&first, &[7]).await;
        drop(first);
        end(second).await;
        let lines = all(Merge::new(vec![one, two]), false).await;
        assert_eq!(lines[0], (0, "7".to_owned()));
        assert!(lines[1].1.contains("without a word"), "{lines:?}");
    }
}
