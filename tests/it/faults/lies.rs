//! That the tests here would find a disk that says it has synced and has not.

use std::sync::Arc;

use super::clients::{Clients, Plan};
use super::history::History;
use super::servers::{Servers, Setup};
use crate::support::{LONG, wait_until};

#[test]
fn a_disk_that_lies_is_found_out() {
    let mut servers =
        Servers::start(Setup { count: 1, preload: true, lies: true, ..Setup::default() });
    let history = Arc::new(History::new(&servers.path().join("history.jsonl")));
    let clients = Clients::start(servers.doors(), history.clone(), Plan::default(), 1);
    wait_until("writes", LONG, || {
        let written = history.written();
        if written >= 100 { Ok(()) } else { Err(format!("{written}")) }
    });
    servers.lose_power(0, 1);
    servers.start_again(0);
    let refused = wait_until("it to start, or to refuse to", LONG, || {
        if servers.has_ended(0) {
            return Ok(true);
        }
        match servers.http("GET", 0, "/readyz")? {
            (200, _) => Ok(false),
            (status, _) => Err(format!("{status}")),
        }
    });
    if refused {
        let log = servers.log(0);
        assert!(log.contains("damaged"), "it says why:\n{log}");
        return;
    }
    clients.finish();
    let what = history.judge().expect_err("what was acknowledged is gone");
    println!("{what}");
}
