//! Which runtimes an agent begins with.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::config::{AgentError, Config, RuntimeChoice};
use super::docker::{Docker, EngineFacts};
use super::process::Process;
use super::runtime::Runtime;

/// The runtimes that an agent begins with.
#[derive(Debug)]
pub struct Runtimes {
    /// Those that always answer.
    pub(super) fixed: Vec<Arc<dyn Runtime>>,
    /// Whether the Docker engine is looked for, and what was found at the start.
    pub(super) docker: Option<Option<(Docker, EngineFacts)>>,
    /// Whether they run things on this machine, whose use is measured and told then.
    pub(super) here: bool,
}

impl Runtimes {
    /// Those that are given, which run nothing on this machine.
    pub fn elsewhere(fixed: Vec<Arc<dyn Runtime>>) -> Self {
        Self { fixed, docker: None, here: false }
    }

    /// Those of this machine that `config` asks for.
    ///
    /// # Errors
    /// If one of them can't be used.
    pub(super) async fn first(config: &Config) -> Result<Self, AgentError> {
        let mut runtimes = Self { fixed: Vec::new(), docker: None, here: true };
        if config.runtime != RuntimeChoice::Docker {
            let process = Process::new(config.data_dir.join("tasks"), config.program.clone())
                .map_err(|error| AgentError::Config(format!("process runtime: {error}")))?;
            runtimes.fixed.push(Arc::new(process));
        }
        if config.runtime != RuntimeChoice::Process {
            let roots = config.volume_roots.clone();
            runtimes.docker = match Docker::connect(config.docker_socket.as_deref(), roots).await {
                Ok(found) => Some(Some(found)),
                Err(error) if config.runtime == RuntimeChoice::Docker => {
                    return Err(AgentError::NoEngine(error.to_string()));
                }
                Err(error) => {
                    tracing::info!(%error, "no Docker engine yet; processes only until it answers");
                    Some(None)
                }
            };
        }
        Ok(runtimes)
    }

    /// Their names.
    pub(super) fn offered(&self) -> BTreeSet<&'static str> {
        let docker = self.docker.is_some().then_some("docker");
        self.fixed.iter().map(|runtime| runtime.word()).chain(docker).collect()
    }
}
