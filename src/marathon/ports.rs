//! Port definitions and port mappings.

use serde_json::{Map, Value, json};

use super::fields::{Fields, said};
use super::finding::Notes;
use super::names::{Names, variable};

/// Where the containers of an app have their ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Network {
    /// On the host itself.
    Host,
    /// Inside, with the host's mapped to them.
    Bridge,
    /// On an address of the container's own.
    Container,
}

/// A port as Marathon counts them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Slot {
    /// The job's name for it over TCP; none if it is UDP alone.
    pub(super) tcp: Option<String>,
    /// Marathon's name for it.
    said: Option<String>,
    inside: u16,
    host: Option<u16>,
}

/// The ports of one task.
#[derive(Debug, Default)]
pub(super) struct Ports {
    /// As the job file has them.
    pub(super) entries: Map<String, Value>,
    /// In Marathon's order: what `portIndex` counts.
    pub(super) slots: Vec<Slot>,
    /// For each entry the place of its slot.
    pub(super) order: Vec<usize>,
    /// Variables that differ from what the job's own ports say.
    pub(super) environment: Vec<(String, String)>,
    /// Service ports, 0 for none.
    pub(super) service: Vec<u64>,
    /// UDP entries of ports with both transports: they come last, so that the others keep their
    /// number.
    twins: Vec<(String, Value, usize)>,
}

impl Ports {
    /// Whether one of them is the same port on every host.
    pub(super) fn fixed(&self) -> bool {
        self.slots.iter().any(|slot| slot.host.is_some())
    }

    /// The job's name for the port that a check asks.
    pub(super) fn named(&self, name: &str) -> Option<&str> {
        self.slots.iter().find(|slot| slot.said.as_deref() == Some(name))?.tcp.as_deref()
    }

    /// The same by number in Marathon's order.
    pub(super) fn at(&self, index: u64) -> Option<&str> {
        self.slots.get(usize::try_from(index).ok()?)?.tcp.as_deref()
    }

    /// The same by the number that the container listens on.
    pub(super) fn numbered(&self, number: u64) -> Option<&str> {
        let is = |slot: &&Slot| {
            u64::from(slot.inside) == number
                || (slot.inside == 0 && slot.host.is_some_and(|host| u64::from(host) == number))
        };
        self.slots.iter().find(is)?.tcp.as_deref()
    }

    /// Takes the twins in, behind all others.
    pub(super) fn close(&mut self) {
        for (name, value, slot) in std::mem::take(&mut self.twins) {
            self.entries.insert(name, value);
            self.order.push(slot);
        }
    }
}

/// `portDefinitions` of an app on the host's network.
pub(super) fn definitions(
    list: Vec<Fields>,
    require: bool,
    names: &mut Names,
    notes: &mut Notes,
) -> Ports {
    let mut ports = Ports::default();
    for (i, mut fields) in list.into_iter().enumerate() {
        let number = port(&mut fields, "port", notes).unwrap_or(0);
        let host = Some(number).filter(|number| require && *number > 0);
        ports.service.push(u64::from(number));
        let name = fields.text("name", notes).filter(|name| !name.is_empty());
        let transports = transports(&mut fields, notes);
        labels(&mut fields, notes);
        fields.finish(notes);
        let slot = Slot { tcp: None, said: name, inside: 0, host };
        put(&mut ports, i, slot, transports, names, notes);
    }
    ports.close();
    ports
}

/// `portMappings` of a container, and `endpoints` of a pod's.
pub(super) fn mappings(
    list: Vec<Fields>,
    network: Network,
    names: &mut Names,
    notes: &mut Notes,
) -> Ports {
    let mut ports = Ports::default();
    for (i, mut fields) in list.into_iter().enumerate() {
        let inside = port(&mut fields, "containerPort", notes).unwrap_or(0);
        let published = fields.has("hostPort");
        let host = port(&mut fields, "hostPort", notes).filter(|number| *number > 0);
        ports.service.push(fields.whole("servicePort", notes).unwrap_or(0));
        let name = fields.text("name", notes).filter(|name| !name.is_empty());
        let transports = transports(&mut fields, notes);
        labels(&mut fields, notes);
        fields.lose(
            "networkNames",
            notes,
            "orch has one network, which all ports are reached through",
            "check that every caller reaches the node",
        );
        if network == Network::Container && !published {
            notes.adapted(
                &fields.at("hostPort"),
                "",
                "the container had an address of its own; now the port is published on the node",
                "callers find it with `orch endpoints`",
            );
            if inside > 0 {
                // It was told to listen there.
                ports.environment.push((format!("PORT{i}"), inside.to_string()));
                if let Some(name) = &name {
                    ports
                        .environment
                        .push((format!("PORT_{}", variable(name)), inside.to_string()));
                }
                if i == 0 {
                    ports.environment.push(("PORT".into(), inside.to_string()));
                }
            }
        }
        fields.finish(notes);
        put(&mut ports, i, Slot { tcp: None, said: name, inside, host }, transports, names, notes);
    }
    ports.close();
    ports
}

fn put(
    ports: &mut Ports,
    i: usize,
    mut slot: Slot,
    (tcp, udp): (bool, bool),
    names: &mut Names,
    notes: &mut Notes,
) {
    let otherwise = format!("port{i}");
    let name = names.fresh(slot.said.as_deref().unwrap_or(&otherwise), &otherwise);
    let at = ports.slots.len();
    let value = |suffix: &str| match (slot.host, slot.inside) {
        (None, 0) => json!(format!("auto{suffix}")),
        (None, inside) if suffix.is_empty() => json!(inside),
        (None, inside) => json!(format!("{inside}{suffix}")),
        (Some(host), inside) => json!(format!("{host}:{inside}{suffix}")),
    };
    if tcp && udp {
        let twin = names.fresh(&format!("{name}-udp"), &format!("{otherwise}-udp"));
        if slot.host.is_none() {
            notes.lost(
                &format!("ports[{i}].protocol"),
                "udp,tcp",
                "the two transports are two ports, and each gets a host port of its own",
                "give it a host port if callers count on one number",
            );
        }
        ports.twins.push((twin, value("/udp"), at));
    }
    let main = value(if tcp { "" } else { "/udp" });
    slot.tcp = tcp.then(|| name.clone());
    ports.entries.insert(name, main);
    ports.order.push(at);
    ports.slots.push(slot);
}

/// A port number; what is none is told, and then it is chosen.
fn port(fields: &mut Fields, key: &str, notes: &mut Notes) -> Option<u16> {
    let number = fields.whole(key, notes)?;
    let port = u16::try_from(number).ok();
    if port.is_none() {
        let remedy = "write a number from 1 to 65535";
        notes.essential(&fields.at(key), number.to_string(), "it is no port", remedy);
    }
    port
}

/// TCP and UDP; Marathon writes `udp,tcp` for both, and pods a list.
fn transports(fields: &mut Fields, notes: &mut Notes) -> (bool, bool) {
    let Some(value) = fields.take("protocol") else { return (true, false) };
    let words: Vec<String> = match &value {
        Value::String(text) => text.split(',').map(|word| word.trim().to_lowercase()).collect(),
        Value::Array(items) => items.iter().map(|item| said(item).to_lowercase()).collect(),
        other => vec![said(other)],
    };
    let tcp = words.iter().any(|word| word == "tcp");
    let udp = words.iter().any(|word| word == "udp");
    if words.iter().any(|word| word != "tcp" && word != "udp") {
        notes.essential(
            &fields.at("protocol"),
            said(&value),
            "a port is tcp or udp",
            "check the port's transport in the job",
        );
    }
    (tcp || !udp, udp)
}

fn labels(fields: &mut Fields, notes: &mut Notes) {
    fields.lose(
        "labels",
        notes,
        "ports have no labels",
        "callers find a port by its name; a virtual address (VIP) needs a load balancer of yours",
    );
}
