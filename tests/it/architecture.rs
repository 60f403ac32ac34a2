//! The house rules that the compiler does not hold: who may import whom, what must be absent
//! where, how long a file may be. Each failure names the file, the line and the rule.

use std::fs;
use std::path::{Path, PathBuf};

const FILE_LINES_MAX: usize = 800;
const MOD_LINES_MAX: usize = 150;

/// In these rooms (or, with a slash, files) none of these words stands in code.
const ABSENCES: &[(&[&str], &[&str], &str)] = &[
    (
        &["model", "jute", "state", "planner"],
        &[
            "tokio",
            "std::fs",
            "File::open",
            "std::env",
            "std::process",
            "TcpStream",
            "TcpListener",
            "UdpSocket",
            "SystemTime",
            "Instant::now",
            "HashMap",
            "HashSet",
            "rand",
        ],
        "the core is pure: no clock, file, socket, randomness or hash-map order",
    ),
    (
        &["agent"],
        &["crate::state", "crate::consensus", "crate::planner"],
        "an agent knows assignments, not the cluster's state",
    ),
    (&["consensus"], &["crate::planner"], "consensus carries commands and makes none"),
    (&["server", "api"], &["crate::agent"], "servers and agents meet on the wire alone"),
    (&["cli"], &["crate::consensus", "crate::state"], "the command line is a client of the API"),
];

/// These words stand in code of these places alone.
const ONLY_IN: &[(&str, &[&str], &str)] = &[
    ("println!", &["cli", "main.rs"], "only the command line prints"),
    ("eprintln!", &["cli", "main.rs"], "only the command line prints"),
    ("sled", &["consensus/log_store"], "one file names the storage engine"),
    ("bollard", &["agent/docker"], "one place names the Docker client"),
    ("prometheus", &["observe/metrics"], "every metric is declared in one file"),
    ("SystemTime::now", &["clock.rs"], "one file reads the clock"),
];

/// Never, nowhere.
const BANNED: &[&str] = &["todo!", "unimplemented!", "dbg!", "unsafe", "process::exit"];

/// Never, not even in a comment.
const BANNED_IN_TEXT: &[&str] = &["FIXME", "XXX", "HACK"];

#[test]
fn a_file_imports_only_from_rooms_listed_above_its_own() {
    let rooms = rooms();
    let place = |room: &str| rooms.iter().position(|r| r == room);
    let mut faults = Vec::new();
    for file in sources() {
        let Some(own) = place(&file.room) else { continue };
        for (line, code) in file.code.lines().enumerate() {
            for used in crate_paths(code) {
                match place(&used) {
                    Some(other) if other <= own => {}
                    Some(_) => faults.push(format!(
                        "{}:{}: {} may not import from {used}, which src/lib.rs lists below it",
                        file.path.display(),
                        line + 1,
                        file.room
                    )),
                    None => {}
                }
            }
        }
    }
    none(&faults);
}

#[test]
fn every_room_of_the_list_exists_and_every_room_is_listed() {
    let rooms = rooms();
    assert!(rooms.len() > 10, "src/lib.rs lists {rooms:?}");
    let faults: Vec<_> = sources()
        .iter()
        .filter(|file| {
            !rooms.contains(&file.room) && !["lib", "main"].contains(&file.room.as_str())
        })
        .map(|file| format!("{} is in no room of src/lib.rs", file.path.display()))
        .collect();
    none(&faults);
}

#[test]
fn what_must_be_absent_is_absent() {
    let mut faults = Vec::new();
    for file in sources() {
        for (rooms, words, why) in ABSENCES {
            if rooms.contains(&file.room.as_str()) {
                for word in *words {
                    faults.extend(file.find(word).map(|at| format!("{at}: {word}: {why}")));
                }
            }
        }
        for (word, places, why) in ONLY_IN {
            if !places.iter().any(|place| file.relative.starts_with(place)) {
                faults.extend(file.find(word).map(|at| format!("{at}: {word}: {why}")));
            }
        }
        for word in BANNED {
            faults.extend(file.find(word).map(|at| format!("{at}: {word} is banned")));
        }
        for (line, text) in file.text.lines().enumerate() {
            for word in BANNED_IN_TEXT.iter().filter(|word| text.contains(**word)) {
                faults.push(format!("{}:{}: {word} is banned", file.path.display(), line + 1));
            }
            let names_a_metric = text.contains("\"orch_") && !file.relative.starts_with("observe/");
            if names_a_metric && line < file.code.lines().count() {
                faults.push(format!(
                    "{}:{}: metric names stand in observe/metrics.rs alone",
                    file.path.display(),
                    line + 1
                ));
            }
        }
    }
    none(&faults);
}

#[test]
fn files_are_short_and_say_what_they_are() {
    let mut faults = Vec::new();
    for file in sources() {
        let lines = file.code.lines().count();
        let most = if file.relative.ends_with("/mod.rs") { MOD_LINES_MAX } else { FILE_LINES_MAX };
        if lines > most && !file.is_test {
            faults.push(format!("{}: {lines} lines; the most is {most}", file.path.display()));
        }
        if !file.text.starts_with("//! ") {
            faults.push(format!("{}: begins without //! and what it is", file.path.display()));
        }
    }
    none(&faults);
}

#[test]
fn no_test_file_is_forgotten() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it");
    let main = fs::read_to_string(directory.join("main.rs")).unwrap();
    let mut faults = Vec::new();
    for entry in fs::read_dir(&directory).unwrap() {
        let name = entry.unwrap().file_name().to_string_lossy().into_owned();
        let module = name.trim_end_matches(".rs");
        let named = main
            .lines()
            .any(|line| line.trim_start_matches("pub ").trim() == format!("mod {module};"));
        if module != "main" && !named {
            faults.push(format!("tests/it/{name} is not named in tests/it/main.rs"));
        }
    }
    none(&faults);
}

#[track_caller]
fn none(faults: &[String]) {
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

// --- reading the sources ---

struct Source {
    path: PathBuf,
    /// Below src/, with slashes.
    relative: String,
    room: String,
    text: String,
    /// The text up to its tests, without comments and the insides of strings.
    code: String,
    is_test: bool,
}

impl Source {
    /// Places of a word in the code: where no letter, digit or underscore touches it.
    fn find<'a>(&'a self, word: &'a str) -> impl Iterator<Item = String> + 'a {
        let lines = self.code.lines().enumerate();
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        lines
            .filter(move |(_, line)| {
                !self.is_test
                    && line.match_indices(word).any(|(at, _)| {
                        !line[..at].chars().next_back().is_some_and(is_word)
                            && !line[at + word.len()..].chars().next().is_some_and(is_word)
                    })
            })
            .map(|(line, _)| format!("{}:{}", self.path.display(), line + 1))
    }
}

fn rooms() -> Vec<String> {
    let lib = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).unwrap();
    lib.lines()
        .filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'))
        .map(str::to_owned)
        .collect()
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&root, &mut files);
    assert!(files.len() > 30, "only {} sources under {}", files.len(), root.display());
    files.sort();
    files
        .into_iter()
        .map(|path| {
            let relative = path.strip_prefix(&root).unwrap().to_string_lossy().replace('\\', "/");
            let room = relative.split('/').next().unwrap_or("").trim_end_matches(".rs").to_owned();
            let text = fs::read_to_string(&path).unwrap();
            let before_tests = match text.find("\n#[cfg(test)]\nmod tests {") {
                Some(end) => &text[..end],
                None => &text,
            };
            let code = without_comments_and_strings(before_tests);
            let is_test = relative.ends_with("tests.rs")
                || relative.contains("/tests/")
                || relative.ends_with("/mock.rs");
            Source { path, relative, room, text, code, is_test }
        })
        .collect()
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// Names behind `crate::`, of `crate::{a, b::c}` too.
fn crate_paths(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        let heads: Vec<&str> = match rest.strip_prefix('{') {
            Some(list) => top_level_items(list),
            None => vec![rest],
        };
        for head in heads {
            let name: String =
                head.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            found.push(name);
        }
    }
    found
}

fn top_level_items(list: &str) -> Vec<&str> {
    let mut items = Vec::new();
    let (mut depth, mut start) = (0, 0);
    for (at, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                items.push(&list[start..at]);
                return items;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                items.push(&list[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    items.push(&list[start..]);
    items
}

/// The code with comments and the insides of literals made blank; line numbers stay.
fn without_comments_and_strings(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut i = 0;
    let blank = |out: &mut String, c: char| out.push(if c == '\n' { '\n' } else { ' ' });
    while i < chars.len() {
        let next = chars.get(i + 1).copied().unwrap_or('\0');
        match chars[i] {
            '/' if next == '/' => {
                while i < chars.len() && chars[i] != '\n' {
                    i += 1;
                }
            }
            '/' if next == '*' => {
                while i < chars.len() && !(chars[i] == '*' && chars.get(i + 1) == Some(&'/')) {
                    blank(&mut out, chars[i]);
                    i += 1;
                }
                i += 2;
            }
            'r' if next == '"' || (next == '#' && matches!(chars.get(i + 2), Some('"' | '#'))) => {
                let hashes = chars[i + 1..].iter().take_while(|c| **c == '#').count();
                i += hashes + 2;
                let end: Vec<char> =
                    std::iter::once('"').chain(std::iter::repeat_n('#', hashes)).collect();
                while i < chars.len() && !chars[i..].starts_with(&end) {
                    blank(&mut out, chars[i]);
                    i += 1;
                }
                i += end.len();
                out.push_str("\"\"");
            }
            '"' => {
                i += 1;
                while i < chars.len() && chars[i] != '"' {
                    if chars[i] == '\\' {
                        i += 1;
                    }
                    if let Some(c) = chars.get(i) {
                        blank(&mut out, *c);
                    }
                    i += 1;
                }
                i += 1;
                out.push_str("\"\"");
            }
            // A character, not a lifetime.
            '\'' if next == '\\' || chars.get(i + 2) == Some(&'\'') => {
                i += if next == '\\' { 3 } else { 2 };
                while i < chars.len() && chars[i] != '\'' {
                    i += 1;
                }
                i += 1;
                out.push_str("' '");
            }
            c => {
                out.push(c);
                i += 1;
            }
        }
    }
    out
}

#[test]
fn the_reader_of_sources_reads() {
    let code = without_comments_and_strings(
        "use a; // crate::api\nlet s = \"crate::cli \\\" x\"; let c = '\"'; fn f<'a>(x: &'a str) {}\nr#\"crate::x \"y\"#;/* z\n*/ end",
    );
    assert_eq!(code.lines().count(), 4, "{code}");
    assert!(
        !code.contains("crate::") && code.contains("fn f<'a>(x: &'a str)") && code.ends_with("end")
    );
    assert_eq!(
        crate_paths("use crate::{api::{x, y}, cli}; crate::model::Z"),
        ["api", "cli", "model"]
    );
}
