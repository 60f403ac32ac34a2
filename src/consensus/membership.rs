//! Changes of members, as the leader carries them out. Each may be asked again at any point.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver as _;
use openraft::errors::{ClientWriteError, RaftError};
use openraft::{ChangeMembers, Precondition};
use tokio::time::Instant;

use super::core::Core;
use super::peers::{Answer, Call, CallError, JoinCall};
use super::types::{Member, StoredMembership, TypeConfig};
use crate::limits::SERVERS_MAX;
use crate::model::server::Server;
use crate::state::codec::BatchWriter;
use crate::state::{Command, codec};

/// For one change of members.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(10);
/// For a new member to catch up; it asks again after that.
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(30);
/// Entries that a new member may lack when it becomes a voter.
const CATCH_UP_ENTRIES: u64 = 64;
/// For an answer from a member that is up.
const STATUS_TIMEOUT: Duration = Duration::from_millis(1000);
/// For a new leader to take over.
const TRANSFER_TIMEOUT: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(20);

type Change = ChangeMembers<u64, Member>;

/// A member by its name.
fn by_name(membership: &StoredMembership, name: &str) -> Option<(u64, Member)> {
    let mut nodes = membership.nodes();
    nodes.find(|(_, member)| member.name == name).map(|(id, member)| (*id, member.clone()))
}

fn votes(membership: &StoredMembership, id: u64) -> bool {
    membership.voter_ids().any(|voter| voter == id)
}

impl Core {
    /// Makes changes until `decide`, looking at the members there are, asks for none.
    async fn change_members(
        &self,
        retain: bool,
        decide: impl Fn(&StoredMembership) -> Result<Option<Change>, CallError>,
    ) -> Result<(), CallError> {
        let deadline = Instant::now() + CHANGE_TIMEOUT;
        loop {
            let membership = self.membership();
            let Some(change) = decide(&membership)? else { return Ok(()) };
            // Two who decide at the same time must not both be right.
            let unchanged = Precondition::<TypeConfig>::LastMembershipLogId {
                last_membership_log_id: *membership.log_id(),
            };
            let changing = self.raft.change_membership_if(change, retain, [unchanged]);
            match tokio::time::timeout_at(deadline, changing).await {
                Err(_) => {
                    let message = "no majority agreed to the change of members in time";
                    return Err(CallError::Unknown(message.to_owned()));
                }
                Ok(Ok(_)) => {}
                Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_)))) => {
                    return Err(CallError::NotDone("this server no longer leads".to_owned()));
                }
                Ok(Err(RaftError::APIError(ClientWriteError::LogEntryDiscarded(why)))) => {
                    return Err(CallError::Unknown(why.to_string()));
                }
                // Another change is under way, or came first.
                Ok(Err(RaftError::APIError(error))) if Instant::now() > deadline => {
                    return Err(CallError::NotDone(error.to_string()));
                }
                Ok(Err(RaftError::APIError(_))) => {}
                Ok(Err(RaftError::Fatal(error))) => {
                    return Err(CallError::NotDone(error.to_string()));
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Takes a server in: as a learner, and as a voter once it has caught up. Also how a member
    /// tells its new addresses, and learns that it is none any more.
    pub(super) async fn admit(&self, join: JoinCall) -> Result<Answer, CallError> {
        let JoinCall { server, cluster_id, .. } = join;
        let ours = self.identity().cluster_id;
        if ours == 0 {
            return Err(CallError::NotDone("this cluster is just being founded".to_owned()));
        }
        if cluster_id != 0 && cluster_id != ours {
            return Err(CallError::Refused(format!(
                "server {} belongs to another cluster ({cluster_id:016x}, this is {ours:016x}); \
                 empty its data directory if it is to join this one",
                server.name
            )));
        }
        // The newest state: whether it was removed may have been decided just now.
        let index = self.read_index().await?;
        let view = self.applied(index).await.map_err(|why| CallError::NotDone(why.to_string()))?;
        if view.state.retired_server(server.id).is_some() {
            return Err(CallError::Retired(format!(
                "server {} was removed from the cluster and can't come back with its old data; \
                 empty its data directory, and start it with --join",
                server.name
            )));
        }
        let (id, member) = (server.id, Member::from(&server));
        self.change_members(true, |membership| self.decide_admission(membership, &server)).await?;
        self.caught_up(id).await?;
        self.change_members(true, |membership| {
            if votes(membership, id) {
                return Ok(None);
            }
            match membership.get_node(&id) {
                Some(_) => Ok(Some(Change::AddVoterIds(BTreeSet::from([id])))),
                None => {
                    let name = &member.name;
                    Err(CallError::NotDone(format!("server {name} was removed meanwhile")))
                }
            }
        })
        .await?;
        Ok(Answer::Joined { cluster_id: ours })
    }

    fn decide_admission(
        &self,
        membership: &StoredMembership,
        server: &Server,
    ) -> Result<Option<Change>, CallError> {
        let member = Member::from(server);
        let name = &member.name;
        if self.view().state.retired_server(server.id).is_some() {
            // It was taken out while it was being taken in.
            return Err(CallError::Retired(format!("server {name} was removed meanwhile")));
        }
        match by_name(membership, name) {
            Some((id, _)) if id != server.id => {
                return Err(CallError::Refused(format!(
                    "server {name} is already a member with another data directory; if that one \
                     is gone for good, run `orch server remove {name}` first, or choose another \
                     --name"
                )));
            }
            _ => {}
        }
        let nodes = BTreeMap::from([(server.id, member.clone())]);
        match membership.get_node(&server.id) {
            Some(known) if *known == member => Ok(None),
            Some(_) => Ok(Some(Change::SetNodes(nodes))),
            None if membership.nodes().count() >= SERVERS_MAX => {
                let message = format!("a cluster has at most {SERVERS_MAX} servers");
                Err(CallError::Refused(message))
            }
            None => Ok(Some(Change::AddNodes(nodes))),
        }
    }

    /// Waits until a member has nearly all of the log.
    async fn caught_up(&self, id: u64) -> Result<(), CallError> {
        let deadline = Instant::now() + CATCH_UP_TIMEOUT;
        let mut metrics = self.raft.metrics();
        loop {
            let behind = {
                let metrics = metrics.borrow_watched();
                let Some(replication) = &metrics.replication else {
                    return Err(CallError::NotDone("this server no longer leads".to_owned()));
                };
                let matched = replication.get(&id).copied().flatten();
                let last = metrics.last_log_index.unwrap_or_default();
                id != self.me.id
                    && matched.is_none_or(|matched| matched.index + CATCH_UP_ENTRIES < last)
            };
            if !behind {
                return Ok(());
            }
            if tokio::time::timeout_at(deadline, metrics.changed()).await.is_err() {
                let message = "the server has not caught up yet; is its --rpc-addr reachable?";
                return Err(CallError::NotDone(message.to_owned()));
            }
        }
    }

    /// Takes a member out, for good.
    pub(super) async fn remove(self: &Arc<Self>, name: &str) -> Result<Answer, CallError> {
        let membership = self.membership();
        let Some((id, member)) = by_name(&membership, name) else {
            let names: Vec<&str> =
                membership.nodes().map(|(_, member)| member.name.as_str()).collect();
            let message = format!("there is no server {name}; there are: {}", names.join(", "));
            return Err(CallError::Refused(message));
        };
        let staying: BTreeSet<u64> = membership.voter_ids().filter(|voter| *voter != id).collect();
        if staying.is_empty() {
            let message = format!("server {name} is the only voter and can't be removed");
            return Err(CallError::Refused(message));
        }
        let up = self.reachable(&membership, &staying).await;
        if up.len() * 2 <= staying.len() {
            return Err(CallError::Refused(format!(
                "without server {name}, {} of {} voters would be up: no majority, and the cluster \
                 would stop; bring another server up first",
                up.len(),
                staying.len()
            )));
        }
        if id == self.me.id {
            // The next leader does it.
            self.transfer("").await?;
            let leader = self.other_leader().ok_or_else(|| {
                CallError::NotDone("leadership is just being handed over".to_owned())
            })?;
            let call = Call::Remove { name: name.to_owned() };
            return self.ask(&leader, call, true, CHANGE_TIMEOUT).await;
        }
        let name = member.server(id).map_err(|error| CallError::Refused(error.to_string()))?.name;
        self.write_one(Command::RetireServer { id, name }).await?;
        self.change_members(false, |membership| {
            Ok(if votes(membership, id) {
                Some(Change::RemoveVoters(BTreeSet::from([id])))
            } else if membership.get_node(&id).is_some() {
                Some(Change::RemoveNodes(BTreeSet::from([id])))
            } else {
                None
            })
        })
        .await?;
        Ok(Answer::Removed)
    }

    /// Those of `ids` that answer now, and this server.
    async fn reachable(&self, membership: &StoredMembership, ids: &BTreeSet<u64>) -> Vec<Server> {
        let servers = membership.nodes().filter(|(id, _)| ids.contains(id));
        let servers = servers.filter_map(|(id, member)| member.server(*id).ok());
        let asked = servers.map(|server| async move {
            let up = server.id == self.me.id
                || self.ask(&server, Call::Status, true, STATUS_TIMEOUT).await.is_ok();
            up.then_some(server)
        });
        futures::future::join_all(asked).await.into_iter().flatten().collect()
    }

    /// Proposes a command on this server, the leader.
    pub(super) async fn write_one(&self, command: Command) -> Result<(), CallError> {
        let request = codec::encode_request(&command.into())
            .map_err(|error| CallError::Refused(error.to_string()))?;
        let mut writer = BatchWriter::new(self.state_time());
        writer.push(&request);
        let deadline = Instant::now() + self.tuning().propose_deadline;
        let (_, replies) = self.write(writer.finish().into(), deadline).await?;
        match replies.into_iter().next() {
            Some(Err(rejected)) => Err(CallError::Refused(rejected.to_string())),
            _ => Ok(()),
        }
    }

    /// Hands leadership to the member of that name, or without one to whoever is furthest.
    pub(super) async fn transfer(&self, to: &str) -> Result<Answer, CallError> {
        let membership = self.membership();
        let voters: BTreeSet<u64> = membership.voter_ids().collect();
        let target = if to.is_empty() {
            let others = voters.iter().copied().filter(|id| *id != self.me.id).collect();
            let up = self.reachable(&membership, &others).await;
            let furthest = self.raft_metrics(|metrics| {
                let matched = metrics.replication.clone().unwrap_or_default();
                up.into_iter().max_by_key(|server| matched.get(&server.id).copied().flatten())
            });
            furthest
                .ok_or_else(|| CallError::Refused("no other voter is up to take over".to_owned()))?
        } else {
            let named = by_name(&membership, to).filter(|(id, _)| voters.contains(id));
            let target = named.and_then(|(id, member)| member.server(id).ok());
            let target = target
                .ok_or_else(|| CallError::Refused(format!("there is no voting server {to}")))?;
            if target.id == self.me.id {
                return Ok(Answer::Transferred { leader: to.to_owned() });
            }
            if self.reachable(&membership, &BTreeSet::from([target.id])).await.is_empty() {
                let message = format!("server {to} does not answer and can't take over");
                return Err(CallError::Refused(message));
            }
            target
        };
        let stopped =
            |error: openraft::errors::Fatal<TypeConfig>| CallError::NotDone(error.to_string());
        self.raft.trigger().transfer_leader(target.id).await.map_err(stopped)?;
        let mut leadership = self.leadership.clone();
        let taken = leadership
            .wait_for(|now| now.leader.as_ref().is_some_and(|leader| leader.id != self.me.id));
        let taken = tokio::time::timeout(TRANSFER_TIMEOUT, taken).await;
        let taken = taken.ok().and_then(Result::ok).and_then(|now| now.leader.clone());
        match taken {
            Some(leader) => Ok(Answer::Transferred { leader: leader.name.to_string() }),
            None => {
                // openraft's leader takes no more writes once it has begun: a new term frees it.
                self.raft.trigger().elect(false).await.map_err(stopped)?;
                let name = &target.name;
                Err(CallError::NotDone(format!("server {name} did not take over in time")))
            }
        }
    }
}
