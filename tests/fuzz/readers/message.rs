//! What servers and agents tell each other.

use orch::model::allocation::{AllocReport, Assignment};
use orch::model::node::NodeSpec;
use orch::state::codec;

/// What servers and agents tell each other, its kind chosen by the first byte.
pub fn feed(data: &[u8]) {
    let Some((choice, bytes)) = data.split_first() else { return };
    match choice % 3 {
        0 => same_again::<Assignment>(bytes),
        1 => same_again::<AllocReport>(bytes),
        _ => same_again::<NodeSpec>(bytes),
    }
}

fn same_again<T>(bytes: &[u8])
where
    T: serde::Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug,
{
    let Ok(value) = codec::from_bytes::<T>(bytes) else { return };
    let bytes = codec::to_bytes(&value).expect("it encodes");
    assert_eq!(codec::from_bytes(&bytes).as_ref(), Ok(&value));
}
