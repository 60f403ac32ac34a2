//! Users of the host by name.

use std::fs;

/// Who a process is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ids {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

/// The ids behind `name`, `uid`, `uid:gid` or `name:group`.
///
/// # Errors
/// If there is no such user or group.
pub(super) fn ids(text: &str) -> Result<Ids, String> {
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let group = fs::read_to_string("/etc/group").unwrap_or_default();
    find(text, &passwd, &group)
}

fn find(text: &str, passwd: &str, group: &str) -> Result<Ids, String> {
    let (user, wanted_group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    let number = |field: Option<&&str>| field.and_then(|field| field.parse::<u32>().ok());
    let entry = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|fields| {
        fields.first() == Some(&user) || (fields.len() > 2 && fields.get(2) == Some(&user))
    });
    let uid = user
        .parse()
        .ok()
        .or_else(|| entry.as_ref().and_then(|fields| number(fields.get(2))))
        .ok_or_else(|| format!("user {user:?} is not known on this host"))?;
    let gid = match wanted_group {
        // Its own group; that of a bare number without an entry has the same number.
        None => entry.as_ref().and_then(|fields| number(fields.get(3))).unwrap_or(uid),
        Some(name) => name
            .parse()
            .ok()
            .or_else(|| {
                let mut lines = group.lines().map(|line| line.split(':').collect::<Vec<_>>());
                let fields = lines.find(|fields| fields.first() == Some(&name))?;
                number(fields.get(2))
            })
            .ok_or_else(|| format!("group {name:?} is not known on this host"))?,
    };
    Ok(Ids { uid, gid })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_name_and_number() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nwww:x:33:34::/var/www:/bin/false\n";
        let group = "root:x:0:\nadm:x:4:www\n";
        for (text, uid, gid) in
            [("www", 33, 34), ("33", 33, 34), ("7", 7, 7), ("7:8", 7, 8), ("www:adm", 33, 4)]
        {
            assert_eq!(find(text, passwd, group), Ok(Ids { uid, gid }), "{text}");
        }
        assert!(find("nobody-here", passwd, group).unwrap_err().contains("nobody-here"));
        assert!(find("www:none", passwd, group).unwrap_err().contains("none"));
    }
}
