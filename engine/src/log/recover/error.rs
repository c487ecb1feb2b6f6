//! Why a log does not open, in words to act on.

use crate::ids::LeaderEpoch;
use std::path::PathBuf;

#[derive(Debug)]
pub enum OpenError {
    Io {
        path: PathBuf,
        error: std::io::Error,
    },
    /// Acknowledged bytes are wrong or missing. Nothing was changed; another replica or a repair mends it.
    Damaged {
        path: PathBuf,
        position: u64,
        why: String,
    },
    /// The folder belongs to another partition.
    WrongPartition {
        path: PathBuf,
        holds: String,
    },
    /// A newer Corelog wrote it.
    Newer {
        path: PathBuf,
        version: u16,
    },
    /// This incarnation's epoch must be above every earlier one.
    StaleEpoch {
        given: LeaderEpoch,
        last: LeaderEpoch,
    },
}

impl OpenError {
    /// Nothing is wrong with the log: there was no space for what opening it has to write.
    pub fn is_no_space(&self) -> bool {
        use std::io::ErrorKind::{QuotaExceeded, StorageFull};
        matches!(self, OpenError::Io { error, .. } if matches!(error.kind(), StorageFull | QuotaExceeded))
    }
}

impl std::fmt::Display for OpenError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            OpenError::Io { path, error } => write!(f, "{}: {error}", path.display()),
            OpenError::Damaged { path, position, why } => write!(
                f,
                "{} is damaged at byte {position}: {why}. Nothing was changed; restore it from another replica or run `corelog log repair`.",
                path.display()
            ),
            OpenError::WrongPartition { path, holds } => {
                write!(f, "{} belongs to {holds}", path.display())
            }
            OpenError::Newer { path, version } => write!(
                f,
                "{} has format {version}, which a newer Corelog wrote; start that version",
                path.display()
            ),
            OpenError::StaleEpoch { given, last } => {
                write!(f, "epoch {given} is not above {last}, the last one of this log")
            }
        }
    }
}

impl std::error::Error for OpenError {}
