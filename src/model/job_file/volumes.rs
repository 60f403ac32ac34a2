//! Volumes, in the short and the long form.

use std::collections::BTreeMap;

use super::keys;
use super::reader::{Item, Report, word};
use super::tree::Value;
use super::words::{is_volume_name, path_problem};
use crate::limits::VOLUMES_MAX;
use crate::model::job::{VolumeMount, VolumeSource};

const WANTED: &str = "a list, as [ \"/srv/data:/data\", \"cache:/cache:ro\" ]";
const WANTED_ONE: &str = "a volume, as \"/srv/data:/data\" or { source: cache, target: /cache }";

/// `volumes` and `tmpfs` together.
pub(super) fn read(
    volumes: Option<&Item<'_>>,
    tmpfs: Option<&Item<'_>>,
    report: &mut Report,
) -> Vec<VolumeMount> {
    let mut mounts = Vec::new();
    let mut targets: BTreeMap<String, String> = BTreeMap::new();
    let mut add = |item: &Item<'_>, mount: VolumeMount, report: &mut Report| {
        let target = mount.target.trim_end_matches('/').to_owned();
        if let Some(other) = targets.insert(target, item.path.clone()) {
            item.wrong(report, format!("{} is the target of {other} too", mount.target));
        } else {
            mounts.push(mount);
        }
    };
    let items = volumes.and_then(|item| item.list(report, VOLUMES_MAX, WANTED));
    for item in items.unwrap_or_default() {
        let mount = match &item.node.value {
            Value::Map(_) => long(&item, report),
            _ => short(&item, report),
        };
        if let Some(mount) = mount {
            add(&item, mount, report);
        }
    }
    let items = tmpfs.and_then(|item| item.list_or_one(report, VOLUMES_MAX, "a path, as /run"));
    for item in items.unwrap_or_default() {
        let Some(path) = item.text(report, "a path, as /run") else { continue };
        if path.contains(':') {
            item.wrong(report, "options after the path are not supported; write the path alone");
        } else if let Some(target) = checked_target(&item, path, report) {
            add(
                &item,
                VolumeMount { source: VolumeSource::Tmpfs, target, read_only: false },
                report,
            );
        }
    }
    mounts
}

fn checked_target(item: &Item<'_>, path: String, report: &mut Report) -> Option<String> {
    if let Some(problem) = path_problem(&path) {
        item.wrong(report, problem);
        return None;
    }
    if path.trim_end_matches('/').is_empty() {
        item.wrong(report, "the root of the task can't be a target; write a directory below it");
        return None;
    }
    Some(path)
}

fn checked_source(item: &Item<'_>, text: String, report: &mut Report) -> Option<VolumeSource> {
    if text.starts_with('/') {
        return match path_problem(&text) {
            Some(problem) => {
                item.wrong(report, problem);
                None
            }
            None => Some(VolumeSource::Path(text)),
        };
    }
    if text.starts_with(['.', '~']) {
        let message =
            format!("{text:?} depends on who reads it; write the absolute path on the node");
        item.wrong(report, message);
        return None;
    }
    if !is_volume_name(&text) {
        item.wrong(
            report,
            format!(
                "{text:?} is neither an absolute path nor a name of letters, digits, _, . and -"
            ),
        );
        return None;
    }
    Some(VolumeSource::Named(text))
}

fn short(item: &Item<'_>, report: &mut Report) -> Option<VolumeMount> {
    let text = item.text(report, WANTED_ONE)?;
    let mut parts = text.split(':');
    let source = parts.next().unwrap_or_default();
    let Some(target) = parts.next() else {
        item.wrong(
            report,
            format!("{text:?} has no source; write NAME:{text} or /HOST/PATH:{text}"),
        );
        return None;
    };
    let mut read_only = false;
    let mut good = true;
    for option in parts.flat_map(|part| part.split(',')) {
        match option {
            "ro" => read_only = true,
            "rw" => read_only = false,
            _ => {
                item.wrong(
                    report,
                    format!("the option {option:?} is not supported; write ro or rw"),
                );
                good = false;
            }
        }
    }
    let source = checked_source(item, source.to_owned(), report);
    let target = checked_target(item, target.to_owned(), report);
    let mount = VolumeMount { source: source?, target: target?, read_only };
    good.then_some(mount)
}

fn long(item: &Item<'_>, report: &mut Report) -> Option<VolumeMount> {
    let fields = item.fields(report, WANTED_ONE)?;
    fields.check_keys(report, keys::VOLUME, &[]);
    let kind = match fields.get("type") {
        Some(kind) => {
            let text = kind.text(report, "bind, volume or tmpfs")?;
            if !["bind", "volume", "tmpfs"].contains(&text.as_str()) {
                word(&kind, report, &text, &["bind", "volume", "tmpfs"]);
                return None;
            }
            Some(text)
        }
        None => None,
    };
    let target = match fields.get("target") {
        Some(target) => {
            let path = target.text(report, "an absolute path")?;
            checked_target(&target, path, report)
        }
        None => {
            fields.missing(report, "target", "write the path inside the task");
            None
        }
    };
    let read_only = fields.get("read_only").and_then(|item| item.truth(report)).unwrap_or(false);
    let source = match (kind.as_deref(), fields.get("source")) {
        (Some("tmpfs"), Some(source)) => {
            source.wrong(report, "a tmpfs has no source; remove it");
            None
        }
        (Some("tmpfs"), None) => Some(VolumeSource::Tmpfs),
        (_, None) => {
            fields.missing(report, "source", "write a path of the host, or a volume's name");
            None
        }
        (kind, Some(item)) => {
            let text = item.text(report, "a path or a name")?;
            let source = checked_source(&item, text, report);
            match (kind, &source) {
                (Some("bind"), Some(VolumeSource::Named(_))) => {
                    item.wrong(report, "type: bind takes an absolute path; or write type: volume");
                    None
                }
                (Some("volume"), Some(VolumeSource::Path(_))) => {
                    item.wrong(report, "type: volume takes a name; or write type: bind");
                    None
                }
                _ => source,
            }
        }
    };
    Some(VolumeMount { source: source?, target: target?, read_only })
}
