//! Produce and Fetch for one partition: what the command line and the tests need most.

use super::{Client, Error};
use crate::error_code::ErrorCode;
use crate::messages::fetch::{FetchPartition, FetchRequest, FetchTopic};
use crate::messages::produce::{PartitionProduceData, ProduceRequest, TopicProduceData};
use crate::wire::{Records, Uuid};
use rt::Slice;
use std::borrow::Cow;

/// Newest versions that name a topic by its name; later ones need its id.
const BY_NAME: i16 = 12;

/// How a batch was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Produced {
    pub base_offset: i64,
    pub log_append_time_ms: i64,
    pub log_start_offset: i64,
}

/// What a fetch brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    pub records: Slice,
    pub high_watermark: i64,
    pub log_start_offset: i64,
}

impl Client {
    /// Sends whole batches to one partition; `acks` is -1 or 1. Acks of 0 go by [`Client::post`].
    pub async fn produce(
        &self,
        topic: &str,
        partition: i32,
        records: Slice,
        acks: i16,
        timeout_ms: i32,
    ) -> Result<Produced, Error> {
        assert!(acks != 0, "a produce request without acks gets no answer to wait for");
        let (topic_id, newest) = self.name_or_id(topic);
        let data = PartitionProduceData { index: partition, records: Records::Slices(vec![records]) };
        let topic_data =
            TopicProduceData { name: Cow::Borrowed(topic), topic_id, partition_data: vec![data] };
        let request =
            ProduceRequest { transactional_id: None, acks, timeout_ms, topic_data: vec![topic_data] };
        let reply = self.call_up_to(&request, newest).await?;
        let response = reply.decode()?;
        let answer = response.responses.iter().flat_map(|topic| &topic.partition_responses).next();
        let answer = answer.ok_or(Error::Unexpected("the produce answer names no partition"))?;
        check(answer.error_code)?;
        Ok(Produced {
            base_offset: answer.base_offset,
            log_append_time_ms: answer.log_append_time_ms,
            log_start_offset: answer.log_start_offset,
        })
    }

    /// Reads one partition from an offset; waits up to `max_wait_ms` for the first byte.
    pub async fn fetch(
        &self,
        topic: &str,
        partition: i32,
        offset: i64,
        max_bytes: i32,
        max_wait_ms: i32,
    ) -> Result<Fetched, Error> {
        let (topic_id, newest) = self.name_or_id(topic);
        let one = FetchPartition {
            partition,
            fetch_offset: offset,
            partition_max_bytes: max_bytes,
            ..Default::default()
        };
        let topics = vec![FetchTopic { topic: Cow::Borrowed(topic), topic_id, partitions: vec![one] }];
        let request = FetchRequest { max_wait_ms, min_bytes: 1, max_bytes, topics, ..Default::default() };
        let reply = self.call_up_to(&request, newest).await?;
        let response = reply.decode()?;
        check(response.error_code)?;
        let answer = response.responses.iter().flat_map(|topic| &topic.partitions).next();
        let answer = answer.ok_or(Error::Unexpected("the fetch answer names no partition"))?;
        check(answer.error_code)?;
        let records = match &answer.records {
            Records::Bytes(bytes) => reply.slice_ref(bytes),
            Records::Null | Records::Slices(_) => Slice::empty(),
        };
        Ok(Fetched {
            records,
            high_watermark: answer.high_watermark,
            log_start_offset: answer.log_start_offset,
        })
    }

    /// The id of a topic whose metadata was asked for, else zero and the newest version that needs none.
    fn name_or_id(&self, topic: &str) -> (Uuid, i16) {
        match self.metadata().topic_id(topic) {
            Some(id) => (id, i16::MAX),
            None => ([0; 16], BY_NAME),
        }
    }
}

fn check(code: i16) -> Result<(), Error> {
    match ErrorCode::from_i16(code) {
        Some(ErrorCode::None) => Ok(()),
        Some(code) => Err(Error::Broker(code)),
        None => Err(Error::Unexpected("the answer has an error code that is not known")),
    }
}
