//! `orch migrate marathon`: reads, shows, asks, submits.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::str::FromStr;

use clap::Args;
use reqwest::{Method, Url};
use serde_json::Value;

use super::report::{Adoption, Became, Report, Row};
use crate::api::view::adopt::{AdoptReply, AdoptRequest, AdoptTask};
use crate::api::view::job::SubmitReply;
use crate::api::view::job_file;
use crate::api::view::query::{ConsistencyChoice, ProjectWrite, ReadSpec, Submit};
use crate::cli::client::Call;
use crate::cli::context::Context;
use crate::cli::failure::{Exit, Failure, Outcome};
use crate::cli::output::note;
use crate::cli::target::ProjectFlag;
use crate::cli::words::count;
use crate::limits::ADOPT_TASKS_MAX;
use crate::marathon::{Finding, Job, Kind, Options, Weight, translate};
use crate::migrate::marathon::{
    Instance, ROOT, SourceError, Storage, from_directory, from_ensemble, from_file, from_rest,
};
use crate::model::job::TaskRuntime;
use crate::model::name::JobName;

/// After so many jobs it is told how far it is.
const TOLD_EVERY: usize = 100;

/// Flags of `orch migrate marathon`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  orch migrate marathon http://marathon:8080 --dry-run > jobs.yaml
                                          the job files; what has no equal is told
  orch migrate marathon http://marathon:8080 --only /shop
                                          bring over what is below a group
  orch migrate marathon zk://zk1:2181,zk2:2181/marathon --dry-run
                                          from what it keeps in ZooKeeper
  orch migrate marathon backup.tar --adopt --dry-run
                                          and which containers would be taken over
  orch migrate marathon backup.tar --adopt --accept-losses
                                          take them over where they run, without a restart
SOURCE is a live Marathon (http://USER:PASSWORD@HOST:8080, or https), what it keeps in ZooKeeper
(zk://USER:PASSWORD@HOST:2181,…/marathon, as its own --zk, or a data directory), its backup (a tar
file), or what its /v2/groups or /v2/apps answered, saved as JSON. Nothing is changed there.
What has no equal is told: adapted (in another form), lost (it runs without), essential (it may
not work, lose data or be less protected), blocked (no job can be made of it). With something
essential or blocked nothing is submitted unless --accept-losses says so; what is blocked is left
out then. With --adopt, stop Marathon before: it would start anew what it misses.
Exit codes: 0 done, 1 failed, 3 nothing there, 4 refused.")]
pub(super) struct MarathonArgs {
    /// Where Marathon's apps are
    #[arg(value_name = "SOURCE")]
    source: String,
    /// Print the job files and what has no equal; change nothing
    #[arg(long)]
    dry_run: bool,
    /// Take over containers that run, where an agent is on their host
    #[arg(long)]
    adopt: bool,
    /// Where Marathon's state is in a data directory of ZooKeeper
    #[arg(long, value_name = "PATH", default_value = ROOT)]
    zk_path: String,
    /// Only this app or pod, or what is below this group
    #[arg(long, value_name = "ID")]
    only: Option<String>,
    /// Another name for an app's job; can be repeated
    #[arg(long, value_name = "ID=NAME")]
    rename: Vec<Rename>,
    /// Go on though something essential has no equal
    #[arg(long)]
    accept_losses: bool,
    #[command(flatten)]
    project: ProjectFlag,
}

/// An app with the name of its job.
#[derive(Debug, Clone)]
struct Rename(String, JobName);

impl FromStr for Rename {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (id, name) = text.split_once('=').ok_or("write ID=NAME, as /shop/web=web")?;
        let id = if id.starts_with('/') { id.to_owned() } else { format!("/{id}") };
        let name = name.parse::<JobName>().map_err(|error| error.to_string())?;
        Ok(Self(id, name))
    }
}

impl MarathonArgs {
    fn options(&self) -> Options {
        let absolute =
            |id: &String| if id.starts_with('/') { id.clone() } else { format!("/{id}") };
        Options {
            project: self.project.project.clone().unwrap_or_default(),
            only: self.only.as_ref().map(absolute),
            names: self.rename.iter().map(|Rename(id, name)| (id.clone(), name.clone())).collect(),
        }
    }
}

pub(super) async fn run(args: MarathonArgs, context: &Context) -> Outcome {
    let storage = read(&args.source, &args.zk_path, context).await?;
    let options = args.options();
    unknown_names(&storage, &options)?;
    let mut translation = translate(&storage.definitions, &options);
    if translation.jobs.is_empty() && translation.findings.is_empty() {
        let what = match &options.only {
            Some(only) => format!("{} has no app, pod or group {only}", args.source),
            None => format!("{} has no apps or pods", args.source),
        };
        return Err(Failure::new(Exit::NOT_FOUND, what));
    }
    let mut adoptions = BTreeMap::new();
    if args.adopt {
        for job in &translation.jobs {
            let adoption = running(job, &storage, &mut translation.findings);
            adoptions.insert(job.id.clone(), adoption);
        }
        // What the nodes have of it can be asked, and changes nothing.
        for job in &translation.jobs {
            if let Some(adoption) = adoptions.get_mut(&job.id) {
                look(job, adoption, &mut translation.findings, context).await?;
            }
        }
        translation.findings.sort_by(|a, b| a.id.cmp(&b.id));
    }
    let rows = translation.jobs.into_iter().map(|job| {
        let adoption = adoptions.remove(&job.id).unwrap_or_default();
        Row { job, adoption, became: Became::Nothing }
    });
    let mut report =
        Report { origin: storage.origin, rows: rows.collect(), findings: translation.findings };
    if args.dry_run {
        report.files(&context.output)?;
        return Ok(Exit::DONE);
    }
    let weight = report.findings.iter().map(|finding| finding.weight).max();
    if weight >= Some(Weight::Essential) && !args.accept_losses {
        return Err(report.refusal());
    }
    submit(&mut report, context).await
}

async fn read(source: &str, zk_path: &str, context: &Context) -> Result<Storage, Failure> {
    let storage = if source.starts_with("http://") || source.starts_with("https://") {
        let url: Url = source
            .parse()
            .map_err(|error| Failure::usage(format!("the address can't be read: {error}")))?;
        from_rest(context.client.http(), &url).await
    } else if source.starts_with("zk://") {
        from_ensemble(source).await
    } else if let Some((scheme, _)) = source.split_once("://") {
        let what = format!("{scheme}:// is no address of a Marathon");
        return Err(Failure::usage(what).hint(
            "http://HOST:8080, zk://HOST:2181/marathon, or the file of a backup \
             (DELETE /v2/leader?backup=file:///…)",
        ));
    } else if Path::new(source).is_dir() {
        from_directory(Path::new(source), zk_path).await
    } else {
        from_file(Path::new(source)).await
    };
    storage.map_err(|error| {
        let exit = match error {
            SourceError::Refused(_) | SourceError::MigrationInProgress { .. } => Exit::REFUSED,
            SourceError::NotMarathon(_) => Exit::NOT_FOUND,
            _ => Exit::FAILED,
        };
        Failure::new(exit, error.to_string())
    })
}

/// A name for what is not there is a slip of the pen.
fn unknown_names(storage: &Storage, options: &Options) -> Result<(), Failure> {
    let known: BTreeSet<&str> =
        storage.definitions.list.iter().map(|definition| definition.id.as_str()).collect();
    match options.names.keys().find(|id| !known.contains(id.as_str())) {
        Some(id) => Err(Failure::usage(format!("--rename {id}=…: there is no app or pod {id}"))),
        None => Ok(()),
    }
}

// --- taking over ---

/// The tasks of a job that may be taken over; those that can't be are told.
fn running(job: &Job, storage: &Storage, findings: &mut Vec<Finding>) -> Adoption {
    let mut adoption = Adoption::default();
    let mut told = |field: String, said: &str, why: &str, remedy: &str| {
        findings.push(Finding {
            id: job.id.clone(),
            field,
            said: said.to_owned(),
            why: why.to_owned(),
            remedy: remedy.to_owned(),
            weight: Weight::Essential,
        });
    };
    if !storage.knows_instances {
        told(
            "tasks".into(),
            "",
            "the source does not say which tasks run, so none is taken over",
            "use a live Marathon, its backup, or /v2/apps?embed=apps.tasks",
        );
        return adoption;
    }
    let replicas = match job.spec.kind {
        crate::model::job::JobKind::Service { replicas } => replicas as usize,
        _ => 0,
    };
    let process = job.spec.tasks.iter().any(|task| task.runtime == TaskRuntime::Process);
    let tasks: Vec<&Instance> =
        storage.instances.iter().filter(|instance| instance.id == job.id).collect();
    for instance in tasks {
        let field = format!("tasks.{}", instance.task_id);
        if process || job.kind == Kind::Pod {
            told(
                field,
                &instance.host,
                "it is no container of the Docker engine, and can't be taken over: it runs on, and \
                 another one is started",
                "end it under Mesos, or bring the app over without --adopt after that",
            );
        } else if adoption.wanted.len() >= replicas.min(ADOPT_TASKS_MAX) {
            let why = "more tasks run than the job has replicas: it runs on beside them";
            told(field, &instance.host, why, "end it under Mesos");
        } else {
            let ports = job.port_order.iter().map(|place| instance.ports.get(*place).copied());
            adoption.wanted.push(AdoptTask {
                task_id: instance.task_id.clone(),
                host: instance.host.clone(),
                ports: ports.map_while(|port| port).collect(),
            });
        }
    }
    adoption
}

/// Asks what nodes have of a job's tasks; those that can't be taken over are told.
async fn look(
    job: &Job,
    adoption: &mut Adoption,
    findings: &mut Vec<Finding>,
    context: &Context,
) -> Result<(), Failure> {
    if adoption.wanted.is_empty() || exists(job, context).await?.is_some() {
        adoption.wanted.clear();
        return Ok(());
    }
    let reply = adopt(job, &adoption.wanted, true, context).await?;
    for refused in &reply.refused {
        adoption.wanted.retain(|task| task.task_id != refused.task_id);
        findings.push(Finding {
            id: job.id.clone(),
            field: format!("tasks.{}", refused.task_id),
            said: refused.host.clone(),
            why: format!("it is not taken over: {}", refused.reason),
            remedy: "if it still runs there, end it under Mesos: another one is started".into(),
            weight: Weight::Essential,
        });
    }
    adoption.adopted = reply.adopted;
    Ok(())
}

async fn adopt(
    job: &Job,
    tasks: &[AdoptTask],
    dry_run: bool,
    context: &Context,
) -> Result<AdoptReply, Failure> {
    let request = AdoptRequest { file: job.file.clone(), tasks: tasks.to_vec(), dry_run };
    let query = ProjectWrite { project: Some(job.spec.project.to_string()) };
    let call = Call::new(Method::POST, ["jobs", job.spec.name.as_str(), "adopt"])
        .query(&query)
        .json(&request)?;
    context.client.json(call).await
}

// --- submitting ---

/// The job of that name that the cluster has, as its file.
async fn exists(job: &Job, context: &Context) -> Result<Option<Value>, Failure> {
    let query = ReadSpec {
        project: Some(job.spec.project.to_string()),
        version: None,
        consistency: ConsistencyChoice::Linearizable,
    };
    let call = Call::get(["jobs", job.spec.name.as_str(), "spec"]).query(&query);
    match context.client.json(call).await {
        Ok(spec) => Ok(Some(spec)),
        Err(failure) if failure.exit == Exit::NOT_FOUND => Ok(None),
        Err(failure) => Err(failure),
    }
}

async fn submit(report: &mut Report, context: &Context) -> Outcome {
    let mut others = Vec::new();
    for row in &mut report.rows {
        if let Some(known) = exists(&row.job, context).await? {
            row.became = Became::Unchanged;
            if known != job_file::shown(&row.job.spec) {
                others.push(format!("  {} (from {})", row.job.spec.id(), row.job.id));
            }
        }
    }
    if !others.is_empty() {
        let number = count(others.len() as u64, "job exists", "jobs exist");
        let what = format!("{number} with other content; nothing was changed");
        return Err(Failure::new(Exit::REFUSED, what).details(others.join("\n")).hint(
            "choose other names with --rename ID=NAME, another --project, or stop those first",
        ));
    }
    let mut failed = None;
    let all = report.rows.len();
    for (i, row) in report.rows.iter_mut().enumerate() {
        match submit_one(row, context).await {
            Ok(became) => {
                row.became = became;
                if context.output.for_people() && (i + 1) % TOLD_EVERY == 0 && i + 1 < all {
                    note(&format!("{} of {all} jobs are submitted", i + 1));
                }
            }
            Err(failure) => {
                failed = Some((row.job.id.clone(), failure));
                break;
            }
        }
    }
    report.summary(&context.output)?;
    match failed {
        None => {
            if context.output.for_people() {
                note("orch status tells how the jobs are");
            }
            Ok(Exit::DONE)
        }
        Some((id, mut failure)) => {
            failure.what = format!("{id}: {}; what stands before it was done", failure.what);
            failure.hint = "run it again: what is there already stays as it is".to_owned();
            Err(failure)
        }
    }
}

async fn submit_one(row: &Row, context: &Context) -> Result<Became, Failure> {
    let job = &row.job;
    let known = row.became == Became::Unchanged;
    if !known && !row.adoption.wanted.is_empty() {
        let reply = adopt(job, &row.adoption.wanted, false, context).await?;
        if let Some(refused) = reply.refused.first() {
            let what = format!("task {} on {}: {}", refused.task_id, refused.host, refused.reason);
            return Err(Failure::new(Exit::REFUSED, what));
        }
        return Ok(Became::Adopted(reply.adopted.len()));
    }
    // One that is there with this content may have been stopped.
    let query =
        Submit { if_version: (!known).then_some(0), project: Some(job.spec.project.to_string()) };
    let call =
        Call::new(Method::POST, ["jobs"]).query(&query).body(job.file.clone(), "application/yaml");
    let reply: SubmitReply = context.client.json(call).await?;
    for submitted in &reply.jobs {
        for warning in &submitted.warnings {
            note(&format!("warning: {}: {warning}", submitted.job));
        }
    }
    let changed = reply.jobs.iter().any(|job| job.changed);
    Ok(if changed { Became::Submitted } else { Became::Unchanged })
}
