//! Loading: from the log's start to its end in bounded steps, between which the core's other tasks run.

use std::rc::Rc;

use coord::group::{Damaged, Input};
use engine::batch::walk::{Records, decompress_records};
use engine::batch::{self, Batch, Codec};
use rt::Slice;

use super::host::Host;

/// Read at a time.
const READ_BYTES_MAX: usize = 256 << 10;
/// Records between two yields: well below a millisecond.
const RECORDS_PER_TURN: usize = 64;
/// What a compressed batch may unpack to. We write none, but the topic's config may have asked for it.
const UNPACKED_BYTES_MAX: usize = 64 << 20;

/// Replays the log.
///
/// # Errors
/// The log cannot be read, or holds what is no record of groups: the partition must not be served as if it were empty.
pub async fn load(host: &Rc<Host>) -> Result<(), String> {
    let (mut from, end) = (host.log.log_start_offset(), host.log.log_end_offset());
    let mut turn = 0;
    while from < end {
        let read = host.log.read(from, READ_BYTES_MAX, true, end).await;
        let read = read.map_err(|why| format!("the log cannot be read at offset {}: {why:?}", from.0))?;
        if read.next <= from {
            // Nothing is left up to the end: the last records were compacted away.
            break;
        }
        let bytes = in_one_piece(&read.slices);
        for batch in batch::batches(&bytes) {
            let batch = batch.map_err(|why| format!("no batch at offset {}: {why:?}", from.0))?;
            if batch.is_control() {
                continue;
            }
            let unpacked = unpack(host, &batch).await?;
            let records = unpacked.as_deref().unwrap_or(batch.records_bytes());
            for record in Records::new(&batch, records) {
                let record = record.map_err(|why| format!("a record behind {}: {why:?}", from.0))?;
                let key = record.key.unwrap_or_default();
                let loaded = host.load(Input::Load { key, value: record.value });
                loaded.map_err(|Damaged(why)| format!("the record at offset {}: {why}", record.offset.0))?;
                turn += 1;
                if turn == RECORDS_PER_TURN {
                    turn = 0;
                    host.core().yield_now().await;
                    if host.is_over() {
                        return Ok(());
                    }
                }
            }
        }
        from = read.next;
    }
    host.step(Input::Loaded);
    Ok(())
}

/// The records of a compressed batch, unpacked on a helper thread; None for a plain one.
async fn unpack(host: &Rc<Host>, batch: &Batch<'_>) -> Result<Option<Vec<u8>>, String> {
    if batch.compression() == Some(Codec::None) {
        return Ok(None);
    }
    let bytes = batch.bytes().to_vec();
    let unpacked = host.core().offload(move || match Batch::parse(&bytes) {
        Ok((batch, _)) => decompress_records(&batch, UNPACKED_BYTES_MAX).map_err(|why| format!("{why:?}")),
        Err(why) => Err(format!("{why:?}")),
    });
    let unpacked = unpacked.await.map_err(|panicked| panicked.to_string())?;
    let base = batch.base_offset().0;
    unpacked.map(Some).map_err(|why| format!("the batch at offset {base} cannot be unpacked: {why}"))
}

/// A batch may lie across two slices.
fn in_one_piece(slices: &[Slice]) -> Vec<u8> {
    slices.iter().flat_map(|slice| slice.iter()).copied().collect()
}
