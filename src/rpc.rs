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

/// Deeper nesting than any type of ours has; stops an attack on the stack.
const DEPTH_MAX: usize = 64;

/// Bytes that are no value of the type asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("malformed message: {0}")]
pub struct Malformed(pub String);

/// MessagePack with field names: what `bytes` fields hold.
///
/// # Errors
/// Never for the types of this crate; they have no maps with strange keys.
pub fn pack<T: serde::Serialize>(value: &T) -> Result<Vec<u8>, Malformed> {
    rmp_serde::to_vec_named(value).map_err(|error| Malformed(error.to_string()))
}

/// The value in `bytes`, which must hold nothing else.
///
/// # Errors
/// If they hold something else.
pub fn unpack<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, Malformed> {
    let mut rest = bytes;
    let mut reader = rmp_serde::Deserializer::new(&mut rest);
    reader.set_max_depth(DEPTH_MAX);
    let value = serde::Deserialize::deserialize(&mut reader)
        .map_err(|error| Malformed(error.to_string()))?;
    if rest.is_empty() { Ok(value) } else { Err(Malformed("bytes behind the value".to_owned())) }
}
