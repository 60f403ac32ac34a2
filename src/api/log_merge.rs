//! Merges the output of several copies by time.

use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use super::view::allocation::LogLine;
use crate::model::allocation::Allocation;
use crate::model::name::AllocId;
use crate::rpc::v1::session_frame::Frame;
use crate::rpc::v1::{LogCursor, LogLine as Line};
use crate::server::{Session, SessionError};

/// A followed copy that prints nothing for so long holds up no other.
const PATIENCE: Duration = Duration::from_millis(100);
/// Lines handed on at once.
const LINES_AT_ONCE: usize = 512;

/// Where a copy's lines come from.
#[derive(Debug)]
enum From {
    /// An open session.
    Open(Session),
    /// It broke off, and is to be opened again.
    Lost,
    /// It is being opened.
    Opening,
    /// There is no more.
    Ended,
}

/// The output of one copy.
#[derive(Debug)]
pub(super) struct Source {
    index: u32,
    id: AllocId,
    from: From,
    /// Whether it was open once.
    opened: bool,
    /// The last line of each task's streams: where to go on.
    seen: BTreeMap<String, LogCursor>,
    /// Read and not yet handed on, with their times in nanoseconds.
    lines: VecDeque<(u64, LogLine)>,
    /// It had nothing to say for a while.
    quiet: bool,
}

impl Source {
    fn of(index: u32, id: AllocId, from: From) -> Self {
        let (seen, lines) = (BTreeMap::new(), VecDeque::new());
        let opened = matches!(from, From::Open(_));
        Self { index, id, from, opened, seen, lines, quiet: false }
    }

    pub(super) fn new(alloc: &Allocation, session: Session) -> Self {
        Self::of(alloc.index, alloc.id, From::Open(session))
    }

    /// One that could not be opened: it says so and no more.
    pub(super) fn broken(alloc: &Allocation, error: String) -> Self {
        let mut source = Self::of(alloc.index, alloc.id, From::Ended);
        source.say(LogLine { error: Some(error), ..LogLine::default() });
        source
    }

    /// One that could not be opened yet; says so.
    pub(super) fn lost(alloc: &Allocation, error: &SessionError) -> Self {
        let mut source = Self::of(alloc.index, alloc.id, From::Lost);
        source.note(format!("{error}; its output comes when that is over"));
        source
    }

    /// Behind the lines it has.
    fn say(&mut self, line: LogLine) {
        let at = self.lines.back().map_or(0, |(at, _)| *at);
        self.lines.push_back((at, LogLine { index: self.index, id: self.id.to_string(), ..line }));
    }

    fn note(&mut self, note: String) {
        self.say(LogLine { note: Some(note), ..LogLine::default() });
    }

    /// Whether lines may still come that are earlier than others' next ones.
    fn keeps_waiting(&self, follow: bool) -> bool {
        self.lines.is_empty() && matches!(self.from, From::Open(_)) && !(follow && self.quiet)
    }

    fn take(&mut self, frame: Option<Frame>, follow: bool) {
        self.quiet = false;
        let broke = match frame {
            Some(Frame::Logs(logs)) => {
                for line in logs.lines {
                    self.push(line);
                }
                return;
            }
            Some(Frame::Exit(_)) => {
                self.from = From::Ended;
                return;
            }
            Some(Frame::Error(error)) if error.code == "unreachable" => error.message,
            None => "the agent ended the output without a word".to_owned(),
            Some(Frame::Error(error)) => return self.fail(error.message),
            Some(_) => return self.fail("the agent sent something that is no output".to_owned()),
        };
        if follow {
            self.note(format!("{broke}; its output goes on when that is over"));
            self.from = From::Lost;
        } else {
            self.fail(broke);
        }
    }

    fn fail(&mut self, error: String) {
        self.say(LogLine { error: Some(error), ..LogLine::default() });
        self.from = From::Ended;
    }

    fn push(&mut self, line: Line) {
        let seen = self
            .seen
            .entry(line.task.clone())
            .or_insert_with(|| LogCursor { task: line.task.clone(), ..LogCursor::default() });
        let last = if line.stderr { &mut seen.stderr } else { &mut seen.stdout };
        *last = line.at.max(*last);
        let shown = LogLine {
            at: nanos(line.at),
            index: self.index,
            id: self.id.to_string(),
            task: line.task,
            stream: if line.stderr { "stderr" } else { "stdout" }.to_owned(),
            line: String::from_utf8_lossy(&line.text).into_owned(),
            ..LogLine::default()
        };
        self.lines.push_back((line.at, shown));
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

    /// Copies that have not ended.
    pub(super) fn len(&self) -> usize {
        self.sources.len()
    }

    /// Whether all have ended.
    pub(super) fn is_empty(&self) -> bool {
        self.sources.is_empty()
    }

    fn find(&mut self, id: AllocId) -> Option<&mut Source> {
        self.sources.iter_mut().find(|source| source.id == id)
    }

    /// A session with a copy: a new one, or one that had broken off.
    pub(super) fn put(&mut self, alloc: &Allocation, session: Session) {
        self.put_session(alloc.id, alloc.index, session);
    }

    fn put_session(&mut self, id: AllocId, index: u32, session: Session) {
        match self.find(id) {
            Some(source) => {
                source.from = From::Open(session);
                source.opened = true;
                source.quiet = false;
            }
            None => self.sources.push(Source::of(index, id, From::Open(session))),
        }
    }

    /// A copy that can't be reached now.
    pub(super) fn put_lost(&mut self, alloc: &Allocation, error: &SessionError) {
        match self.find(alloc.id) {
            // That has been said.
            Some(source) => source.from = From::Lost,
            None => self.sources.push(Source::lost(alloc, error)),
        }
    }

    /// No more comes from this copy; says why.
    pub(super) fn give_up(&mut self, alloc: &Allocation, why: String) {
        if self.find(alloc.id).is_none() {
            self.sources.push(Source::of(alloc.index, alloc.id, From::Ended));
        }
        self.end(alloc.id, why);
    }

    /// No more comes from this copy, if it is there; says why.
    pub(super) fn end(&mut self, id: AllocId, why: String) {
        if let Some(source) = self.find(id) {
            source.note(why);
            source.from = From::Ended;
        }
    }

    /// Copies that broke off, each with the lines it had; none if it was never open. They count
    /// as being opened from now on.
    pub(super) fn take_lost(&mut self) -> Vec<(AllocId, Option<Vec<LogCursor>>)> {
        let lost = self.sources.iter_mut().filter(|source| matches!(source.from, From::Lost));
        lost.map(|source| {
            source.from = From::Opening;
            let seen = || source.seen.values().cloned().collect();
            (source.id, source.opened.then(seen))
        })
        .collect()
    }

    /// The next lines; none when all copies have ended. Lines come in the order of their times;
    /// with `follow`, as far as that needs no waiting for a copy that prints nothing. May be
    /// given up and called again without losing any.
    pub(super) async fn next(&mut self, follow: bool) -> Option<Vec<LogLine>> {
        loop {
            self.sources
                .retain(|source| !matches!(source.from, From::Ended) || !source.lines.is_empty());
            if self.sources.is_empty() {
                return None;
            }
            let something = self.sources.iter().any(|source| !source.lines.is_empty());
            let all = !self.sources.iter().any(|source| source.keeps_waiting(follow));
            if something && all {
                return Some(self.sorted());
            }
            if follow && something {
                if tokio::time::timeout(PATIENCE, self.read(follow)).await.is_err() {
                    for source in self.sources.iter_mut().filter(|s| s.lines.is_empty()) {
                        source.quiet = true;
                    }
                }
            } else {
                self.read(follow).await;
            }
        }
    }

    /// Waits for a frame of any copy that has no line left.
    async fn read(&mut self, follow: bool) {
        poll_fn(|task| {
            let mut ready = false;
            for source in self.sources.iter_mut().filter(|source| source.lines.is_empty()) {
                let From::Open(session) = &mut source.from else { continue };
                if let Poll::Ready(frame) = session.from.poll_recv(task) {
                    source.take(frame.and_then(|frame| frame.frame), follow);
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
            if source.lines.is_empty() && matches!(source.from, From::Open(_)) {
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
    use crate::rpc::v1::{Exit, LogLines, SessionFrame};

    type Feed = mpsc::Sender<SessionFrame>;

    fn source(index: u32) -> (Feed, Source) {
        let (feed, from) = mpsc::channel(16);
        let (to, _) = mpsc::channel(1);
        (feed, Source::of(index, AllocId(u64::from(index)), From::Open(Session { to, from })))
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
    async fn a_followed_copy_that_breaks_off_goes_on_where_it_was() {
        let ((first, one), (second, two)) = (source(0), source(1));
        let mut merge = Merge::new(vec![one, two]);
        print(&first, &[7]).await;
        assert_eq!(merge.next(true).await.unwrap()[0].line, "7");
        drop(first);
        let lines = merge.next(true).await.unwrap();
        assert!(lines[0].note.as_ref().unwrap().contains("without a word"), "{lines:?}");
        assert_eq!(lines[0].error, None);
        // Others go on meanwhile.
        print(&second, &[8]).await;
        assert_eq!(merge.next(true).await.unwrap()[0].line, "8");
        let lost = merge.take_lost();
        let cursor = LogCursor { stdout: 7, ..LogCursor::default() };
        assert_eq!(lost, [(AllocId(0), Some(vec![cursor]))]);
        assert_eq!(merge.take_lost(), []);
        let (first, again) = source(0);
        let From::Open(session) = again.from else { panic!("it is not open") };
        merge.put_session(AllocId(0), 0, session);
        print(&first, &[9]).await;
        assert_eq!(merge.next(true).await.unwrap()[0].line, "9");
        merge.end(AllocId(0), "gone".to_owned());
        end(second).await;
        assert_eq!(merge.next(true).await.unwrap()[0].note.as_deref(), Some("gone"));
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
