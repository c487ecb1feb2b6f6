//! What configs can be set for besides topics: one broker, all brokers, a group.
//!
//! ```text
//! kind i8 | node id i32, nothing, or group name
//! ```
//! The kinds are Kafka's numbers of resource types where it has one.

use super::image::NodeId;
use crate::wire::{Error, Reader, Result, Writer};

const BROKER: i8 = 4;
const BROKERS: i8 = 5;
const GROUP: i8 = 32;

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum ConfigResource {
    /// All brokers of the cluster.
    Brokers,
    Broker(NodeId),
    /// The group need not exist.
    Group(String),
}

impl ConfigResource {
    pub(super) fn write(&self, w: &mut Writer) {
        match self {
            ConfigResource::Brokers => w.i8(BROKERS),
            ConfigResource::Broker(node) => {
                w.i8(BROKER);
                w.i32(node.0);
            }
            ConfigResource::Group(name) => {
                w.i8(GROUP);
                w.string(name);
            }
        }
    }

    pub(super) fn read(r: &mut Reader<'_>) -> Result<ConfigResource> {
        Ok(match r.i8()? {
            BROKERS => ConfigResource::Brokers,
            BROKER => ConfigResource::Broker(NodeId(r.i32()?)),
            GROUP => ConfigResource::Group(r.string()?),
            _ => return Err(Error::Value),
        })
    }
}
