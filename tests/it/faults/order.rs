//! What ZooKeeper promises beyond single nodes: to each session an order, and numbers that never
//! come twice.
//!
//! A read without a `sync` before it may be old, but what a session has seen it never sees undone:
//! transaction ids never go back, its own writes are there, a node that it saw go stays gone.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::history::{Row, Seen};

/// What a reply tells of the order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// The session.
    pub session: i64,
    /// The transaction id in the reply's header; 0: no reply came.
    pub zxid: i64,
    /// The node as it is now, as far as the reply tells; none: it does not, or there is none.
    pub node: Option<Born>,
    /// Its data, if they were read or written.
    pub data: Option<String>,
}

/// By which transactions a node is as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Born {
    /// It was made.
    pub czxid: i64,
    /// Its data were written.
    pub mzxid: i64,
}

/// What is wrong with the order, in words.
pub fn judge(rows: &[Row]) -> Result<(), String> {
    sessions(rows)?;
    writes(rows)?;
    numbers(rows)
}

fn reply_of(row: &Row) -> Option<&Reply> {
    match &row.seen {
        Seen::Node(_, reply) | Seen::Local(reply) | Seen::Number(_, reply) => Some(reply),
        Seen::Variable(_) => None,
    }
}

/// Nothing goes back within a session.
fn sessions(rows: &[Row]) -> Result<(), String> {
    let mut sessions: BTreeMap<i64, Vec<(&Row, &Reply)>> = BTreeMap::new();
    for row in rows.iter().filter(|row| row.end.is_some()) {
        if let Some(reply) = reply_of(row) {
            sessions.entry(reply.session).or_default().push((row, reply));
        }
    }
    for rows in sessions.values_mut() {
        rows.sort_by_key(|(row, _)| row.begin);
        let mut zxid = 0;
        // Of each node: the newest that was seen, and whether it was seen gone since.
        let mut nodes: BTreeMap<&str, (Born, bool, &Row)> = BTreeMap::new();
        for (row, reply) in rows {
            if reply.zxid < zxid {
                return Err(format!("a session's transaction ids went back from {zxid}: {row:?}"));
            }
            zxid = reply.zxid;
            let before = nodes.get_mut(row.path.as_str());
            let Some(node) = reply.node else {
                if let (Some(before), true) = (before, tells_of_absence(row)) {
                    before.1 = true;
                }
                continue;
            };
            if let Some((seen, was_gone, earlier)) = before {
                let went_back = node.mzxid < seen.mzxid
                    || node.czxid < seen.czxid
                    || (*was_gone && node.czxid == seen.czxid);
                if went_back {
                    return Err(format!(
                        "a session saw what it had seen undone: {row:?}\nbehind {earlier:?}"
                    ));
                }
            }
            nodes.insert(&row.path, (node, false, row));
        }
    }
    Ok(())
}

fn tells_of_absence(row: &Row) -> bool {
    use super::models::{Changed, NodeOp};
    match &row.seen {
        Seen::Local(_) => true,
        Seen::Node(op, _) => match op {
            NodeOp::Read { found } => found.is_none(),
            NodeOp::Set { outcome, .. } => *outcome == Some(Changed::NoNode),
            NodeOp::Delete { outcome, .. } => {
                matches!(outcome, Some(Changed::NoNode | Changed::Done(_)))
            }
            NodeOp::Create { .. } => false,
        },
        _ => false,
    }
}

/// One transaction wrote one thing, whoever saw it.
fn writes(rows: &[Row]) -> Result<(), String> {
    let mut written: BTreeMap<(&str, i64), (&str, &Row)> = BTreeMap::new();
    for row in rows {
        let Some(reply) = reply_of(row) else { continue };
        let (Some(node), Some(data)) = (reply.node, &reply.data) else { continue };
        let (other, earlier) =
            written.entry((&row.path, node.mzxid)).or_insert((data.as_str(), row));
        if *other != data.as_str() {
            return Err(format!("one transaction wrote two things: {row:?}\nand {earlier:?}"));
        }
    }
    Ok(())
}

/// A number behind a name comes once, and later ones are higher.
fn numbers(rows: &[Row]) -> Result<(), String> {
    let mut numbers: BTreeMap<&str, Vec<(i64, &Row)>> = BTreeMap::new();
    for row in rows {
        if let Seen::Number(number, _) = row.seen {
            numbers.entry(&row.path).or_default().push((number, row));
        }
    }
    for rows in numbers.values_mut() {
        rows.sort_by_key(|(number, _)| *number);
        let mut latest_begin: Option<&Row> = None;
        let mut last: Option<(i64, &Row)> = None;
        for (number, row) in rows.iter() {
            if let Some((_, earlier)) = last.filter(|(other, _)| other == number) {
                return Err(format!("number {number} came twice: {row:?}\nand {earlier:?}"));
            }
            last = Some((*number, row));
            // A lower number must not have been asked for when this one was there already.
            if let (Some(lower), Some(end)) = (latest_begin, row.end)
                && lower.begin > end
            {
                return Err(format!("a later name got a lower number: {lower:?}\nbehind {row:?}"));
            }
            latest_begin = match latest_begin {
                Some(other) if other.begin > row.begin => Some(other),
                _ => Some(row),
            };
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::models::{Changed, NodeOp};
    use super::*;

    fn row(begin: u64, end: u64, seen: Seen) -> Row {
        let (client, server) = ("c".to_owned(), "s1".to_owned());
        Row { client, server, path: "/n".to_owned(), begin, end: Some(end), seen }
    }

    fn reply(zxid: i64, node: Option<(i64, i64)>, data: Option<&str>) -> Reply {
        let node = node.map(|(czxid, mzxid)| Born { czxid, mzxid });
        Reply { session: 1, zxid, node, data: data.map(str::to_owned) }
    }

    fn local(begin: u64, zxid: i64, node: Option<(i64, i64)>) -> Row {
        row(begin, begin + 1, Seen::Local(reply(zxid, node, None)))
    }

    #[test]
    fn a_session_never_sees_anything_undone() {
        let seen = local(1, 9, Some((3, 7)));
        let after = |next: Row| judge(&[seen.clone(), next]);
        assert_eq!(after(local(3, 9, Some((3, 7)))), Ok(()));
        assert_eq!(after(local(3, 12, Some((10, 10)))), Ok(()));
        assert!(after(local(3, 8, Some((3, 7)))).is_err(), "the transaction id went back");
        assert!(after(local(3, 9, Some((3, 6)))).is_err(), "a write is gone");
        let back = [seen.clone(), local(3, 10, None), local(5, 11, Some((3, 7)))];
        assert!(judge(&back).is_err(), "it was gone and is back");
        let anew = [seen.clone(), local(3, 10, None), local(5, 12, Some((11, 11)))];
        assert_eq!(judge(&anew), Ok(()));
        let mut other = local(3, 1, Some((1, 1)));
        let Seen::Local(reply) = &mut other.seen else { unreachable!() };
        reply.session = 2;
        assert_eq!(after(other), Ok(()), "another session may be behind");
        let refused =
            NodeOp::Set { data: "x".to_owned(), version: 4, outcome: Some(Changed::BadVersion) };
        let refused = row(3, 4, Seen::Node(refused, super::Reply { node: None, ..reply_at(10) }));
        assert_eq!(judge(&[seen.clone(), refused, local(5, 11, Some((3, 7)))]), Ok(()));
    }

    fn reply_at(zxid: i64) -> Reply {
        reply(zxid, None, None)
    }

    #[test]
    fn a_transaction_wrote_one_thing() {
        let saw =
            |begin, data| row(begin, begin + 1, Seen::Local(reply(9, Some((3, 7)), Some(data))));
        assert_eq!(judge(&[saw(1, "a"), saw(3, "a")]), Ok(()));
        assert!(judge(&[saw(1, "a"), saw(3, "b")]).is_err());
    }

    #[test]
    fn numbers_come_once_and_in_order() {
        let number = |begin, end, number| {
            let mut row = row(begin, end, Seen::Number(number, reply_at(0)));
            let Seen::Number(_, reply) = &mut row.seen else { unreachable!() };
            reply.session = i64::try_from(begin).unwrap();
            row
        };
        assert_eq!(judge(&[number(1, 2, 4), number(3, 4, 5), number(5, 6, 9)]), Ok(()));
        assert_eq!(judge(&[number(1, 9, 5), number(3, 4, 4)]), Ok(()), "concurrent");
        assert!(judge(&[number(1, 2, 4), number(3, 4, 4)]).is_err(), "twice");
        assert!(judge(&[number(1, 2, 5), number(3, 4, 4)]).is_err(), "back");
        let hidden = [number(1, 2, 5), number(3, 9, 4), number(5, 6, 3)];
        assert!(judge(&hidden).is_err());
    }
}
