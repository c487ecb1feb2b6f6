//! Kafka's primitive types: what every message is made of.
//!
//! [`Reader`] is a bounds-checked cursor that lends strings and bytes out of the frame; [`Writer`] puts the
//! bytes it makes and the record slices it is given into one frame without copying the records. Neither
//! knows any message, and neither decides anything.
//!
//! Invariants: nothing read from a peer sizes an allocation before it was compared with the bytes that are
//! left and with the budget of the whole frame ([`DECODE_BYTES_MAX`]); no input makes the reader panic.
//!
//! ```text
//! type            fixed ("flexible" = false)        compact ("flexible" = true)
//! string, bytes   i16 / i32 length, -1 = null       uvarint length + 1, 0 = null
//! array           i32 count, -1 = null              uvarint count + 1, 0 = null
//! struct          fields                            fields, then tagged fields
//! tagged fields   -                                 uvarint count, then (uvarint tag, uvarint bytes, payload)*
//! ```

mod read;
mod records;
mod write;

pub use read::{DECODE_BYTES_MAX, Reader};
pub use records::Records;
pub use write::{Tag, Writer};

use std::fmt;

/// 16 bytes, most significant first, as Kafka writes a UUID.
pub type Uuid = [u8; 16];

/// Why bytes from a peer are not the message they should be. The connection that sent them is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Error {
    /// A field continues behind the end of the frame.
    Truncated,
    /// A variable-length number has more bits than its type.
    Varint,
    /// A length or count below zero that does not mean null.
    NegativeLength,
    /// A null where the version at hand allows none.
    Null,
    /// More elements than the bytes that are left can hold, or than one frame may make us allocate.
    TooMany,
    /// A string that is longer than Kafka allows in any version, 32,767 bytes.
    TooLong,
    /// A string that is not UTF-8.
    Utf8,
    /// A tagged field whose content is shorter or longer than its announced length.
    TagLength,
    /// A version that the schema does not know.
    Version,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Error::Truncated => "the message ends inside a field",
            Error::Varint => "a variable-length number is too long",
            Error::NegativeLength => "a length is negative",
            Error::Null => "a field that must not be null is null",
            Error::TooMany => "an array announces more elements than the message can hold",
            Error::TooLong => "a string is longer than 32,767 bytes",
            Error::Utf8 => "a string is not UTF-8",
            Error::TagLength => "a tagged field differs from its announced length",
            Error::Version => "the version is not known",
        })
    }
}

impl std::error::Error for Error {}

/// Why a message of ours cannot be written in the version asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EncodeError {
    /// A version that the schema does not know.
    Version(i16),
    /// A field holds more than its default, and this version has no place for it.
    NotInVersion { field: &'static str, version: i16 },
    /// A field is null, and this version allows none.
    Null { field: &'static str, version: i16 },
    /// A string, array or frame is longer than its length field can say.
    TooLong,
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EncodeError::Version(version) => write!(f, "version {version} is not known"),
            EncodeError::NotInVersion { field, version } => {
                write!(f, "{field} is set, which version {version} cannot say")
            }
            EncodeError::Null { field, version } => {
                write!(f, "{field} is null, which version {version} cannot say")
            }
            EncodeError::TooLong => f.write_str("a length does not fit its field"),
        }
    }
}

impl std::error::Error for EncodeError {}

/// Reads one structure of a message, borrowing from the frame.
pub trait Decode<'a>: Sized {
    /// No version of this structure has fewer bytes on the wire; bounds array counts.
    const BYTES_MIN: usize;

    fn decode(r: &mut Reader<'a>, version: i16) -> Result<Self, Error>;
}

/// Writes one structure of a message.
pub trait Encode {
    fn encode(&self, w: &mut Writer, version: i16) -> Result<(), EncodeError>;
}
