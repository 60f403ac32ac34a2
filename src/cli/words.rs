//! Values as people read them.

use std::collections::BTreeMap;

use crate::api::view::Resources;
use crate::api::view::time::Time;
use crate::model::resources::Bytes;
use crate::model::time::{Millis, Timestamp};

/// Time since then, in its largest unit: `45s`, `3m`, `5h`, `12d`.
pub(super) fn age(now: Timestamp, then: Time) -> String {
    let seconds = now.since(then.0).0 / 1000;
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86_400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// As [`age`], or `-`.
pub(super) fn age_or_dash(now: Timestamp, then: Option<Time>) -> String {
    then.map_or_else(|| "-".to_owned(), |then| age(now, then))
}

/// Time to then: `in 45s`, `in 3m`; `any moment` if it is over.
pub(super) fn until(now: Timestamp, then: Time) -> String {
    // Rounded up, as a wait is told.
    match then.0.since(now).0.div_ceil(1000) {
        0 => "any moment".to_owned(),
        seconds => format!("in {}", age(now + Millis::from_secs(seconds), Time(now))),
    }
}

/// `web` in the default project, `shop/web` elsewhere.
pub(super) fn job_name(project: &str, job: &str) -> String {
    if project == "default" { job.to_owned() } else { format!("{project}/{job}") }
}

/// `web.0` or `shop/web.0`.
pub(super) fn copy_name(project: &str, job: &str, index: u32) -> String {
    format!("{}.{index}", job_name(project, job))
}

/// `http=10.0.0.1:25001`, each port.
pub(super) fn ports(ports: &BTreeMap<String, u16>, address: Option<&str>) -> String {
    let each: Vec<_> = ports
        .iter()
        .map(|(name, port)| match address {
            Some(address) if address.contains(':') => format!("{name}=[{address}]:{port}"),
            Some(address) => format!("{name}={address}:{port}"),
            None => format!("{name}={port}"),
        })
        .collect();
    or_dash(each.join(" "))
}

/// Cores from thousandths: `0.5`, `2`.
pub(super) fn cores(milli: u64) -> String {
    let text = format!("{:.3}", milli as f64 / 1000.0);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// An amount of bytes.
pub(super) fn bytes(count: u64) -> String {
    if count == 0 { "0".to_owned() } else { Bytes(count).to_string() }
}

/// `0.5/2`, `256Mi/4Gi`.
pub(super) fn share(used: String, all: String) -> String {
    format!("{used}/{all}")
}

/// All of a node's or an allocation's resources in one line.
pub(super) fn resources(r: &Resources) -> String {
    let mut parts =
        vec![format!("cpu {}", cores(r.cpu_milli)), format!("memory {}", bytes(r.memory))];
    if r.disk > 0 {
        parts.push(format!("disk {}", bytes(r.disk)));
    }
    if r.gpu > 0 {
        parts.push(format!("gpu {}", r.gpu));
    }
    parts.join(", ")
}

/// `1 node`, `3 nodes`.
pub(super) fn count(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// The text, or `-` for none.
pub(super) fn or_dash(text: impl Into<String>) -> String {
    let text = text.into();
    if text.is_empty() { "-".to_owned() } else { text }
}

/// The first line of a text that may have several.
pub(super) fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

/// What can't drive a terminal: control characters other than tabs are shown, not sent.
pub(super) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_told_in_their_largest_unit() {
        let now = Timestamp(10_000_000_000);
        for (seconds, text) in
            [(0, "0s"), (59, "59s"), (60, "1m"), (3599, "59m"), (7200, "2h"), (86_400 * 3, "3d")]
        {
            assert_eq!(age(now, Time(Timestamp(now.0 - seconds * 1000))), text);
        }
        assert_eq!(age(now, Time(Timestamp(now.0 + 5000))), "0s");
    }

    #[test]
    fn waits_are_told_in_their_largest_unit() {
        let now = Timestamp(10_000_000_000);
        let at = |millis: u64| until(now, Time(now + Millis(millis)));
        assert_eq!(
            [at(0), at(1), at(45_000), at(300_000)],
            ["any moment", "in 1s", "in 45s", "in 5m"]
        );
        assert_eq!(until(now, Time(Timestamp(1))), "any moment");
    }

    #[test]
    fn names_leave_out_the_default_project() {
        assert_eq!(copy_name("default", "web", 2), "web.2");
        assert_eq!(copy_name("shop", "web", 2), "shop/web.2");
    }

    #[test]
    fn amounts_are_short() {
        assert_eq!(cores(500), "0.5");
        assert_eq!(cores(2000), "2");
        assert_eq!(cores(1250), "1.25");
        assert_eq!(bytes(0), "0");
        assert_eq!(count(1, "node", "nodes"), "1 node");
        let ports_of = |address| ports(&[("http".to_owned(), 80)].into(), address);
        assert_eq!(ports_of(Some("10.0.0.1")), "http=10.0.0.1:80");
        assert_eq!(ports_of(Some("::1")), "http=[::1]:80");
        assert_eq!(ports(&BTreeMap::new(), None), "-");
    }

    #[test]
    fn output_can_not_drive_the_terminal() {
        assert_eq!(printable("a\u{1b}[2Jb\tc"), "a\u{fffd}[2Jb\tc");
    }
}
