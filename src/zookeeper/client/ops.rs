//! The operations. Paths are below the client's chroot, in and out.

use std::time::Duration;

use super::error::ClientError;
use super::handle::{Client, Reply};
use super::session::Effect;
use super::watches::WatchKind;
use crate::jute::path::{check, join};
use crate::jute::reply::{
    AclReply, ChildrenReply, CreateReply, DataReply, MultiReply, MultiResult, NamesReply,
    NumberReply, PathReply, StatReply, WhoAmIReply,
};
use crate::jute::request::{
    AddWatchRequest, AuthPacket, CreateRequest, CreateTtlRequest, MultiOp, MultiReadRequest,
    MultiRequest, PathRequest, RemoveWatchesRequest, SetAclRequest, SetDataRequest, VersionRequest,
    WatchRequest,
};
use crate::jute::{Acl, ErrorCode, Field, Id, Op, Stat};

/// What a new node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// It stays until it is removed.
    Persistent,
    /// It goes with the session.
    Ephemeral,
    /// As `Persistent`; a number is put behind its name.
    PersistentSequential,
    /// As `Ephemeral`; a number is put behind its name.
    EphemeralSequential,
    /// It goes some time after its last child has gone.
    Container,
    /// It goes when it has no child and has not changed for so long.
    Ttl(Duration),
    /// As `Ttl`; a number is put behind its name.
    TtlSequential(Duration),
}

/// A node was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Created {
    /// Its path, with the number if it is sequential.
    pub path: String,
    /// Its stat.
    pub stat: Stat,
}

/// What became of one operation of a `multi` or `multiRead`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MultiAnswer {
    /// It was refused. `Ok`: another one was, which is why this one had no effect.
    Refused(ErrorCode),
    /// A node was made; the stat is there unless `create` was asked.
    Created(String, Option<Stat>),
    /// A node was removed.
    Deleted,
    /// Data were replaced.
    Set(Stat),
    /// The version was right.
    Checked,
    /// A node's data.
    Data(Option<Vec<u8>>, Stat),
    /// The names of a node's children.
    Children(Vec<String>),
}

impl Client {
    /// Makes a node; sequential names may end with a slash.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn create(
        &self,
        path: &str,
        data: &[u8],
        acl: Vec<Acl>,
        mode: Mode,
    ) -> Result<Created, ClientError> {
        let (op, flags, ttl) = match mode {
            Mode::Persistent => (Op::Create2, 0, None),
            Mode::Ephemeral => (Op::Create2, 1, None),
            Mode::PersistentSequential => (Op::Create2, 2, None),
            Mode::EphemeralSequential => (Op::Create2, 3, None),
            Mode::Container => (Op::CreateContainer, 4, None),
            Mode::Ttl(ttl) => (Op::CreateTtl, 5, Some(ttl)),
            Mode::TtlSequential(ttl) => (Op::CreateTtl, 6, Some(ttl)),
        };
        let path = match matches!(flags, 2 | 3 | 6) && path.ends_with('/') {
            // The number will be its last part.
            true => self.full(&format!("{path}0")).map(|mut path| {
                path.pop();
                path
            })?,
            false => self.full(path)?,
        };
        let (path, data) = (path.as_str(), Some(data));
        let reply = match ttl {
            Some(ttl) => {
                let ttl = i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX);
                self.ask(op, &CreateTtlRequest { path, data, acl, flags, ttl }).await?
            }
            None => self.ask(op, &CreateRequest { path, data, acl, flags }).await?,
        };
        let CreateReply { path, stat } = reply.read()?;
        Ok(Created { path: self.inner(path), stat })
    }

    /// Removes a node without children, in this version; -1: in any.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn delete(&self, path: &str, version: i32) -> Result<(), ClientError> {
        let path = &self.full(path)?;
        self.ask(Op::Delete, &VersionRequest { path, version }).await?.done()
    }

    /// A node's stat; none if there is no such node. With `watch`, an event will tell of its next
    /// change, or of its being made.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn exists(&self, path: &str, watch: bool) -> Result<Option<Stat>, ClientError> {
        let reply = self.look(Op::Exists, path, watch.then_some(WatchKind::Exists)).await?;
        match reply.read::<StatReply>() {
            Ok(reply) => Ok(Some(reply.stat)),
            Err(ClientError::Refused(ErrorCode::NoNode)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A node's data and stat; data may be none, which is not the same as empty.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn get_data(
        &self,
        path: &str,
        watch: bool,
    ) -> Result<(Option<Vec<u8>>, Stat), ClientError> {
        let reply = self.look(Op::GetData, path, watch.then_some(WatchKind::Data)).await?;
        let DataReply { data, stat } = reply.read()?;
        Ok((data.map(<[u8]>::to_vec), stat))
    }

    /// Replaces a node's data, in this version; -1: in any.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn set_data(
        &self,
        path: &str,
        data: &[u8],
        version: i32,
    ) -> Result<Stat, ClientError> {
        let (path, data) = (&self.full(path)?, Some(data));
        let reply = self.ask(Op::SetData, &SetDataRequest { path, data, version }).await?;
        Ok(reply.read::<StatReply>()?.stat)
    }

    /// A node's access list and stat.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn get_acl(&self, path: &str) -> Result<(Vec<Acl>, Stat), ClientError> {
        let reply = self.ask(Op::GetAcl, &PathRequest { path: &self.full(path)? }).await?;
        let AclReply { acl, stat } = reply.read()?;
        Ok((acl, stat))
    }

    /// Replaces a node's access list, in this `aversion`; -1: in any.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn set_acl(
        &self,
        path: &str,
        acl: Vec<Acl>,
        version: i32,
    ) -> Result<Stat, ClientError> {
        let path = &self.full(path)?;
        let reply = self.ask(Op::SetAcl, &SetAclRequest { path, acl, version }).await?;
        Ok(reply.read::<StatReply>()?.stat)
    }

    /// The names of a node's children, in no order, and its stat.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn get_children(
        &self,
        path: &str,
        watch: bool,
    ) -> Result<(Vec<String>, Stat), ClientError> {
        let watch = watch.then_some(WatchKind::Children);
        let reply = self.look(Op::GetChildren2, path, watch).await?;
        let ChildrenReply { names, stat } = reply.read()?;
        Ok((names.into_iter().map(str::to_owned).collect(), stat))
    }

    /// Waits until the server has all that the leader had when this came to it.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn sync(&self, path: &str) -> Result<(), ClientError> {
        let reply = self.ask(Op::Sync, &PathRequest { path: &self.full(path)? }).await?;
        reply.read::<PathReply<'_>>().map(|_| ())
    }

    /// Carries out all of `ops`, or none of them: then every answer is `Refused`, the one that
    /// failed with its reason.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn multi(&self, ops: Vec<MultiOp<'_>>) -> Result<Vec<MultiAnswer>, ClientError> {
        let path = |op: &MultiOp<'_>| match op {
            MultiOp::Create(r) | MultiOp::Create2(r) | MultiOp::CreateContainer(r) => {
                self.full(r.path)
            }
            MultiOp::CreateTtl(r) => self.full(r.path),
            MultiOp::Delete(r) | MultiOp::Check(r) => self.full(r.path),
            MultiOp::SetData(r) => self.full(r.path),
        };
        let paths = ops.iter().map(path).collect::<Result<Vec<_>, _>>()?;
        let mut request = MultiRequest { ops };
        let bytes = {
            for (op, path) in request.ops.iter_mut().zip(&paths) {
                match op {
                    MultiOp::Create(r) | MultiOp::Create2(r) | MultiOp::CreateContainer(r) => {
                        r.path = path;
                    }
                    MultiOp::CreateTtl(r) => r.path = path,
                    MultiOp::Delete(r) | MultiOp::Check(r) => r.path = path,
                    MultiOp::SetData(r) => r.path = path,
                }
            }
            request.to_bytes()
        };
        let reply = self.send(Op::Multi.number(), bytes, Effect::None).await?.await?;
        self.answers(&reply)
    }

    /// Reads several nodes' data ([`Op::GetData`]) or children ([`Op::GetChildren`]) at once.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn multi_read(&self, ops: &[(Op, &str)]) -> Result<Vec<MultiAnswer>, ClientError> {
        let paths = ops.iter().map(|(_, path)| self.full(path)).collect::<Result<Vec<_>, _>>()?;
        let ops = ops.iter().zip(&paths);
        let ops = ops.map(|((op, _), path)| (*op, WatchRequest { path, watch: false })).collect();
        let reply = self.ask(Op::MultiRead, &MultiReadRequest { ops }).await?;
        self.answers(&reply)
    }

    fn answers(&self, reply: &Reply) -> Result<Vec<MultiAnswer>, ClientError> {
        let answer = |result| {
            Ok(match result {
                MultiResult::Error(err) => match ErrorCode::of(err) {
                    Some(code) => MultiAnswer::Refused(code),
                    None => return Err(ClientError::UnknownCode(err)),
                },
                MultiResult::Create(reply) => MultiAnswer::Created(self.inner(reply.path), None),
                MultiResult::Create2(reply) => {
                    MultiAnswer::Created(self.inner(reply.path), Some(reply.stat))
                }
                MultiResult::Delete => MultiAnswer::Deleted,
                MultiResult::SetData(reply) => MultiAnswer::Set(reply.stat),
                MultiResult::Check => MultiAnswer::Checked,
                MultiResult::GetData(reply) => {
                    MultiAnswer::Data(reply.data.map(<[u8]>::to_vec), reply.stat)
                }
                MultiResult::GetChildren(reply) => {
                    MultiAnswer::Children(reply.names.into_iter().map(str::to_owned).collect())
                }
            })
        };
        reply.read::<MultiReply<'_>>()?.results.into_iter().map(answer).collect()
    }

    /// Adds an identity to the connection, and to those that will follow it. If the server does
    /// not accept it, the client ends.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn auth(&self, scheme: &str, auth: &[u8]) -> Result<(), ClientError> {
        let body = AuthPacket { kind: 0, scheme, auth: Some(auth) }.to_bytes();
        self.send(Op::Auth.number(), body, Effect::Auth).await?.await?.done()
    }

    /// Sets a watch that stays when it has fired; `recursive`: for all below the node too.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn add_watch(&self, path: &str, recursive: bool) -> Result<(), ClientError> {
        let path = self.full(path)?;
        let body = AddWatchRequest { path: &path, mode: i32::from(recursive) }.to_bytes();
        let kind = if recursive { WatchKind::Recursive } else { WatchKind::Persistent };
        self.send(Op::AddWatch.number(), body, Effect::Watch(kind, path)).await?.await?.done()
    }

    /// Takes watches away: 1 children, 2 data, 3 any, 4 persistent, 5 persistent and recursive.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn remove_watches(&self, path: &str, kind: i32) -> Result<(), ClientError> {
        let path = self.full(path)?;
        let body = RemoveWatchesRequest { path: &path, kind }.to_bytes();
        let effect = Effect::Unwatch(kind, path);
        self.send(Op::RemoveWatches.number(), body, effect).await?.await?.done()
    }

    /// Whether the server has such a watch of this session; kinds as in
    /// [`Self::remove_watches`].
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn check_watches(&self, path: &str, kind: i32) -> Result<bool, ClientError> {
        let path = &self.full(path)?;
        let reply = self.ask(Op::CheckWatches, &RemoveWatchesRequest { path, kind }).await?;
        match reply.done() {
            Ok(()) => Ok(true),
            Err(ClientError::Refused(ErrorCode::NoWatcher)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The paths of the session's ephemeral nodes that begin with `prefix`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn get_ephemerals(&self, prefix: &str) -> Result<Vec<String>, ClientError> {
        let reply = self.ask(Op::GetEphemerals, &PathRequest { path: &self.full(prefix)? }).await?;
        let NamesReply { names } = reply.read()?;
        Ok(names.into_iter().map(|path| self.inner(path)).collect())
    }

    /// How many nodes are below one.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn get_all_children_number(&self, path: &str) -> Result<i32, ClientError> {
        let path = &self.full(path)?;
        let reply = self.ask(Op::GetAllChildrenNumber, &PathRequest { path }).await?;
        Ok(reply.read::<NumberReply>()?.number)
    }

    /// The identities of the connection: schemes and users.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn who_am_i(&self) -> Result<Vec<Id>, ClientError> {
        let reply = self.send(Op::WhoAmI.number(), Vec::new(), Effect::None).await?.await?;
        Ok(reply.read::<WhoAmIReply>()?.clients)
    }

    async fn ask<'a>(&self, op: Op, record: &impl Field<'a>) -> Result<Reply, ClientError> {
        self.send(op.number(), record.to_bytes(), Effect::None).await?.await
    }

    async fn look(
        &self,
        op: Op,
        path: &str,
        watch: Option<WatchKind>,
    ) -> Result<Reply, ClientError> {
        let path = self.full(path)?;
        let body = WatchRequest { path: &path, watch: watch.is_some() }.to_bytes();
        let effect = watch.map_or(Effect::None, |kind| Effect::Watch(kind, path));
        self.send(op.number(), body, effect).await?.await
    }

    /// The path with the chroot.
    fn full(&self, path: &str) -> Result<String, ClientError> {
        check(path).map_err(|why| ClientError::Path { path: path.to_owned(), why })?;
        Ok(match (&*self.chroot, path) {
            ("", path) => path.to_owned(),
            (chroot, "/") => chroot.to_owned(),
            (chroot, path) => join(chroot, &path[1..]),
        })
    }

    /// The path without the chroot.
    fn inner(&self, path: &str) -> String {
        match path.strip_prefix(&*self.chroot) {
            Some("") => "/".to_owned(),
            Some(rest) if rest.starts_with('/') => rest.to_owned(),
            _ => path.to_owned(),
        }
    }
}
