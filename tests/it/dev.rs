//! `orch dev`: everything in one process.

use std::process::Command;

use rustix::process::Signal;

use crate::support::docker::{need_image, work_of};
use crate::support::{Cluster, Http, LONG, LoopbackAddress, Process, SHORT, orch_with, wait_until};

struct Dev {
    process: Process,
    api: String,
    directory: tempfile::TempDir,
}

impl Dev {
    fn start(address: LoopbackAddress, more: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (api, rpc) = (address.port(7400).to_string(), address.port(7401).to_string());
        let mut command = Command::new(env!("CARGO_BIN_EXE_orch"));
        command.args(["dev", "--api-addr", &api, "--rpc-addr", &rpc]).args(more);
        let process = Process::start("dev", &mut command, &directory.path().join("log"));
        let http = Http::new(&api);
        let mut dev = Self { process, api, directory };
        wait_until("dev to be ready", SHORT, || {
            assert!(dev.process.runs(), "{}", dev.process.log());
            let reply = http.try_get("/readyz")?;
            if reply.status == 200 { Ok(()) } else { Err(reply.text()) }
        });
        dev
    }

    fn orch(&self, arguments: &[&str]) -> crate::support::Output {
        orch_with(&[("ORCH_ADDR", &format!("http://{}", self.api))], arguments, b"")
    }

    fn file(&self, text: &str) -> String {
        let path = self.directory.path().join("job.yaml");
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }
}

#[test]
fn without_a_data_dir_it_leaves_nothing_behind() {
    let address = LoopbackAddress::next();
    let mut dev = Dev::start(address, &["--runtime", "docker"]);
    let image = need_image();
    let file = dev.file(&format!(
        "job: short\nreplicas: 2\nimage: {image}\ncommand: sleep 1000\nstop_signal: SIGKILL\n"
    ));
    dev.orch(&["run", &file]).ok();
    let ids: Vec<String> = dev
        .orch(&["ps", "-o", "json"])
        .ok()
        .json()
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["container_id"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(ids.len(), 2);
    dev.process.signal(Signal::TERM);
    let status = dev.process.wait(LONG);
    assert!(status.success(), "{status}: {}", dev.process.log());
    for id in ids {
        assert!(!crate::support::docker::runs(&id), "{id} runs on");
    }
}

#[test]
fn with_a_data_dir_work_runs_on_and_is_found_again() {
    let address = LoopbackAddress::next();
    let data = tempfile::tempdir().unwrap();
    let path = data.path().display().to_string();
    let flags = ["--runtime", "docker", "--data-dir", &path];
    let mut dev = Dev::start(address, &flags);
    let image = need_image();
    let file = dev.file(&format!(
        "job: long\nreplicas: 1\nimage: {image}\ncommand: sleep 1000\nstop_signal: SIGKILL\n"
    ));
    dev.orch(&["run", &file]).ok();
    let id = |dev: &Dev| {
        let rows = dev.orch(&["ps", "long", "-o", "json"]).ok().json();
        rows[0]["container_id"].as_str().unwrap_or_default().to_owned()
    };
    let before = id(&dev);
    dev.process.signal(Signal::TERM);
    dev.process.wait(LONG);
    assert!(crate::support::docker::runs(&before), "it ended with dev");
    let dev = Dev::start(address, &flags);
    wait_until("it to be adopted", LONG, || {
        let rows = dev.orch(&["ps", "long", "-o", "json"]).ok().json();
        if rows[0]["state"] == "running" { Ok(()) } else { Err(rows.to_string()) }
    });
    assert_eq!(id(&dev), before);
    dev.orch(&["stop", "long", "--purge"]).ok();
    wait_until("it to end", LONG, || {
        if crate::support::docker::runs(&before) { Err("it runs".to_owned()) } else { Ok(()) }
    });
    // dev ends with this test, before it may forget the job and remove what has ended.
    let _ = crate::support::docker::docker(&["rm", "--force", &before]);
}

#[test]
fn it_binds_to_loopback_alone() {
    let output = orch_with(&[], &["dev", "--api-addr", "0.0.0.0:0"], b"");
    assert_ne!(output.code, 0, "{output}");
    output.says(&["loopback"]);
}

#[test]
fn a_server_can_be_an_agent_too() {
    let mut cluster = Cluster::empty();
    cluster.server("s1", &["--agent", "--runtime", "process"]);
    cluster.wait_for_voters(1);
    cluster.run("job: both\ncommand: [sh, -c, 'exit 0']\n");
    assert!(work_of(&[], false).is_empty());
}
