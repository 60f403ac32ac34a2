//! A live Marathon, asked over its REST API. Nothing but GET is sent.

use std::time::Duration;

use futures::StreamExt as _;
use reqwest::{Client, Response, StatusCode, Url};
use serde_json::Value;

use super::error::SourceError;
use super::instances;
use super::saved::from_json;
use super::storage::Storage;
use crate::limits::MARATHON_SOURCE_BYTES_MAX;

/// For the whole of one answer; a large Marathon takes its time over all groups.
const ANSWER: Duration = Duration::from_secs(120);
/// What is asked of the groups.
const GROUPS: &str = "v2/groups?embed=group.groups&embed=group.apps&embed=group.pods";
/// Characters of an error's text that are shown.
const TEXT_CHARS: usize = 200;

/// What a Marathon at `url` has: all groups, and the tasks that run. A name and password in the
/// address are sent as such.
///
/// # Errors
/// If it does not answer, refuses, or answers with something else.
pub async fn from_rest(http: &Client, url: &Url) -> Result<Storage, SourceError> {
    let json = get(http, url, GROUPS).await?;
    let mut storage = from_json(json);
    let tasks = get(http, url, "v2/tasks").await?;
    let tasks = tasks.get("tasks").and_then(Value::as_array).cloned().unwrap_or_default();
    storage.instances = tasks.iter().filter_map(instances::of_shown).collect();
    storage.instances.sort();
    storage.instances.dedup();
    storage.knows_instances = true;
    // For people; an old Marathon that does not say it is as good.
    if let Ok(info) = get(http, url, "v2/info").await
        && let Some(version) = info.get("version").and_then(Value::as_str)
    {
        let version: String = version.chars().take(40).collect();
        storage.origin = format!("Marathon {version}");
    }
    Ok(storage)
}

async fn get(http: &Client, base: &Url, path: &str) -> Result<Value, SourceError> {
    // What stands before /v2 stays, as /service/marathon.
    let mut base = base.clone();
    if !base.path().ends_with('/') {
        let path = format!("{}/", base.path());
        base.set_path(&path);
    }
    let url = base.join(path).map_err(|error| SourceError::Unreachable(error.to_string()))?;
    let shown = format!("{}{}", url.origin().ascii_serialization(), url.path());
    let request = http.get(url).header("Accept", "application/json").timeout(ANSWER);
    let response = request
        .send()
        .await
        .map_err(|error| SourceError::Unreachable(format!("{shown}: {}", cause(&error))))?;
    let status = response.status();
    let bytes = body(response, &shown).await?;
    if !status.is_success() {
        let text = String::from_utf8_lossy(&bytes);
        let text: String = text.trim().chars().take(TEXT_CHARS).collect();
        let what = format!("{shown} answered {status}: {text}");
        return Err(match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => SourceError::Refused(format!(
                "{what}; name who asks in the address, as http://USER:PASSWORD@HOST:8080"
            )),
            StatusCode::NOT_FOUND => SourceError::NotMarathon(what),
            _ => SourceError::Unreachable(what),
        });
    }
    serde_json::from_slice(&bytes).map_err(|error| SourceError::malformed(shown, error))
}

async fn body(response: Response, place: &str) -> Result<Vec<u8>, SourceError> {
    let most = MARATHON_SOURCE_BYTES_MAX;
    let mut bytes = Vec::new();
    let mut stream = response.bytes_stream();
    while let Some(piece) = stream.next().await {
        let piece = piece
            .map_err(|error| SourceError::Unreachable(format!("{place}: {}", cause(&error))))?;
        if (bytes.len() + piece.len()) as u64 > most {
            return Err(SourceError::TooLarge { place: place.to_owned(), most, unit: "bytes" });
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes)
}

/// The cause behind all causes: the address is told already, and may have a password in it.
fn cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    if std::ptr::eq(cause, error as &dyn std::error::Error) {
        return if error.is_timeout() { "no answer in time".into() } else { "no answer".into() };
    }
    cause.to_string()
}
