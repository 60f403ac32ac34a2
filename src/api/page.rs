//! Pages of lists. A cursor names the last row of the page before, not a number: rows that come
//! and go in between are neither skipped nor repeated.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::Problem;
use super::view::Page;
use crate::limits::{API_PAGE_ROWS, API_PAGE_ROWS_MAX};

/// Characters of a cursor: more than any list's key needs.
const CURSOR_CHARS_MAX: usize = 2048;

/// Which page is asked for.
#[derive(Debug)]
pub(super) struct Ask<K> {
    /// Rows of the page.
    pub(super) limit: usize,
    /// The key of the last row before it.
    pub(super) after: Option<K>,
}

/// Reads `?limit=` and `?cursor=`.
pub(super) fn ask<K: DeserializeOwned>(
    limit: Option<usize>,
    cursor: Option<&str>,
) -> Result<Ask<K>, Problem> {
    let limit = limit.unwrap_or(API_PAGE_ROWS);
    if !(1..=API_PAGE_ROWS_MAX).contains(&limit) {
        return Err(Problem::bad_request(format!(
            "?limit={limit} is out of bounds; ask for 1 to {API_PAGE_ROWS_MAX} rows"
        )));
    }
    let after = match cursor {
        Some(cursor) => Some(decode(cursor).ok_or_else(|| {
            Problem::bad_request(
                "the cursor is none of this list's; take next_cursor of the page before as it is",
            )
        })?),
        None => None,
    };
    Ok(Ask { limit, after })
}

/// The text that names the rows behind `key`.
pub(super) fn encode<K: Serialize>(key: &K) -> String {
    // Keys are names and numbers: they always encode.
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(key).unwrap_or_default())
}

fn decode<K: DeserializeOwned>(cursor: &str) -> Option<K> {
    if cursor.len() > CURSOR_CHARS_MAX {
        return None;
    }
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(cursor).ok()?).ok()
}

/// The first rows of `rows`, which begin behind the cursor.
pub(super) fn page<K: Serialize, T>(
    limit: usize,
    rows: impl IntoIterator<Item = (K, T)>,
) -> Page<T> {
    let mut items = Vec::new();
    let mut last = None;
    for (key, row) in rows {
        if items.len() == limit {
            return Page { items, next_cursor: last.as_ref().map(encode) };
        }
        items.push(row);
        last = Some(key);
    }
    Page { items, next_cursor: None }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn walk(numbers: &[u32], limit: usize) -> Vec<u32> {
        let mut seen = Vec::new();
        let mut cursor = None;
        loop {
            let ask: Ask<u32> = ask(Some(limit), cursor.as_deref()).unwrap();
            let rest = numbers.iter().filter(|n| ask.after.is_none_or(|after| **n > after));
            let page = page(ask.limit, rest.map(|n| (*n, *n)));
            assert!(page.items.len() <= limit);
            seen.extend(page.items);
            cursor = page.next_cursor;
            if cursor.is_none() {
                return seen;
            }
        }
    }

    proptest! {
        #[test]
        fn pages_together_are_the_list(
            numbers in proptest::collection::btree_set(any::<u32>(), 0..50), limit in 1usize..20,
        ) {
            let numbers: Vec<u32> = numbers.into_iter().collect();
            prop_assert_eq!(walk(&numbers, limit), numbers);
        }

        #[test]
        fn any_text_as_a_cursor_is_refused_or_read(text in ".{0,200}") {
            match ask::<(String, u64)>(None, Some(&text)) {
                Ok(ask) => prop_assert!(ask.after.is_some()),
                Err(problem) => prop_assert_eq!(problem.status.as_u16(), 400),
            }
        }

        #[test]
        fn a_cursor_reads_as_it_is_written(name in ".{0,60}", number in any::<u64>()) {
            let key = (name, number);
            prop_assert_eq!(decode::<(String, u64)>(&encode(&key)), Some(key));
        }
    }

    #[test]
    fn a_limit_has_bounds() {
        assert!(ask::<u32>(Some(0), None).is_err());
        assert!(ask::<u32>(Some(API_PAGE_ROWS_MAX + 1), None).is_err());
        assert!(ask::<u32>(Some(API_PAGE_ROWS_MAX), None).is_ok());
    }
}
