//! Access lists: kept once each and counted, checked, and made whole when they are set.

use std::net::IpAddr;
use std::sync::Arc;

use imbl::OrdMap;

use crate::jute::op::{ErrorCode, PERM_ADMIN};
use crate::jute::{Acl, Id};
use crate::limits::ZK_ACL_ENTRIES_MAX;

/// Number of an access list within a tree.
pub(super) type AclId = u32;

/// The access list of a node of which the source's snapshot did not say which it has.
pub(super) const UNKNOWN: AclId = 0;
/// Everybody may do everything.
pub(super) const OPEN: AclId = 1;

/// A list, and how many nodes have it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Listed {
    acl: Arc<[Acl]>,
    nodes: u64,
}

/// All access lists of a tree.
#[derive(Debug, Clone)]
pub(super) struct AclTable {
    lists: OrdMap<AclId, Listed>,
    ids: OrdMap<Arc<[Acl]>, AclId>,
    next: AclId,
}

impl Default for AclTable {
    fn default() -> Self {
        let mut table = Self { lists: OrdMap::new(), ids: OrdMap::new(), next: UNKNOWN };
        // Both have a number for ever.
        for acl in [Vec::new(), vec![Acl::open()]] {
            let id = table.id_of(acl.into());
            table.keep(id);
        }
        table
    }
}

impl AclTable {
    /// The list of that number.
    pub(super) fn list(&self, id: AclId) -> Arc<[Acl]> {
        self.lists.get(&id).map(|listed| listed.acl.clone()).unwrap_or_default()
    }

    /// The number of a list, which it is given if it has none yet.
    pub(super) fn id_of(&mut self, acl: Arc<[Acl]>) -> AclId {
        if let Some(id) = self.ids.get(&acl) {
            return *id;
        }
        // Once all numbers were given, those of lists that are forgotten come again. There are
        // always some: a list takes more memory than there would be for so many.
        let mut id = self.next;
        while self.lists.contains_key(&id) {
            id = id.wrapping_add(1);
        }
        self.next = id.wrapping_add(1);
        self.put(id, acl);
        id
    }

    /// Puts a list under a number that another table gave it; false if one of them is taken.
    pub(super) fn put(&mut self, id: AclId, acl: Arc<[Acl]>) -> bool {
        if self.lists.contains_key(&id) || self.ids.contains_key(&acl) {
            return false;
        }
        self.ids.insert(acl.clone(), id);
        self.lists.insert(id, Listed { acl, nodes: 0 });
        true
    }

    /// One node more has it.
    pub(super) fn keep(&mut self, id: AclId) {
        if let Some(listed) = self.lists.get_mut(&id) {
            listed.nodes += 1;
        }
    }

    /// One node less has it; a list that no node has is forgotten.
    pub(super) fn drop_one(&mut self, id: AclId) {
        let Some(listed) = self.lists.get_mut(&id) else { return };
        listed.nodes = listed.nodes.saturating_sub(1);
        if listed.nodes == 0
            && let Some(listed) = self.lists.remove(&id)
        {
            self.ids.remove(&listed.acl);
        }
    }

    /// All lists in order of their numbers, without the two that are always there.
    pub(super) fn rows(&self) -> impl Iterator<Item = (AclId, &Arc<[Acl]>)> {
        self.lists.iter().filter(|(id, _)| **id > OPEN).map(|(id, listed)| (*id, &listed.acl))
    }

    /// As [`AclTable::rows`], and the list without entries if a node has it: an ensemble's server
    /// does not start with a node whose list it can't find.
    pub(super) fn file_rows(&self) -> impl Iterator<Item = (AclId, &Arc<[Acl]>)> {
        let unknown = self.lists.get(&UNKNOWN).filter(|listed| listed.nodes > 1);
        unknown.map(|listed| (UNKNOWN, &listed.acl)).into_iter().chain(self.rows())
    }

    /// From which number on one is looked for when a new list comes.
    pub(super) fn next(&self) -> AclId {
        self.next
    }

    /// Says from which number on one is looked for.
    pub(super) fn set_next(&mut self, next: AclId) {
        self.next = next;
    }

    /// How many lists there are.
    pub(super) fn len(&self) -> usize {
        self.lists.len()
    }
}

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub struct Asker<'a> {
    /// Whom it has proven to be.
    pub ids: &'a [Id],
    /// Whether it may do everything.
    pub superuser: bool,
}

/// Whether `acl` lets `asker` do what the bits of `perms` say; any one of them is enough.
pub(super) fn allows(acl: &[Acl], perms: i32, asker: Asker<'_>) -> bool {
    if acl.is_empty() || asker.superuser || asker.ids.iter().any(|id| id.scheme == "super") {
        return true;
    }
    let granted = acl.iter().filter(|entry| entry.perms & perms != 0);
    granted.into_iter().any(|Acl { id, .. }| {
        is_anyone(id) || asker.ids.iter().any(|own| own.scheme == id.scheme && matches(own, &id.id))
    })
}

fn is_anyone(id: &Id) -> bool {
    id.scheme == "world" && id.id == "anyone"
}

fn matches(own: &Id, wanted: &str) -> bool {
    match own.scheme.as_str() {
        "ip" => match (own.id.parse::<IpAddr>(), network(wanted)) {
            (Ok(own), Some((net, bits))) => is_in(own, net, bits),
            _ => false,
        },
        _ => own.id == wanted,
    }
}

/// An address with the number of its bits that count, as `10.0.0.0/8`.
fn network(text: &str) -> Option<(IpAddr, u32)> {
    let (addr, bits) = match text.split_once('/') {
        Some((addr, bits)) => (addr, Some(bits.parse::<u32>().ok()?)),
        None => (text, None),
    };
    let addr: IpAddr = addr.parse().ok()?;
    let most = if addr.is_ipv4() { 32 } else { 128 };
    let bits = bits.unwrap_or(most);
    (bits <= most).then_some((addr, bits))
}

fn is_in(addr: IpAddr, net: IpAddr, bits: u32) -> bool {
    match (addr, net) {
        (IpAddr::V4(addr), IpAddr::V4(net)) => {
            let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
            addr.to_bits() & mask == net.to_bits() & mask
        }
        (IpAddr::V6(addr), IpAddr::V6(net)) => {
            let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
            addr.to_bits() & mask == net.to_bits() & mask
        }
        _ => false,
    }
}

/// A list as it is kept: without repeats, and `auth` replaced by whom the asker has proven to be.
pub(super) fn complete(acl: &[Acl], asker: Asker<'_>) -> Result<Arc<[Acl]>, ErrorCode> {
    let proven = |id: &&Id| matches!(id.scheme.as_str(), "digest" | "x509" | "sasl");
    let own = asker.ids.iter().filter(proven).count().max(1);
    // What is kept is carried by every node that has it, and compared with every list there is.
    if acl.len().saturating_mul(own) > ZK_ACL_ENTRIES_MAX {
        return Err(ErrorCode::InvalidAcl);
    }
    let mut whole: Vec<Acl> = Vec::with_capacity(acl.len());
    let mut add = |entry: Acl| {
        if !whole.contains(&entry) {
            whole.push(entry);
        }
    };
    for entry in acl {
        match entry.id.scheme.as_str() {
            "world" if entry.id.id == "anyone" => add(entry.clone()),
            "auth" => {
                let mut none = true;
                for id in asker.ids.iter().filter(proven) {
                    none = false;
                    add(Acl { perms: entry.perms, id: id.clone() });
                }
                if none {
                    return Err(ErrorCode::InvalidAcl);
                }
            }
            "digest" if entry.id.id.split(':').count() == 2 => add(entry.clone()),
            "ip" if network(&entry.id.id).is_some() => add(entry.clone()),
            "x509" | "sasl" if !entry.id.id.is_empty() => add(entry.clone()),
            _ => return Err(ErrorCode::InvalidAcl),
        }
    }
    if whole.is_empty() { Err(ErrorCode::InvalidAcl) } else { Ok(whole.into()) }
}

/// A list as `asker` may see it: the hashes of others only with the right to replace it.
pub(super) fn shown(acl: &[Acl], asker: Asker<'_>) -> Vec<Acl> {
    let whole = allows(acl, PERM_ADMIN, asker);
    let show = |entry: &Acl| match entry.id.id.split_once(':') {
        Some((user, _)) if !whole && entry.id.scheme == "digest" => {
            let id = Id { scheme: entry.id.scheme.clone(), id: format!("{user}:x") };
            Acl { perms: entry.perms, id }
        }
        _ => entry.clone(),
    };
    acl.iter().map(show).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(name: &str) -> Arc<[Acl]> {
        Arc::from([Acl { perms: 1, id: Id { scheme: "x509".to_owned(), id: name.to_owned() } }])
    }

    /// A list that some node has.
    fn kept(table: &mut AclTable, name: &str) -> AclId {
        let id = table.id_of(list(name));
        table.keep(id);
        id
    }

    #[test]
    fn a_number_comes_again_only_when_its_list_is_forgotten() {
        let mut table = AclTable::default();
        let first = kept(&mut table, "first");
        let second = kept(&mut table, "second");
        table.set_next(AclId::MAX);
        let last = kept(&mut table, "last");
        assert_eq!((first, second, last), (OPEN + 1, OPEN + 2, AclId::MAX));
        // All numbers were given: the next one that is free.
        let after = kept(&mut table, "after");
        assert_eq!(after, OPEN + 3);
        table.drop_one(first);
        table.set_next(AclId::MAX);
        assert_eq!(kept(&mut table, "again"), first);
        for (id, name) in [(second, "second"), (last, "last"), (after, "after"), (first, "again")] {
            assert_eq!((table.list(id), table.id_of(list(name))), (list(name), id));
        }
        assert_eq!(*table.list(OPEN), [Acl::open()]);
    }

    #[test]
    fn a_table_goes_on_where_the_one_it_is_copied_from_does() {
        let mut table = AclTable::default();
        kept(&mut table, "first");
        table.set_next(AclId::MAX);
        kept(&mut table, "last");
        kept(&mut table, "after");
        let mut copy = AclTable::default();
        for (id, acl) in table.rows() {
            assert!(copy.put(id, acl.clone()));
        }
        copy.set_next(table.next());
        assert_eq!(copy.id_of(list("new")), table.id_of(list("new")));
        assert!(!copy.put(OPEN, list("other")) && !copy.put(77, list("new")));
        assert_eq!(*copy.list(OPEN), [Acl::open()]);
    }

    #[test]
    fn files_have_a_list_for_every_node() {
        let mut table = AclTable::default();
        let first = kept(&mut table, "first");
        assert!(table.file_rows().map(|(id, _)| id).eq([first]));
        table.keep(UNKNOWN);
        assert!(table.file_rows().map(|(id, _)| id).eq([UNKNOWN, first]));
        table.drop_one(UNKNOWN);
        assert!(table.file_rows().map(|(id, _)| id).eq([first]));
    }
}
