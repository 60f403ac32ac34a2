//! Settings come from a file, the environment and flags; flags win.

use std::path::Path;
use std::process::Command;

use crate::support::{Http, LoopbackAddress, Process, SHORT, orch, orch_with, wait_until};

#[test]
fn environment_wins_over_file_over_default_and_each_says_where_it_came_from() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("server.toml");
    std::fs::write(
        &file,
        "[server]\nname = \"from-file\"\napi_addr = \"127.0.0.1:1001\"\nrpc_addr = \"127.0.0.1:1002\"\n",
    )
    .unwrap();
    let file = file.display().to_string();
    let output = orch_with(
        &[("ORCH_API_ADDR", "127.0.0.1:2001")],
        &["config", "show", "server", "--config", &file, "-o", "json"],
        b"",
    );
    let settings = output.ok().json();
    let settings = settings.as_array().unwrap();
    for (name, value, source, variable) in [
        ("name", "from-file", "file", "ORCH_NAME"),
        ("api_addr", "127.0.0.1:2001", "environment", "ORCH_API_ADDR"),
        ("rpc_addr", "127.0.0.1:1002", "file", "ORCH_RPC_ADDR"),
        ("data_dir", "/var/lib/orch/server", "default", "ORCH_DATA_DIR"),
    ] {
        let setting = settings.iter().find(|setting| setting["name"] == name).unwrap();
        assert_eq!(
            (&setting["value"], &setting["source"], &setting["variable"]),
            (&value.into(), &source.into(), &variable.into())
        );
    }
}

#[test]
fn flags_win_over_environment_over_file() {
    let address = LoopbackAddress::next();
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).display().to_string();
    std::fs::write(
        path("server.toml"),
        format!(
            "[server]\nname = \"from-file\"\ndata_dir = {:?}\ninsecure = true\n\
             api_addr = \"{}\"\nrpc_addr = \"{}\"\n",
            path("data"),
            address.port(1001),
            address.port(7401),
        ),
    )
    .unwrap();
    let api = address.port(7400).to_string();
    let mut command = Command::new(env!("CARGO_BIN_EXE_orch"));
    command.env("ORCH_API_ADDR", &api).env("ORCH_NAME", "from-env").args([
        "server",
        "--config",
        &path("server.toml"),
        "--name",
        "from-flag",
    ]);
    let mut server = Process::start("server", &mut command, &directory.path().join("log"));
    wait_until("it to answer where the environment says", SHORT, || {
        assert!(server.runs(), "{}", server.log());
        let rows = Http::new(&api).try_get("/v1/servers")?.value();
        let row = &rows["items"][0];
        if row["name"] == "from-flag" && row["rpc_addr"] == address.port(7401).to_string() {
            Ok(())
        } else {
            Err(rows.to_string())
        }
    });
}

#[test]
fn a_wrong_key_in_the_file_is_named_with_its_place() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("server.toml");
    std::fs::write(&file, "[server]\nnmae = \"x\"\n").unwrap();
    let output = orch(&["config", "show", "--config", &file.display().to_string()]);
    assert_ne!(output.code, 0, "{output}");
    output.says(&["nmae", "name"]);
    let output = orch(&["server", "--insecure", "--config", "/no/such.toml"]);
    assert_ne!(output.code, 0, "{output}");
    output.says(&["/no/such.toml"]);
}

#[test]
fn the_sample_files_are_right_as_they_are_and_with_every_line_in_force() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let samples: Vec<_> = std::fs::read_dir(&directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .collect();
    assert_eq!(samples.len(), 3, "{samples:?}");
    let scratch = tempfile::tempdir().unwrap();
    for sample in samples {
        let table = sample.file_stem().unwrap().to_string_lossy().into_owned();
        orch(&["config", "show", &table, "--config", &sample.display().to_string()]).ok();
        // `#key = value` is a setting with its default; `# text` is a comment.
        let text = std::fs::read_to_string(&sample).unwrap();
        let in_force: String = text
            .lines()
            .map(|line| match line.strip_prefix('#') {
                Some(setting) if setting.starts_with(|c: char| c.is_ascii_lowercase()) => setting,
                _ => line,
            })
            .flat_map(|line| [line, "\n"])
            .collect();
        let file = scratch.path().join(sample.file_name().unwrap());
        std::fs::write(&file, in_force).unwrap();
        let shown = orch(&[
            "config",
            "show",
            &table,
            "--config",
            &file.display().to_string(),
            "-o",
            "json",
        ]);
        for setting in shown.ok().json().as_array().unwrap() {
            let known = setting["source"] == "file" || setting["name"] == "config";
            assert!(known, "{} is not in {}", setting["name"], sample.display());
        }
    }
}

#[test]
fn help_version_and_completion() {
    orch(&["--help"]).ok().says(&["run", "server", "agent", "dev"]);
    orch(&["run", "--help"]).ok().says(&["orch run"]);
    orch(&["version"]).ok().says(&[env!("CARGO_PKG_VERSION")]);
    orch(&["--version"]).ok().says(&[env!("CARGO_PKG_VERSION")]);
    for shell in ["bash", "zsh", "fish"] {
        orch(&["completion", shell]).ok().says(&["orch"]);
    }
}

#[test]
fn the_client_needs_no_ca_certificates_for_http() {
    // As in an image of the static binary alone.
    let nowhere = [("SSL_CERT_FILE", "/nonexistent"), ("SSL_CERT_DIR", "/nonexistent")];
    let nobody = format!("http://{}", LoopbackAddress::next().port(7400));
    let output = orch_with(&nowhere, &["--addr", &nobody, "ps"], b"");
    output.code(1).says(&[&nobody]);
}
