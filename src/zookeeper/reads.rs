//! What clients read, answered from one view of the tree. Pure.

use std::sync::Arc;

use super::watches::{Mode, Table};
use crate::jute::op::{ErrorCode, Op, PERM_READ};
use crate::jute::reply::{
    ChildrenReply, DataReply, MultiReply, MultiResult, NamesReply, NumberReply, StatReply,
    WhoAmIReply,
};
use crate::jute::request::{MultiReadRequest, PathRequest, WatchRequest};
use crate::jute::{Field, Id};
use crate::limits::ZK_MULTI_READ_BYTES_MAX;
use crate::state::znodes::{Asker, Tree, Znode};

/// Who reads.
#[derive(Debug, Clone, Copy)]
pub(super) struct Caller<'a> {
    pub(super) session: i64,
    pub(super) ids: &'a [Id],
}

impl Caller<'_> {
    fn asker(&self) -> Asker<'_> {
        Asker { ids: self.ids, superuser: false }
    }
}

/// Watches that a read sets.
pub(super) type Armed = Vec<(Table, String)>;

/// The record of the answer.
///
/// # Errors
/// The code that the client gets. Watches may be set all the same.
pub(super) fn answer(
    tree: &Tree,
    caller: Caller<'_>,
    op: Op,
    body: &[u8],
    armed: &mut Armed,
) -> Result<Vec<u8>, ErrorCode> {
    let reader = Reads { tree, caller };
    Ok(match op {
        Op::Exists => {
            let request = WatchRequest::from_bytes(body)?;
            let stat = tree.read_stat(request.path);
            // A node that is not there can be waited for.
            if request.watch && !matches!(stat, Err(ErrorCode::BadArguments)) {
                armed.push((Table::Data, request.path.to_owned()));
            }
            StatReply { stat: stat? }.to_bytes()
        }
        Op::GetData => reader.data(&WatchRequest::from_bytes(body)?, armed)?.to_bytes(),
        Op::GetChildren => {
            let (_, names) = reader.children(&WatchRequest::from_bytes(body)?, armed)?;
            NamesReply { names }.to_bytes()
        }
        Op::GetChildren2 => {
            let (node, names) = reader.children(&WatchRequest::from_bytes(body)?, armed)?;
            ChildrenReply { names, stat: node.stat() }.to_bytes()
        }
        Op::GetAcl => {
            tree.read_acl(PathRequest::from_bytes(body)?.path, caller.asker())?.to_bytes()
        }
        Op::GetEphemerals => {
            let prefix = PathRequest::from_bytes(body)?.path.trim();
            let prefix = if prefix == "/" { "" } else { prefix };
            let mine = tree.ephemerals_of(caller.session).map(AsRef::as_ref);
            NamesReply { names: mine.filter(|path: &&str| path.starts_with(prefix)).collect() }
                .to_bytes()
        }
        Op::GetAllChildrenNumber => {
            let request = PathRequest::from_bytes(body)?;
            reader.node(request.path, PERM_READ)?;
            let below = tree.walk(request.path).count().saturating_sub(1);
            NumberReply { number: i32::try_from(below).unwrap_or(i32::MAX) }.to_bytes()
        }
        Op::WhoAmI => {
            let user = |id: &Id| {
                let user = match id.scheme.as_str() {
                    "digest" => id.id.split(':').next().unwrap_or_default(),
                    _ => &id.id,
                };
                Id { scheme: id.scheme.clone(), id: user.to_owned() }
            };
            WhoAmIReply { clients: caller.ids.iter().map(user).collect() }.to_bytes()
        }
        Op::MultiRead => reader.multi(&MultiReadRequest::from_bytes(body)?)?.to_bytes(),
        _ => return Err(ErrorCode::Unimplemented),
    })
}

/// Whether an answer is kept away from the loop that everybody waits for.
pub(super) fn takes_long(op: Op) -> bool {
    op == Op::GetAllChildrenNumber
}

struct Reads<'t> {
    tree: &'t Tree,
    caller: Caller<'t>,
}

impl<'t> Reads<'t> {
    fn node(&self, path: &str, perms: i32) -> Result<&'t Arc<Znode>, ErrorCode> {
        let node = self.tree.get(path).ok_or(ErrorCode::NoNode)?;
        match self.tree.allows(node, perms, self.caller.asker()) {
            true => Ok(node),
            false => Err(ErrorCode::NoAuth),
        }
    }

    fn data(
        &self,
        request: &WatchRequest<'_>,
        armed: &mut Armed,
    ) -> Result<DataReply<'t>, ErrorCode> {
        let data = self.tree.read_data(request.path, self.caller.asker())?;
        if request.watch {
            armed.push((Table::Data, request.path.to_owned()));
        }
        Ok(data)
    }

    fn children<'r>(
        &'r self,
        request: &WatchRequest<'r>,
        armed: &mut Armed,
    ) -> Result<(&'t Arc<Znode>, Vec<&'r str>), ErrorCode>
    where
        't: 'r,
    {
        let node = self.node(request.path, PERM_READ)?;
        if request.watch {
            armed.push((Table::Child, request.path.to_owned()));
        }
        let names = self.tree.children(request.path).map(|(name, ..)| name);
        Ok((node, names.collect()))
    }

    /// Refused if the answer would be longer than a client may ask for at once.
    fn multi(&'t self, request: &'t MultiReadRequest<'t>) -> Result<MultiReply<'t>, ErrorCode> {
        let mut results = Vec::with_capacity(request.ops.len());
        let mut bytes = 0;
        for (op, read) in &request.ops {
            let result = match op {
                Op::GetData => self.data(read, &mut Armed::new()).map(|reply| {
                    bytes += reply.data.map_or(0, <[u8]>::len);
                    MultiResult::GetData(reply)
                }),
                _ => {
                    let children = self.tree.get(read.path).map_or(0, |node| node.children());
                    bytes += 16 * children as usize;
                    let names = match bytes > ZK_MULTI_READ_BYTES_MAX {
                        true => Err(ErrorCode::BadArguments),
                        false => self.children(read, &mut Armed::new()),
                    };
                    names.map(|(_, names)| MultiResult::GetChildren(NamesReply { names }))
                }
            };
            if bytes > ZK_MULTI_READ_BYTES_MAX {
                return Err(ErrorCode::BadArguments);
            }
            results.push(result.unwrap_or_else(|code| MultiResult::Error(code.number())));
        }
        Ok(MultiReply { results })
    }
}

/// Watches that a client had before it came here: those that would have fired meanwhile are told,
/// the others are set.
#[derive(Debug, Default)]
pub(super) struct Rewatch {
    /// Kind of event (as on the wire) and path.
    pub(super) fired: Vec<(i32, String)>,
    /// To be set.
    pub(super) set: Vec<(Table, String)>,
}

/// Sorts watches out that a client sets again, which has seen everything up to `relative_zxid`.
pub(super) fn rewatch(
    tree: &Tree,
    relative_zxid: i64,
    data: &[&str],
    exist: &[&str],
    child: &[&str],
) -> Rewatch {
    let mut out = Rewatch::default();
    for path in data {
        match tree.get(path) {
            None => out.fired.push((2, (*path).to_owned())),
            Some(node) if node.persisted().mzxid > relative_zxid => {
                out.fired.push((3, (*path).to_owned()));
            }
            Some(_) => out.set.push((Table::Data, (*path).to_owned())),
        }
    }
    for path in exist {
        match tree.get(path) {
            Some(_) => out.fired.push((1, (*path).to_owned())),
            None => out.set.push((Table::Data, (*path).to_owned())),
        }
    }
    for path in child {
        match tree.get(path) {
            None => out.fired.push((2, (*path).to_owned())),
            Some(node) if node.persisted().pzxid > relative_zxid => {
                out.fired.push((4, (*path).to_owned()));
            }
            Some(_) => out.set.push((Table::Child, (*path).to_owned())),
        }
    }
    out
}

/// The mode of a persistent watch, as on the wire.
pub(super) fn persistent_mode(number: i32) -> Option<Mode> {
    match number {
        0 => Some(Mode::Persistent),
        1 => Some(Mode::Recursive),
        _ => None,
    }
}
