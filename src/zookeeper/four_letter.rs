//! Four-letter words: what an operator may ask a server of ZooKeeper with `nc`.

/// All of them.
pub const WORDS: [&str; 18] = [
    "conf", "cons", "crst", "dirs", "dump", "envi", "gtmk", "hash", "isro", "mntr", "ruok", "srst",
    "srvr", "stat", "stmk", "wchc", "wchp", "wchs",
];

/// Whether there is such a word.
pub fn is_known(word: &str) -> bool {
    WORDS.contains(&word)
}
