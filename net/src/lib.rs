//! Bytes in, bytes out: Kafka framing, the message codec and a client without I/O.
//!
//! - [`wire`] reads and writes Kafka's primitive types, [`messages`] (generated from `schema/`) the messages.
//! - [`api`], [`header`] and [`error_code`] name what goes over the wire.
//! - [`frame`] cuts a stream of bytes into frames.
//! - [`client`] is the other end, for the load generator, the command line and tests.
//!
//! Nothing here decides what a request means, and only `client` awaits anything.

pub mod api;
pub mod client;
pub mod error_code;
pub mod frame;
pub mod fuzz;
pub mod header;
pub mod messages;
pub mod wire;
