//! Small texts with a syntax of their own: signals, capabilities, paths, image references.

/// Signals that may ask a task to end, by number as on Linux.
const SIGNALS: [(&str, u8); 31] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("PWR", 30),
    ("SYS", 31),
];

/// `SIGTERM` for `SIGTERM`, `sigterm`, `TERM` and `15`; also `SIGRTMIN+3`.
pub(super) fn signal(text: &str) -> Option<String> {
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(offset) = name.strip_prefix("RTMIN+") {
        let offset: u8 = offset.parse().ok().filter(|offset| *offset <= 30)?;
        return Some(format!("SIGRTMIN+{offset}"));
    }
    let number = name.parse::<u8>().ok();
    SIGNALS
        .iter()
        .find(|(known, n)| *known == name || Some(*n) == number)
        .map(|(known, _)| format!("SIG{known}"))
}

/// The names of all signals, with `SIG`.
pub(super) fn signals() -> Vec<String> {
    SIGNALS.iter().map(|(name, _)| format!("SIG{name}")).collect()
}

/// Linux capabilities, and `ALL`.
pub(super) const CAPABILITIES: [&str; 42] = [
    "ALL",
    "AUDIT_CONTROL",
    "AUDIT_READ",
    "AUDIT_WRITE",
    "BLOCK_SUSPEND",
    "BPF",
    "CHECKPOINT_RESTORE",
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "IPC_LOCK",
    "IPC_OWNER",
    "KILL",
    "LEASE",
    "LINUX_IMMUTABLE",
    "MAC_ADMIN",
    "MAC_OVERRIDE",
    "MKNOD",
    "NET_ADMIN",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_RAW",
    "PERFMON",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYSLOG",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_CHROOT",
    "SYS_MODULE",
    "SYS_NICE",
    "SYS_PACCT",
    "SYS_PTRACE",
    "SYS_RAWIO",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "WAKE_ALARM",
];

/// Why a path can't be used, if so.
pub(super) fn path_problem(path: &str) -> Option<String> {
    if !path.starts_with('/') {
        return Some(format!("{path:?} is not absolute; begin it with /"));
    }
    if path.split('/').any(|part| part == ".." || part == ".") {
        return Some(format!("{path:?} has a part . or ..; write the path without"));
    }
    if path.chars().any(char::is_control) {
        return Some(format!("{path:?} has a character that paths don't have"));
    }
    (path.len() > 4096).then(|| "is longer than a path can be (4096 bytes)".to_owned())
}

/// Whether Docker takes it for a volume's name.
pub(super) fn is_volume_name(text: &str) -> bool {
    text.len() <= 255
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
}

/// Why a text is no image reference, if so. Follows the grammar of the distribution project.
pub(super) fn image_problem(text: &str) -> Option<String> {
    let wrong = |why: &str| Some(format!("{text:?} is no image reference: {why}"));
    if text.len() > 512 {
        return Some("is longer than an image reference can be (512 bytes)".to_owned());
    }
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (text, None),
    };
    if let Some(digest) = digest {
        let hex = digest.split_once(':').map(|(_, hex)| hex);
        if !hex.is_some_and(|hex| hex.len() >= 32 && hex.bytes().all(|b| b.is_ascii_hexdigit())) {
            return wrong("the digest after @ is not algorithm:hex, as sha256:…");
        }
    }
    let slash = rest.rfind('/').map_or(0, |i| i + 1);
    let (repository, tag) = match rest.get(slash..).and_then(|last| last.find(':')) {
        Some(colon) => (&rest[..slash + colon], Some(&rest[slash + colon + 1..])),
        None => (rest, None),
    };
    if let Some(tag) = tag {
        let good = !tag.is_empty()
            && tag.len() <= 128
            && !tag.starts_with(['.', '-'])
            && tag.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
        if !good {
            return wrong("the tag after : has letters, digits, _, . and -, and is not empty");
        }
    }
    let mut parts = repository.split('/').peekable();
    let host = parts.peek().copied().filter(|first| {
        repository.contains('/') && (first.contains(['.', ':']) || *first == "localhost")
    });
    if let Some(host) = host {
        parts.next();
        if !host.bytes().all(|b| b.is_ascii_alphanumeric() || b".:-[]".contains(&b)) {
            return wrong("the registry before the first / is no host name");
        }
    }
    for part in parts {
        if part.bytes().any(|b| b.is_ascii_uppercase()) {
            return wrong("the name must be lower case");
        }
        let alphanumeric = |c: char| c.is_ascii_alphanumeric();
        let good = part.starts_with(alphanumeric)
            && part.ends_with(alphanumeric)
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
        if !good {
            return wrong("write it as name:tag or registry/name:tag");
        }
    }
    None
}

/// Whether it can be a variable of an environment.
pub(super) fn is_variable_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic() && b != b'=')
}

/// Whether it reads as `name`, `uid`, `uid:gid`.
pub(super) fn is_user(text: &str) -> bool {
    let part = |part: &str| {
        !part.is_empty()
            && part.len() <= 64
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
            && !part.starts_with('-')
    };
    match text.split_once(':') {
        Some((user, group)) => part(user) && part(group),
        None => part(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_known_by_name_and_number() {
        for text in ["SIGTERM", "sigterm", "TERM", "15"] {
            assert_eq!(signal(text).as_deref(), Some("SIGTERM"), "{text}");
        }
        assert_eq!(signal("SIGRTMIN+3").as_deref(), Some("SIGRTMIN+3"));
        for bad in ["", "SIG", "SIGTERMS", "0", "99", "RTMIN+99"] {
            assert_eq!(signal(bad), None, "{bad}");
        }
    }

    #[test]
    fn image_references_follow_the_grammar() {
        for good in [
            "nginx",
            "nginx:1.27",
            "library/nginx",
            "localhost:5000/a/b:c",
            "registry.example.com/team/app_x@sha256:0123456789abcdef0123456789abcdef",
        ] {
            assert_eq!(image_problem(good), None, "{good}");
        }
        for bad in ["", "Nginx", "nginx:", "a b", "-x", "a//b", "a:b:c", "a@sha256", "/a", "a/"] {
            assert!(image_problem(bad).is_some(), "{bad}");
        }
    }

    #[test]
    fn users_have_a_name_or_a_number_and_maybe_a_group() {
        for good in ["root", "1000", "1000:1000", "www-data:web"] {
            assert!(is_user(good), "{good}");
        }
        for bad in ["", ":", "a:", ":a", "a b", "a:b:c", "-a"] {
            assert!(!is_user(bad), "{bad}");
        }
    }
}
