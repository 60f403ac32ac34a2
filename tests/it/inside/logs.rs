//! `orch logs -f` misses nothing and repeats nothing, whatever happens to what it follows.

use std::process::Stdio;

use super::Running;
use crate::support::docker::{docker, need_image};
use crate::support::{Cluster, LONG, command, wait_until};

/// The numbers at the ends of lines.
fn numbers(lines: &[String]) -> Vec<u64> {
    let number = |line: &String| line.rsplit(' ').next().and_then(|number| number.parse().ok());
    lines.iter().filter_map(number).collect()
}

#[track_caller]
fn contiguous(numbers: &[u64]) {
    for pair in numbers.windows(2) {
        assert_eq!(pair[0] + 1, pair[1], "of {} numbers", numbers.len());
    }
}

/// A container that counts when it is told to, and sleeps then.
fn counter(image: &str, count: u64) -> String {
    format!(
        r#"
job: counter
replicas: 1
image: {image}
command:
  - sh
  - -c
  - |
    echo ready 0
    while [ ! -e /tmp/go ]; do sleep 0.1; done
    awk 'BEGIN {{ for (i = 1; i <= {count}; i++) printf "%s %d\n", "{pad}", i }}'
    touch /tmp/done
    exec sleep 1000
stop_signal: SIGKILL
"#,
        pad = "x".repeat(150)
    )
}

#[test]
fn the_engine_s_rotation_leaves_no_gap_and_no_repeat() {
    let cluster = Cluster::single("docker");
    // Some 25 MB: the engine begins a new file twice, and keeps all of them.
    let count = 100_000;
    cluster.run(&counter(need_image(), count));
    let follower = Running::start(&cluster, "s1", &["logs", "counter", "-f"]);
    follower.wait("the first line", |lines| !lines.is_empty());
    cluster.orch(&["exec", "counter.0", "--", "touch", "/tmp/go"]).ok();
    let lines = follower.wait("all lines", |lines| lines.len() as u64 > count);
    let numbers = numbers(&lines);
    assert_eq!((numbers.len() as u64, numbers.first()), (count + 1, Some(&0)));
    contiguous(&numbers);
    let id = cluster.ps("counter")[0]["container_id"].as_str().unwrap().to_owned();
    let path = docker(&["container", "inspect", "--format", "{{.LogPath}}", &id]).unwrap();
    assert!(std::path::Path::new(&format!("{path}.2")).exists(), "{path} was not rotated twice");
    // The same of what is there already, from anywhere on.
    let tail = cluster.orch(&["logs", "counter", "--tail", "90000"]).ok();
    let tail: Vec<String> = tail.stdout.lines().map(str::to_owned).collect();
    assert_eq!(super::logs::numbers(&tail), numbers[numbers.len() - 90_000..]);
}

#[test]
fn a_reader_that_reads_nothing_holds_up_no_container() {
    let cluster = Cluster::single("docker");
    cluster.run(&counter(need_image(), 200_000));
    let address = format!("http://{}", cluster.api_address("s1"));
    let mut stuck = command(&[("ORCH_ADDR", &address)], &["logs", "counter", "-f"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    cluster.orch(&["exec", "counter.0", "--", "touch", "/tmp/go"]).ok();
    wait_until("all to be written", LONG, || {
        let done = cluster.orch(&["exec", "counter.0", "--", "ls", "/tmp/done"]);
        if done.code == 0 { Ok(()) } else { Err(done.to_string()) }
    });
    // Others are served meanwhile.
    let last = cluster.orch(&["logs", "counter", "--tail", "1"]).ok();
    assert!(last.stdout.trim_end().ends_with(" 200000"), "{last}");
    let _ = stuck.kill();
    let _ = stuck.wait();
}

/// Two containers that count as long as they live, and go on where they were.
fn tickers(image: &str, mark: &str) -> String {
    format!(
        r#"
job: ticker
replicas: 2
image: {image}
command:
  - sh
  - -c
  - |
    i=$(cat /tmp/i 2>/dev/null || echo 0)
    while :; do i=$((i+1)); echo $i >/tmp/i; echo {mark} $i; sleep 0.05; done
stop_signal: SIGKILL
"#
    )
}

fn of(copy: &str, lines: &[String]) -> Vec<String> {
    let mark = format!("ticker.{copy} | ");
    lines.iter().filter_map(|line| line.strip_prefix(&mark)).map(str::to_owned).collect()
}

#[test]
fn it_goes_on_over_kills_breaks_and_new_versions() {
    let mut cluster = Cluster::start(2);
    cluster.agent("n1", &["--runtime", "docker"]);
    let image = need_image();
    cluster.run(&tickers(image, "one"));
    let leader = cluster.leader();
    let other = cluster.servers().into_iter().find(|name| *name != leader).unwrap();
    let follower = Running::start(&cluster, &other, &["logs", "ticker", "-f"]);
    let grown = |by: usize| {
        let before = follower.lines();
        let (zero, one) = (of("0", &before).len(), of("1", &before).len());
        follower.wait("more of both copies", |lines| {
            of("0", lines).len() >= zero + by && of("1", lines).len() >= one + by
        })
    };
    grown(5);

    // A container is killed: it starts anew, and what it printed is read to its end.
    let id = cluster.ps("ticker")[0]["container_id"].as_str().unwrap().to_owned();
    docker(&["kill", &id]).unwrap();
    grown(10);

    // The agent is killed, and so its line; containers print on meanwhile.
    cluster.restart("n1");
    let lines = grown(10);
    assert!(follower.said().contains("ticker.1"), "{}", follower.said());
    for copy in ["0", "1"] {
        // A container may be killed between its file and its line.
        let mut numbers = numbers(&of(copy, &lines));
        numbers.dedup_by(|next, last| *next == *last + 2);
        assert!(numbers[0] <= 3, "{numbers:?}");
        let gaps = numbers.windows(2).filter(|pair| pair[0] + 1 != pair[1]).count();
        assert!(gaps <= usize::from(copy == "0"), "{copy}: {numbers:?}");
    }

    // A new version: copies leave and come.
    cluster.run(&tickers(image, "two"));
    let lines = follower.wait("both copies of the new version", |lines| {
        ["0", "1"]
            .iter()
            .all(|copy| of(copy, lines).iter().filter(|l| l.starts_with("two")).count() > 3)
    });
    for copy in ["0", "1"] {
        let new: Vec<String> =
            of(copy, &lines).into_iter().filter(|line| line.starts_with("two")).collect();
        assert_eq!(numbers(&new)[0], 1, "the first lines are there too: {new:?}");
        contiguous(&numbers(&new));
    }
}

#[test]
fn it_moves_with_its_job_to_another_node_and_ends_with_it() {
    let mut cluster = Cluster::start(1);
    cluster.agent("n1", &["--runtime", "process"]);
    cluster.run(
        "job: mover\nreplicas: 1\nstop_grace: 1s\n\
         command: [sh, -c, 'echo on $ORCH_NODE; while :; do sleep 1; done']\n",
    );
    let mut follower = Running::start(&cluster, "s1", &["logs", "mover", "-f"]);
    follower.wait("its first line", |lines| lines == ["on n1"]);
    cluster.agent("n2", &["--runtime", "process"]);
    cluster.orch(&["node", "drain", "n1"]).ok();
    follower.wait("its line from elsewhere", |lines| lines == ["on n1", "on n2"]);
    cluster.orch(&["stop", "mover"]).ok();
    assert_eq!(follower.end(), 0, "{}", follower.said());
}

#[test]
fn lines_are_looked_through_where_they_are() {
    for runtime in ["docker", "process"] {
        let cluster = Cluster::single(runtime);
        let image = match runtime {
            "docker" => format!("image: {}\n", need_image()),
            _ => String::new(),
        };
        cluster.run(&format!(
            "job: talk\nreplicas: 1\n{image}stop_signal: SIGKILL\n\
             command: [sh, -c, 'for i in 1 2 3 4 5 6 7 8 9 10 11 12; do echo out $i; echo Err $i >&2; done; exec sleep 1000']\n"
        ));
        let logs = |more: &[&str]| {
            let output = cluster.orch(&[&["logs", "talk"], more].concat()).ok();
            output.stdout.lines().map(str::to_owned).collect::<Vec<_>>()
        };
        wait_until("all lines", LONG, || {
            let lines = logs(&[]);
            if lines.len() == 24 { Ok(()) } else { Err(format!("{lines:?}")) }
        });
        assert_eq!(logs(&["--grep", "^out 1.$"]), ["out 10", "out 11", "out 12"]);
        assert_eq!(logs(&["--grep", "out", "--tail", "2"]), ["out 11", "out 12"]);
        assert!(logs(&["--grep", "^err"]).is_empty());
        assert_eq!(logs(&["--grep", "^err", "-i", "--tail", "1"]), ["Err 12"]);
        assert!(logs(&["--tail", "0"]).is_empty());
        cluster.orch(&["logs", "talk", "--grep", "("]).code(2).says(&["regular expression"]);
        let reply = cluster.http("s1").get("/v1/jobs/talk/logs?grep=%28");
        assert_eq!(reply.status, 400, "{}", reply.text());
        let follower =
            Running::start(&cluster, "s1", &["logs", "talk", "-f", "--grep", "OUT 9", "-i"]);
        follower.wait("the line", |lines| lines == ["out 9"]);
    }
}
