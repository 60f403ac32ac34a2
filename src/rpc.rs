//! Generated gRPC types and their conversions.

/// What servers and agents say to each other; see `proto/orch.proto`.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::unwrap_used)]
pub mod v1 {
    tonic::include_proto!("orch.v1");
}

use crate::model::name::NameError;
use crate::model::server::Server;

impl From<Server> for v1::ServerInfo {
    fn from(server: Server) -> Self {
        Self {
            id: server.id,
            name: server.name.to_string(),
            rpc_addr: server.rpc_addr,
            api_addr: server.api_addr,
        }
    }
}

impl TryFrom<v1::ServerInfo> for Server {
    type Error = NameError;
    fn try_from(info: v1::ServerInfo) -> Result<Self, NameError> {
        Ok(Self {
            id: info.id,
            name: info.name.parse()?,
            rpc_addr: info.rpc_addr,
            api_addr: info.api_addr,
        })
    }
}
