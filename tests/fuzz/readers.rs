//! What must hold for every reader of bytes from outside, whatever the bytes: it neither panics
//! nor hangs, and what it accepts it can write and read again.

use orch::marathon::{Options, app_json, definitions, translate};
use orch::model::allocation::{AllocReport, Assignment};
use orch::model::job_file::{self, Format};
use orch::model::node::NodeSpec;
use orch::state::codec::{self, BatchWriter};
use orch::state::{Stamp, State, snapshot};

/// A job file in one of its three forms, chosen by the first byte.
pub fn job_file(data: &[u8]) {
    let Some((choice, text)) = data.split_first() else { return };
    let format = [Format::Yaml, Format::Json, Format::Toml][usize::from(*choice) % 3];
    let text = String::from_utf8_lossy(text);
    match job_file::read(&text, format) {
        Ok(jobs) => {
            assert!(!jobs.is_empty(), "a file without jobs is an error");
            for job in jobs {
                let bytes = codec::to_bytes(&job).expect("a job encodes");
                assert_eq!(codec::from_bytes(&bytes).as_ref(), Ok(&job));
            }
        }
        Err(problems) => {
            assert!(!problems.is_empty(), "refused without a reason");
            let lines = text.lines().count() as u32 + 1;
            for problem in problems {
                assert!(!problem.message.is_empty());
                assert!(problem.line <= lines, "{problem} is beyond the {lines} lines");
            }
        }
    }
}

/// A log entry: what is accepted is also applied.
pub fn log_entry(data: &[u8]) {
    let Ok((at, requests)) = codec::decode_batch(data) else { return };
    let mut batch = BatchWriter::new(at);
    let mut state = State::default();
    for (index, request) in (1..).zip(&requests) {
        batch.push(&codec::to_bytes(request).expect("a request encodes"));
        state.apply(Stamp { index, at }, request);
    }
    assert_eq!(codec::decode_batch(&batch.finish()), Ok((at, requests)));
}

/// A snapshot.
pub fn snapshot(data: &[u8]) {
    let mut rest = data;
    let Ok(state) = snapshot::read(&mut rest) else { return };
    let mut bytes = Vec::new();
    snapshot::write(&state, &mut bytes).expect("memory takes it");
    let again = snapshot::read(&mut bytes.as_slice()).expect("what was written reads");
    let mut twice = Vec::new();
    snapshot::write(&again, &mut twice).expect("memory takes it");
    assert!(bytes == twice, "a snapshot of a snapshot differs");
}

/// Marathon's definitions, stored or shown, chosen by the first byte: what comes of them is a job
/// file, or told.
pub fn marathon(data: &[u8]) {
    let Some((choice, bytes)) = data.split_first() else { return };
    let json = match choice % 2 {
        0 => app_json(bytes).map(serde_json::Value::Object).ok(),
        _ => serde_json::from_slice(bytes).ok(),
    };
    let Some(json) = json else { return };
    let translation = translate(&definitions(json), &Options::default());
    for job in translation.jobs {
        assert_eq!(job_file::read(&job.file, Format::Yaml), Ok(vec![job.spec]));
    }
    for finding in translation.findings {
        assert!(!finding.why.is_empty() && !finding.remedy.is_empty(), "{finding:?}");
    }
}

/// What servers and agents tell each other, its kind chosen by the first byte.
pub fn message(data: &[u8]) {
    let Some((choice, bytes)) = data.split_first() else { return };
    match choice % 3 {
        0 => same_again::<Assignment>(bytes),
        1 => same_again::<AllocReport>(bytes),
        _ => same_again::<NodeSpec>(bytes),
    }
}

fn same_again<T>(bytes: &[u8])
where
    T: serde::Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug,
{
    let Ok(value) = codec::from_bytes::<T>(bytes) else { return };
    let bytes = codec::to_bytes(&value).expect("it encodes");
    assert_eq!(codec::from_bytes(&bytes).as_ref(), Ok(&value));
}
