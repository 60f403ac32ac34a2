//! `orch cp`: files both ways, for containers and processes, through any server.

use std::fs;
use std::path::Path;

use crate::support::docker::need_image;
use crate::support::{Cluster, LONG, orch_with, wait_until};

fn cluster(runtime: &str) -> (Cluster, String) {
    let mut cluster = Cluster::start(2);
    cluster.agent("n1", &["--runtime", runtime]);
    let image = match runtime {
        "docker" => format!("image: {}\n", need_image()),
        _ => String::new(),
    };
    let place = if runtime == "docker" { "/data" } else { "." };
    cluster.run(&format!(
        "job: box\nreplicas: 1\n{image}stop_signal: SIGKILL\n\
         command: [sh, -c, 'mkdir -p {place}/d/e; cd {place}/d; echo one >a; echo two >e/b; ln -s a link; ln -s / out; chmod 750 a; sleep 100000']\n"
    ));
    wait_until("its files", LONG, || {
        let list = cluster.orch(&["exec", "box.0", "--", "ls", &format!("{place}/d/out/")]);
        if list.code == 0 { Ok(()) } else { Err(list.to_string()) }
    });
    let leader = cluster.leader();
    let follower = cluster.servers().into_iter().find(|name| *name != leader).unwrap();
    (cluster, follower)
}

fn text(path: impl AsRef<Path>) -> String {
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.as_ref().display()))
}

#[test]
fn files_come_and_go_as_they_are() {
    for runtime in ["docker", "process"] {
        let (cluster, follower) = cluster(runtime);
        let base = if runtime == "docker" { "/data/" } else { "" };
        let here = tempfile::tempdir().unwrap();
        let path = |name: &str| here.path().join(name).display().to_string();
        let cp = |from: &str, to: &str| cluster.orch_at(&follower, &["cp", from, to]);
        let there = |name: &str| format!("box.0:{base}{name}");

        // From there: a file, under another name, a directory, what is in it.
        cp(&there("d/a"), &path("")).ok();
        assert_eq!(text(path("a")), "one\n");
        cp(&there("d/a"), &path("renamed")).ok();
        assert_eq!(text(path("renamed")), "one\n");
        cp(&there("d"), &path("")).ok();
        assert_eq!((text(path("d/a")), text(path("d/e/b"))), ("one\n".into(), "two\n".into()));
        assert!(Path::new(&path("d/link")).is_symlink());
        assert_eq!(fs::read_link(path("d/out")).unwrap(), Path::new("/"));
        let mode = std::os::unix::fs::PermissionsExt::mode(
            &fs::metadata(path("d/a")).unwrap().permissions(),
        );
        assert_eq!(mode & 0o777, 0o750);
        fs::create_dir(path("flat")).unwrap();
        cp(&there("d/."), &path("flat")).ok();
        assert_eq!(text(path("flat/e/b")), "two\n");

        // And back.
        fs::write(path("new"), "three").unwrap();
        cp(&path("new"), &there("d")).ok();
        cp(&path("new"), &there("d/other")).ok();
        cp(&path("new"), &there("d/a")).ok();
        cp(&path("flat"), &there("d")).ok();
        cp(&path("flat"), &there("d/copy")).ok();
        cp(&path("flat/."), &there("d/e")).ok();
        for (name, wanted) in [
            ("new", "three"),
            ("other", "three"),
            ("a", "three"),
            ("flat/a", "one\n"),
            ("copy/e/b", "two\n"),
            ("e/e/b", "two\n"),
        ] {
            let output =
                cluster.orch(&["exec", "box.0", "--", "cat", &format!("{base}d/{name}")]).ok();
            assert_eq!(output.stdout, wanted, "{runtime} {name}");
        }

        // What can't be is said.
        cp(&there("d/no-such"), &path("")).code(3).says(&["no-such"]);
        cp(&path("no-such"), &there("d")).code(1).says(&["no-such"]);
        cp(&path("new"), &there("no/such/dir")).code(3).says(&["no/such"]);
        cp(&path("new"), &there("d/nodir/")).code(3).says(&["nodir"]);
        cp(&path("flat"), &there("d/a")).code(4).says(&["file"]);
        cp(&path("new"), &path("x")).code(2);
        cp(&there("d/a"), &there("d/b")).code(2);
        cp("box.7:/x", &path("")).code(3);

        // As streams, much of it, unharmed.
        let big: Vec<u8> =
            (0..20_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        fs::write(path("big"), &big).unwrap();
        cp(&path("big"), &there("d")).ok();
        fs::create_dir(path("back")).unwrap();
        cp(&there("d/big"), &path("back")).ok();
        assert!(fs::read(path("back/big")).unwrap() == big);
        let address = format!("http://{}", cluster.api_address(&follower));
        let tar = std::process::Command::new("tar")
            .args(["-C", &path(""), "-c", "new"])
            .output()
            .unwrap();
        let streamed =
            orch_with(&[("ORCH_ADDR", &address)], &["cp", "-", &there("d/e")], &tar.stdout);
        streamed.ok();
        let stream = cp(&there("d/e/new"), "-").ok();
        assert!(stream.stdout.contains("three"), "{stream}");
        let nonsense =
            orch_with(&[("ORCH_ADDR", &address)], &["cp", "-", &there("d/e")], &[b'x'; 2048]);
        assert_ne!(nonsense.code, 0, "{nonsense}");
    }
}

#[test]
fn a_process_s_files_are_those_of_its_own_directory() {
    let (cluster, _) = cluster("process");
    let here = tempfile::tempdir().unwrap();
    let to = here.path().display().to_string();
    for outside in ["/etc/passwd", "../job", "d/out/etc/passwd", "d/out/"] {
        let output = cluster.orch(&["cp", &format!("box.0:{outside}"), &to]);
        output.code(4).says(&["outside the task's own directory"]);
    }
    let file = here.path().join("evil");
    fs::write(&file, "x").unwrap();
    let file = file.display().to_string();
    cluster.orch(&["cp", &file, "box.0:d/out/tmp"]).code(4);
    cluster.orch(&["cp", &file, "box.0:/tmp/orch-it-evil"]).code(4);
    assert!(!Path::new("/tmp/orch-it-evil").exists());
}

#[test]
fn results_are_copied_out_of_what_has_ended() {
    for runtime in ["docker", "process"] {
        let cluster = Cluster::single(runtime);
        let (image, file) = match runtime {
            "docker" => (format!("image: {}\n", need_image()), "/tmp/result"),
            _ => (String::new(), "result"),
        };
        cluster.run(&format!("job: work\n{image}command: [sh, -c, 'echo 42 >{file}']\n"));
        let here = tempfile::tempdir().unwrap();
        let to = here.path().display().to_string();
        cluster.orch(&["cp", &format!("work.0:{file}"), &to]).ok();
        assert_eq!(text(here.path().join("result")), "42\n");
    }
}
