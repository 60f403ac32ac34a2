//! The watches that a session has set and that have not fired: what a new connection's server
//! must be told of.

use std::collections::BTreeSet;

use super::event::EventKind;
use crate::jute::request::SetWatches2Request;
use crate::limits::ZK_WATCHES_BYTES_MAX;

/// A watch that a request sets if it succeeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum WatchKind {
    /// On data; or, if `exists` finds no node, on its being made.
    Exists,
    /// On data.
    Data,
    /// On children.
    Children,
    /// Persistent.
    Persistent,
    /// Persistent, on everything below too.
    Recursive,
}

/// Paths under each kind, with the chroot.
#[derive(Debug, Default)]
pub(super) struct Watches {
    data: BTreeSet<String>,
    exist: BTreeSet<String>,
    child: BTreeSet<String>,
    persistent: BTreeSet<String>,
    recursive: BTreeSet<String>,
}

impl Watches {
    /// A request was answered; `found` is whether there is such a node.
    pub(super) fn set(&mut self, kind: WatchKind, path: String, found: bool) {
        let set = match kind {
            WatchKind::Exists if !found => &mut self.exist,
            // Nothing to watch: only `exists` watches for a node that is not there.
            WatchKind::Data | WatchKind::Children if !found => return,
            WatchKind::Exists | WatchKind::Data => &mut self.data,
            WatchKind::Children => &mut self.child,
            WatchKind::Persistent => &mut self.persistent,
            WatchKind::Recursive => &mut self.recursive,
        };
        set.insert(path);
    }

    /// An event came: what fires once has fired.
    pub(super) fn fired(&mut self, kind: EventKind, path: &str) {
        match kind {
            EventKind::Created | EventKind::DataChanged => {
                self.data.remove(path);
                self.exist.remove(path);
            }
            EventKind::Deleted => {
                self.data.remove(path);
                self.exist.remove(path);
                self.child.remove(path);
            }
            EventKind::ChildrenChanged => {
                self.child.remove(path);
            }
            EventKind::DataWatchRemoved => {
                self.data.remove(path);
                self.exist.remove(path);
            }
            EventKind::ChildWatchRemoved => {
                self.child.remove(path);
            }
            EventKind::PersistentWatchRemoved => {
                self.persistent.remove(path);
                self.recursive.remove(path);
            }
            EventKind::None | EventKind::Unknown(_) => {}
        }
    }

    /// Watches were taken away; `kind` as `removeWatches` has it.
    pub(super) fn removed(&mut self, kind: i32, path: &str) {
        let all = kind == 3;
        if all || kind == 1 {
            self.child.remove(path);
        }
        if all || kind == 2 {
            self.data.remove(path);
            self.exist.remove(path);
        }
        if all || kind == 4 {
            self.persistent.remove(path);
        }
        if all || kind == 5 {
            self.recursive.remove(path);
        }
    }

    /// The requests that set them all again, none of them too long.
    pub(super) fn again(&self, relative_zxid: i64) -> Vec<SetWatches2Request<'_>> {
        let empty = || SetWatches2Request {
            relative_zxid,
            data: Vec::new(),
            exist: Vec::new(),
            child: Vec::new(),
            persistent: Vec::new(),
            persistent_recursive: Vec::new(),
        };
        let (mut done, mut next, mut bytes) = (Vec::new(), empty(), 0);
        let kinds = [&self.data, &self.exist, &self.child, &self.persistent, &self.recursive];
        for (kind, paths) in kinds.into_iter().enumerate() {
            for path in paths {
                if bytes + path.len() > ZK_WATCHES_BYTES_MAX && bytes > 0 {
                    done.push(std::mem::replace(&mut next, empty()));
                    bytes = 0;
                }
                bytes += path.len();
                let list = match kind {
                    0 => &mut next.data,
                    1 => &mut next.exist,
                    2 => &mut next.child,
                    3 => &mut next.persistent,
                    _ => &mut next.persistent_recursive,
                };
                list.push(path);
            }
        }
        if bytes > 0 {
            done.push(next);
        }
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_fired_is_not_set_again() {
        let mut watches = Watches::default();
        assert!(watches.again(7).is_empty());
        watches.set(WatchKind::Exists, "/missing".into(), false);
        watches.set(WatchKind::Exists, "/there".into(), true);
        watches.set(WatchKind::Data, "/none".into(), false);
        watches.set(WatchKind::Children, "/there".into(), true);
        watches.set(WatchKind::Persistent, "/p".into(), true);
        watches.set(WatchKind::Recursive, "/r".into(), true);
        let again = watches.again(7);
        assert_eq!(again.len(), 1);
        assert_eq!((again[0].relative_zxid, &again[0].data), (7, &vec!["/there"]));
        assert_eq!((&again[0].exist, &again[0].child), (&vec!["/missing"], &vec!["/there"]));
        assert_eq!(again[0].persistent, ["/p"]);
        assert_eq!(again[0].persistent_recursive, ["/r"]);

        watches.fired(EventKind::Created, "/missing");
        watches.fired(EventKind::Deleted, "/there");
        watches.fired(EventKind::DataChanged, "/p");
        watches.fired(EventKind::Deleted, "/r");
        let again = watches.again(8);
        assert_eq!(again[0].data.len() + again[0].exist.len() + again[0].child.len(), 0);
        assert_eq!(again[0].persistent.len() + again[0].persistent_recursive.len(), 2);
        watches.removed(3, "/p");
        watches.removed(5, "/r");
        assert!(watches.again(9).is_empty());
    }

    #[test]
    fn many_watches_are_set_by_several_requests() {
        let mut watches = Watches::default();
        let long = "x".repeat(1000);
        for i in 0..300 {
            watches.set(WatchKind::Data, format!("/{i}{long}"), true);
            watches.set(WatchKind::Recursive, format!("/{i}{long}"), true);
        }
        let again = watches.again(1);
        assert!(again.len() > 4);
        assert_eq!(again.iter().map(|a| a.data.len()).sum::<usize>(), 300);
        assert_eq!(again.iter().map(|a| a.persistent_recursive.len()).sum::<usize>(), 300);
        for request in again {
            use crate::jute::Field as _;
            assert!(request.to_bytes().len() < ZK_WATCHES_BYTES_MAX + 1024);
        }
    }
}
