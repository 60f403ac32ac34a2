//! `orch port-forward`: a copy's ports reachable from here, through any server.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};

use super::Running;
use crate::support::docker::need_image;
use crate::support::{Cluster, Http, LONG, wait_until};

/// The address that is listened on, of the line that says so.
fn address(line: &str) -> String {
    line.split(" -> ").next().unwrap().to_owned()
}

fn page(address: &str) -> Result<String, String> {
    let reply = Http::new(address).try_get("/")?;
    if reply.status == 200 { Ok(reply.text()) } else { Err(reply.text()) }
}

#[test]
fn a_port_is_reached_through_a_server_that_follows_and_follows_the_copy() {
    let mut cluster = Cluster::start(2);
    cluster.agent("n1", &["--runtime", "docker"]);
    let web = |mark: &str| {
        format!(
            "job: web\nreplicas: 1\nimage: {}\nports: {{ http: 8080 }}\nstop_signal: SIGKILL\n\
             command: [sh, -c, 'echo {mark} >/www/index.html; httpd -p 8081 -h /www; exec httpd -f -p 8080 -h /www']\n",
            need_image()
        )
    };
    cluster.run(&web("one"));
    let leader = cluster.leader();
    let follower = cluster.servers().into_iter().find(|name| *name != leader).unwrap();
    // By name, by the number inside, and one that is not published at all.
    let forward =
        Running::start(&cluster, &follower, &["port-forward", "web.0", ":http", ":8080", ":8081"]);
    let lines = forward.wait("its addresses", |lines| lines.len() == 3);
    for line in &lines {
        assert!(line.starts_with("127.0.0.1:") && line.contains("web.0:"), "{line}");
        wait_until("the page", LONG, || page(&address(line)).map(|page| assert_eq!(page, "one\n")));
    }
    // Many at once.
    let to = address(&lines[0]);
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                for _ in 0..5 {
                    assert_eq!(page(&to).unwrap(), "one\n");
                }
            });
        }
    });
    // The copy is replaced: new connections go to the new one.
    cluster.run(&web("two"));
    for line in &lines {
        wait_until("the new page", LONG, || match page(&address(line)) {
            Ok(page) if page == "two\n" => Ok(()),
            other => Err(format!("{other:?}")),
        });
    }
    // A port nobody listens on closes the connection, and says why.
    let dead = Running::start(&cluster, &follower, &["port-forward", "web.0", ":9"]);
    let line = dead.wait("its address", |lines| lines.len() == 1).remove(0);
    let mut stream = TcpStream::connect(address(&line)).unwrap();
    assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0);
    wait_until("the reason", LONG, || {
        if dead.said().contains("port 9: ") { Ok(()) } else { Err(dead.said()) }
    });
    cluster.orch(&["port-forward", "web.7", ":80"]).code(3);
    let taken = address(&lines[0]);
    let taken = format!("{}:80", taken.rsplit(':').next().unwrap());
    cluster.orch(&["port-forward", "web.0", &taken]).code(1).says(&["can't listen"]);
}

#[test]
fn each_end_of_a_connection_is_closed_by_itself() {
    let cluster = Cluster::single("docker");
    // Answers once it has heard the end of what it is told.
    cluster.run(&format!(
        "job: count\nreplicas: 1\nimage: {}\nstop_signal: SIGKILL\n\
         command: [sh, -c, 'printf \"#!/bin/sh\\nwc -c\\n\" >/bin/answer; chmod 755 /bin/answer; exec nc -ll -p 7000 -e /bin/answer']\n",
        need_image()
    ));
    let forward = Running::start(&cluster, "s1", &["port-forward", "count.0", ":7000"]);
    let to = address(&forward.wait("its address", |lines| lines.len() == 1)[0]);
    let text = vec![b'x'; 3_000_000];
    wait_until("the answer", LONG, || {
        let mut stream = TcpStream::connect(&to).map_err(|error| error.to_string())?;
        stream.write_all(&text).map_err(|error| error.to_string())?;
        stream.shutdown(Shutdown::Write).map_err(|error| error.to_string())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).map_err(|error| error.to_string())?;
        if answer.trim() == "3000000" {
            Ok(())
        } else {
            Err(format!("{answer:?} {}", forward.said()))
        }
    });
}

#[test]
fn a_process_s_ports_are_those_that_it_was_given() {
    let cluster = Cluster::single("process");
    let busybox = crate::support::docker::static_busybox().unwrap();
    // On its own address alone: agents of other tests give out the same numbers.
    let own = cluster.member("n1").address;
    cluster.run(&format!(
        "job: web\nreplicas: 1\nports: {{ http: {{}} }}\nstop_grace: 1s\n\
         command: [sh, -c, 'echo mine >index.html; exec {busybox} httpd -f -p {own}:$PORT_HTTP']\n"
    ));
    let forward = Running::start(&cluster, "s1", &["port-forward", "web.0", ":http"]);
    let line = forward.wait("its address", |lines| lines.len() == 1).remove(0);
    wait_until("the page", LONG, || page(&address(&line)).map(|page| assert_eq!(page, "mine\n")));
    let other = Running::start(&cluster, "s1", &["port-forward", "web.0", ":22"]);
    let line = other.wait("its address", |lines| lines.len() == 1).remove(0);
    let mut stream = TcpStream::connect(address(&line)).unwrap();
    assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0);
    wait_until("the reason", LONG, || {
        if other.said().contains("was not given to the job") { Ok(()) } else { Err(other.said()) }
    });
}
