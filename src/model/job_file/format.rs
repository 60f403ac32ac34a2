//! How a job file is written, and how one finds out.

/// How a job file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Format {
    /// Several documents, or a list of jobs.
    #[default]
    Yaml,
    /// A job, or a list of jobs.
    Json,
    /// One job.
    Toml,
}

impl Format {
    /// By the end of a file's name; YAML where that says nothing.
    pub fn of_file_name(name: &str) -> Self {
        match name.rsplit_once('.').map(|(_, end)| end.to_ascii_lowercase()).as_deref() {
            Some("json") => Self::Json,
            Some("toml") => Self::Toml,
            _ => Self::Yaml,
        }
    }

    /// By a `Content-Type`; none if it is of neither kind.
    pub fn of_content_type(value: &str) -> Option<Self> {
        let kind = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match kind.as_str() {
            "application/yaml" | "application/x-yaml" | "text/yaml" | "text/x-yaml" => {
                Some(Self::Yaml)
            }
            "application/json" => Some(Self::Json),
            "application/toml" | "text/toml" | "text/x-toml" => Some(Self::Toml),
            _ => None,
        }
    }

    /// For a `Content-Type`.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Yaml => "application/yaml",
            Self::Json => "application/json",
            Self::Toml => "application/toml",
        }
    }
}
