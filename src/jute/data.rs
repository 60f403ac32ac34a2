//! Records that are part of others: identities, access lists, stats.

use serde::{Deserialize, Serialize};

use super::codec::{Error, Field, Reader, records};

/// An identity: `digest` with `user:hash`, `ip` with an address, `world` with `anyone`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Id {
    /// The scheme.
    pub scheme: String,
    /// The identity within it.
    pub id: String,
}

impl<'a> Field<'a> for Id {
    /// What is not UTF-8 is replaced, as ZooKeeper does: its Java writes letters beyond the basic
    /// plane in a way of its own, and nobody could read a snapshot with one otherwise.
    fn read(reader: &mut Reader<'a>) -> Result<Self, Error> {
        let mut text = || -> Result<String, Error> {
            let bytes: Option<&'a [u8]> = reader.field()?;
            Ok(String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned())
        };
        Ok(Self { scheme: text()?, id: text()? })
    }

    fn write(&self, out: &mut Vec<u8>) {
        self.scheme.write(out);
        self.id.write(out);
    }
}

/// What an identity may do with a node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Acl {
    /// Bits of `op::PERM_*`.
    pub perms: i32,
    /// Who.
    pub id: Id,
}

impl Acl {
    /// Everybody may do everything.
    pub fn open() -> Self {
        let id = Id { scheme: "world".to_owned(), id: "anyone".to_owned() };
        Self { perms: super::op::PERM_ALL, id }
    }
}

impl Field<'_> for Acl {
    fn read(reader: &mut Reader<'_>) -> Result<Self, Error> {
        Ok(Self { perms: reader.field()?, id: reader.field()? })
    }

    fn write(&self, out: &mut Vec<u8>) {
        self.perms.write(out);
        self.id.write(out);
    }
}

records! {
    /// What clients see of a node beside its data.
    #[derive(Copy, Default, Serialize, Deserialize)]
    Stat {
        /// Transaction that made it.
        czxid: i64,
        /// Transaction that last replaced its data.
        mzxid: i64,
        /// When it was made, in milliseconds since 1970.
        ctime: i64,
        /// When its data were last replaced, in milliseconds since 1970.
        mtime: i64,
        /// How often its data were replaced.
        version: i32,
        /// How often children were made and removed.
        cversion: i32,
        /// How often its access list was replaced.
        aversion: i32,
        /// The session it goes with, or 0.
        ephemeral_owner: i64,
        /// Bytes of data.
        data_length: i32,
        /// Children.
        num_children: i32,
        /// Transaction that last made or removed a child.
        pzxid: i64,
    }

    /// What files and the stream to learners have of a node beside its data.
    #[derive(Copy, Default, Serialize, Deserialize)]
    StatPersisted {
        /// As in [`Stat`].
        czxid: i64,
        /// As in [`Stat`].
        mzxid: i64,
        /// As in [`Stat`].
        ctime: i64,
        /// As in [`Stat`].
        mtime: i64,
        /// As in [`Stat`].
        version: i32,
        /// How often children were made: removals don't count here.
        cversion: i32,
        /// As in [`Stat`].
        aversion: i32,
        /// Raw: see [`super::op::Owner`].
        ephemeral_owner: i64,
        /// As in [`Stat`].
        pzxid: i64,
    }
}
