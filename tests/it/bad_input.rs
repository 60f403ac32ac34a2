//! What users get wrong: each is told what is wrong, where, and what to write instead, and
//! nothing changes.

use serde_json::json;

use crate::support::docker::need_image;
use crate::support::{Cluster, LONG, LoopbackAddress, orch, wait_until};

#[test]
fn ten_mistakes_in_a_job_file_are_all_named_with_line_and_column() {
    let cluster = Cluster::start(1);
    let file = cluster.job_file(
        "job: Web_1\n\
         replica: 3\n\
         image: \"\"\n\
         ports: { http: 99999 }\n\
         enviroment: { A: b }\n\
         resources: { cpu: many, memory: 12Xi, dsk: 1Gi }\n\
         healthcheck: { http: /, interval: 5parsecs }\n\
         placement:\n\
         \x20 require: [\"zone = c\"]\n\
         priority: 1000\n",
    );
    let output = cluster.orch(&["run", &file]).code(1);
    let all = format!("{}{}", output.stdout, output.stderr);
    for (line, words) in [
        (1, vec!["job", "name"]),
        (2, vec!["replica", "replicas"]),
        (3, vec!["image"]),
        (4, vec!["99999"]),
        (5, vec!["enviroment", "environment"]),
        (6, vec!["many"]),
        (6, vec!["12Xi"]),
        (6, vec!["dsk", "disk"]),
        (7, vec!["5parsecs"]),
        (9, vec!["zone = c"]),
        (10, vec!["1000"]),
    ] {
        let place = format!("{line}:");
        let named = all
            .lines()
            .any(|text| text.contains(&place) && words.iter().all(|word| text.contains(word)));
        assert!(named, "line {line} with {words:?} is not named in:\n{output}");
    }
    let jobs = cluster.orch(&["status", "-o", "json"]).ok().json();
    assert_eq!(jobs, json!([]), "it changed something");
}

#[test]
fn plan_and_the_api_name_them_too() {
    let cluster = Cluster::start(1);
    let file = cluster.job_file("job: web\nimage: x\nreplcas: 2\n");
    cluster.orch(&["plan", &file]).code(1).says(&["3:1", "replcas", "replicas"]);
    let headers = [("content-type", "application/yaml")];
    let reply = cluster
        .http("s1")
        .send("POST", "/v1/jobs", &headers, b"job: web\nimage: x\nreplcas: 2\n".to_vec())
        .unwrap();
    assert!((400..500).contains(&reply.status), "{}", reply.status);
    let kind = reply.headers["content-type"].to_str().unwrap().to_owned();
    assert!(kind.starts_with("application/problem+json"), "{kind}");
    let problem = &reply.value()["problems"][0];
    assert_eq!((&problem["line"], &problem["column"]), (&json!(3), &json!(1)), "{problem}");
}

#[test]
fn usage_errors_end_with_2_and_name_the_nearest() {
    orch(&["run", "--detech", "x.yaml"]).code(2).says(&["--detech", "--detach"]);
    orch(&["statsu"]).code(2).says(&["statsu", "status"]);
    orch(&["server", "--insecure", "--api-adr", "127.0.0.1:1"]).code(2).says(&["--api-addr"]);
    orch(&["scale", "web"]).code(2);
    orch(&["scale", "web=many"]).code(2).says(&["many"]);
}

#[test]
fn what_is_not_there_ends_with_3() {
    let cluster = Cluster::start(1);
    for arguments in [
        &["status", "nothing"][..],
        &["stop", "nothing"],
        &["scale", "nothing=2"],
        &["inspect", "nothing"],
        &["history", "nothing"],
        &["logs", "nothing"],
        &["node", "drain", "nothing"],
        &["server", "remove", "nothing"],
        &["var", "get", "nothing"],
    ] {
        cluster.orch(arguments).code(3).says(&["nothing"]);
    }
    cluster.orch(&["run", "/no/such/file.yaml"]).code(1).says(&["/no/such/file.yaml"]);
}

#[test]
fn a_client_without_a_server_says_where_it_looked() {
    let nobody = LoopbackAddress::next().port(7400);
    let output =
        crate::support::orch_with(&[("ORCH_ADDR", &format!("http://{nobody}"))], &["ps"], b"");
    output.code(1).says(&[&nobody.to_string(), "ORCH_ADDR"]);
}

#[test]
fn a_server_outside_dev_wants_insecure_said() {
    let address = LoopbackAddress::next();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().display().to_string();
    let (api, rpc) = (address.port(7400).to_string(), address.port(7401).to_string());
    let output = orch(&[
        "server",
        "--name",
        "s1",
        "--data-dir",
        &path,
        "--api-addr",
        &api,
        "--rpc-addr",
        &rpc,
    ]);
    assert_ne!(output.code, 0, "{output}");
    output.says(&["--insecure"]);
    let output = orch(&["agent", "--name", "n1", "--data-dir", &path, "--join", &rpc]);
    assert_ne!(output.code, 0, "{output}");
    output.says(&["--insecure"]);
}

#[test]
fn a_taken_port_and_a_bad_directory_are_named() {
    let address = LoopbackAddress::next();
    let (api, rpc) = (address.port(7400).to_string(), address.port(7401).to_string());
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("a-file");
    std::fs::write(&file, "x").unwrap();
    let server = |data: &std::path::Path| {
        let data = data.display().to_string();
        orch(&[
            "server",
            "--name",
            "s1",
            "--insecure",
            "--data-dir",
            &data,
            "--api-addr",
            &api,
            "--rpc-addr",
            &rpc,
        ])
    };
    let output = server(&file.join("below"));
    assert_ne!(output.code, 0, "{output}");
    output.says(&["a-file"]);
    let _taken = std::net::TcpListener::bind(&api).unwrap();
    let output = server(&directory.path().join("data"));
    assert_ne!(output.code, 0, "{output}");
    output.says(&[&api, "in use"]);
}

#[test]
fn names_that_are_too_long_and_bodies_that_are_too_large() {
    let cluster = Cluster::start(1);
    let long = "x".repeat(64);
    let file = cluster.job_file(&format!("job: {long}\nimage: x\n"));
    cluster.orch(&["run", &file]).code(1).says(&["63"]);
    let http = cluster.http("s1");
    let reply = http.send("PUT", "/v1/variables/big", &[], vec![b'x'; 3 << 20]).unwrap();
    assert_eq!(reply.status, 413, "{}", reply.text());
    assert_eq!(reply.value()["status"], 413);
    let reply = http.send("PUT", "/v1/variables/big", &[], vec![b'x'; (64 << 10) + 1]).unwrap();
    assert!((400..500).contains(&reply.status), "{}", reply.text());
    let path = format!("/v1/variables/{}", "x".repeat(600));
    let reply = http.send("PUT", &path, &[], b"1".to_vec()).unwrap();
    assert!((400..500).contains(&reply.status), "{}", reply.text());
    // It is still there.
    http.get("/readyz").ok();
}

#[test]
fn requests_that_make_no_sense_get_problem_details() {
    let cluster = Cluster::start(1);
    let http = cluster.http("s1");
    let json = [("content-type", "application/json")];
    for (method, path, headers, body, status) in [
        ("GET", "/v1/nothing", &[][..], "", 404),
        ("PATCH", "/v1/jobs", &[], "", 405),
        ("POST", "/v1/jobs", &json, "{", 400),
        ("GET", "/v1/jobs?limit=many", &[], "", 400),
        ("GET", "/v1/jobs?cursor=%00%ff", &[], "", 400),
        ("GET", "/v1/jobs?consistency=maybe", &[], "", 400),
        ("GET", "/v1/jobs/none", &[], "", 404),
    ] {
        let reply = http.send(method, path, headers, body.as_bytes().to_vec()).unwrap();
        let what = format!("{method} {path}: {} {}", reply.status, reply.text());
        let close = reply.status == status || (status == 400 && reply.status == 422);
        assert!(close, "expected {status}: {what}");
        let kind = reply.headers.get("content-type").and_then(|k| k.to_str().ok()).unwrap_or("");
        assert!(kind.starts_with("application/problem+json"), "{kind}: {what}");
        let problem = reply.value();
        for key in ["type", "title", "status", "detail", "code"] {
            assert!(!problem[key].is_null(), "{key}: {what}");
        }
    }
}

#[test]
fn an_image_that_does_not_exist_is_named_with_the_engines_message_and_tried_again() {
    let cluster = Cluster::single("docker");
    // Nobody listens there: the engine says so at once.
    cluster.submit("job: ghost\nreplicas: 1\nimage: 127.0.0.1:1/no/such:image\n");
    wait_until("the image to be named with the reason", LONG, || {
        let output = cluster.orch(&["status", "ghost"]);
        let all = format!("{}{}", output.stdout, output.stderr);
        let said = all.contains("127.0.0.1:1/no/such:image") && all.contains("refused");
        if said { Ok(()) } else { Err(output.to_string()) }
    });
    let before = cluster.ps("ghost");
    wait_until("another try", LONG, || {
        let rows = cluster.ps("ghost");
        let log = cluster.log("n1");
        let tries = log.matches("127.0.0.1:1/no/such:image").count();
        let moved = rows != before || tries > 1;
        if moved { Ok(()) } else { Err(format!("{rows:?}")) }
    });
}

#[test]
fn a_volume_outside_the_allowed_roots_is_refused_in_words() {
    let mut cluster = Cluster::start(1);
    cluster.agent("n1", &["--runtime", "docker", "--volume-root", "/srv"]);
    let image = need_image();
    cluster.submit(&format!(
        "job: spy\nreplicas: 1\nimage: {image}\ncommand: sleep 1000\nvolumes: [\"/etc:/host-etc\"]\n"
    ));
    wait_until("the reason", LONG, || {
        let output = cluster.orch(&["status", "spy"]).ok();
        let said = output.stdout.contains("/etc") && output.stdout.contains("root");
        if said { Ok(()) } else { Err(output.to_string()) }
    });
    assert!(cluster.ps("spy").iter().all(|row| row["state"] != "running"));
    // A way around by dots is none.
    let file = cluster.job_file(&format!(
        "job: sly\nreplicas: 1\nimage: {image}\nvolumes: [\"/srv/../etc:/host-etc\"]\n"
    ));
    let output = cluster.orch(&["run", "--detach", &file]);
    if output.code == 0 {
        std::thread::sleep(std::time::Duration::from_secs(1));
        assert!(cluster.ps("sly").iter().all(|row| row["state"] != "running"), "{output}");
    }
}

#[test]
fn a_job_that_can_never_fit_is_said_to_at_once() {
    let mut cluster = Cluster::start(1);
    cluster.agent("n1", &["--runtime", "process", "--cpu", "2", "--memory", "1Gi"]);
    let file = cluster.job_file(
        "job: huge\nreplicas: 1\ncommand: sleep 1000\nresources: { cpu: 1, memory: 512Gi }\n",
    );
    cluster.orch(&["plan", &file]).says(&["memory"]);
    let output = cluster.orch(&["run", &file]);
    assert_ne!(output.code, 0, "{output}");
    output.says(&["memory", "n1"]);
    let file = cluster.job_file(
        "job: nowhere\nreplicas: 1\ncommand: sleep 1000\nplacement: { require: [\"attr.zone == moon\"] }\n",
    );
    cluster.orch(&["run", "--detach", &file]);
    wait_until("status to say why", LONG, || {
        let output = cluster.orch(&["status", "nowhere"]).ok();
        let said = output.stdout.contains("attr.zone == moon") && output.stdout.contains('1');
        if said { Ok(()) } else { Err(output.to_string()) }
    });
}

#[test]
fn a_host_port_that_is_taken_is_an_error_in_words() {
    let mut cluster = Cluster::start(1);
    let address = cluster.agent("n1", &["--runtime", "docker"]);
    let taken = std::net::TcpListener::bind(address.port(18_080)).unwrap();
    let image = need_image();
    let job = |name: &str| {
        format!(
            "job: {name}\nreplicas: 1\nimage: {image}\ncommand: sleep 1000\n\
             ports: {{ http: \"18080:80\" }}\nstop_signal: SIGKILL\n"
        )
    };
    cluster.submit(&job("first"));
    wait_until("the port to be named", LONG, || {
        let output = cluster.orch(&["status", "first"]).ok();
        if output.stdout.contains("18080") && output.stdout.contains("in use") {
            Ok(())
        } else {
            Err(output.to_string())
        }
    });
    // Once it is free, the next try succeeds.
    drop(taken);
    cluster.wait_healthy("first", 1);
    // Between jobs the cluster itself knows.
    cluster.submit(&job("second"));
    wait_until("the reason", LONG, || {
        let output = cluster.orch(&["status", "second"]).ok();
        if output.stdout.contains("18080") { Ok(()) } else { Err(output.to_string()) }
    });
}
