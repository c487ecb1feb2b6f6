//! The bytes of a producer snapshot; the diagram is in the parent.

use super::{BatchSeen, PRODUCERS_MAX, Producer, ProducerStates, WINDOW_BATCHES};
use crate::fields::{Damage, Fields, open, put_count, seal};
use crate::ids::Offset;
use std::collections::HashMap;

const MAGIC: [u8; 4] = *b"CLPS";
const VERSION: u16 = 1;
const PRODUCER_BYTES_MIN: usize = 39;
const BATCH_BYTES: usize = 32;

pub(super) fn encode(states: &ProducerStates) -> Vec<u8> {
    let mut producers: Vec<_> = states.producers.iter().collect();
    producers.sort_unstable_by_key(|(id, _)| **id);
    let mut body =
        Vec::with_capacity(12 + producers.len() * (PRODUCER_BYTES_MIN + WINDOW_BATCHES * BATCH_BYTES));
    body.extend_from_slice(&states.covered_end.0.to_le_bytes());
    put_count(&mut body, producers.len());
    for (id, producer) in producers {
        body.extend_from_slice(&id.to_le_bytes());
        put_producer(&mut body, producer);
    }
    seal(MAGIC, VERSION, &body)
}

pub(super) fn decode(bytes: &[u8]) -> Result<ProducerStates, Damage> {
    let (body, after) = open(MAGIC, VERSION, bytes)?;
    if !after.is_empty() {
        return Err(Damage::Content("bytes follow the snapshot"));
    }
    let mut fields = Fields::new(body);
    let covered_end = Offset(fields.i64()?);
    let count = fields.count(PRODUCER_BYTES_MIN)?;
    if count > PRODUCERS_MAX {
        return Err(Damage::Content("there are too many producers"));
    }
    let mut producers = HashMap::with_capacity_and_hasher(count, ahash::RandomState::default());
    let mut id_before = -1;
    for _ in 0..count {
        let id = fields.i64()?;
        if id <= id_before {
            return Err(Damage::Content("the producer ids do not rise"));
        }
        id_before = id;
        producers.insert(id, take_producer(&mut fields, covered_end)?);
    }
    fields.finish()?;
    Ok(ProducerStates { producers, covered_end })
}

fn put_producer(body: &mut Vec<u8>, producer: &Producer) {
    body.extend_from_slice(&producer.epoch.to_le_bytes());
    body.extend_from_slice(&producer.coordinator_epoch.to_le_bytes());
    body.extend_from_slice(&producer.last_timestamp.to_le_bytes());
    body.extend_from_slice(&producer.last_offset.0.to_le_bytes());
    body.extend_from_slice(&producer.transaction_start.unwrap_or(Offset::UNKNOWN).0.to_le_bytes());
    body.push(u8::try_from(producer.batches.len()).expect("a window holds five"));
    for batch in &producer.batches {
        body.extend_from_slice(&batch.first_sequence.to_le_bytes());
        body.extend_from_slice(&batch.last_sequence.to_le_bytes());
        body.extend_from_slice(&batch.base_offset.0.to_le_bytes());
        body.extend_from_slice(&batch.last_offset.0.to_le_bytes());
        body.extend_from_slice(&batch.timestamp.to_le_bytes());
    }
}

fn take_producer(fields: &mut Fields<'_>, covered_end: Offset) -> Result<Producer, Damage> {
    let mut producer = Producer {
        epoch: fields.i16()?,
        coordinator_epoch: fields.i32()?,
        last_timestamp: fields.i64()?,
        last_offset: Offset(fields.i64()?),
        transaction_start: Some(Offset(fields.i64()?)).filter(|start| start.0 >= 0),
        batches: Vec::with_capacity(WINDOW_BATCHES),
    };
    if producer.last_offset >= covered_end {
        return Err(Damage::Content("a producer is ahead of the snapshot"));
    }
    let count = usize::from(fields.u8()?);
    if count > WINDOW_BATCHES {
        return Err(Damage::Content("a window holds more than five batches"));
    }
    for _ in 0..count {
        let batch = take_batch(fields)?;
        if producer.batches.last().is_some_and(|before: &BatchSeen| before.last_offset >= batch.base_offset) {
            return Err(Damage::Content("the batches of a window do not rise"));
        }
        producer.batches.push(batch);
    }
    Ok(producer)
}

fn take_batch(fields: &mut Fields<'_>) -> Result<BatchSeen, Damage> {
    let batch = BatchSeen {
        first_sequence: fields.i32()?,
        last_sequence: fields.i32()?,
        base_offset: Offset(fields.i64()?),
        last_offset: Offset(fields.i64()?),
        timestamp: fields.i64()?,
    };
    if batch.first_sequence < 0 || batch.last_sequence < 0 {
        return Err(Damage::Content("a sequence is negative"));
    }
    if batch.base_offset.0 < 0 || batch.last_offset < batch.base_offset {
        return Err(Damage::Content("a batch ends before it begins"));
    }
    Ok(batch)
}
