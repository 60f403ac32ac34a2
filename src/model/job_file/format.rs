//! How job files are written, and how that is found out.

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

    /// Found out from the text itself. A brace or bracket begins JSON if the rest of it is, and
    /// else YAML; a table, or an equals sign before any colon, begins TOML.
    pub fn of_text(text: &str) -> Self {
        let mut lines = text.lines().map(str::trim);
        let Some(first) = lines.find(|line| !line.is_empty() && !line.starts_with('#')) else {
            return Self::Yaml;
        };
        let equals = first.find('=');
        let assigned = equals.is_some_and(|at| first.find(':').is_none_or(|colon| at < colon));
        let table =
            first.starts_with('[') && first.ends_with(']') && !first.contains([',', '"', '{']);
        if first.starts_with(['{', '[']) && !table {
            let json = serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok();
            return if json { Self::Json } else { Self::Yaml };
        }
        if assigned || table { Self::Toml } else { Self::Yaml }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_is_found_out() {
        for (text, format) in [
            ("job: web\nimage: a=b\n", Format::Yaml),
            ("# a job\n\n---\njob: web\n", Format::Yaml),
            ("{ \"job\": \"web\" }", Format::Json),
            ("[{ \"job\": \"web\" }]", Format::Json),
            ("{ job: web }", Format::Yaml),
            ("# a job\njob = \"web\"\n", Format::Toml),
            ("[resources]\ncpu = 1\n", Format::Toml),
            ("", Format::Yaml),
        ] {
            assert_eq!(Format::of_text(text), format, "{text}");
        }
        assert_eq!(Format::of_file_name("a.b/c.JSON"), Format::Json);
        assert_eq!(Format::of_file_name("web.yml"), Format::Yaml);
        for format in [Format::Yaml, Format::Json, Format::Toml] {
            assert_eq!(Format::of_content_type(format.content_type()), Some(format));
        }
        assert_eq!(Format::of_content_type("Text/YAML; charset=utf-8"), Some(Format::Yaml));
        assert_eq!(Format::of_content_type("text/html"), None);
    }
}
