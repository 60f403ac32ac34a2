//! Client ports of an ensemble, as they are seen from here: open, or closed for certain.

use std::net::SocketAddr;
use std::time::Duration;

use futures::future::join_all;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout};

use crate::api::view::zk::{ZkMember, ZkPortSeen};
use crate::cli::failure::{Exit, Failure};
use crate::limits::ZK_PORT_SILENCE_MS;

/// How long an answer is waited for at each look.
const ANSWER_WAIT: Duration = Duration::from_secs(1);
/// For so long a port must not be reached that refuses nobody, ...
const SILENCE: Duration = Duration::from_millis(ZK_PORT_SILENCE_MS);
/// ... and at so many looks in a row.
const SILENT_LOOKS: u32 = 3;
/// How often a port is looked at that is to be open: the first packet may get lost.
const LOOKS_FOR_OPEN: u32 = 3;

/// What came of looking at a port.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Look {
    /// It takes connections.
    Open,
    /// It refuses them.
    Refused,
    /// It can't be reached, which a firewall or a broken way may be the reason of.
    Silent(String),
    /// It could not be looked at from here.
    Unknown(String),
}

/// A port, and how it was lately.
#[derive(Debug)]
struct Port {
    address: String,
    last: Look,
    /// The first of the looks in a row at which nobody could connect, and how many these are.
    shut: Option<(Instant, u32)>,
    /// It was told that its silence is taken for closed.
    told: bool,
}

/// All client ports that are watched.
#[derive(Debug)]
pub(super) struct Ports {
    each: Vec<Port>,
}

impl Ports {
    /// Looks at each of them, several times at those that are not open.
    pub(super) async fn new(addresses: &[String]) -> Self {
        let looks = join_all(addresses.iter().map(|address| async move {
            let mut last = look(address).await;
            for _ in 1..LOOKS_FOR_OPEN {
                if last == Look::Open {
                    break;
                }
                last = look(address).await;
            }
            last
        }));
        let looks = looks.await.into_iter();
        let each = addresses.iter().zip(looks).map(|(address, last)| {
            let address = address.clone();
            Port { address, last, shut: None, told: false }
        });
        Self { each: each.collect() }
    }

    /// All of them.
    pub(super) fn names(&self) -> String {
        let names: Vec<&str> = self.each.iter().map(|port| port.address.as_str()).collect();
        names.join(", ")
    }

    /// Those that were open at the last look.
    pub(super) fn open(&self) -> Vec<String> {
        let open = self.each.iter().filter(|port| port.last == Look::Open);
        open.map(|port| port.address.clone()).collect()
    }

    /// Those that were not, and how they were.
    pub(super) fn not_open(&self) -> Vec<String> {
        let not = self.each.iter().filter(|port| port.last != Look::Open);
        not.map(Port::to_string).collect()
    }

    /// Those that are not closed for certain, and how they are.
    pub(super) fn not_closed(&self, now: Instant) -> Vec<String> {
        let not = self.each.iter().filter(|port| !port.is_closed(now));
        not.map(Port::to_string).collect()
    }

    /// Since when nobody could connect to any of them, if all are closed for certain.
    pub(super) fn closed_since(&self, now: Instant) -> Option<Instant> {
        let since = self
            .each
            .iter()
            .map(|port| port.shut.map(|(since, _)| since).filter(|_| port.is_closed(now)));
        since.collect::<Option<Vec<Instant>>>()?.into_iter().max()
    }

    /// Looks again at each. What people should know comes back.
    pub(super) async fn look(&mut self) -> Vec<String> {
        let began = Instant::now();
        let looks = join_all(self.each.iter().map(|port| look(&port.address))).await;
        self.take(looks, began, Instant::now())
    }

    /// Takes looks that were begun at one time and are over at the other.
    fn take(&mut self, looks: Vec<Look>, began: Instant, now: Instant) -> Vec<String> {
        let mut remarks = Vec::new();
        for (port, look) in self.each.iter_mut().zip(looks) {
            port.shut = match (&look, port.shut) {
                (Look::Open | Look::Unknown(_), _) => None,
                (_, Some((since, count))) => Some((since, count + 1)),
                (_, None) => Some((began, 1)),
            };
            port.last = look;
            if let Look::Silent(why) = &port.last
                && port.is_closed(now)
                && !port.told
            {
                port.told = true;
                remarks.push(format!(
                    "note: {} refuses nobody, but could not be reached for {} s ({why}): it is \
                     taken for closed",
                    port.address,
                    SILENCE.as_secs()
                ));
            }
        }
        remarks
    }

    /// Refuses if one of them was never seen open from this machine while the migration went on:
    /// it may be the wrong one, or be out of reach from here, and would look closed for ever.
    pub(super) fn must_have_been_open(
        &self,
        seen: &[ZkPortSeen],
        from: &str,
    ) -> Result<(), Failure> {
        let mut strange = Vec::new();
        for port in &self.each {
            let mut before = seen.iter().filter(|seen| seen.address == port.address);
            if port.last == Look::Open || before.clone().any(|seen| seen.from == from) {
                continue;
            }
            let elsewhere = before.next().map_or(String::new(), |seen| {
                format!("; it was from {} at {}", seen.from, seen.at)
            });
            strange.push(format!("  {port}{elsewhere}"));
        }
        if strange.is_empty() {
            return Ok(());
        }
        let what = format!(
            "client ports: these were never seen open from this machine ({from}) during this \
             migration, so that nothing tells whether they are closed"
        );
        Err(Failure::new(Exit::REFUSED, what).details(strange.join("\n")).hint(
            "start those servers, or open their client ports to this machine; or name the right \
             ports with --client-ports; or go on from a machine that can see them; --force goes \
             on nevertheless",
        ))
    }
}

impl Port {
    fn is_closed(&self, now: Instant) -> bool {
        match (&self.last, self.shut) {
            (Look::Refused, Some(_)) => true,
            (Look::Silent(_), Some((since, looks))) => {
                looks >= SILENT_LOOKS && now.duration_since(since) >= SILENCE
            }
            _ => false,
        }
    }
}

impl std::fmt::Display for Port {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let address = &self.address;
        match &self.last {
            Look::Open => write!(f, "{address}: open"),
            Look::Refused => write!(f, "{address}: refuses connections"),
            Look::Silent(why) => write!(f, "{address}: can't be reached ({why})"),
            Look::Unknown(why) => write!(f, "{address}: can't be looked at ({why})"),
        }
    }
}

/// Looks at every address that the name stands for: one that is open is enough for clients.
async fn look(server: &str) -> Look {
    let addresses: Vec<SocketAddr> = match timeout(ANSWER_WAIT, lookup_host(server)).await {
        Ok(Ok(found)) => found.collect(),
        Ok(Err(error)) => return Look::Unknown(format!("its name is not found: {error}")),
        Err(_) => return Look::Unknown("its name is not found in time".to_owned()),
    };
    worst(join_all(addresses.into_iter().map(look_at)).await)
}

async fn look_at(address: SocketAddr) -> Look {
    use std::io::ErrorKind::{
        ConnectionAborted, ConnectionRefused, ConnectionReset, HostUnreachable, NetworkUnreachable,
        TimedOut,
    };
    let error = match timeout(ANSWER_WAIT, TcpStream::connect(address)).await {
        Ok(Ok(_)) => return Look::Open,
        Ok(Err(error)) => error,
        Err(_) => return Look::Silent("no answer".to_owned()),
    };
    match error.kind() {
        ConnectionRefused => Look::Refused,
        ConnectionAborted | ConnectionReset | HostUnreachable | NetworkUnreachable | TimedOut => {
            Look::Silent(error.to_string())
        }
        _ => Look::Unknown(error.to_string()),
    }
}

/// What several addresses of one name come to.
fn worst(looks: Vec<Look>) -> Look {
    let rank = |look: &Look| match look {
        Look::Refused => 0,
        Look::Silent(_) => 1,
        Look::Unknown(_) => 2,
        Look::Open => 3,
    };
    let nothing = || Look::Unknown("its name stands for no address".to_owned());
    looks.into_iter().max_by_key(rank).unwrap_or_else(nothing)
}

/// The ports to watch: those that the operator names, now or at the start, or else those that the
/// ensemble itself names.
pub(super) fn to_watch(
    given: Option<Vec<String>>,
    members: &[ZkMember],
) -> Result<Vec<String>, Failure> {
    if let Some(given) = given {
        return Ok(given);
    }
    let named: Vec<String> = members.iter().filter_map(client_port).collect();
    if named.is_empty() || named.len() < members.len() {
        return Err(Failure::usage("nobody said where the ensemble's clients connect")
            .hint("name the ports with --client-ports zk1:2181,zk2:2181,zk3:2181"));
    }
    Ok(named)
}

/// Where clients reach a member, as the ensemble's own list has it.
fn client_port(member: &ZkMember) -> Option<String> {
    let client = member.client.as_deref()?;
    let (host, port) = client.rsplit_once(':')?;
    let all = matches!(host, "0.0.0.0" | "[::]" | "[0:0:0:0:0:0:0:0]" | "");
    let (own, _) = member.quorum.rsplit_once(':')?;
    Some(format!("{}:{port}", if all { own } else { host }))
}

/// What is to be said if the ensemble has more members than ports are watched.
pub(super) fn unwatched(watched: &[String], members: &[ZkMember]) -> Option<String> {
    if members.len() <= watched.len() {
        return None;
    }
    let named = |member: &ZkMember| format!("server.{} at {}", member.id, member.quorum);
    let names: Vec<String> = members.iter().map(named).collect();
    Some(format!(
        "warning: the ensemble's /zookeeper/config lists {} servers ({}), and {} watched: what \
         clients write through a port that is not watched, and stays open, is lost with the \
         cut-over; name all with --client-ports",
        members.len(),
        names.join(", "),
        match watched.len() {
            1 => "1 client port is".to_owned(),
            count => format!("{count} client ports are"),
        }
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::view::time::Time;
    use crate::model::time::Timestamp;

    fn ports(looks: Vec<Look>) -> Ports {
        let each = ('a'..).zip(looks).map(|(name, last)| Port {
            address: format!("{name}:2181"),
            last,
            shut: None,
            told: false,
        });
        Ports { each: each.collect() }
    }

    fn silent() -> Look {
        Look::Silent("no answer".to_owned())
    }

    #[test]
    fn refused_is_closed_and_silence_only_if_it_lasts() {
        let mut both = ports(vec![Look::Open, Look::Open]);
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        assert_eq!(both.closed_since(start), None);
        // Nobody knows yet whether the second one's silence lasts.
        assert!(both.take(vec![Look::Refused, silent()], at(0), at(1000)).is_empty());
        assert_eq!(both.not_closed(at(1000)), ["b:2181: can't be reached (no answer)"]);
        both.take(vec![Look::Refused, silent()], at(1000), at(2000));
        let remarks = both.take(vec![Look::Refused, silent()], at(2000), at(3000));
        assert!(remarks[0].contains("b:2181") && remarks[0].contains("taken for closed"));
        assert_eq!(both.closed_since(at(3000)), Some(start), "from when nobody could connect");
        assert!(both.take(vec![Look::Refused, silent()], at(3000), at(4000)).is_empty(), "once");
        // One that answers again was not closed, and its silence begins anew.
        both.take(vec![Look::Refused, Look::Open], at(4000), at(4001));
        assert_eq!(both.closed_since(at(4001)), None);
        both.take(vec![Look::Refused, silent()], at(5000), at(9000));
        assert_eq!(both.closed_since(at(9000)), None, "one look is too few");
        both.take(vec![Look::Refused, Look::Refused], at(9000), at(9001));
        assert_eq!(both.closed_since(at(9001)), Some(at(5000)));
        // What can't be looked at is not closed, however long that lasts.
        for second in 10..20 {
            let unknown = Look::Unknown("its name is not found".to_owned());
            both.take(vec![Look::Refused, unknown], at(second * 1000), at(second * 1000 + 1));
        }
        assert_eq!(both.closed_since(at(30_000)), None);
    }

    #[test]
    fn one_open_address_of_a_name_is_enough() {
        let unknown = || Look::Unknown(String::new());
        assert_eq!(worst(vec![Look::Refused, Look::Open, silent(), unknown()]), Look::Open);
        assert_eq!(worst(vec![Look::Refused, unknown(), silent()]), unknown());
        assert_eq!(worst(vec![Look::Refused, silent()]), silent());
        assert_eq!(worst(vec![Look::Refused, Look::Refused]), Look::Refused);
        assert!(matches!(worst(Vec::new()), Look::Unknown(_)));
    }

    #[test]
    fn a_port_must_have_been_open_from_here() {
        let looked = ports(vec![Look::Open, Look::Refused]);
        let seen = |from: &str| {
            let (address, at) = ("b:2181".to_owned(), Time(Timestamp(0)));
            vec![ZkPortSeen { address, from: from.to_owned(), at }]
        };
        assert!(looked.must_have_been_open(&seen("here"), "here").is_ok());
        for seen in [Vec::new(), seen("there")] {
            let failure = looked.must_have_been_open(&seen, "here").unwrap_err();
            assert_eq!(failure.exit, Exit::REFUSED);
            assert!(failure.details.contains("b:2181: refuses"), "{}", failure.details);
            assert!(!failure.details.contains("a:2181"), "{}", failure.details);
            assert!(failure.hint.contains("--force"), "{}", failure.hint);
        }
    }

    #[tokio::test]
    async fn a_listener_is_open_until_it_is_gone() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let mut ports = Ports::new(std::slice::from_ref(&address)).await;
        assert_eq!(ports.open(), [address]);
        drop(listener);
        ports.look().await;
        assert!(ports.open().is_empty());
        assert!(ports.closed_since(Instant::now()).is_some());
        let mut nowhere = Ports::new(&["no.such.host.invalid:2181".to_owned()]).await;
        nowhere.look().await;
        assert_eq!(nowhere.closed_since(Instant::now()), None);
    }

    fn member(id: i64, quorum: &str, client: Option<&str>) -> ZkMember {
        let (quorum, client) = (quorum.to_owned(), client.map(str::to_owned));
        ZkMember { id, quorum, client }
    }

    #[test]
    fn members_that_nobody_watches_are_named() {
        let members = [member(1, "zk1:2888", Some("0.0.0.0:2181")), member(2, "zk2:2888", None)];
        let given = |ports: &[&str]| ports.iter().map(|port| (*port).to_owned()).collect();
        let one: Vec<String> = given(&["zk1:2181"]);
        let warning = unwatched(&one, &members).unwrap();
        assert!(warning.contains("2 servers (server.1 at zk1:2888, server.2 at zk2:2888)"));
        assert_eq!(unwatched(&given(&["zk1:2181", "10.0.0.2:2181"]), &members), None);
        // What the operator says counts; the ensemble's own list only where it names all.
        assert_eq!(to_watch(Some(one.clone()), &members).unwrap(), one);
        assert_eq!(to_watch(None, &members[..1]).unwrap(), one);
        for few in [&members[..], &[]] {
            let failure = to_watch(None, few).unwrap_err();
            assert!(failure.hint.contains("--client-ports"), "{}", failure.hint);
        }
    }

    #[test]
    fn an_ensemble_s_own_list_names_its_ports() {
        assert_eq!(
            client_port(&member(1, "zk1:2888", Some("0.0.0.0:2181"))).as_deref(),
            Some("zk1:2181")
        );
        assert_eq!(
            client_port(&member(2, "[::1]:2888", Some("zk2:2182"))).as_deref(),
            Some("zk2:2182")
        );
        assert_eq!(client_port(&member(3, "zk3:2888", None)), None);
    }
}
