//! The verbs, their flags, and which file does what.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use super::context::Context;
use super::failure::{Exit, Failure, Outcome};
use super::output::{self, Format};
use super::{
    bench, completion, cp, deploy, endpoints, events, exec, history, inspect, logs, migrate, node,
    plan, port_forward, ps, rebalance, rollback, run, scale, server, snapshot, start, status, stop,
    top, var, version, zk,
};
use crate::config::ConfigFileError;

const TOUR: &str = "\
A first tour:
  orch dev                        a whole cluster in one process, for trying things out
  orch run hello.yaml             start what a job file describes, and wait until it is up
  orch status hello               how it is, or why it is not running
  orch logs hello -f              what its copies print
  orch scale hello=5              more copies
  orch endpoints hello            where it is reached
  orch plan hello.yaml            what a change to the file would do
  orch stop hello                 end it

Where the servers are: --addr or ORCH_ADDR, several with commas between.
For programs: -o json on every verb; field names are stable.
Exit codes: 0 done, 1 failed, 2 usage, 3 not found, 4 refused, 130 interrupted.";

/// Keeps a cluster's state, schedules work on its nodes, and runs it.
#[derive(Debug, Parser)]
#[command(
    name = "orch",
    version,
    about,
    after_help = TOUR,
    arg_required_else_help = true,
    max_term_width = 100
)]
pub struct Cli {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: Command,
}

/// Flags of every verb.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Everywhere")]
pub(super) struct Globals {
    /// Servers to ask, tried in turn
    #[arg(
        long,
        global = true,
        env = "ORCH_ADDR",
        value_name = "URL,…",
        default_value = "http://127.0.0.1:7400"
    )]
    pub(super) addr: String,

    /// How data is printed
    #[arg(
        short = 'o',
        long = "output",
        global = true,
        value_enum,
        value_name = "FORMAT",
        default_value_t
    )]
    pub(super) output: Format,

    /// Read what the asked server has, even if it is behind or cut off
    #[arg(long, global = true)]
    pub(super) stale: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start or change the jobs of files, and wait until they are up
    Run(run::RunArgs),
    /// Show what running a file would change: fields, placements, stops
    Plan(plan::PlanArgs),
    /// List copies of jobs: where they are and how they do
    Ps(ps::PsArgs),
    /// List jobs; or tell how one is, and why it is not running
    Status(status::StatusArgs),
    /// Show what a job's copies print
    Logs(logs::LogsArgs),
    /// Run a command inside a copy of a job
    Exec(exec::ExecArgs),
    /// Copy files from a copy of a job, or to it
    Cp(cp::CpArgs),
    /// Make ports of a copy of a job reachable from here
    PortForward(port_forward::PortForwardArgs),
    /// Show what nodes and copies of jobs use, now and on
    Top(top::TopArgs),
    /// End a job
    Stop(stop::StopArgs),
    /// Change how many copies of services are kept up
    Scale(scale::ScaleArgs),
    /// Look after deployments: how jobs get from one version to the next
    Deploy(deploy::DeployArgs),
    /// Go back to an earlier version of a job
    Rollback(rollback::RollbackArgs),
    /// Replace all copies of a job by new ones, a few at a time
    Restart(rollback::RestartArgs),
    /// List the addresses of a job that take traffic
    Endpoints(endpoints::EndpointsArgs),
    /// Print a job as the file that makes it
    Inspect(inspect::InspectArgs),
    /// List a job's versions and what each changed
    History(history::HistoryArgs),
    /// Look after nodes: the hosts that run work
    Node(node::NodeArgs),
    /// Move work towards better packing or spread
    Rebalance(rebalance::RebalanceArgs),
    /// Run a server; or look after the cluster's servers
    Server(Box<server::ServerArgs>),
    /// Run an agent: this host becomes a node
    Agent(Box<start::AgentFlags>),
    /// Run a server and an agent in one process, for this machine alone
    Dev(Box<start::DevFlags>),
    /// Show what changes in the cluster
    Events(events::EventsArgs),
    /// Save, restore or look into the cluster's whole state
    Snapshot(snapshot::SnapshotArgs),
    /// Small pieces of configuration, kept in the cluster
    Var(var::VarArgs),
    /// Bring another system's work over
    Migrate(migrate::MigrateArgs),
    /// ZooKeeper's nodes, kept in the cluster; and how they come here
    Zk(Box<zk::ZkArgs>),
    /// Show settings and where each came from
    Config(start::ConfigArgs),
    /// Measure this machine
    Bench(bench::BenchArgs),
    /// Print the version
    Version,
    /// Print a script that completes orch's commands in a shell
    Completion(completion::CompletionArgs),
}

/// Parses the command line and does what it says.
pub fn main(args: &[OsString]) -> ExitCode {
    let parsed = start::matches(&Cli::command(), args)
        .and_then(|matches| Ok(Cli::from_arg_matches(&matches)?));
    let cli = match parsed {
        Ok(cli) => cli,
        Err(ConfigFileError::Flags(error)) => {
            // Help and the version are data; a mistake is not. Who closed the pipe needs neither.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { Exit::USAGE.0 } else { Exit::DONE.0 });
        }
        Err(error) => return ExitCode::from(output::failure(&error.into()).0),
    };
    let exit = match dispatch(cli) {
        Ok(exit) => exit,
        Err(failure) => output::failure(&failure),
    };
    ExitCode::from(exit.0)
}

fn dispatch(cli: Cli) -> Outcome {
    let Cli { globals, command } = cli;
    match command {
        Command::Agent(flags) => start::agent(&flags),
        Command::Dev(flags) => start::dev(&flags),
        Command::Config(args) => start::config(args, &globals),
        Command::Server(args) if args.verb.is_none() => start::server(&args.start),
        Command::Completion(args) => completion::print(&args),
        Command::Bench(args) => bench::run(args, &globals.addr, &Context::new(&globals)?),
        Command::Version => version::print(&Context::new(&globals)?),
        other => {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(|error| Failure::failed(format!("can't start the runtime: {error}")))?;
            let outcome = runtime.block_on(ask(other, Context::new(&globals)?));
            // A read of stdin that nobody needs any more must not hold us up.
            runtime.shutdown_background();
            outcome
        }
    }
}

/// No TLS is set up, and no HTTP client made, without a provider of its mathematics.
pub(super) fn install_crypto() {
    // Fails only if the process has one already, and that does as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// The verbs that ask a server.
async fn ask(command: Command, context: Context) -> Outcome {
    match command {
        Command::Run(args) => run::run(args, &context).await,
        Command::Plan(args) => plan::run(args, &context).await,
        Command::Ps(args) => ps::run(args, &context).await,
        Command::Status(args) => status::run(args, &context).await,
        Command::Logs(args) => logs::run(args, &context).await,
        Command::Exec(args) => exec::run(args, &context).await,
        Command::Cp(args) => cp::run(args, &context).await,
        Command::PortForward(args) => port_forward::run(args, &context).await,
        Command::Top(args) => top::run(args, &context).await,
        Command::Stop(args) => stop::run(args, &context).await,
        Command::Scale(args) => scale::run(args, &context).await,
        Command::Deploy(args) => deploy::run(args, &context).await,
        Command::Rollback(args) => rollback::rollback(args, &context).await,
        Command::Restart(args) => rollback::restart(args, &context).await,
        Command::Endpoints(args) => endpoints::run(args, &context).await,
        Command::Inspect(args) => inspect::run(args, &context).await,
        Command::History(args) => history::run(args, &context).await,
        Command::Node(args) => node::run(args, &context).await,
        Command::Rebalance(args) => rebalance::run(args, &context).await,
        Command::Server(args) => match args.verb {
            Some(verb) => server::run(verb, &context).await,
            None => Err(Failure::usage("this command asks no server")),
        },
        Command::Events(args) => events::run(args, &context).await,
        Command::Snapshot(args) => snapshot::run(args, &context).await,
        Command::Var(args) => var::run(args, &context).await,
        Command::Migrate(args) => migrate::run(args, &context).await,
        Command::Zk(args) => zk::run(*args, &context).await,
        Command::Agent(_)
        | Command::Dev(_)
        | Command::Config(_)
        | Command::Bench(_)
        | Command::Version
        | Command::Completion(_) => Err(Failure::usage("this command asks no server")),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_verb_has_help_with_an_example() {
        fn check(command: &clap::Command, path: &str) {
            assert!(command.get_about().is_some(), "{path} has no description");
            for verb in command.get_subcommands().filter(|verb| verb.get_name() != "help") {
                check(verb, &format!("{path} {}", verb.get_name()));
            }
            for argument in command.get_arguments() {
                assert!(argument.get_help().is_some(), "{path} {argument} has no help");
            }
        }
        let mut command = Cli::command();
        command.build();
        check(&command, "orch");
        for verb in [
            "run",
            "plan",
            "status",
            "logs",
            "exec",
            "cp",
            "port-forward",
            "top",
            "scale",
            "stop",
            "node",
            "var",
            "deploy",
            "rollback",
            "restart",
            "endpoints",
            "rebalance",
            "migrate",
            "zk",
        ] {
            let verb = command.find_subcommand(verb).unwrap();
            assert!(verb.get_after_help().is_some(), "{} has no example", verb.get_name());
        }
    }

    #[test]
    fn command_lines_that_people_write_are_read() {
        for line in [
            "orch run a.yaml b.json --detach",
            "orch run -",
            "orch plan a.yaml -o json",
            "orch ps",
            "orch ps shop/web --all",
            "orch status -p shop web",
            "orch logs web.2 -f --tail 5 --since 10m",
            "orch exec -it web.0 -- sh -c ls",
            "orch exec web ls -l",
            "orch top",
            "orch top nodes --once",
            "orch top shop/web -o json",
            "orch cp web.0:/etc/passwd ./passwd",
            "orch cp -p shop ./site web.0:/srv/",
            "orch cp - shop/web.0:/srv --task app",
            "orch port-forward web.0 8080:80",
            "orch port-forward web 8080:http :9090 80 --address 0.0.0.0",
            "orch logs web -f --grep err|warn -i",
            "orch stop web --purge",
            "orch scale web=3 shop/db=1",
            "orch stop web --wait",
            "orch scale web=3 --wait",
            "orch deploy ls",
            "orch deploy ls shop/web --all",
            "orch deploy status web -w",
            "orch deploy promote d17",
            "orch deploy pause web -p shop",
            "orch deploy resume web",
            "orch deploy abort web --no-revert",
            "orch rollback web --to 3 -d",
            "orch restart web",
            "orch endpoints web --port http -f -o json",
            "orch inspect web --version 2",
            "orch node ls -o wide",
            "orch node drain n1 --deadline 5m --wait",
            "orch node eligible n1 --off",
            "orch rebalance --dry-run --max-moves 3",
            "orch server ls --stale",
            "orch server transfer --to s2",
            "orch events -f --since 10 --job web",
            "orch snapshot inspect x.snap",
            "orch var put db/host value --if-index 0",
            "orch zk ls",
            "orch zk get /a/b -o json",
            "orch zk set /a -x --create",
            "orch zk set /a @file --version 3",
            "orch zk rm -r /a",
            "orch zk stat",
            "orch zk tree / --depth 2",
            "orch zk watch /a -r --since 7",
            "orch zk dump /a",
            "orch zk inspect observer://a:2888,b",
            "orch zk import /var/lib/zookeeper --log-dir /var/log/zookeeper --only /a --at /b",
            "orch zk import zk://a,b --existing keep --auth digest:super:secret",
            "orch zk migrate start m observer://a:2888 zk://a:2181",
            "orch zk migrate status",
            "orch zk migrate status m -o json",
            "orch zk migrate cutover m --timeout 5m --client-ports a:2181,b:2181 --force",
            "orch zk migrate rollback m --to /srv/back --yes",
            "orch zk migrate abort m",
            "orch zk migrate abort m --open -y",
            "orch zk migrate finish m --yes",
            "orch completion bash",
            "orch migrate marathon http://marathon:8080 --dry-run --only /shop",
            "orch migrate marathon b.tar --adopt -p shop --rename /a/b=c --accept-losses",
            "orch --addr http://a:1,http://b:2 version",
        ] {
            Cli::try_parse_from(line.split(' ')).unwrap_or_else(|error| panic!("{line}: {error}"));
        }
        for line in [
            "orch",
            "orch statsu",
            "orch run",
            "orch scale web",
            "orch scale web=-1",
            "orch logs Web",
            "orch exec web.0",
            "orch rollback web --to x",
            "orch deploy promote",
            "orch cp web.0:/x",
            "orch port-forward web.0",
            "orch port-forward web.0 x:80",
            "orch port-forward web.0 80:",
            "orch logs web --grep (",
            "orch logs web -i",
            "orch status web extra",
            "orch zk get",
            "orch zk import http://a",
            "orch zk migrate start m",
            "orch zk migrate rollback m",
            "orch zk get a/b",
            "orch zk set /a x --create --version 1",
            "orch ps --frobnicate",
            "orch migrate",
            "orch migrate marathon",
            "orch migrate marathon a --rename /a",
        ] {
            assert!(Cli::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
        let near = Cli::try_parse_from(["orch", "statsu"]).unwrap_err().to_string();
        assert!(near.contains("status"), "{near}");
    }
}
