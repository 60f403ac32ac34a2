//! Docker, through its own command line: an independent witness of what the agent does.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use serde_json::Value;

/// The image of the tests: a static busybox and nothing else.
pub const IMAGE: &str = "orch-test-busybox:latest";

/// Runs `docker ARGUMENTS`; its standard output, or its standard error.
pub fn docker(arguments: &[&str]) -> Result<String, String> {
    docker_at(None, arguments)
}

/// The same against the engine behind a socket.
pub fn docker_at(socket: Option<&Path>, arguments: &[&str]) -> Result<String, String> {
    let mut command = Command::new("docker");
    if let Some(socket) = socket {
        command.arg("--host").arg(format!("unix://{}", socket.display()));
    }
    let done = command
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("docker can't be run: {error}"))?;
    if done.status.success() {
        Ok(String::from_utf8_lossy(&done.stdout).trim().to_owned())
    } else {
        Err(String::from_utf8_lossy(&done.stderr).trim().to_owned())
    }
}

/// Sees to it that an engine answers and the image is there. Its absence is a failure, never a
/// skipped test.
#[track_caller]
pub fn need_image() -> &'static str {
    static MADE: OnceLock<Result<(), String>> = OnceLock::new();
    if let Err(problem) = MADE.get_or_init(|| make_image(None)) {
        panic!(
            "{problem}\nThis test needs a Docker engine and a static busybox; scripts/test installs and starts them."
        );
    }
    IMAGE
}

/// Imports the image into an engine, unless it is there.
pub fn make_image(socket: Option<&Path>) -> Result<(), String> {
    docker_at(socket, &["version"])?;
    if docker_at(socket, &["image", "inspect", IMAGE]).is_ok() {
        return Ok(());
    }
    let busybox = static_busybox()?;
    let root = tempfile::tempdir().map_err(|error| error.to_string())?;
    let script = format!(
        "set -e; cd '{root}'; mkdir -p bin tmp www etc; chmod 1777 tmp www; cp {busybox} bin/busybox; \
         for a in $({busybox} --list); do [ $a = busybox ] || ln -s busybox bin/$a; done; \
         echo root:x:0:0:root:/:/bin/sh >etc/passwd; tar -c . | docker {host} import --change 'CMD [\"sh\"]' - {IMAGE}",
        root = root.path().display(),
        host = socket.map(|s| format!("--host unix://{}", s.display())).unwrap_or_default(),
    );
    let done = Command::new("sh").args(["-c", &script]).output().map_err(|e| e.to_string())?;
    if done.status.success() {
        Ok(())
    } else {
        Err(String::from_utf8_lossy(&done.stderr).into_owned())
    }
}

/// The busybox that needs no libraries, from Debian's busybox-static.
pub fn static_busybox() -> Result<&'static str, String> {
    // ldd fails on a file that needs no libraries.
    let is_static = |path: &&str| {
        Path::new(path).exists()
            && Command::new("ldd").arg(path).output().is_ok_and(|done| !done.status.success())
    };
    ["/bin/busybox", "/usr/bin/busybox"]
        .into_iter()
        .find(is_static)
        .ok_or_else(|| "no static busybox; apt-get install busybox-static".to_owned())
}

/// Everything the engine knows of a container.
#[track_caller]
pub fn inspect(id: &str) -> Value {
    let text = docker(&["container", "inspect", id]).unwrap_or_else(|error| panic!("{error}"));
    serde_json::from_str::<Value>(&text).unwrap()[0].clone()
}

/// Whether a container runs.
pub fn runs(id: &str) -> bool {
    docker(&["container", "inspect", "--format", "{{.State.Running}}", id]).as_deref() == Ok("true")
}

/// Ids of running containers whose environment has `HOST=` with one of these addresses: the work of
/// agents with these addresses.
pub fn work_of(addresses: &[String], all: bool) -> Vec<String> {
    let mut arguments = vec!["ps", "--quiet", "--no-trunc", "--filter", "name=orch-"];
    if all {
        arguments.push("--all");
    }
    let Ok(ids) = docker(&arguments) else { return Vec::new() };
    let is_ours = |id: &&str| {
        let format = "{{range .Config.Env}}{{println .}}{{end}}";
        docker(&["container", "inspect", "--format", format, id]).is_ok_and(|environment| {
            environment.lines().any(|line| {
                line.strip_prefix("HOST=").is_some_and(|host| addresses.iter().any(|a| a == host))
            })
        })
    };
    ids.lines().filter(is_ours).map(str::to_owned).collect()
}

/// Removes the work of agents with these addresses.
pub fn remove_work_of(addresses: &[String]) {
    if addresses.is_empty() {
        return;
    }
    let ids = work_of(addresses, true);
    if !ids.is_empty() {
        let mut arguments = vec!["rm", "--force", "--volumes"];
        arguments.extend(ids.iter().map(String::as_str));
        let _ = docker(&arguments);
    }
}
