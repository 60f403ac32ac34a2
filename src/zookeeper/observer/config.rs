//! An ensemble's members, as it writes them into `/zookeeper/config`.

/// A member of an ensemble.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnsembleServer {
    /// Its number.
    pub id: i64,
    /// `host:port` where learners reach it when it leads.
    pub quorum: String,
    /// Whether it votes.
    pub votes: bool,
    /// `host:port` where clients reach it, if that is said; the host may stand for all.
    pub client: Option<String>,
}

/// Reads the data of `/zookeeper/config`, or the lines of a `zoo.cfg`:
/// `server.ID=HOST:QUORUM:ELECTION[:ROLE][|…][;[CLIENT-HOST:]CLIENT-PORT]`. Lines that are none
/// are left out.
pub fn read_config(text: &str) -> Vec<EnsembleServer> {
    text.lines().filter_map(read_line).collect()
}

fn read_line(line: &str) -> Option<EnsembleServer> {
    let (key, value) = line.trim().split_once('=')?;
    let id = key.trim().strip_prefix("server.")?.parse().ok()?;
    let (addresses, client) = match value.trim().split_once(';') {
        Some((addresses, client)) => (addresses, Some(client.trim())),
        None => (value.trim(), None),
    };
    // Of several addresses each is as good.
    let first = addresses.split('|').next()?;
    let (host, rest) = split_host(first)?;
    let mut rest = rest.split(':');
    let port: u16 = rest.next()?.trim().parse().ok()?;
    let votes = addresses.rsplit(':').next()?.trim() != "observer";
    let client = client.filter(|client| !client.is_empty()).map(|client| {
        if client.contains(':') { client.to_owned() } else { format!("{host}:{client}") }
    });
    Some(EnsembleServer { id, quorum: format!("{host}:{port}"), votes, client })
}

/// Host and what follows it; an IPv6 address stands in brackets.
fn split_host(address: &str) -> Option<(&str, &str)> {
    let end = address.rfind(']').map_or(0, |at| at + 1);
    let colon = end + address[end..].find(':')?;
    Some((address[..colon].trim(), &address[colon + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_read_as_ensembles_write_them() {
        let text = "server.1=10.0.0.1:2888:3888:participant;0.0.0.0:2181\n\
                    server.2=zk-2:2889:3888;2182\n\
                    server.3=[::1]:2888:3888:observer\n\
                    server.4=a:2888:3888|b:2889:3889:participant;c:2181\n\
                    # a line of zoo.cfg\ntickTime=2000\nserver.x=a:1:2\nserver.9=nothing\n\
                    version=100000000";
        let server = |id, quorum: &str, votes, client: Option<&str>| {
            let client = client.map(str::to_owned);
            EnsembleServer { id, quorum: quorum.to_owned(), votes, client }
        };
        assert_eq!(
            read_config(text),
            [
                server(1, "10.0.0.1:2888", true, Some("0.0.0.0:2181")),
                server(2, "zk-2:2889", true, Some("zk-2:2182")),
                server(3, "[::1]:2888", false, None),
                server(4, "a:2888", true, Some("c:2181")),
            ]
        );
    }
}
