//! Marathon's definitions.

use orch::marathon::{Options, app_json, definitions, translate};
use orch::model::job_file::{self, Format};

/// Marathon's definitions, stored or shown, chosen by the first byte: what comes of them is a job
/// file, or told.
pub fn feed(data: &[u8]) {
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
