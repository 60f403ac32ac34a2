//! Which host paths may be mounted: only what really lies under an allowed root.

use std::path::{Path, PathBuf};

/// The true path of `path`, if it is allowed.
///
/// Links are followed first, so that none leads out of the roots. The path that is mounted is the
/// true one, so that a link that is changed afterwards changes nothing.
///
/// # Errors
/// If the path does not exist or lies outside; the text names the roots.
pub(super) fn checked_path(path: &str, roots: &[PathBuf]) -> Result<PathBuf, String> {
    let given = Path::new(path);
    if !given.is_absolute() {
        return Err(format!("volume path {path} must be absolute"));
    }
    if roots.is_empty() {
        return Err(format!(
            "volume path {path} is refused: this node allows no host paths (start its agent with \
             --volume-root)"
        ));
    }
    let named = roots.iter().map(|root| root.display().to_string()).collect::<Vec<_>>().join(", ");
    let real = std::fs::canonicalize(given).map_err(|error| {
        format!("volume path {path} can't be mounted: {error} (allowed roots: {named})")
    })?;
    let allowed = roots.iter().any(|root| {
        std::fs::canonicalize(root).is_ok_and(|root| real == root || real.starts_with(&root))
    });
    if allowed {
        Ok(real)
    } else if real == given {
        Err(format!("volume path {path} is outside the allowed roots: {named}"))
    } else {
        Err(format!(
            "volume path {path} leads to {}, outside the allowed roots: {named}",
            real.display()
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_does_not_lead_out_of_the_roots() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        std::fs::create_dir_all(root.join("data")).unwrap();
        std::fs::create_dir_all(dir.path().join("root-not")).unwrap();
        std::os::unix::fs::symlink("/etc", root.join("out")).unwrap();
        let roots = vec![root.clone()];
        let path = |name: &str| root.join(name).display().to_string();

        let real = std::fs::canonicalize(root.join("data")).unwrap();
        assert_eq!(checked_path(&path("data"), &roots), Ok(real.clone()));
        assert_eq!(checked_path(&path("data/../data"), &roots), Ok(real));
        for bad in ["out", "out/ssl", "../root-not", "missing"] {
            let error = checked_path(&path(bad), &roots).unwrap_err();
            assert!(error.contains(&root.display().to_string()), "{error}");
        }
        assert!(checked_path("data", &roots).unwrap_err().contains("absolute"));
        assert!(checked_path("/etc", &[]).unwrap_err().contains("--volume-root"));
    }
}
