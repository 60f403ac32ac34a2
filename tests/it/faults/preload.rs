//! The library that is preloaded into servers: built here, told through a pipe.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

const PRELOAD: &str = include_str!("preload.c");

/// The library, built in a directory.
#[derive(Debug, Clone)]
pub struct Preload {
    library: PathBuf,
}

impl Preload {
    /// Builds it with the machine's C compiler.
    #[track_caller]
    pub fn build(directory: &Path) -> Self {
        let library = directory.join("preload.so");
        compile(PRELOAD, &library, &["-shared", "-fPIC", "-pthread"]);
        Self { library }
    }

    /// What a program is told in its environment: that everything below `root` is on the disk that
    /// loses power, and through which pipe (made anew here) it hears more.
    #[track_caller]
    pub fn environment(
        &self,
        program: &str,
        root: &Path,
        control: &Path,
    ) -> Vec<(&'static str, String)> {
        let _ = std::fs::remove_file(control);
        let done = Command::new("mkfifo").arg(control).status().unwrap();
        assert!(done.success(), "mkfifo {}: {done}", control.display());
        vec![
            ("LD_PRELOAD", self.library.display().to_string()),
            ("FAULTS_PROGRAM", program.to_owned()),
            ("FAULTS_ROOT", root.display().to_string()),
            ("FAULTS_CONTROL", control.display().to_string()),
        ]
    }
}

/// Tells a program that runs.
#[track_caller]
pub fn tell(control: &Path, what: &str) {
    // For reading as well: this must not wait for the program.
    let mut pipe = std::fs::File::options().read(true).write(true).open(control).unwrap();
    writeln!(pipe, "{what}").unwrap();
}

#[track_caller]
fn compile(source: &str, into: &Path, more: &[&str]) {
    let file = into.with_extension("c");
    std::fs::write(&file, source).unwrap();
    let done = Command::new("cc")
        .args(["-O2", "-Wall", "-Wextra", "-Werror", "-o"])
        .arg(into)
        .args(more)
        .arg(&file)
        .output()
        .unwrap_or_else(|error| panic!("cc can't be run ({error}); apt-get install gcc libc6-dev"));
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const CHECK: &str = include_str!("preload_check.c");

    /// What is left of the files when the power was cut with one seed: by name, which bytes.
    fn left(directory: &Path, seed: u64, preload: &Preload, more: &[(&str, &str)]) -> Left {
        let (root, control) = (directory.join(format!("root-{seed}")), directory.join("control"));
        std::fs::create_dir(&root).unwrap();
        let done = Command::new(directory.join("check"))
            .arg(&root)
            .arg(&control)
            .arg(format!("lose {seed}"))
            .envs(preload.environment("check", &root, &control))
            .envs(more.iter().copied())
            .output()
            .unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&done.status), Some(9));
        let mut left = Left::new();
        for file in std::fs::read_dir(&root).unwrap() {
            let file = file.unwrap();
            let name = file.file_name().to_string_lossy().into_owned();
            left.insert(name, std::fs::read(file.path()).unwrap());
        }
        let kept = std::fs::read_dir(directory).unwrap();
        let kept = kept
            .filter(|file| file.as_ref().unwrap().file_name().to_string_lossy().contains(".kept-"));
        assert_eq!(kept.count(), 0, "names of its own are left behind");
        left
    }

    type Left = std::collections::BTreeMap<String, Vec<u8>>;

    #[test]
    fn a_power_cut_takes_what_was_not_synced_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let preload = Preload::build(directory.path());
        compile(CHECK, &directory.path().join("check"), &[]);
        let (mut contents, mut names) = (BTreeSet::new(), BTreeSet::new());
        for seed in 1..=60 {
            let left = left(directory.path(), seed, &preload, &[]);
            names.insert(left.keys().cloned().collect::<Vec<_>>());
            // Made durable with its name; what came later is there in full, in part, or not at all.
            let kept = left.get("kept").cloned();
            if let Some(kept) = &kept {
                assert!(kept.len() >= 4096, "{} bytes", kept.len());
                assert!(kept[..4096].iter().all(|byte| b"ab".contains(byte)), "seed {seed}");
                assert!(kept.chunks(512).all(|sector| sector.iter().all(|b| *b == sector[0])));
            }
            contents.insert(kept);
            let ranged = &left["ranged"];
            assert!(ranged.is_empty() || ranged.iter().all(|byte| b"c\0".contains(byte)));
            // Renamed over: the old one or the new one, whole.
            let renamed = &left["renamed"];
            assert!(*renamed == [b'd'; 4096] || *renamed == [b'e'; 4096], "seed {seed}");
            let both = left.contains_key("renamed.new");
            assert!(!both || *renamed == [b'd'; 4096], "renamed and not, seed {seed}");
        }
        assert!(contents.len() > 8, "different seeds lose different parts");
        assert_eq!(names.len(), 3, "none, one, or two changes of names are kept: {names:?}");
        let lies = left(directory.path(), 61, &preload, &[("FAULTS_LIES", "1")]);
        let honest = left(directory.path(), 62, &preload, &[]);
        assert!(honest.contains_key("ranged"));
        let durable: Vec<_> = (63..90)
            .map(|seed| left(directory.path(), seed, &preload, &[("FAULTS_LIES", "1")]))
            .chain([lies])
            .filter(|left| left.get("ranged").is_some())
            .collect();
        assert!(durable.len() < 28, "a disk that lies loses what was synced");
    }
}
