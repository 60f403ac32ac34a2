//! Points in time as RFC 3339 texts.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::ToSchema;

use crate::model::time::Timestamp;

/// A point in time: `2026-11-20T08:51:00.123Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, ToSchema)]
#[schema(value_type = String, format = DateTime)]
pub struct Time(pub Timestamp);

/// A text that is no point in time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no time; write one as 2026-11-20T08:51:00Z")]
pub struct TimeError(pub String);

impl From<Timestamp> for Time {
    fn from(at: Timestamp) -> Self {
        Self(at)
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = i64::try_from(self.0.0).unwrap_or(i64::MAX);
        // The year 9999 is the last that RFC 3339 can write.
        let at = jiff::Timestamp::from_millisecond(millis).unwrap_or(jiff::Timestamp::MAX);
        f.pad(&format!("{at:.3}"))
    }
}

impl FromStr for Time {
    type Err = TimeError;
    fn from_str(text: &str) -> Result<Self, TimeError> {
        let at: jiff::Timestamp = text.parse().map_err(|_| TimeError(text.to_owned()))?;
        let millis = u64::try_from(at.as_millisecond()).map_err(|_| TimeError(text.to_owned()))?;
        Ok(Self(Timestamp(millis)))
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_reads_as_it_is_written() {
        let at = Time(Timestamp(1_795_164_660_123));
        assert_eq!(at.to_string(), "2026-11-20T08:51:00.123Z");
        assert_eq!(at.to_string().parse(), Ok(at));
        assert!(Time(Timestamp(u64::MAX)).to_string().starts_with("9999-12-30T"));
        for bad in ["", "yesterday", "1960-01-01T00:00:00Z", "2026-11-20"] {
            assert!(bad.parse::<Time>().is_err(), "{bad}");
        }
    }
}
