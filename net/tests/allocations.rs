//! The hot path's promise: decoding a produce request allocates its arrays and nothing else, and encoding an
//! answer allocates its buffer and what carries it, however many partitions or record bytes there are.

mod watched;

use net::messages::fetch::{FetchResponse, FetchableTopicResponse, PartitionData};
use net::messages::produce::{
    PartitionProduceData, PartitionProduceResponse, ProduceRequest, ProduceResponse, TopicProduceData,
    TopicProduceResponse,
};
use net::wire::{Decode, Encode, Reader, Records, Writer};
use rt::Slice;
use std::hint::black_box;
use watched::allocations;

const PARTITIONS: usize = 50;
const RECORD_BYTES: usize = 10_000;

#[test]
fn decoding_a_produce_request_allocates_one_array_per_level() {
    let records = vec![7; RECORD_BYTES];
    let one = PartitionProduceData { index: 3, records: Records::Bytes(&records) };
    let topic = TopicProduceData {
        name: "a-topic-with-a-name".into(),
        topic_id: [9; 16],
        partition_data: vec![one; PARTITIONS],
    };
    let request = ProduceRequest { acks: -1, topic_data: vec![topic], ..Default::default() };
    for version in 3..=13 {
        let mut w = Writer::new();
        request.encode(&mut w, version).unwrap();
        let body = w.into_body().unwrap();
        let seen = allocations(|| {
            black_box(ProduceRequest::decode(&mut Reader::new(&body), version).unwrap());
        });
        assert_eq!(seen.count, 2, "version {version}: topics, and the partitions of one");
        assert!(seen.largest < RECORD_BYTES);
    }
}

#[test]
fn encoding_a_produce_answer_allocates_its_buffer_and_what_carries_it() {
    let one = PartitionProduceResponse { index: 3, base_offset: 1 << 40, ..Default::default() };
    let topic = TopicProduceResponse {
        name: "a-topic-with-a-name".into(),
        topic_id: [9; 16],
        partition_responses: vec![one; PARTITIONS],
    };
    let response = ProduceResponse { responses: vec![topic], ..Default::default() };
    for version in 3..=13 {
        let seen = allocations(|| {
            let mut w = Writer::with_capacity(64 + PARTITIONS * 48);
            response.encode(&mut w, version).unwrap();
            black_box(w.finish().unwrap());
        });
        assert_eq!(seen.count, 3, "version {version}: the buffer, its counter, the list of one piece");
    }
}

#[test]
fn encoding_a_fetch_answer_copies_no_record() {
    let batch = Slice::from(vec![7; RECORD_BYTES]);
    let one = PartitionData { records: Records::Slices(vec![batch.clone(); 3]), ..Default::default() };
    let topic = FetchableTopicResponse { partitions: vec![one; PARTITIONS], ..Default::default() };
    let response = FetchResponse { responses: vec![topic], ..Default::default() };
    for version in 4..=18 {
        let mut pieces = Vec::new();
        let seen = allocations(|| {
            let mut w = Writer::new();
            response.encode(&mut w, version).unwrap();
            pieces = w.finish().unwrap();
        });
        // The lists of slices are larger than one batch here; all of the records are fifty times that.
        assert!(seen.total < PARTITIONS * RECORD_BYTES / 4, "version {version}: {seen:?}");
        let lent = pieces.iter().filter(|piece| piece.as_ptr() == batch.as_ptr()).count();
        assert_eq!(lent, 3 * PARTITIONS);
    }
}
