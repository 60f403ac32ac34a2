//! How far a job is on its way to a version.

use super::context::Context;
use super::progress::Goal;
use super::status::{why_failed, why_unplaced};
use super::words::{copy_name, first_line, printable};
use crate::api::view::allocation::AllocationRow;
use crate::api::view::deployment::DeploymentRow;
use crate::api::view::job::JobStatus;

/// How far a job is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is as wanted, and how that is called.
    Up(String),
    /// Its canaries or its second set are up, and somebody has to say that they are good.
    NeedsPromotion(String),
    /// It will not be, or not without help, and why.
    Failed(String),
    /// It may be yet, and what is happening.
    Waiting(String),
}

impl Verdict {
    /// Nothing is waited for any more.
    pub(super) fn is_final(&self) -> bool {
        !matches!(self, Self::Waiting(_))
    }

    /// For programs.
    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::Up(_) => "up",
            Self::NeedsPromotion(_) => "needs_promotion",
            Self::Failed(_) => "failed",
            Self::Waiting(_) => "waiting",
        }
    }
}

/// How far a job is.
pub(super) fn judge(goal: &Goal, status: &JobStatus, context: &Context) -> Verdict {
    let row = &status.row;
    let deployment = status.deployments.iter().find(|known| match &goal.deployment {
        Some(id) => known.id == *id,
        None => known.version == goal.version,
    });
    if let Some(failed) = deployment.filter(|known| known.status == "failed") {
        return taken_back(failed, status, context);
    }
    if row.version > goal.version && deployment.is_none_or(is_over) {
        return Verdict::Failed(format!("version {} has taken its place", row.version));
    }
    match row.state.as_str() {
        "stopped" | "stopping" => return Verdict::Failed("it was stopped".to_owned()),
        "failed" if row.r#type == "batch" => return Verdict::Failed(reasons(status, context)),
        "complete" => return Verdict::Up("complete".to_owned()),
        _ => {}
    }
    if let Some(deployment) = deployment {
        return under_way(goal, deployment, status, context);
    }
    if let Some(unplaced) = status.unplaced.as_ref().filter(|unplaced| unplaced.never_fits) {
        return Verdict::Failed(why_unplaced(unplaced));
    }
    let news = news(status).map(|news| format!("; {}", printable(&news))).unwrap_or_default();
    Verdict::Waiting(format!("{}{news}", row.state))
}

fn is_over(deployment: &DeploymentRow) -> bool {
    !matches!(deployment.status.as_str(), "running" | "paused")
}

fn under_way(
    goal: &Goal,
    deployment: &DeploymentRow,
    status: &JobStatus,
    context: &Context,
) -> Verdict {
    let row = &status.row;
    if deployment.status == "successful" {
        return Verdict::Up(match row.desired {
            0 if row.r#type == "system" => "up: no node fits it now".to_owned(),
            0 => "up: no copies are wanted".to_owned(),
            desired => format!("up: {} of {desired} healthy", row.up_to_date),
        });
    }
    if deployment.status == "superseded" {
        return Verdict::Failed(printable(&deployment.reason));
    }
    // Where there is no earlier version, nothing gets better by itself.
    let first = deployment.from.is_none();
    if let Some(unplaced) = status.unplaced.as_ref().filter(|_| first)
        && unplaced.never_fits
    {
        return Verdict::Failed(why_unplaced(unplaced));
    }
    if first && row.failing > 0 && matches!(row.state.as_str(), "failed" | "degraded") {
        return Verdict::Failed(reasons(status, context));
    }
    let waits = deployment.waits.as_ref();
    if deployment.needs_promotion
        && !goal.patient
        && waits.is_none_or(|waits| waits.until.is_none())
    {
        let from = deployment.from.map_or(String::new(), |from| format!(" beside version {from}"));
        let ready = deployment.progress.as_ref().map_or(0, |progress| progress.ready);
        return Verdict::NeedsPromotion(format!(
            "ready in {ready} replicas{from}, and waits to be promoted"
        ));
    }
    let mut how = format!("{} of {} up to date and healthy", row.up_to_date, row.desired);
    if let Some(waits) = waits {
        how.push_str(&format!("; waits for {}", printable(&waits.what)));
    } else if let Some(news) = news(status) {
        how.push_str(&format!("; {}", printable(&news)));
    }
    Verdict::Waiting(how)
}

/// Of a deployment that failed: why, and what became of the job.
fn taken_back(failed: &DeploymentRow, status: &JobStatus, context: &Context) -> Verdict {
    let mut reason = printable(&failed.reason);
    let back = failed
        .reverted_by
        .as_ref()
        .and_then(|id| status.deployments.iter().find(|known| known.id == *id));
    let Some(back) = back else {
        // What failed still runs, and has more to tell.
        if failed.reverted_by.is_none() {
            reason = format!("{reason}\n{}", reasons(status, context));
        }
        return Verdict::Failed(reason);
    };
    let version = back.from.unwrap_or(back.version);
    let (ready, desired) = (status.row.up_to_date, status.row.desired);
    match back.status.as_str() {
        "running" | "paused" => Verdict::Waiting(format!(
            "failed: {reason}; {ready} of {desired} of version {version} ready"
        )),
        "successful" => {
            let reason = reason.split("; going back to version").next().unwrap_or_default();
            Verdict::Failed(format!(
                "{reason}\nthe job went back to version {version}: {ready} of {desired} ready"
            ))
        }
        _ => Verdict::Failed(reason),
    }
}

/// What happens to the first copy that is not healthy, or why one is not placed.
fn news(status: &JobStatus) -> Option<String> {
    let of_copy = |copy: &AllocationRow| {
        let name = copy_name(&copy.project, &copy.job, copy.index);
        format!("{name}: {}", first_line(&copy.message))
    };
    status
        .allocations
        .iter()
        .find(|copy| {
            copy.health != "healthy"
                && !copy.message.is_empty()
                && matches!(copy.state.as_str(), "pending" | "starting" | "running")
        })
        .map(of_copy)
        .or_else(|| status.unplaced.as_ref().map(|unplaced| unplaced.message.clone()))
}

/// Why a job has failed, with what its copies printed.
fn reasons(status: &JobStatus, context: &Context) -> String {
    let row = &status.row;
    let mut text = String::new();
    if !row.message.is_empty() {
        text.push_str(&format!("{}\n", printable(&row.message)));
    }
    for failure in &status.failures {
        text.push_str(&why_failed(&row.project, &row.job, failure, &context.output));
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::cli::context::Context;

    /// A status with these fields in the place of the usual ones, judged.
    fn judged(kind: &str, state: &str, more: Value) -> Verdict {
        let mut status = json!({
            "project": "default", "job": "web", "version": 2, "type": kind, "state": state,
            "desired": 2, "running": 0, "healthy": 0, "up_to_date": 2, "failing": 0,
            "priority": 50, "message": "because", "created_at": "2026-11-20T08:00:00Z",
            "changed_at": "2026-11-20T08:59:00Z", "spec": {}, "purged": false, "failures": [],
            "allocations": [{
                "project": "default", "job": "web", "index": 1, "id": "a1", "node": "n1",
                "version": 2, "state": "starting", "health": "unknown", "container_id": null,
                "ports": {}, "address": null, "restarts": 0, "started_at": null,
                "created_at": null, "message": "pulling"
            }]
        });
        for (key, value) in more.as_object().unwrap() {
            status[key] = value.clone();
        }
        let goal = Goal::new("web".parse().unwrap(), 2);
        judge(&goal, &serde_json::from_value(status).unwrap(), &Context::for_tests())
    }

    /// A deployment of version 2 from version 1 with these fields.
    fn deployment(more: Value) -> Value {
        let mut row = json!({
            "id": "d2", "project": "default", "job": "web", "version": 2, "from": 1,
            "strategy": "rolling", "status": "running", "reason": "",
            "progress": {"wanted": 2, "updated": 2, "ready": 1, "old": 1},
            "waits": {"what": "web.1 to become ready", "since": "2026-11-20T08:59:00Z"},
            "needs_promotion": false,
            "started_at": "2026-11-20T08:59:00Z", "changed_at": "2026-11-20T08:59:00Z"
        });
        for (key, value) in more.as_object().unwrap() {
            row[key] = value.clone();
        }
        row
    }

    fn service(state: &str, of_deployment: Value, mut more: Value) -> Verdict {
        more["deployments"] = json!([deployment(of_deployment)]);
        judged("service", state, more)
    }

    #[test]
    fn a_service_is_up_when_its_deployment_is_successful() {
        assert_eq!(
            service("running", json!({"status": "successful"}), json!({})),
            Verdict::Up("up: 2 of 2 healthy".into())
        );
        for state in ["running", "updating", "starting", "pending", "degraded", "failed"] {
            assert_eq!(
                service(state, json!({}), json!({"up_to_date": 1, "failing": 1})),
                Verdict::Waiting(
                    "1 of 2 up to date and healthy; waits for web.1 to become ready".into()
                ),
                "{state}"
            );
        }
        let done = json!({"status": "successful"});
        assert!(matches!(service("running", done, json!({"desired": 0})), Verdict::Up(_)));
        for (state, of_deployment, more) in [
            ("stopped", json!({"status": "superseded"}), json!({})),
            ("updating", json!({"status": "superseded"}), json!({"version": 3})),
            ("running", json!({"status": "successful"}), json!({"version": 3})),
            // A first version has nothing to go back to.
            ("failed", json!({"from": null}), json!({"failing": 1})),
            ("degraded", json!({"from": null}), json!({"failing": 1})),
        ] {
            let verdict = service(state, of_deployment, more);
            assert!(matches!(verdict, Verdict::Failed(_)), "{state}: {verdict:?}");
        }
    }

    #[test]
    fn a_promotion_by_hand_ends_the_waiting() {
        let ready = json!({
            "needs_promotion": true, "strategy": "canary",
            "waits": {"what": "its promotion", "since": "2026-11-20T08:59:00Z"}
        });
        let verdict = service("updating", ready, json!({}));
        assert!(
            matches!(&verdict, Verdict::NeedsPromotion(how) if how.contains("beside version 1")),
            "{verdict:?}"
        );
        let by_itself = json!({
            "needs_promotion": true, "strategy": "canary",
            "waits": {
                "what": "its promotion", "since": "2026-11-20T08:59:00Z",
                "until": "2026-11-20T09:59:00Z"
            }
        });
        assert!(matches!(service("updating", by_itself, json!({})), Verdict::Waiting(_)));
    }

    #[test]
    fn a_failed_deployment_tells_why_and_what_became_of_the_job() {
        let failed = deployment(json!({
            "status": "failed", "reason": "web.0 on n1: no such file; going back to version 1",
            "reverted_by": "d3"
        }));
        let judged_with = |status: &str| {
            let back = deployment(json!({
                "id": "d3", "version": 3, "status": status, "reverts": "d2", "from": 1
            }));
            let more = json!({"version": 3, "deployments": [back, failed]});
            judged("service", "running", more)
        };
        let Verdict::Waiting(how) = judged_with("running") else { panic!() };
        assert!(how.contains("no such file; going back to version 1"), "{how}");
        assert_eq!(
            judged_with("successful"),
            Verdict::Failed(
                "web.0 on n1: no such file\nthe job went back to version 1: 2 of 2 ready".into()
            )
        );
        assert!(matches!(judged_with("superseded"), Verdict::Failed(_)));
        let stays = json!({"status": "failed", "reason": "aborted by a user"});
        let verdict = service("degraded", stays, json!({}));
        assert!(matches!(&verdict, Verdict::Failed(why) if why.contains("aborted by a user")));
    }

    #[test]
    fn a_batch_job_is_up_when_it_is_complete() {
        let batch = |state: &str| judged("batch", state, json!({}));
        assert_eq!(batch("complete"), Verdict::Up("complete".into()));
        assert_eq!(batch("starting"), Verdict::Waiting("starting; web.1: pulling".into()));
        assert!(matches!(batch("failed"), Verdict::Failed(why) if why.contains("because")));
        assert!(matches!(batch("stopped"), Verdict::Failed(_)));
    }

    #[test]
    fn a_job_that_can_never_fit_has_failed() {
        let more = json!({"unplaced": {
            "replicas": 2, "nodes": 1, "never_fits": true, "message": "too big (no memory: 1)",
            "refusals": [{"reason": "no memory", "nodes": 1}]
        }});
        let verdict = judged("batch", "pending", more.clone());
        assert!(matches!(verdict, Verdict::Failed(why) if why.contains("1 node: no memory")));
        let first = service("pending", json!({"from": null}), more.clone());
        assert!(matches!(first, Verdict::Failed(_)));
        // An update goes back by itself.
        assert!(matches!(service("updating", json!({}), more), Verdict::Waiting(_)));
    }
}
