//! Paths of nodes.

/// Characters of a path that people are shown.
const SHOWN_CHARS: usize = 200;

/// Why a path can't be one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// It is empty.
    #[error("a path can't be empty")]
    Empty,
    /// It does not begin with a slash.
    #[error("a path begins with /")]
    Relative,
    /// It ends with a slash.
    #[error("a path does not end with /")]
    SlashAtEnd,
    /// Two slashes follow one another.
    #[error("a path has no empty part (//)")]
    EmptyPart,
    /// A part is `.` or `..`.
    #[error("a path has no part . or ..")]
    Dots,
    /// A character that paths don't have.
    #[error("a path can't hold the character {0:?}")]
    Character(char),
}

/// A path for people: quoted, and cut where it is too long to be read.
pub fn shown(path: &str) -> String {
    match path.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => format!("{:?}…", &path[..end]),
        None => format!("{path:?}"),
    }
}

/// Whether `path` can be a node's: the rules of ZooKeeper's `PathUtils`.
///
/// # Errors
/// Why not.
pub fn check(path: &str) -> Result<(), PathError> {
    if path.is_empty() {
        return Err(PathError::Empty);
    }
    let Some(inner) = path.strip_prefix('/') else { return Err(PathError::Relative) };
    if inner.is_empty() {
        return Ok(());
    }
    if inner.ends_with('/') {
        return Err(PathError::SlashAtEnd);
    }
    for part in inner.split('/') {
        match part {
            "" => return Err(PathError::EmptyPart),
            "." | ".." => return Err(PathError::Dots),
            _ => {}
        }
    }
    // Most paths are plain ASCII: bytes are looked at first.
    if inner.bytes().all(|byte| (0x20..0x7f).contains(&byte)) {
        return Ok(());
    }
    let forbidden = |c: char| matches!(c as u32, 0..=0x1f | 0x7f..=0x9f | 0xd800..=0xf8ff | 0xfff0..=0xffff | 0x1_0000..);
    match inner.chars().find(|c| forbidden(*c)) {
        Some(c) => Err(PathError::Character(c)),
        None => Ok(()),
    }
}

/// Path of the node above, and the name below it; none for the root.
pub fn split(path: &str) -> Option<(&str, &str)> {
    let (parent, name) = path.rsplit_once('/')?;
    match (parent, name) {
        (_, "") => None,
        ("", name) => Some(("/", name)),
        split => Some(split),
    }
}

/// Path of the node called `name` below `parent`.
pub fn join(parent: &str, name: &str) -> String {
    if parent == "/" { format!("/{name}") } else { format!("{parent}/{name}") }
}

/// Whether `path` is `top` or below it.
pub fn is_within(path: &str, top: &str) -> bool {
    top == "/"
        || path.strip_prefix(top).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_checked_as_zookeeper_does() {
        for good in ["/", "/a", "/a/b", "/ä/é", "/a b", "/a.", "/..a", "/zookeeper/quota"] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for (bad, why) in [
            ("", PathError::Empty),
            ("a", PathError::Relative),
            ("/a/", PathError::SlashAtEnd),
            ("//a", PathError::EmptyPart),
            ("/a//b", PathError::EmptyPart),
            ("/a/.", PathError::Dots),
            ("/../b", PathError::Dots),
            ("/a\0", PathError::Character('\0')),
            ("/a\u{1f}", PathError::Character('\u{1f}')),
            ("/a\u{85}", PathError::Character('\u{85}')),
            ("/\u{e000}", PathError::Character('\u{e000}')),
            ("/\u{1f600}", PathError::Character('\u{1f600}')),
        ] {
            assert_eq!(check(bad), Err(why), "{bad:?}");
        }
    }

    #[test]
    fn a_path_splits_into_parent_and_name() {
        assert_eq!(split("/"), None);
        assert_eq!(split("/a"), Some(("/", "a")));
        assert_eq!(split("/a/b"), Some(("/a", "b")));
        assert_eq!(join("/", "a"), "/a");
        assert_eq!(join("/a", "b"), "/a/b");
        assert!(is_within("/a/b", "/a") && is_within("/a", "/a") && is_within("/a", "/"));
        assert!(!is_within("/ab", "/a") && !is_within("/", "/a"));
    }
}
