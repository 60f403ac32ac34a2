//! Settings come from a file, the environment and flags; flags win.

use std::path::Path;

use crate::support::{orch, orch_with};

#[test]
fn flags_win_over_environment_over_file_and_each_says_where_it_came_from() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("server.toml");
    std::fs::write(
        &file,
        "[server]\nname = \"from-file\"\napi_addr = \"127.0.0.1:1001\"\nrpc_addr = \"127.0.0.1:1002\"\n",
    )
    .unwrap();
    let file = file.display().to_string();
    let output = orch_with(
        &[("ORCH_API_ADDR", "127.0.0.1:2001"), ("ORCH_NAME", "from-env")],
        &["config", "show", "--config", &file, "--name", "from-flag", "-o", "json"],
        b"",
    );
    let output = output.ok();
    for (value, from) in [
        ("from-flag", "flag"),
        ("127.0.0.1:2001", "ORCH_API_ADDR"),
        ("127.0.0.1:1002", "server.toml"),
    ] {
        let found = output.stdout.contains(value) && output.stdout.contains(from);
        assert!(found, "{value} from {from} is missing in:\n{output}");
    }
    assert!(
        !output.stdout.contains("from-env") && !output.stdout.contains("127.0.0.1:1001"),
        "{output}"
    );
}

#[test]
fn a_wrong_key_in_the_file_is_named_with_its_place() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("server.toml");
    std::fs::write(&file, "[server]\nnmae = \"x\"\n").unwrap();
    let output = orch(&["config", "show", "--config", &file.display().to_string()]);
    assert_ne!(output.code, 0, "{output}");
    output.says(&["nmae", "name", "2"]);
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
        orch(&["config", "show", "--config", &sample.display().to_string()]).ok();
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
        orch(&["config", "show", "--config", &file.display().to_string()]).ok();
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
