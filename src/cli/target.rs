//! What a verb is about: a job, or one copy of it.

use std::str::FromStr;

use clap::Args;

use super::failure::Failure;
use crate::model::name::{JobId, JobName, ProjectName};

/// `--project`, for verbs that read or write a project's things.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct ProjectFlag {
    /// The project [default: default, or all of them for lists]
    #[arg(long, short, env = "ORCH_PROJECT", value_name = "PROJECT")]
    pub(super) project: Option<ProjectName>,
}

impl ProjectFlag {
    pub(super) fn name(&self) -> Option<String> {
        self.project.as_ref().map(ToString::to_string)
    }
}

/// A job as users name it: `web`, or `shop/web`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct JobRef {
    project: Option<ProjectName>,
    pub(super) name: JobName,
}

/// A text that names no job.
#[derive(Debug, thiserror::Error)]
#[error("{0}; write NAME or PROJECT/NAME")]
pub(super) struct JobRefError(String);

impl FromStr for JobRef {
    type Err = JobRefError;
    fn from_str(text: &str) -> Result<Self, JobRefError> {
        let (project, name) = match text.split_once('/') {
            Some((project, name)) => (Some(project), name),
            None => (None, text),
        };
        let project = project
            .map(str::parse)
            .transpose()
            .map_err(|error: crate::model::name::NameError| JobRefError(error.to_string()))?;
        let name = name
            .parse()
            .map_err(|error: crate::model::name::NameError| JobRefError(error.to_string()))?;
        Ok(Self { project, name })
    }
}

impl JobRef {
    /// The job, in the project it names or that of the flag.
    pub(super) fn id(&self, flag: &ProjectFlag) -> Result<JobId, Failure> {
        let project = match (&self.project, &flag.project) {
            (Some(named), Some(flag)) if named != flag => {
                return Err(Failure::usage(format!(
                    "{named}/{} is not in the project {flag}; leave out --project or the part \
                     before the slash",
                    self.name
                )));
            }
            (Some(project), _) | (None, Some(project)) => project.clone(),
            (None, None) => ProjectName::default(),
        };
        Ok(JobId { project, name: self.name.clone() })
    }
}

/// A job, or one copy of it: `web`, `web.2`, `shop/web.2`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CopyRef {
    pub(super) job: JobRef,
    pub(super) index: Option<u32>,
}

impl FromStr for CopyRef {
    type Err = JobRefError;
    fn from_str(text: &str) -> Result<Self, JobRefError> {
        // Names have no dots: what follows the last one is the number.
        match text.rsplit_once('.') {
            None => Ok(Self { job: text.parse()?, index: None }),
            Some((job, index)) => {
                let index = index
                    .parse()
                    .map_err(|_| JobRefError(format!("{index:?} is no number of a copy")))?;
                Ok(Self { job: job.parse()?, index: Some(index) })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_and_copies_read_as_they_are_written() {
        let flag = |name: &str| ProjectFlag { project: Some(name.parse().unwrap()) };
        let none = ProjectFlag::default();
        let id = |text: &str, flag: &ProjectFlag| {
            text.parse::<CopyRef>().unwrap().job.id(flag).map(|id| id.to_string()).ok()
        };
        assert_eq!(id("web", &none).as_deref(), Some("web"));
        assert_eq!(id("web.3", &flag("shop")).as_deref(), Some("shop/web"));
        assert_eq!(id("shop/web", &none).as_deref(), Some("shop/web"));
        assert_eq!(id("shop/web", &flag("shop")).as_deref(), Some("shop/web"));
        assert_eq!(id("shop/web", &flag("other")), None);
        assert_eq!("web.3".parse::<CopyRef>().unwrap().index, Some(3));
        for bad in ["", "web.", "web.x", ".1", "a/b/c", "Web", "web.1.2"] {
            assert!(bad.parse::<CopyRef>().is_err(), "{bad}");
        }
    }
}
