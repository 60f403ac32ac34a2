//! What of a definition has no equal, or another one than its words say.

use serde::{Deserialize, Serialize};

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Weight {
    /// Carried over in another form; worth knowing.
    Adapted,
    /// Left out: it runs without.
    Lost,
    /// Left out, and it may not work, lose data, or be less protected without.
    Essential,
    /// No job could be made of it.
    Blocked,
}

impl Weight {
    /// The word users know it by.
    pub fn word(self) -> &'static str {
        match self {
            Self::Adapted => "adapted",
            Self::Lost => "lost",
            Self::Essential => "essential",
            Self::Blocked => "blocked",
        }
    }
}

/// One field of a definition that is not carried over as it stands.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Finding {
    /// The app, pod or group; `*` for what is true of all of them.
    pub id: String,
    /// Path of the field, as `container.docker.privileged`.
    pub field: String,
    /// What it said, shortened; empty where that is a secret or says nothing.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub said: String,
    /// Why it has no equal, or what became of it.
    pub why: String,
    /// What to do about it.
    pub remedy: String,
    /// How much it matters.
    pub weight: Weight,
}

/// Findings of one definition while it is taken apart.
#[derive(Debug, Default)]
pub(super) struct Notes {
    /// The definition.
    pub(super) id: String,
    /// What was found, in the order found.
    pub(super) findings: Vec<Finding>,
}

impl Notes {
    pub(super) fn of(id: &str) -> Self {
        Self { id: id.to_owned(), findings: Vec::new() }
    }

    pub(super) fn add(
        &mut self,
        weight: Weight,
        field: &str,
        said: impl Into<String>,
        why: &str,
        remedy: &str,
    ) {
        self.findings.push(Finding {
            id: self.id.clone(),
            field: field.to_owned(),
            said: said.into(),
            why: why.to_owned(),
            remedy: remedy.to_owned(),
            weight,
        });
    }

    pub(super) fn adapted(&mut self, field: &str, said: impl Into<String>, why: &str, fix: &str) {
        self.add(Weight::Adapted, field, said, why, fix);
    }

    pub(super) fn lost(&mut self, field: &str, said: impl Into<String>, why: &str, fix: &str) {
        self.add(Weight::Lost, field, said, why, fix);
    }

    pub(super) fn essential(&mut self, field: &str, said: impl Into<String>, why: &str, fix: &str) {
        self.add(Weight::Essential, field, said, why, fix);
    }

    pub(super) fn blocked(&mut self, field: &str, said: impl Into<String>, why: &str, fix: &str) {
        self.add(Weight::Blocked, field, said, why, fix);
    }
}
