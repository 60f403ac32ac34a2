//! Health and readiness checks.

use serde_json::{Map, Value, json};

use super::fields::Fields;
use super::finding::Notes;
use super::job::duration;
use super::ports::Ports;

/// The longest time of a check, in seconds.
const LONGEST: f64 = 24.0 * 60.0 * 60.0;
/// The most failures in a row that are waited for.
const RETRIES_MOST: u64 = 1000;

/// What Marathon's health checks come to: the first that can be asked; and how long it may take
/// to come up, in seconds.
pub(super) fn health(
    checks: Vec<Fields>,
    ports: &Ports,
    notes: &mut Notes,
) -> (Option<Value>, f64) {
    let mut found = None;
    let mut grace = 0.0;
    for fields in checks {
        let path = fields.at("");
        let path = path.trim_end_matches('.').to_owned();
        let Some((check, wait)) = one(fields, ports, notes) else { continue };
        if found.is_some() {
            let why = "a task has one health check, and another one came first";
            notes.lost(&path, check.to_string(), why, "join them in one command or one path");
            continue;
        }
        found = Some(check);
        grace = wait;
    }
    (found, grace)
}

fn one(mut fields: Fields, ports: &Ports, notes: &mut Notes) -> Option<(Value, f64)> {
    let protocol = fields.text("protocol", notes).unwrap_or_else(|| "HTTP".to_owned());
    let mut check = Map::new();
    let asked = match protocol.as_str() {
        "HTTP" | "MESOS_HTTP" => {
            let path = fields.text("path", notes).unwrap_or_else(|| "/".to_owned());
            let port = port(&mut fields, ports, notes);
            port.map(|port| {
                check.insert("http".into(), json!(path));
                check.insert("port".into(), json!(port));
            })
        }
        "HTTPS" | "MESOS_HTTPS" => {
            let path = fields.text("path", notes).unwrap_or_else(|| "/".to_owned());
            notes.lost(
                &fields.at("protocol"),
                format!("{protocol} {path}"),
                "checks speak no TLS: now it is checked that the port takes a connection",
                "check it with a command in the task if that is not enough",
            );
            let port = port(&mut fields, ports, notes);
            port.map(|port| {
                check.insert("tcp".into(), json!(port));
            })
        }
        "TCP" | "MESOS_TCP" => {
            fields.take("path");
            let port = port(&mut fields, ports, notes);
            port.map(|port| {
                check.insert("tcp".into(), json!(port));
            })
        }
        "COMMAND" => {
            fields.take("path");
            fields.take("portIndex");
            command(&mut fields, notes).map(|words| {
                check.insert("command".into(), json!(words));
            })
        }
        other => {
            let why = "there is no such check";
            let remedy = "write http, tcp, grpc or command under healthcheck";
            notes.essential(&fields.at("protocol"), other, why, remedy);
            None
        }
    };
    let grace = fields.number("gracePeriodSeconds", notes).unwrap_or(300.0);
    let grace = times(&mut fields, grace, &mut check, notes);
    fields.lose(
        "ignoreHttp1xx",
        notes,
        "a status below 200 always fails",
        "answer with 200 to 399",
    );
    if fields.text("ipProtocol", notes).is_some_and(|protocol| protocol == "IPv6") {
        let remedy = "listen on both";
        notes.lost(&fields.at("ipProtocol"), "IPv6", "checks go over IPv4", remedy);
    }
    fields.finish(notes);
    asked.map(|()| (Value::Object(check), grace))
}

/// Interval, time-out, retries and the time to come up, which both kinds of definitions name the
/// same.
fn times(
    fields: &mut Fields,
    grace: f64,
    check: &mut Map<String, Value>,
    notes: &mut Notes,
) -> f64 {
    let interval = fields.number("intervalSeconds", notes).unwrap_or(60.0);
    let timeout = fields.number("timeoutSeconds", notes).unwrap_or(20.0);
    let failures = fields.whole("maxConsecutiveFailures", notes).unwrap_or(3);
    let delay = fields.number("delaySeconds", notes).unwrap_or(15.0);
    // Nothing counts before both are over.
    let grace = grace.max(delay);
    if failures == 0 {
        notes.lost(
            &fields.at("maxConsecutiveFailures"),
            "0",
            "a task that fails its check was never killed; now it is restarted, though late",
            "use readiness instead of healthcheck if it must not be",
        );
    }
    let retries = if failures == 0 { RETRIES_MOST } else { failures.min(RETRIES_MOST) };
    if failures > RETRIES_MOST {
        let why = "more failures in a row than can be waited for";
        notes.adapted(&fields.at("maxConsecutiveFailures"), failures.to_string(), why, "nothing");
    }
    for (key, value) in [("interval", interval), ("timeout", timeout), ("start_period", grace)] {
        if value > LONGEST {
            let why = "a check's times have at most 24 hours";
            notes.adapted(&fields.at(key), value.to_string(), why, "nothing");
        }
    }
    check.insert("interval".into(), duration(interval.clamp(0.1, LONGEST)));
    check.insert("timeout".into(), duration(timeout.clamp(0.1, LONGEST)));
    check.insert("retries".into(), json!(retries));
    if grace > 0.0 {
        check.insert("start_period".into(), duration(grace.min(LONGEST)));
    }
    grace.min(LONGEST)
}

/// The port that a check asks.
fn port(fields: &mut Fields, ports: &Ports, notes: &mut Notes) -> Option<String> {
    let (number, name) = (fields.whole("port", notes), fields.text("portName", notes));
    let index = fields.whole("portIndex", notes);
    let (found, said) = match (number, &name, index) {
        (Some(number), _, _) => (ports.numbered(number), number.to_string()),
        (None, Some(name), _) => (ports.named(name), name.clone()),
        (None, None, index) => {
            let index = index.unwrap_or(0);
            (ports.at(index), format!("port {index}"))
        }
    };
    if found.is_none() {
        notes.essential(
            &fields.at("port"),
            said,
            "the app has no such TCP port, so it can't be checked",
            "name the port under ports, and the check under healthcheck",
        );
    }
    found.map(str::to_owned)
}

/// `{"value": "..."}`, or a pod's `{"command": {"shell": ...}}`.
fn command(fields: &mut Fields, notes: &mut Notes) -> Option<Vec<String>> {
    let mut inner = fields.object("command", notes)?;
    let words = match (inner.text("value", notes), inner.text("shell", notes)) {
        (Some(text), _) | (None, Some(text)) => {
            vec!["/bin/sh".to_owned(), "-c".to_owned(), text]
        }
        (None, None) => inner.texts("argv", notes),
    };
    let path = inner.at("value");
    inner.finish(notes);
    if words.is_empty() {
        notes.essential(&path, "", "the check has no command", "write it under healthcheck");
        return None;
    }
    Some(words)
}

/// The health check of a pod's container.
pub(super) fn of_pod(mut fields: Fields, ports: &Ports, notes: &mut Notes) -> (Option<Value>, f64) {
    let mut check = Map::new();
    let mut asked = false;
    if let Some(mut http) = fields.object("http", notes) {
        let path = http.text("path", notes).unwrap_or_else(|| "/".to_owned());
        let secure = http.text("scheme", notes).is_some_and(|scheme| scheme == "HTTPS");
        if let Some(port) = endpoint(&mut http, ports, notes) {
            if secure {
                let why = "checks speak no TLS: now it is checked that the port takes a connection";
                let said = format!("HTTPS {path}");
                notes.lost(&http.at("scheme"), said, why, "check it with a command in the task");
                check.insert("tcp".into(), json!(port));
            } else {
                check.insert("http".into(), json!(path));
                check.insert("port".into(), json!(port));
            }
            asked = true;
        }
        http.finish(notes);
    }
    if let Some(mut tcp) = fields.object("tcp", notes) {
        if let Some(port) = endpoint(&mut tcp, ports, notes) {
            check.insert("tcp".into(), json!(port));
            asked = true;
        }
        tcp.finish(notes);
    }
    if let Some(mut exec) = fields.object("exec", notes) {
        if let Some(words) = command(&mut exec, notes) {
            check.insert("command".into(), json!(words));
            asked = true;
        }
        exec.finish(notes);
    }
    let grace = fields.number("gracePeriodSeconds", notes).unwrap_or(300.0);
    let grace = times(&mut fields, grace, &mut check, notes);
    fields.finish(notes);
    if asked { (Some(Value::Object(check)), grace) } else { (None, 0.0) }
}

fn endpoint(fields: &mut Fields, ports: &Ports, notes: &mut Notes) -> Option<String> {
    let name = fields.text("endpoint", notes).unwrap_or_default();
    let found = ports.named(&name).map(str::to_owned);
    if found.is_none() {
        let why = "the container has no TCP endpoint of that name, so it can't be checked";
        notes.essential(&fields.at("endpoint"), name, why, "write it under healthcheck");
    }
    found
}

/// What Marathon's readiness checks come to: the first that can be asked.
pub(super) fn readiness(checks: Vec<Fields>, ports: &Ports, notes: &mut Notes) -> Option<Value> {
    let mut found = None;
    for mut fields in checks {
        let path = fields.at("name");
        let name = fields.text("name", notes).unwrap_or_default();
        let url = fields.text("path", notes).unwrap_or_else(|| "/".to_owned());
        let port_name = fields.text("portName", notes).unwrap_or_else(|| "http-api".to_owned());
        let interval = fields.number("intervalSeconds", notes).unwrap_or(30.0);
        let timeout = fields.number("timeoutSeconds", notes).unwrap_or(10.0);
        let codes = fields.list("httpStatusCodesForReady", notes);
        if codes.iter().any(|(_, code)| !(200..400).contains(&code.as_u64().unwrap_or(0))) {
            notes.lost(
                &fields.at("httpStatusCodesForReady"),
                codes.iter().map(|(_, code)| code.to_string()).collect::<Vec<_>>().join(", "),
                "a status from 200 to 399 is ready, and no other",
                "answer with one of those",
            );
        }
        let why = "what a check answered last is always kept";
        if fields.truth("preserveLastResponse", notes) == Some(true) {
            notes.adapted(&fields.at("preserveLastResponse"), "true", why, "nothing");
        }
        let secure = fields.text("protocol", notes).is_some_and(|protocol| protocol == "HTTPS");
        let Some(port) = ports.named(&port_name) else {
            let why = "the app has no TCP port of that name, so readiness can't be checked";
            let remedy = "write it under readiness";
            notes.essential(&fields.at("portName"), port_name, why, remedy);
            fields.finish(notes);
            continue;
        };
        let mut check = if secure {
            let why = "checks speak no TLS: now it is checked that the port takes a connection";
            let said = format!("HTTPS {url}");
            notes.lost(&fields.at("protocol"), said, why, "check it with a command in the task");
            json!({ "tcp": port })
        } else {
            json!({ "http": url, "port": port })
        };
        fields.finish(notes);
        if found.is_some() {
            let why = "a task has one readiness check, and another one came first";
            notes.lost(&path, name, why, "join them in one path");
            continue;
        }
        if let Value::Object(check) = &mut check {
            check.insert("interval".into(), duration(interval.clamp(0.1, LONGEST)));
            check.insert("timeout".into(), duration(timeout.clamp(0.1, LONGEST)));
        }
        notes.adapted(
            &path,
            name,
            "Marathon asked only during a deployment; now a replica leaves the endpoints whenever \
             it fails",
            "nothing, if the answer means that it can take traffic",
        );
        found = Some(check);
    }
    found
}
