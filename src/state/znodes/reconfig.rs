//! The list of servers that clients find in `/zookeeper/config`. Clients that follow it connect to
//! what it names; who the servers of this cluster are does not depend on it.

use std::collections::BTreeMap;

use super::ops::{Done, Work};
use crate::jute::op::{ErrorCode, PERM_WRITE};
use crate::jute::request::ReconfigRequest;

const CONFIG: &str = "/zookeeper/config";

/// The lines `server.N=…` of a configuration by N, and its version.
fn read(text: &str) -> (BTreeMap<u32, String>, i64) {
    let mut servers = BTreeMap::new();
    let mut version = 0;
    for line in text.lines() {
        if let Some(number) = line.strip_prefix("version=") {
            version = i64::from_str_radix(number.trim(), 16).unwrap_or(0);
        } else if let Some(number) = server_number(line) {
            servers.insert(number, line.to_owned());
        }
    }
    (servers, version)
}

/// N of `server.N=HOST:PORT:PORT[:ROLE][;[ADDRESS:]PORT]`, if it has that form.
fn server_number(line: &str) -> Option<u32> {
    let (name, value) = line.split_once('=')?;
    let number = name.trim().strip_prefix("server.")?.parse().ok()?;
    let (quorum, client) = match value.split_once(';') {
        Some((quorum, client)) => (quorum, Some(client)),
        None => (value, None),
    };
    let mut parts = quorum.rsplitn(4, ':').collect::<Vec<_>>();
    if parts.first().is_some_and(|role| matches!(*role, "observer" | "participant")) {
        parts.remove(0);
    }
    let is_port = |text: &&str| text.trim().parse::<u16>().is_ok();
    let ports = parts.iter().take(2).filter(|port| is_port(port)).count();
    let client_fits =
        client.is_none_or(|client| client.rsplit(':').next().is_some_and(|port| is_port(&port)));
    (ports == 2 && parts.len() > 2 && client_fits).then_some(number)
}

impl Work<'_> {
    /// Changes the list; nobody but the super user may, unless its access list says otherwise.
    pub(super) fn reconfig(&mut self, request: &ReconfigRequest<'_>) -> Result<Done, ErrorCode> {
        let node = self.tree.get(CONFIG).ok_or(ErrorCode::NoNode)?.clone();
        let text = String::from_utf8_lossy(node.data().unwrap_or_default()).into_owned();
        let (mut servers, version) = read(&text);
        if request.config_id != -1 && request.config_id != version {
            return Err(ErrorCode::BadVersion);
        }
        if !request.new_members.is_empty() {
            servers.clear();
        }
        for line in request.joining.split(',').chain(request.new_members.split(',')) {
            if !line.is_empty() {
                let number = server_number(line).ok_or(ErrorCode::BadArguments)?;
                servers.insert(number, line.trim().to_owned());
            }
        }
        for number in request.leaving.split(',').filter(|number| !number.is_empty()) {
            servers.remove(&number.trim().parse().map_err(|_| ErrorCode::BadArguments)?);
        }
        self.allowed(&self.tree.acl_of(&node), PERM_WRITE)?;
        let mut lines: Vec<String> = servers.into_values().collect();
        lines.push(format!("version={:x}", self.zxid));
        let data = lines.join("\n");
        let version = node.persisted().version.wrapping_add(1);
        self.tree.set_data(CONFIG, Some(data.as_bytes()), version, self.zxid, self.at);
        let stat = self.tree.get(CONFIG).map(|node| node.stat()).unwrap_or_default();
        Ok(Done::Data { data: data.into_bytes(), stat })
    }
}
