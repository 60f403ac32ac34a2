//! Job files.

use orch::model::job_file::{self, Format};
use orch::state::codec;

/// A job file in one of its three forms, chosen by the first byte.
pub fn feed(data: &[u8]) {
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
