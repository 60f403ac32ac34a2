//! Checks: liveness and readiness, in the same form.

use super::keys;
use super::reader::{Fields, Item, Report};
use super::task::words;
use super::tree::Value;
use crate::model::job::{HealthCheck, PortSpec, Probe, Protocol};
use crate::model::name::PortName;
use crate::model::problem::nearest;
use crate::model::time::Millis;

const KINDS: [&str; 5] = ["http", "tcp", "grpc", "command", "test"];
const DAY: Millis = Millis(24 * 60 * 60 * 1000);

/// The check; none if there is to be none, or if it is wrong.
pub(super) fn read(
    item: &Item<'_>,
    ports: &[PortSpec],
    report: &mut Report,
) -> Option<HealthCheck> {
    let fields = item.fields(report, "a map, as { http: /health, interval: 5s }")?;
    fields.check_keys(report, keys::HEALTHCHECK, &[]);
    let mut duration = |key: &str, least: u64, default: Millis| {
        fields
            .get(key)
            .and_then(|item| item.duration(report, Millis(least)..=DAY))
            .unwrap_or(default)
    };
    let interval = duration("interval", 100, HealthCheck::interval_default());
    let timeout = duration("timeout", 1, HealthCheck::timeout_default());
    let start_period = duration("start_period", 0, Millis(0));
    let mut count = |key: &str, default: u32| {
        fields.get(key).and_then(|item| item.number_u32(report, 1..=1000)).unwrap_or(default)
    };
    let retries = count("retries", HealthCheck::retries_default());
    let successes = count("successes", HealthCheck::successes_default());
    let disabled = fields.get("disable").and_then(|item| item.truth(report)).unwrap_or(false);

    let given: Vec<_> = KINDS.iter().filter_map(|key| Some((*key, fields.get(key)?))).collect();
    if let [(first, _), (second, item), ..] = given.as_slice() {
        item.wrong(report, format!("there is {first} already; keep {first} or {second}"));
    }
    let Some((kind, asked)) = given.first() else {
        if !disabled {
            report.add(
                fields.at,
                &item.path,
                "asks nothing; write one of http, tcp, grpc, command",
            );
        }
        return None;
    };
    if let Some(port) = fields.get("port")
        && !matches!(*kind, "http" | "grpc")
    {
        let remedy = match *kind {
            "tcp" => "tcp names the port itself",
            _ => "it goes with http and grpc",
        };
        port.wrong(report, format!("has no meaning here: {remedy}; remove it"));
    }
    let probe = match *kind {
        "http" => http(&fields, asked, ports, report)?,
        "tcp" => {
            let name = asked.text(report, "a port's name")?;
            Probe::Tcp { port: port_named(asked, &name, ports, report)? }
        }
        "grpc" => grpc(&fields, asked, ports, report)?,
        "command" => {
            let command = words(asked, report)?;
            if command.is_empty() {
                asked.wrong(report, "is empty; write a command");
                return None;
            }
            Probe::Command { command }
        }
        _ => test(asked, report)?,
    };
    if disabled {
        return None;
    }
    Some(HealthCheck { probe, interval, timeout, retries, successes, start_period })
}

fn http(
    fields: &Fields<'_>,
    asked: &Item<'_>,
    ports: &[PortSpec],
    report: &mut Report,
) -> Option<Probe> {
    let path = asked.text(report, "a path, as /health")?;
    let good =
        path.starts_with('/') && path.len() <= 2048 && path.chars().all(|c| c.is_ascii_graphic());
    if !good {
        let message = format!("{path:?} is no path; begin it with / and escape what is not ASCII");
        asked.wrong(report, message);
    }
    let port = port_asked(fields, asked, ports, report)?;
    good.then_some(Probe::Http { path, port })
}

fn grpc(
    fields: &Fields<'_>,
    asked: &Item<'_>,
    ports: &[PortSpec],
    report: &mut Report,
) -> Option<Probe> {
    let service = asked.text(report, "a service's name, as shop.Cart, or \"\" for the server")?;
    let good = service.len() <= 256 && service.chars().all(|c| c.is_ascii_graphic());
    if !good {
        let message =
            format!("{service:?} is no service; write its full name, as shop.Cart, or \"\"");
        asked.wrong(report, message);
    }
    let port = port_asked(fields, asked, ports, report)?;
    good.then_some(Probe::Grpc { service, port })
}

/// The port under `port`, or the only one.
fn port_asked(
    fields: &Fields<'_>,
    asked: &Item<'_>,
    ports: &[PortSpec],
    report: &mut Report,
) -> Option<PortName> {
    if let Some(item) = fields.get("port") {
        let name = item.text(report, "a port's name")?;
        return port_named(&item, &name, ports, report);
    }
    let mut tcp = ports.iter().filter(|port| port.protocol == Protocol::Tcp);
    match (tcp.next(), tcp.next()) {
        (Some(only), None) => Some(only.name.clone()),
        (None, _) => {
            asked.wrong(report, "the task has no port to ask; name one under ports");
            None
        }
        (Some(_), Some(_)) => {
            fields.missing(report, "port", "the task has several; name one");
            None
        }
    }
}

/// A port by its name, or by its number in the container.
fn port_named(
    item: &Item<'_>,
    text: &str,
    ports: &[PortSpec],
    report: &mut Report,
) -> Option<PortName> {
    let number = text.parse::<u16>().ok();
    let found = ports.iter().find(|port| port.name.as_str() == text).or_else(|| {
        ports.iter().find(|port| number.is_some() && port.container.or(port.host) == number)
    });
    match found {
        Some(port) if port.protocol == Protocol::Tcp => Some(port.name.clone()),
        Some(port) => {
            item.wrong(report, format!("{} is a UDP port; only TCP ports can be asked", port.name));
            None
        }
        None => {
            let names = || ports.iter().map(|port| port.name.as_str());
            let message = match nearest(text, names()) {
                Some(near) => format!("the task has no port {text:?}; did you mean {near:?}?"),
                None if ports.is_empty() => {
                    format!("the task has no port {text:?}; name it under ports")
                }
                None => {
                    let names: Vec<_> = names().collect();
                    format!("the task has no port {text:?}; it has {}", names.join(", "))
                }
            };
            item.wrong(report, message);
            None
        }
    }
}

/// Compose's forms; none without a problem for `NONE`.
fn test(item: &Item<'_>, report: &mut Report) -> Option<Probe> {
    let shell = |text: String| Probe::Command {
        command: vec!["/bin/sh".to_owned(), "-c".to_owned(), text],
    };
    if !matches!(item.node.value, Value::List(_)) {
        let text = item.text(report, "a list, as [ CMD, /check ], or a text for the shell")?;
        return (text != "NONE").then(|| shell(text));
    }
    let mut list = words(item, report)?;
    let first = if list.is_empty() { String::new() } else { list.remove(0) };
    match (first.as_str(), list.len()) {
        ("NONE", 0) => None,
        ("CMD", 1..) => Some(Probe::Command { command: list }),
        ("CMD-SHELL", 1) => list.pop().map(shell),
        ("CMD-SHELL", _) => {
            item.wrong(report, "CMD-SHELL takes one text; write [ CMD-SHELL, \"a && b\" ]");
            None
        }
        ("CMD", _) => {
            item.wrong(report, "CMD takes a command; write [ CMD, /check ]");
            None
        }
        _ => {
            item.wrong(
                report,
                "begins with none of CMD, CMD-SHELL and NONE; write [ CMD, /check ]",
            );
            None
        }
    }
}
