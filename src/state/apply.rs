//! Carries a request out: the way in for every change.

use std::sync::Arc;

use super::{Applied, Command, Event, EventRecord, Rejected, Reply, Request, Stamp, State};
use crate::limits::EVENTS_KEPT;

impl State {
    /// Carries out one request. `stamp.at` is raised to the last one's if it is earlier, so that
    /// time never runs back.
    pub fn apply(&mut self, stamp: Stamp, request: &Request) -> Applied {
        let stamp = Stamp { index: stamp.index, at: stamp.at.max(self.last.at) };
        self.last = stamp;
        if let Some(reply) = self.remembered_reply(request) {
            return Applied { reply, events: Vec::new() };
        }
        let mut change = Change { state: self, stamp, events: Vec::new() };
        let reply = change.carry_out(&request.command);
        let events = change.events;
        debug_assert!(reply.is_ok() || events.is_empty(), "a refused command changes nothing");
        self.remember_reply(stamp, request, &reply);
        Applied { reply, events }
    }

    /// Notes that the log went on without a command, as with a change of members.
    pub fn pass(&mut self, index: u64) {
        self.last.index = index;
    }
}

/// One command being carried out: the state, and what it brings about.
pub(super) struct Change<'s> {
    pub(super) state: &'s mut State,
    pub(super) stamp: Stamp,
    events: Vec<EventRecord>,
}

impl Change<'_> {
    fn carry_out(&mut self, command: &Command) -> Result<Reply, Rejected> {
        match command {
            Command::FoundCluster { cluster_id } => {
                if self.state.cluster_id == 0 {
                    self.state.cluster_id = *cluster_id;
                }
                Ok(Reply::Done)
            }
            Command::SubmitJob { spec, if_version } => self.submit_job(spec, *if_version),
            Command::StopJob { job, purge } => self.stop_job(job, *purge),
            Command::ScaleJob { job, replicas } => self.scale_job(job, *replicas),
            Command::RegisterNode { spec } => self.register_node(spec),
            Command::SetNodeState { node, agent_id, state, reason } => {
                self.set_node_state(node, *agent_id, *state, reason)
            }
            Command::SetEligibility { node, eligible } => self.set_eligibility(node, *eligible),
            Command::DrainNode { node, deadline } => self.drain_node(node, *deadline),
            Command::RemoveNode { node } => self.remove_node(node),
            Command::Place(placements) => self.place(placements),
            Command::StopAllocs { stops } => self.stop_allocs(stops),
            Command::ReportAllocs { node, agent_id, reports } => {
                self.report_allocs(node, *agent_id, reports)
            }
            Command::CollectGarbage { allocs, jobs, replies_before } => {
                self.collect_garbage(allocs, jobs, *replies_before)
            }
            Command::PutVariable { project, path, value, if_index } => {
                self.put_variable(project, path, value, *if_index)
            }
            Command::DeleteVariable { project, path, if_index } => {
                self.delete_variable(project, path, *if_index)
            }
            Command::RestoreChunk { offset, bytes } => self.restore_chunk(*offset, bytes),
            Command::RestoreCommit { length, checksum } => self.restore_commit(*length, *checksum),
            Command::PromoteDeployment { deployment } => self.promote_deployment(*deployment),
            Command::PauseDeployment { deployment, paused } => {
                self.pause_deployment(*deployment, *paused)
            }
            Command::CompleteDeployment { deployment } => self.complete_deployment(*deployment),
            Command::FailDeployment { deployment, reason, revert } => {
                self.fail_deployment(*deployment, reason, *revert)
            }
            Command::RollbackJob { job, to } => self.rollback_job(job, *to),
            Command::RestartJob { job } => self.restart_job(job),
            Command::MoveAllocs { moves } => self.move_allocs(moves),
            Command::PreemptAllocs { victims, by } => self.preempt_allocs(victims, by),
            Command::LoseAllocs { allocs } => self.lose_disconnected(allocs),
            Command::GiveUpAllocs { allocs } => self.give_up_allocs(allocs),
            Command::EndProbation { node } => self.end_probation(node),
            Command::Zk(batch) => self.zk_requests(batch),
            Command::ExpireZkSessions { sessions } => self.zk_expire(sessions),
            Command::ImportZk { name, step } => self.zk_import(name, step),
            Command::AdoptJob { spec, adoptions } => self.adopt_job(spec, adoptions),
            Command::RetireServer { id, name } => {
                self.state.retired_servers.insert(*id, name.clone());
                Ok(Reply::Done)
            }
        }
    }

    pub(super) fn emit(&mut self, event: Event) {
        self.state.next_event += 1;
        let record = EventRecord { index: self.state.next_event, at: self.stamp.at, event };
        if self.state.events.len() >= EVENTS_KEPT {
            self.state.events.pop_front();
        }
        self.state.events.push_back(Arc::new(record.clone()));
        self.events.push(record);
    }
}
