//! The order of nodes: by the parent's path, then by name. A node's children follow one another,
//! so that listing them is one range and no node keeps a list.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use equivalent::{Comparable, Equivalent};

/// A node's path as a key of the tree.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct PathKey(pub(super) Arc<str>);

impl fmt::Debug for PathKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Looks a path up without owning it.
#[derive(Debug, Clone, Copy)]
pub(super) struct At<'p> {
    path: &'p str,
    parent: &'p str,
    name: &'p str,
}

impl<'p> At<'p> {
    pub(super) fn new(path: &'p str) -> Self {
        let (parent, name) = parts(path);
        Self { path, parent, name }
    }
}

/// A place among the children of `parent`: where `name` is, or would be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Below<'p> {
    pub(super) parent: &'p str,
    pub(super) name: &'p str,
}

/// Parent and name. The root is its own parent, which has no name.
fn parts(path: &str) -> (&str, &str) {
    // Every comparison of a walk down the tree comes here, and names are short: a search for words
    // of memory at once would take longer, and an iterator from behind does too.
    let bytes = path.as_bytes();
    let mut behind = bytes.len();
    while behind > 0 && bytes[behind - 1] != b'/' {
        behind -= 1;
    }
    match behind {
        0 => ("", path),
        1 => (if path.len() == 1 { "" } else { "/" }, &path[1..]),
        _ => (&path[..behind - 1], &path[behind..]),
    }
}

fn order(a: (&str, &str), b: (&str, &str)) -> Ordering {
    a.0.cmp(b.0).then_with(|| a.1.cmp(b.1))
}

/// The same, of two paths with their parts: where the parents are of one length, and not the root,
/// the paths compare as their parts do.
fn order_whole(a: (&str, (&str, &str)), b: (&str, (&str, &str))) -> Ordering {
    let length = a.1.0.len();
    if length == b.1.0.len() && length > 1 { a.0.cmp(b.0) } else { order(a.1, b.1) }
}

impl Ord for PathKey {
    fn cmp(&self, other: &Self) -> Ordering {
        order_whole((&self.0, parts(&self.0)), (&other.0, parts(&other.0)))
    }
}

impl PartialOrd for PathKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Equivalent<PathKey> for At<'_> {
    fn equivalent(&self, key: &PathKey) -> bool {
        *self.path == *key.0
    }
}

impl Comparable<PathKey> for At<'_> {
    fn compare(&self, key: &PathKey) -> Ordering {
        let own = (self.path, (self.parent, self.name));
        order_whole(own, (&key.0, parts(&key.0))).then_with(|| match self.parent {
            // Clients may ask for `//a`, which has the parts of `/a` and is nowhere.
            "/" => self.path.len().cmp(&key.0.len()),
            _ => Ordering::Equal,
        })
    }
}

impl Equivalent<PathKey> for Below<'_> {
    fn equivalent(&self, key: &PathKey) -> bool {
        self.compare(key) == Ordering::Equal
    }
}

impl Comparable<PathKey> for Below<'_> {
    fn compare(&self, key: &PathKey) -> Ordering {
        order((self.parent, self.name), parts(&key.0))
    }
}

impl PathKey {
    /// The name below `parent`, if it is a child of it.
    pub(super) fn name_below(&self, parent: &str) -> Option<&str> {
        let (above, name) = parts(&self.0);
        (above == parent).then_some(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn paths_are_ordered_by_parent_then_name(a in "[/a-c]{0,6}", b in "/[/ab]{0,8}") {
            let split = |path: &str| match path.rfind('/') {
                Some(0) if path.len() == 1 => (String::new(), String::new()),
                Some(0) => ("/".to_owned(), path[1..].to_owned()),
                Some(slash) => (path[..slash].to_owned(), path[slash + 1..].to_owned()),
                None => (String::new(), path.to_owned()),
            };
            let expected = split(&a).cmp(&split(&b));
            let keys = [&a, &b].map(|path| PathKey(path.as_str().into()));
            proptest::prop_assert_eq!(keys[0].cmp(&keys[1]), expected);
            let at = At::new(&a).compare(&keys[1]);
            let root = split(&a).0 == "/" && expected == Ordering::Equal;
            proptest::prop_assert_eq!(at, if root { a.len().cmp(&b.len()) } else { expected });
            let (parent, name) = split(&a);
            let below = Below { parent: &parent, name: &name };
            proptest::prop_assert_eq!(below.compare(&keys[1]), expected);
        }
    }
}
