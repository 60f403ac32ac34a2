//! What clients ask for, checked and carried out in the order in which ZooKeeper checks (its
//! `PrepRequestProcessor`), so that the same request fails for the same reason.

use super::acl::{self, Asker};
use super::node::Znode;
use super::tree::Tree;
use crate::jute::op::{
    CreateMode, ErrorCode, Op, Owner, PERM_ADMIN, PERM_CREATE, PERM_DELETE, PERM_READ, PERM_WRITE,
    TTL_MS_MAX,
};
use crate::jute::reply::{CreateReply, DataReply, MultiReply, MultiResult, PathReply, StatReply};
use crate::jute::request::{
    CreateRequest, CreateTtlRequest, MultiOp, MultiRequest, PathRequest, ReconfigRequest,
    SetAclRequest, SetDataRequest, VersionRequest,
};
use crate::jute::{Acl, Error, Field, Stat, StatPersisted, path};

/// What one request works with.
pub(super) struct Work<'t> {
    pub(super) tree: &'t mut Tree,
    pub(super) asker: Asker<'t>,
    /// Whose ephemeral nodes are made; 0: nobody's, they can't be.
    pub(super) session: i64,
    /// The transaction that it becomes.
    pub(super) zxid: i64,
    /// Milliseconds since 1970.
    pub(super) at: i64,
    /// Whether hard limits of quotas hold.
    pub(super) enforce_quota: bool,
}

/// What was done.
pub(super) enum Done {
    Nothing,
    Checked,
    Made { path: String, stat: Stat, want_stat: bool },
    Stat(Stat),
    Data { data: Vec<u8>, stat: Stat },
    Multi(Vec<Result<Done, ErrorCode>>),
}

impl Done {
    /// The record of the reply.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::Nothing | Self::Checked => Vec::new(),
            Self::Made { path, stat, want_stat: true } => {
                CreateReply { path, stat: *stat }.to_bytes()
            }
            Self::Made { path, .. } => PathReply { path }.to_bytes(),
            Self::Stat(stat) => StatReply { stat: *stat }.to_bytes(),
            Self::Data { data, stat } => DataReply { data: Some(data), stat: *stat }.to_bytes(),
            Self::Multi(results) => {
                let results = results.iter().map(|result| match result {
                    Ok(done) => done.in_multi(),
                    Err(code) => MultiResult::Error(code.number()),
                });
                MultiReply { results: results.collect() }.to_bytes()
            }
        }
    }

    fn in_multi(&self) -> MultiResult<'_> {
        match self {
            Self::Made { path, stat, want_stat: true } => {
                MultiResult::Create2(CreateReply { path, stat: *stat })
            }
            Self::Made { path, .. } => MultiResult::Create(PathReply { path }),
            Self::Stat(stat) => MultiResult::SetData(StatReply { stat: *stat }),
            // No multi has these in it.
            Self::Data { .. } | Self::Multi(_) => {
                MultiResult::Error(ErrorCode::SystemError.number())
            }
            Self::Nothing => MultiResult::Delete,
            Self::Checked => MultiResult::Check,
        }
    }
}

impl From<Error> for ErrorCode {
    fn from(_: Error) -> Self {
        Self::MarshallingError
    }
}

/// Nodes that no client may remove.
fn is_special(path: &str) -> bool {
    matches!(path, "/" | "/zookeeper" | "/zookeeper/quota" | "/zookeeper/config")
}

fn check_path(path: &str) -> Result<(), ErrorCode> {
    path::check(path).map_err(|_| ErrorCode::BadArguments)
}

/// The version behind `now`, if `wanted` is it or anything will do.
fn next_version(now: i32, wanted: i32) -> Result<i32, ErrorCode> {
    if wanted != -1 && wanted != now {
        return Err(ErrorCode::BadVersion);
    }
    Ok(now.wrapping_add(1))
}

impl Work<'_> {
    /// Carries out the request with that record.
    pub(super) fn carry_out(&mut self, op: Op, body: &[u8]) -> Result<Done, ErrorCode> {
        match op {
            Op::Create | Op::Create2 | Op::CreateContainer => {
                self.create(op, &CreateRequest::from_bytes(body)?, -1)
            }
            Op::CreateTtl => self.create_ttl(CreateTtlRequest::from_bytes(body)?),
            Op::Delete => self.delete(&VersionRequest::from_bytes(body)?),
            Op::DeleteContainer => self.reap(&PathRequest::from_bytes(body)?),
            Op::SetData => self.set_data(&SetDataRequest::from_bytes(body)?),
            Op::SetAcl => self.set_acl(&SetAclRequest::from_bytes(body)?),
            Op::Reconfig => self.reconfig(&ReconfigRequest::from_bytes(body)?),
            Op::Check => self.check(&VersionRequest::from_bytes(body)?),
            Op::Multi => Ok(Done::Multi(self.multi(&MultiRequest::from_bytes(body)?))),
            _ => Err(ErrorCode::Unimplemented),
        }
    }

    /// All of them, or none.
    fn multi(&mut self, request: &MultiRequest<'_>) -> Vec<Result<Done, ErrorCode>> {
        let before = self.tree.clone();
        let mut results = Vec::with_capacity(request.ops.len());
        let mut failed = false;
        for op in &request.ops {
            if failed {
                results.push(Err(ErrorCode::RuntimeInconsistency));
                continue;
            }
            let result = match op {
                MultiOp::Create(create)
                | MultiOp::Create2(create)
                | MultiOp::CreateContainer(create) => self.create(op.op(), create, -1),
                MultiOp::CreateTtl(create) => self.create_ttl(create.clone()),
                MultiOp::Delete(request) => self.delete(request),
                MultiOp::SetData(request) => self.set_data(request),
                MultiOp::Check(request) => self.check(request),
            };
            failed = result.is_err();
            results.push(result);
        }
        if failed {
            // The work was done all the same.
            let recounts = self.tree.recounts;
            *self.tree = before;
            self.tree.recounts = recounts;
            for result in &mut results {
                if result.is_ok() {
                    *result = Err(ErrorCode::Ok);
                }
            }
        }
        results
    }

    pub(super) fn allowed(&self, acl: &[Acl], perms: i32) -> Result<(), ErrorCode> {
        if acl::allows(acl, perms, self.asker) { Ok(()) } else { Err(ErrorCode::NoAuth) }
    }

    fn create_ttl(&mut self, request: CreateTtlRequest<'_>) -> Result<Done, ErrorCode> {
        let CreateTtlRequest { path, data, acl, flags, ttl } = request;
        self.create(Op::CreateTtl, &CreateRequest { path, data, acl, flags }, ttl)
    }

    fn create(&mut self, op: Op, request: &CreateRequest<'_>, ttl: i64) -> Result<Done, ErrorCode> {
        let mode = CreateMode::of(request.flags).ok_or(ErrorCode::BadArguments)?;
        let ttl_fits = if mode.ttl { (1..=TTL_MS_MAX).contains(&ttl) } else { ttl < 0 };
        if !ttl_fits {
            return Err(ErrorCode::BadArguments);
        }
        let Some((above, _)) = request.path.rsplit_once('/') else {
            return Err(ErrorCode::BadArguments);
        };
        if request.path.contains('\0') {
            return Err(ErrorCode::BadArguments);
        }
        let above = if above.is_empty() { "/" } else { above };
        let acl = acl::complete(&request.acl, self.asker)?;
        let parent = self.tree.get(above).ok_or(ErrorCode::NoNode)?.clone();
        self.allowed(&self.tree.acl_of(&parent), PERM_CREATE)?;
        let made = parent.stat.cversion;
        let path = match mode.sequential {
            true => format!("{}{made:010}", request.path),
            false => request.path.to_owned(),
        };
        check_path(&path)?;
        if self.tree.get(&path).is_some() {
            return Err(ErrorCode::NodeExists);
        }
        if matches!(parent.owner(), Owner::Session(_)) {
            return Err(ErrorCode::NoChildrenForEphemerals);
        }
        let bytes = request.data.map_or(0, <[u8]>::len);
        if self.enforce_quota {
            self.tree.quota_check(&path, 1, bytes as i64)?;
        }
        self.tree.quota_may_count(&path, self.at)?;
        let owner = match op {
            Op::CreateContainer => Owner::Container,
            Op::CreateTtl if mode.ttl => Owner::Ttl(ttl),
            _ if mode.ephemeral && self.session == 0 => return Err(ErrorCode::BadArguments),
            _ if mode.ephemeral => Owner::Session(self.session),
            _ => Owner::Persistent,
        };
        let stat = StatPersisted {
            czxid: self.zxid,
            mzxid: self.zxid,
            ctime: self.at,
            mtime: self.at,
            ephemeral_owner: owner.number(),
            pzxid: self.zxid,
            ..StatPersisted::default()
        };
        let acl = self.tree.acls.id_of(acl);
        let zxid = self.zxid;
        self.tree.change_stat(above, |stat| {
            stat.cversion = made.wrapping_add(1);
            stat.pzxid = zxid;
        });
        self.tree.insert(&path, Znode::new(request.data, acl, stat));
        self.tree.quota_count(&path, self.at);
        let stat = self.tree.get(&path).map(|node| node.stat()).unwrap_or_default();
        Ok(Done::Made { path, stat, want_stat: op != Op::Create })
    }

    fn delete(&mut self, request: &VersionRequest<'_>) -> Result<Done, ErrorCode> {
        let path = request.path;
        let Some((above, _)) = path.rsplit_once('/') else { return Err(ErrorCode::BadArguments) };
        if path.contains('\0') || is_special(path) {
            return Err(ErrorCode::BadArguments);
        }
        let above = if above.is_empty() { "/" } else { above };
        let parent = self.tree.get(above).ok_or(ErrorCode::NoNode)?;
        self.allowed(&self.tree.acl_of(parent), PERM_DELETE)?;
        let node = self.tree.get(path).ok_or(ErrorCode::NoNode)?;
        next_version(node.stat.version, request.version)?;
        if node.children > 0 {
            return Err(ErrorCode::NotEmpty);
        }
        self.remove(path, above);
        Ok(Done::Nothing)
    }

    /// Removes a node that a server finds to be over: an empty container, or one whose time is up.
    fn reap(&mut self, request: &PathRequest<'_>) -> Result<Done, ErrorCode> {
        let node = self.tree.get(request.path).ok_or(ErrorCode::NoNode)?;
        if node.children > 0 {
            return Err(ErrorCode::NotEmpty);
        }
        let over = match node.owner() {
            Owner::Container => node.stat.cversion > 0,
            Owner::Ttl(ttl) => node.stat.mtime.saturating_add(ttl) <= self.at,
            Owner::Persistent | Owner::Session(_) => false,
        };
        let above = path::split(request.path).ok_or(ErrorCode::BadArguments)?.0;
        if !over {
            return Err(ErrorCode::BadVersion);
        }
        self.remove(request.path, above);
        Ok(Done::Nothing)
    }

    pub(super) fn remove(&mut self, path: &str, above: &str) {
        let zxid = self.zxid;
        self.tree.remove(path, zxid);
        self.tree.change_stat(above, |stat| stat.pzxid = stat.pzxid.max(zxid));
    }

    fn set_data(&mut self, request: &SetDataRequest<'_>) -> Result<Done, ErrorCode> {
        let path = request.path;
        check_path(path)?;
        let node = self.tree.get(path).ok_or(ErrorCode::NoNode)?;
        self.allowed(&self.tree.acl_of(node), PERM_WRITE)?;
        if self.enforce_quota {
            let more = request.data.map_or(0, <[u8]>::len) as i64 - node.data_len() as i64;
            self.tree.quota_check(path, 0, more)?;
        }
        let version = next_version(node.stat.version, request.version)?;
        self.tree.set_data(path, request.data, version, self.zxid, self.at);
        self.stat(path)
    }

    fn set_acl(&mut self, request: &SetAclRequest<'_>) -> Result<Done, ErrorCode> {
        let path = request.path;
        check_path(path)?;
        let acl = acl::complete(&request.acl, self.asker)?;
        let node = self.tree.get(path).ok_or(ErrorCode::NoNode)?;
        self.allowed(&self.tree.acl_of(node), PERM_ADMIN)?;
        let version = next_version(node.stat.aversion, request.version)?;
        let acl = self.tree.acls.id_of(acl);
        self.tree.set_acl(path, acl, version);
        self.stat(path)
    }

    fn check(&mut self, request: &VersionRequest<'_>) -> Result<Done, ErrorCode> {
        check_path(request.path)?;
        let node = self.tree.get(request.path).ok_or(ErrorCode::NoNode)?;
        self.allowed(&self.tree.acl_of(node), PERM_READ)?;
        next_version(node.stat.version, request.version)?;
        Ok(Done::Checked)
    }

    fn stat(&self, path: &str) -> Result<Done, ErrorCode> {
        self.tree.get(path).map(|node| Done::Stat(node.stat())).ok_or(ErrorCode::NoNode)
    }
}
