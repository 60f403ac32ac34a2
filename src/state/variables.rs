//! Variables: a project's small pieces of configuration, with compare-and-set.

use std::sync::Arc;

use super::{Change, Event, Rejected, RejectedCode, Reply};
use crate::limits::VARIABLE_VALUE_BYTES_MAX;
use crate::model::name::ProjectName;
use crate::model::variable::{Variable, VariablePath};

impl Change<'_> {
    pub(super) fn put_variable(
        &mut self,
        project: &ProjectName,
        path: &VariablePath,
        value: &[u8],
        if_index: Option<u64>,
    ) -> Result<Reply, Rejected> {
        if value.len() > VARIABLE_VALUE_BYTES_MAX {
            let got = value.len();
            let message =
                format!("variable {path} has {got} bytes; the most is {VARIABLE_VALUE_BYTES_MAX}");
            return Err(Rejected::new(RejectedCode::TooLarge, message));
        }
        let key = (project.clone(), path.clone());
        self.expect_variable(&key, if_index)?;
        // That of its event: several writes can share a log entry, and one that compares must tell
        // them apart.
        let index = self.state.next_event + 1;
        let variable =
            Variable { value: value.to_vec(), modified_index: index, modified_at: self.stamp.at };
        self.state.variables.insert(key, Arc::new(variable));
        let (project, path) = (project.clone(), path.clone());
        self.emit(Event::VariableChanged { project, path, deleted: false });
        Ok(Reply::Variable { index })
    }

    pub(super) fn delete_variable(
        &mut self,
        project: &ProjectName,
        path: &VariablePath,
        if_index: Option<u64>,
    ) -> Result<Reply, Rejected> {
        let key = (project.clone(), path.clone());
        if !self.state.variables.contains_key(&key) {
            return Err(Rejected::not_found("variable", path));
        }
        self.expect_variable(&key, if_index)?;
        self.state.variables.remove(&key);
        let (project, path) = key;
        self.emit(Event::VariableChanged { project, path, deleted: true });
        Ok(Reply::Done)
    }

    fn expect_variable(
        &self,
        key: &(ProjectName, VariablePath),
        if_index: Option<u64>,
    ) -> Result<(), Rejected> {
        let now = self.state.variables.get(key).map_or(0, |variable| variable.modified_index);
        match if_index {
            Some(expected) if expected != now => {
                let path = &key.1;
                let message = match now {
                    0 => format!("there is no variable {path}, and index {expected} was expected"),
                    now => format!("variable {path} is at index {now}, not at {expected}"),
                };
                Err(Rejected::new(RejectedCode::Conflict, message))
            }
            _ => Ok(()),
        }
    }
}
