//! Marathon's ids and names as names of jobs, tasks and ports.

use std::collections::BTreeSet;

use crate::limits::NAME_CHARS_MAX;
use crate::model::name::JobName;

/// Characters of a name's mark that tells a cut one from others.
const MARK_CHARS: usize = 8;

/// `shop-web-db` for `/shop/web/db`, and whether the id had to be changed beyond that. Two ids
/// may come to the same name; None if nothing is left of it.
pub fn job_name(id: &str) -> Option<(JobName, bool)> {
    let plain = id.trim_matches('/').replace('/', "-");
    let name = name(&plain)?;
    let changed = name != plain;
    name.parse().ok().map(|name| (name, changed))
}

/// A text as a name: lower case, what names don't have as a dash, cut with a mark of the whole.
pub(super) fn name(text: &str) -> Option<String> {
    let mut name: String = text
        .chars()
        .map(|c| c.to_ascii_lowercase())
        .map(|c| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '-' })
        .collect();
    if name.len() > NAME_CHARS_MAX {
        let mark = mark(text);
        name.truncate(NAME_CHARS_MAX - MARK_CHARS - 1);
        name = format!("{}-{mark}", name.trim_end_matches('-'));
    }
    let name = name.trim_matches('-');
    (!name.is_empty()).then(|| name.to_owned())
}

/// FNV-1a: short, and the same for ever.
fn mark(text: &str) -> String {
    let hash = text
        .bytes()
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    format!("{hash:08x}")
}

/// Names that are given once.
#[derive(Debug, Default)]
pub(super) struct Names(BTreeSet<String>);

impl Names {
    /// A name like `text`, or like `otherwise`, that was not given before.
    pub(super) fn fresh(&mut self, text: &str, otherwise: &str) -> String {
        let wanted = name(text).unwrap_or_else(|| otherwise.to_owned());
        let mut name = wanted.clone();
        let mut count = 2;
        while !self.0.insert(name.clone()) {
            let suffix = format!("-{count}");
            let stem: String = wanted.chars().take(NAME_CHARS_MAX - suffix.len()).collect();
            name = format!("{}{suffix}", stem.trim_end_matches('-'));
            count += 1;
        }
        name
    }
}

/// A text as the part of a variable's name that Marathon made of it.
pub(super) fn variable(text: &str) -> String {
    let upper = text.to_uppercase();
    upper
        .chars()
        .map(|c| if c.is_ascii_uppercase() || c.is_ascii_digit() { c } else { '_' })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_become_names() {
        let named = |id: &str| job_name(id).map(|(name, changed)| (name.to_string(), changed));
        assert_eq!(named("/shop/web/db"), Some(("shop-web-db".into(), false)));
        assert_eq!(named("/shop.v2/Web"), Some(("shop-v2-web".into(), true)));
        assert_eq!(named("/"), None);
        assert_eq!(named("/-.-"), None);
        let (long, changed) = named(&format!("/{}", "a/".repeat(60))).unwrap();
        assert!(changed && long.len() <= NAME_CHARS_MAX, "{long}");
        assert_ne!(named(&"x".repeat(80)), named(&"x".repeat(81)));
    }

    #[test]
    fn a_name_is_given_once() {
        let mut names = Names::default();
        let given: Vec<_> = (0..3).map(|_| names.fresh("http", "port0")).collect();
        assert_eq!(given, ["http", "http-2", "http-3"]);
        assert_eq!(names.fresh("__", "port0"), "port0");
        let long = "y".repeat(NAME_CHARS_MAX);
        assert_eq!(names.fresh(&long, "x"), long);
        assert_eq!(names.fresh(&long, "x").len(), NAME_CHARS_MAX);
    }
}
