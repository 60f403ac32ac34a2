//! Ports, in the map and the list form.

use super::keys;
use super::reader::{Fields, Item, Report, word};
use super::tree::Value;
use crate::limits::PORTS_MAX;
use crate::model::job::{PortSpec, Protocol};
use crate::model::name::PortName;

const WANTED: &str = "a map from name to port, as { http: 80 }, or Compose's list";
const WANTED_ONE: &str = "a port, as 80, \"8080:80\", auto or { container: 80, host: 8080 }";

/// What one entry says.
#[derive(Debug, Default, PartialEq, Eq)]
struct Port {
    container: Option<u16>,
    host: Option<u16>,
    protocol: Protocol,
}

pub(super) fn read(item: &Item<'_>, process: bool, report: &mut Report) -> Vec<PortSpec> {
    let mut ports = Vec::new();
    if let Value::List(_) = &item.node.value {
        for item in item.list(report, PORTS_MAX, WANTED).unwrap_or_default() {
            let Some((name, port)) = from_list(&item, report) else { continue };
            ports.extend(check(&item, name, port, process, report));
        }
        return ports;
    }
    let Some(fields) = item.fields(report, WANTED) else { return ports };
    if fields.len() > PORTS_MAX {
        item.wrong(report, format!("{} are too many; the most is {PORTS_MAX}", fields.len()));
        return ports;
    }
    for (key, at, item) in fields.each() {
        let name = key.parse::<PortName>();
        if let Err(error) = &name {
            report.add(at, &item.path, error.to_string());
        }
        let port = match &item.node.value {
            Value::Null => Some(Port::default()),
            Value::Map(_) => {
                item.fields(report, WANTED_ONE).and_then(|f| long(&f, &item, false, report))
            }
            _ => short(&item, report),
        };
        if let (Ok(name), Some(port)) = (name, port) {
            ports.extend(check(&item, name, port, process, report));
        }
    }
    ports
}

/// A process has no port of its own beside the host's.
fn check(
    item: &Item<'_>,
    name: PortName,
    port: Port,
    process: bool,
    report: &mut Report,
) -> Option<PortSpec> {
    let Port { mut container, host, protocol } = port;
    if process && container.is_some() {
        if host != container {
            let number = host.or(container).unwrap_or_default();
            item.wrong(
                report,
                format!(
                    "a process listens on the host itself; write auto to have a port chosen, or \
                     \"{number}:{number}\" for this one"
                ),
            );
            return None;
        }
        container = None;
    }
    Some(PortSpec { name, container, host, protocol })
}

fn from_list(item: &Item<'_>, report: &mut Report) -> Option<(PortName, Port)> {
    let mut given = None;
    let port = if let Value::Map(_) = &item.node.value {
        let fields = item.fields(report, WANTED_ONE)?;
        if let Some(name) = fields.get("name") {
            given = Some(name.parsed::<PortName>(report, "a name")?);
        }
        long(&fields, item, true, report)?
    } else {
        short(item, report)?
    };
    if let Some(name) = given {
        return Some((name, port));
    }
    let Some(number) = port.container.or(port.host) else {
        item.wrong(
            report,
            "has no number to be named after; write ports as a map from name to port",
        );
        return None;
    };
    let text = match port.protocol {
        Protocol::Tcp => format!("port-{number}"),
        Protocol::Udp => format!("port-{number}-udp"),
    };
    text.parse().ok().map(|name| (name, port))
}

fn long(fields: &Fields<'_>, item: &Item<'_>, in_list: bool, report: &mut Report) -> Option<Port> {
    let known: Vec<keys::Key> = keys::PORT
        .iter()
        .filter(|key| in_list || !matches!(key.name, "name" | "mode"))
        .copied()
        .collect();
    fields.check_keys(report, &known, &[]);
    let mut port = Port::default();
    let mut good = true;
    let mut number = |names: &[&str], least: u64, report: &mut Report| {
        let value = fields.one_of(report, names)?;
        let number = value.number(report, least..=65535);
        good &= number.is_some();
        number.and_then(|number| u16::try_from(number).ok())
    };
    port.container = number(&["container", "target"], 0, report).filter(|number| *number > 0);
    port.host = number(&["host", "published"], 1, report);
    if let Some(item) = fields.get("protocol") {
        let text = item.text(report, "tcp or udp")?;
        port.protocol = protocol(&item, &text, report)?;
    }
    if let Some(mode) = fields.get("mode")
        && mode.text(report, "host")? != "host"
    {
        mode.wrong(report, "is not supported: a port is opened on the node it runs on; write host");
        return None;
    }
    if in_list && port.container.is_none() && port.host.is_none() && good {
        let message = "has neither container nor host; write at least container: 80";
        item.wrong(report, message);
        return None;
    }
    good.then_some(port)
}

fn protocol(item: &Item<'_>, text: &str, report: &mut Report) -> Option<Protocol> {
    match text {
        "tcp" => Some(Protocol::Tcp),
        "udp" => Some(Protocol::Udp),
        _ => {
            word(item, report, text, &["tcp", "udp"]);
            None
        }
    }
}

/// `80`, `8080:80`, `53/udp`, `auto`.
fn short(item: &Item<'_>, report: &mut Report) -> Option<Port> {
    let text = item.text(report, WANTED_ONE)?;
    let (numbers, suffix) = match text.split_once('/') {
        Some((numbers, suffix)) => (numbers, Some(suffix)),
        None => (text.as_str(), None),
    };
    let protocol = match suffix {
        Some(suffix) => protocol(item, suffix, report)?,
        None => Protocol::Tcp,
    };
    if numbers == "auto" {
        return Some(Port { protocol, ..Port::default() });
    }
    let mut parts = numbers.split(':');
    let (first, second) = (parts.next().unwrap_or_default(), parts.next());
    if parts.next().is_some() {
        item.wrong(
            report,
            "an address before the port is not supported: the port is opened on all of the \
             node's; write \"8080:80\"",
        );
        return None;
    }
    let mut number = |text: &str, least: u16| {
        if text.contains('-') && !text.starts_with('-') {
            item.wrong(report, format!("{text:?}: ranges are not supported; write each port"));
            return None;
        }
        let value = text.parse::<u16>().ok().filter(|value| *value >= least);
        if value.is_none() {
            let message = format!("{text:?} is no port; write a number from 1 to 65535");
            item.wrong(report, message);
        }
        value
    };
    let above_zero = |number: u16| Some(number).filter(|number| *number > 0);
    match second {
        None => Some(Port { container: above_zero(number(first, 0)?), host: None, protocol }),
        Some(container) => {
            let (host, container) = (number(first, 1), number(container, 0));
            Some(Port { host: Some(host?), container: above_zero(container?), protocol })
        }
    }
}
