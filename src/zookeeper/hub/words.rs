//! The answers to four-letter words, in the form that tools read.

use std::fmt::Write as _;

use super::{Conn, Hub, Stage};
use crate::jute::op::Op;
use crate::state::znodes::Tree;

/// What the tools that read these answers know: the newest ZooKeeper whose protocol is spoken.
const VERSION: &str = "3.9.3-orch";

impl Hub {
    /// The answer to a word.
    pub(super) fn word(&mut self, word: &str) -> String {
        match word {
            "ruok" => "imok".to_owned(),
            "isro" => if self.has_leader() { "rw" } else { "ro" }.to_owned(),
            "srvr" => self.server(false),
            "stat" => self.server(true),
            "mntr" => self.monitor(),
            "cons" => self.conns.values().map(|conn| line(conn, true)).collect::<String>() + "\n",
            "crst" => {
                for conn in self.conns.values_mut() {
                    (conn.figures.received, conn.figures.sent) = (0, 0);
                }
                "Connection stats reset.\n".to_owned()
            }
            "srst" => {
                (self.received, self.sent, self.latency) = (0, 0, super::Latency::default());
                "Server stats reset.\n".to_owned()
            }
            "conf" => self.settings(),
            "envi" => format!(
                "Environment:\nzookeeper.version={VERSION}\nos.name={}\nos.arch={}\n",
                std::env::consts::OS,
                std::env::consts::ARCH
            ),
            "dirs" => {
                // What it weighs here: there is no directory for it alone.
                format!("datadir_size: {}\nlogdir_size: 0\n", self.tree().data_bytes())
            }
            "dump" => self.dump(),
            "hash" => {
                let tree = self.tree();
                format!(
                    "zxid: 0x{:x} digest version: 2 digest: 0x{:x}\n",
                    tree.zxid(),
                    tree.digest()
                )
            }
            "wchs" => {
                let (watches, paths, conns) = self.watches.counts();
                format!("{conns} connections watching {paths} paths\nTotal watches:{watches}\n")
            }
            "wchc" => {
                let mut text = String::new();
                for id in self.watches.conns() {
                    let session = self.conns.get(&id).map_or(0, |conn| conn.session);
                    let _ = writeln!(text, "0x{session:x}");
                    for path in self.watches.paths_of(id) {
                        let _ = writeln!(text, "\t{path}");
                    }
                }
                text + "\n"
            }
            "wchp" => {
                let mut by_path = std::collections::BTreeMap::<_, Vec<i64>>::new();
                for id in self.watches.conns() {
                    let session = self.conns.get(&id).map_or(0, |conn| conn.session);
                    for path in self.watches.paths_of(id) {
                        by_path.entry(path.clone()).or_default().push(session);
                    }
                }
                let mut text = String::new();
                for (path, mut sessions) in by_path {
                    let _ = writeln!(text, "{path}");
                    sessions.dedup();
                    for session in sessions {
                        let _ = writeln!(text, "\t0x{session:x}");
                    }
                }
                text + "\n"
            }
            "gtmk" => "0".to_owned(),
            "stmk" => "0".to_owned(),
            _ => String::new(),
        }
    }

    fn mode(&self) -> &'static str {
        let leadership = self.around.leadership.borrow().clone();
        match (self.around.consensus.server_addrs().len(), leadership.leader) {
            (_, None) => "read-only",
            (0 | 1, Some(_)) => "standalone",
            (_, Some(leader)) if leader.id == self.around.consensus.me().id => "leader",
            _ => "follower",
        }
    }

    fn outstanding(&self) -> usize {
        self.conns.values().map(|conn| conn.pipeline.len()).sum()
    }

    fn server(&self, with_clients: bool) -> String {
        let tree = self.tree();
        let mut text = format!("Zookeeper version: {VERSION}, built on orch\n");
        if with_clients {
            text.push_str("Clients:\n");
            for conn in self.conns.values() {
                text.push_str(&line(conn, false));
            }
            text.push('\n');
        }
        let (min, avg, max) = self.latency.figures();
        let _ = write!(
            text,
            "Latency min/avg/max: {min}/{avg:.4}/{max}\nReceived: {}\nSent: {}\nConnections: {}\n\
             Outstanding: {}\nZxid: 0x{:x}\nMode: {}\nNode count: {}\n",
            self.received,
            self.sent,
            self.conns.len(),
            self.outstanding(),
            tree.zxid(),
            self.mode(),
            tree.node_count(),
        );
        text
    }

    fn monitor(&self) -> String {
        let tree: &Tree = self.tree();
        let (watches, ..) = self.watches.counts();
        let (min, avg, max) = self.latency.figures();
        let uptime = self.started.elapsed().as_millis();
        let rows: [(&str, String); 18] = [
            ("version", format!("{VERSION}, built on orch")),
            ("server_state", self.mode().to_owned()),
            ("uptime", uptime.to_string()),
            ("num_alive_connections", self.conns.len().to_string()),
            ("outstanding_requests", self.outstanding().to_string()),
            ("packets_received", self.received.to_string()),
            ("packets_sent", self.sent.to_string()),
            ("min_latency", min.to_string()),
            ("avg_latency", format!("{avg:.4}")),
            ("max_latency", max.to_string()),
            ("znode_count", tree.node_count().to_string()),
            ("ephemerals_count", tree.ephemeral_count().to_string()),
            ("approximate_data_size", tree.data_bytes().to_string()),
            ("watch_count", watches.to_string()),
            ("global_sessions", tree.session_count().to_string()),
            ("local_sessions", self.conns.values().filter(|c| c.is_local).count().to_string()),
            ("read_only", i32::from(!self.has_leader()).to_string()),
            ("peer_state", "serving".to_owned()),
        ];
        rows.iter().map(|(name, value)| format!("zk_{name}\t{value}\n")).collect()
    }

    fn settings(&self) -> String {
        let config = &self.around.config;
        format!(
            "clientPort={}\nsecureClientPort={}\ndataDir=\ndataLogDir=\ntickTime={}\nmaxClientCnxns={}\n\
             minSessionTimeout={}\nmaxSessionTimeout={}\njute.maxbuffer={}\n",
            config.addr.map_or(0, |addr| addr.port()),
            config.tls.as_ref().map_or(0, |(addr, _)| addr.port()),
            config.tick.0,
            config.max_connections_per_address,
            config.tick.0 * 2,
            config.tick.0 * 20,
            config.max_request,
        )
    }

    fn dump(&self) -> String {
        let tree = self.tree();
        let mut text = format!("SessionTracker dump:\nSessions ({}):\n", tree.session_count());
        for (id, session) in tree.sessions() {
            let _ = writeln!(text, "0x{id:x}\t{}ms", session.timeout);
        }
        text.push_str("ephemeral nodes dump:\n");
        let owners = tree.sessions().filter(|(id, _)| tree.ephemerals_of(*id).next().is_some());
        let owners: Vec<i64> = owners.map(|(id, _)| id).collect();
        let _ = writeln!(text, "Sessions with Ephemerals ({}):", owners.len());
        for id in owners {
            let _ = writeln!(text, "0x{id:x}:");
            for path in tree.ephemerals_of(id) {
                let _ = writeln!(text, "\t{path}");
            }
        }
        let open = self.conns.values().filter(|conn| conn.stage == Stage::Open);
        let _ = writeln!(text, "Connections dump:\nConnections ({}):", open.count());
        text
    }
}

/// One connection on one line.
fn line(conn: &Conn, long: bool) -> String {
    let figures = &conn.figures;
    let mut text = format!(
        " {}[1](queued={},recved={},sent={}",
        conn.peer,
        conn.pipeline.len(),
        figures.received,
        figures.sent
    );
    if long && conn.session != 0 {
        let op = figures.last_op.map_or("NA", short);
        let _ = write!(
            text,
            ",sid=0x{:x},lop={op},est={},to={},lcxid=0x{:x}",
            conn.session,
            figures.since.elapsed().as_millis(),
            conn.timeout,
            figures.last_xid
        );
    }
    text + ")\n"
}

/// The four letters by which ZooKeeper calls an operation.
fn short(op: Op) -> &'static str {
    match op {
        Op::Create | Op::Create2 | Op::CreateContainer | Op::CreateTtl => "CREA",
        Op::Delete | Op::DeleteContainer => "DELE",
        Op::Exists => "EXIS",
        Op::GetData => "GETD",
        Op::SetData => "SETD",
        Op::GetAcl => "GETA",
        Op::SetAcl => "SETA",
        Op::GetChildren | Op::GetChildren2 => "GETC",
        Op::Sync => "SYNC",
        Op::Ping => "PING",
        Op::Check => "CHEC",
        Op::Multi => "MULT",
        Op::MultiRead => "MLTR",
        Op::SetWatches | Op::SetWatches2 => "SETW",
        Op::AddWatch => "ADDW",
        Op::CheckWatches => "CHKW",
        Op::RemoveWatches => "REMW",
        Op::CreateSession => "SESS",
        Op::CloseSession => "CLOS",
        Op::GetEphemerals => "GETE",
        Op::GetAllChildrenNumber => "GETACN",
        _ => "NA",
    }
}
