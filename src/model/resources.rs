//! Amounts of CPU, memory, disk and GPUs.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An amount of each resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Resources {
    /// Thousandths of a core.
    pub cpu_milli: u64,
    /// Bytes.
    pub memory: u64,
    /// Bytes.
    pub disk: u64,
    /// Whole devices.
    pub gpu: u32,
}

impl Resources {
    /// The sum, each part capped at its largest value.
    pub fn plus(self, other: Resources) -> Resources {
        Resources {
            cpu_milli: self.cpu_milli.saturating_add(other.cpu_milli),
            memory: self.memory.saturating_add(other.memory),
            disk: self.disk.saturating_add(other.disk),
            gpu: self.gpu.saturating_add(other.gpu),
        }
    }

    /// The difference, each part at least zero.
    pub fn minus(self, other: Resources) -> Resources {
        Resources {
            cpu_milli: self.cpu_milli.saturating_sub(other.cpu_milli),
            memory: self.memory.saturating_sub(other.memory),
            disk: self.disk.saturating_sub(other.disk),
            gpu: self.gpu.saturating_sub(other.gpu),
        }
    }

    /// The first resource of which `self` holds less than `wanted`.
    pub fn lacks(self, wanted: Resources) -> Option<ResourceKind> {
        if self.cpu_milli < wanted.cpu_milli {
            Some(ResourceKind::Cpu)
        } else if self.memory < wanted.memory {
            Some(ResourceKind::Memory)
        } else if self.disk < wanted.disk {
            Some(ResourceKind::Disk)
        } else if self.gpu < wanted.gpu {
            Some(ResourceKind::Gpu)
        } else {
            None
        }
    }
}

/// Which resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ResourceKind {
    /// Processor time.
    Cpu,
    /// Main memory.
    Memory,
    /// Space in the task's own file system.
    Disk,
    /// Graphics processors.
    Gpu,
}

impl fmt::Display for ResourceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::Disk => "disk",
            Self::Gpu => "gpu",
        })
    }
}

/// What one task asks for. What it leaves out is reserved with a small default and not limited.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(default)]
pub struct ResourceRequest {
    /// Thousandths of a core: reserved, and the most the task gets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_milli: Option<u64>,
    /// Bytes: reserved, and the most the task gets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// Bytes: reserved, and the most the task may write outside its volumes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk: Option<u64>,
    /// Whole devices, each given to one task alone.
    pub gpu: u32,
}

impl ResourceRequest {
    /// Reserved for a task that names no CPU, in thousandths of a core.
    pub const CPU_MILLI_DEFAULT: u64 = 100;
    /// Reserved for a task that names no memory, in bytes.
    pub const MEMORY_DEFAULT: u64 = 64 << 20;

    /// What the scheduler sets aside.
    pub fn reserved(&self) -> Resources {
        Resources {
            cpu_milli: self.cpu_milli.unwrap_or(Self::CPU_MILLI_DEFAULT),
            memory: self.memory.unwrap_or(Self::MEMORY_DEFAULT),
            disk: self.disk.unwrap_or(0),
            gpu: self.gpu,
        }
    }
}

/// A text that is no amount of bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no size; write a number with Ki, Mi, Gi, Ti (or K, M, G, T), as in 256Mi")]
pub struct SizeError(pub String);

/// An amount of bytes as people write it: `256Mi`, `1.5G`, `1024`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bytes(pub u64);

impl FromStr for Bytes {
    type Err = SizeError;

    /// Ki, Mi, Gi, Ti are powers of 1024; K, M, G, T of 1000; a trailing B changes nothing, and
    /// Compose's lower-case k, m, g are its powers of 1024.
    fn from_str(text: &str) -> Result<Self, SizeError> {
        let error = || SizeError(text.to_owned());
        let trimmed = text.trim();
        let end = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(trimmed.len());
        let (number, unit) = trimmed.split_at(end);
        let factor: u64 = match unit {
            "" | "B" | "b" => 1,
            "K" | "KB" => 1000,
            "M" | "MB" => 1_000_000,
            "G" | "GB" => 1_000_000_000,
            "T" | "TB" => 1_000_000_000_000,
            "Ki" | "KiB" | "k" | "kb" => 1 << 10,
            "Mi" | "MiB" | "m" | "mb" => 1 << 20,
            "Gi" | "GiB" | "g" | "gb" => 1 << 30,
            "Ti" | "TiB" | "t" | "tb" => 1 << 40,
            _ => return Err(error()),
        };
        let value: f64 = number.parse().map_err(|_| error())?;
        let bytes = (value * factor as f64).round();
        if !(0.0..9_007_199_254_740_992.0).contains(&bytes) {
            return Err(error());
        }
        Ok(Self(bytes as u64))
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(&str, u64); 4] =
            [("Ti", 1 << 40), ("Gi", 1 << 30), ("Mi", 1 << 20), ("Ki", 1 << 10)];
        let text = match UNITS.iter().find(|(_, factor)| self.0 >= *factor) {
            Some((unit, factor)) if self.0.is_multiple_of(*factor) => {
                format!("{}{unit}", self.0 / factor)
            }
            Some((unit, factor)) => format!("{:.1}{unit}", self.0 as f64 / *factor as f64),
            None => format!("{}B", self.0),
        };
        f.pad(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_and_print() {
        for (text, bytes, printed) in [
            ("256Mi", 256 << 20, "256Mi"),
            ("1.5Gi", 3 << 29, "1.5Gi"),
            ("64m", 64 << 20, "64Mi"),
            ("1000", 1000, "1000B"),
            ("1K", 1000, "1000B"),
        ] {
            let read: Bytes = text.parse().expect(text);
            assert_eq!((read.0, read.to_string().as_str()), (bytes, printed));
        }
        for bad in ["", "Mi", "5X", "-5Mi", "1e400", "99999999Ti"] {
            assert!(bad.parse::<Bytes>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_first_lacking_resource_is_named() {
        let have = Resources { cpu_milli: 1000, memory: 10, disk: 10, gpu: 0 };
        assert_eq!(have.lacks(have), None);
        assert_eq!(
            have.lacks(Resources { memory: 11, gpu: 1, ..have }),
            Some(ResourceKind::Memory)
        );
    }
}
