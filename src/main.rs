//! Parses the command line and calls it.

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<_> = std::env::args_os().collect();
    // Before anything else is set up: there is one of these for each process task.
    if let [_, command, dir] = &words[..]
        && command == "process-shim"
    {
        let code = orch::agent::process::shim(Path::new(dir));
        return ExitCode::from(u8::try_from(code).unwrap_or(1));
    }
    // As a user of the host's, for files of a process task.
    if let [_, command, action, root, path] = &words[..]
        && command == "process-copy"
    {
        let code = orch::agent::process::copy(action, Path::new(root), Path::new(path));
        return ExitCode::from(code);
    }
    orch::cli::main(&words)
}
