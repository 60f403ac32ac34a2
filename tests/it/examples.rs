//! The files under config/ are right: every example reads, and the reference names every key.

use std::path::PathBuf;

use orch::model::job_file::{Format, KNOWN_KEYS, read};

fn examples() -> Vec<(PathBuf, String)> {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("config/examples");
    let mut files: Vec<_> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.clone(), std::fs::read_to_string(path).unwrap()))
        .collect();
    files.sort();
    files
}

#[test]
fn every_example_reads_without_a_problem() {
    let examples = examples();
    assert!(examples.len() >= 6, "{examples:?}");
    for (path, text) in examples {
        let format = Format::of_file_name(&path.to_string_lossy());
        if let Err(problems) = read(&text, format) {
            let problems: Vec<_> = problems.iter().map(ToString::to_string).collect();
            panic!("{}:\n{}", path.display(), problems.join("\n"));
        }
    }
}

#[test]
fn the_reference_names_every_key_of_a_job_file() {
    let (_, reference) =
        examples().into_iter().find(|(path, _)| path.ends_with("reference.yaml")).unwrap();
    // Compose's other names for keys that are there, and what only its list forms have.
    let left_out =
        ["mem_limit", "cpus", "disable", "test", "type", "source", "target", "mode", "name"];
    let words: Vec<&str> = reference.split(|c: char| !(c.is_alphanumeric() || c == '_')).collect();
    let missing: Vec<_> = KNOWN_KEYS
        .iter()
        .flat_map(|(_, keys)| keys.iter())
        .map(|key| key.name)
        .filter(|key| !left_out.contains(key) && !words.contains(key))
        .collect();
    assert!(missing.is_empty(), "not in config/examples/reference.yaml: {missing:?}");
}
