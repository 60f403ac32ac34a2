//! Names and ids. A value of one of these types is valid; there is no other way to make one.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::limits::NAME_CHARS_MAX;

/// Why a text is no name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing there.
    #[error("a name can't be empty")]
    Empty,
    /// Longer than [`NAME_CHARS_MAX`].
    #[error("{got} characters are too many for a name; the most is {NAME_CHARS_MAX}")]
    TooLong {
        /// Characters found.
        got: usize,
    },
    /// A character that names don't have.
    #[error(
        "{character:?} can't stand at place {place} of a name; names have a-z, 0-9 and -, \
         and begin and end with a letter or digit"
    )]
    Character {
        /// What was found.
        character: char,
        /// Its place, counted from 1.
        place: usize,
    },
}

fn check(text: &str) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty);
    }
    let count = text.chars().count();
    if count > NAME_CHARS_MAX {
        return Err(NameError::TooLong { got: count });
    }
    for (i, character) in text.chars().enumerate() {
        let inner = i > 0 && i + 1 < count;
        let ok = matches!(character, 'a'..='z' | '0'..='9') || (inner && character == '-');
        if !ok {
            return Err(NameError::Character { character, place: i + 1 });
        }
    }
    Ok(())
}

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name's text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                check(text)?;
                Ok(Self(text.into()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0.as_ref().to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
    )*};
}

names! {
    /// A project, the tenant that owns jobs.
    ProjectName;
    /// A job's name in its project.
    JobName;
    /// A task's name in its job.
    TaskName;
    /// A port's name in its job.
    PortName;
    /// A node: a host with an agent.
    NodeName;
    /// A server of the cluster.
    ServerName;
}

impl Default for ProjectName {
    /// The project of whoever names none.
    fn default() -> Self {
        Self("default".into())
    }
}

/// A job, cluster-wide. Written `name` in the default project and `project/name` elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct JobId {
    /// The owning project.
    pub project: ProjectName,
    /// The job's name in it.
    pub name: JobName,
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.project == ProjectName::default() {
            write!(f, "{}", self.name)
        } else {
            write!(f, "{}/{}", self.project, self.name)
        }
    }
}

impl FromStr for JobId {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        match text.split_once('/') {
            Some((project, name)) => Ok(Self { project: project.parse()?, name: name.parse()? }),
            None => Ok(Self { project: ProjectName::default(), name: text.parse()? }),
        }
    }
}

/// An allocation, cluster-wide and for ever: a counter of the replicated state, never used twice.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default,
)]
pub struct AllocId(pub u64);

impl fmt::Display for AllocId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a{}", self.0)
    }
}

/// A text that is no allocation id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no allocation id; one looks like a17")]
pub struct AllocIdError(pub String);

impl FromStr for AllocId {
    type Err = AllocIdError;
    fn from_str(text: &str) -> Result<Self, AllocIdError> {
        text.strip_prefix('a')
            .filter(|digits| !digits.starts_with('+'))
            .and_then(|digits| digits.parse().ok())
            .map(Self)
            .ok_or_else(|| AllocIdError(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        assert!("web-1".parse::<JobName>().is_ok());
        assert_eq!("".parse::<JobName>(), Err(NameError::Empty));
        assert!(matches!("-web".parse::<JobName>(), Err(NameError::Character { place: 1, .. })));
        assert!(matches!("web-".parse::<JobName>(), Err(NameError::Character { place: 4, .. })));
        assert!(matches!("Web".parse::<JobName>(), Err(NameError::Character { place: 1, .. })));
        assert_eq!("x".repeat(64).parse::<JobName>(), Err(NameError::TooLong { got: 64 }));
    }

    #[test]
    fn a_job_id_reads_as_it_is_written() {
        for text in ["web", "shop/web"] {
            assert_eq!(text.parse::<JobId>().map(|id| id.to_string()), Ok(text.to_owned()));
        }
        assert!("a/b/c".parse::<JobId>().is_err());
    }

    #[test]
    fn an_alloc_id_reads_as_it_is_written() {
        assert_eq!("a17".parse(), Ok(AllocId(17)));
        for bad in ["17", "a", "a+1", "a-1", "b17", "a99999999999999999999"] {
            assert!(bad.parse::<AllocId>().is_err(), "{bad}");
        }
    }
}
