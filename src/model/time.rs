//! Points in time and lengths of time, in milliseconds. Nothing here reads a clock.

use std::fmt;
use std::ops::{Add, Sub};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Milliseconds since 1970-01-01 UTC. RFC 3339 in JSON is the API's business, not this type's.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default,
)]
#[serde(transparent)]
pub struct Timestamp(pub u64);

/// A length of time in milliseconds.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default,
)]
#[serde(transparent)]
pub struct Millis(pub u64);

impl Timestamp {
    /// Time from `earlier` to this; zero if `earlier` is later.
    pub fn since(self, earlier: Timestamp) -> Millis {
        Millis(self.0.saturating_sub(earlier.0))
    }

    /// `14:03:12 UTC`, for something that is less than a day away.
    pub fn time_of_day(self) -> String {
        let seconds = self.0 / 1000 % 86_400;
        format!("{:02}:{:02}:{:02} UTC", seconds / 3600, seconds / 60 % 60, seconds % 60)
    }
}

impl Add<Millis> for Timestamp {
    type Output = Timestamp;
    fn add(self, rhs: Millis) -> Timestamp {
        Timestamp(self.0.saturating_add(rhs.0))
    }
}

impl Sub<Millis> for Timestamp {
    type Output = Timestamp;
    fn sub(self, rhs: Millis) -> Timestamp {
        Timestamp(self.0.saturating_sub(rhs.0))
    }
}

impl Millis {
    /// A length in whole seconds.
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs * 1000)
    }

    /// For the standard library's clocks and timers.
    pub const fn as_duration(self) -> std::time::Duration {
        std::time::Duration::from_millis(self.0)
    }
}

/// A text that is no length of time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no duration; write a number with ms, s, m, h or d, as in 500ms, 30s or 1h30m")]
pub struct DurationError(pub String);

const UNITS: [(&str, u64); 5] =
    [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

impl FromStr for Millis {
    type Err = DurationError;

    /// `500ms`, `30s`, `1h30m`, `1.5s`; the bare `0` too.
    fn from_str(text: &str) -> Result<Self, DurationError> {
        let error = || DurationError(text.to_owned());
        let mut rest = text.trim();
        if rest == "0" {
            return Ok(Self(0));
        }
        if rest.is_empty() {
            return Err(error());
        }
        let mut total: u64 = 0;
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(error)?;
            let (number, tail) = rest.split_at(digits);
            let unit_end = tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len());
            let (unit, tail) = tail.split_at(unit_end);
            let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(error)?;
            let value: f64 = number.parse().map_err(|_| error())?;
            let millis = (value * *factor as f64).round();
            // 2^53 ms are 285,000 years; beyond it the float would no longer be exact.
            if !(0.0..9_007_199_254_740_992.0).contains(&millis) {
                return Err(error());
            }
            total = total.checked_add(millis as u64).ok_or_else(error)?;
            rest = tail;
        }
        Ok(Self(total))
    }
}

impl fmt::Display for Millis {
    /// The two largest units that are not zero: `1h30m`, `2s`, `350ms`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.pad("0s");
        }
        let mut rest = self.0;
        let mut text = String::new();
        let mut parts = 0;
        for (unit, factor) in UNITS.iter().rev() {
            let count = rest / factor;
            rest %= factor;
            if count > 0 {
                text.push_str(&format!("{count}{unit}"));
                parts += 1;
            }
            if parts == 2 {
                break;
            }
        }
        f.pad(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_and_print() {
        for (text, millis, printed) in [
            ("500ms", 500, "500ms"),
            ("30s", 30_000, "30s"),
            ("1h30m", 5_400_000, "1h30m"),
            ("1.5s", 1500, "1s500ms"),
            ("2d", 172_800_000, "2d"),
            ("0", 0, "0s"),
        ] {
            let read: Millis = text.parse().expect(text);
            assert_eq!((read.0, read.to_string().as_str()), (millis, printed));
        }
        for bad in ["", "5", "s", "5x", "-5s", "1..5s", "99999999999999999999d", "5 s"] {
            assert!(bad.parse::<Millis>().is_err(), "{bad}");
        }
    }
}
