//! What must be agreed on: the metadata state machine and Raft, without I/O.
//!
//! Nothing here waits, reads a clock, draws a random number or opens anything: time, randomness and input are
//! arguments, effects are return values. The same code runs in the broker and in the simulator.

pub mod error_code;
#[doc(hidden)]
pub mod fuzz;
pub mod group;
pub mod metadata;
pub mod producer_ids;
pub mod raft;

pub mod wire;

pub use error_code::{ErrorCode, Refusal};
pub use metadata::{Change, Command, Image, Metadata, NodeId};
