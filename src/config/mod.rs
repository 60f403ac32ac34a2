//! Settings: file + environment + flags -> each room's own Config.
//!
//! A setting has one name everywhere: `--api-addr`, `ORCH_API_ADDR`, and `api_addr` in the file's
//! `[server]` table. Flags win over the environment, the environment over the file.

mod file;
mod flags;
mod show;
mod zk_flags;

pub use self::file::{ConfigFileError, lenient, with_file};
pub(crate) use self::flags::host_name;
pub use self::flags::{
    AgentFlags, DevFlags, NodeFlags, Process, ServerFlags, ServerPart, SettingsError,
};
pub use self::show::{Setting, Source, effective};
pub use self::zk_flags::ZkFlags;
