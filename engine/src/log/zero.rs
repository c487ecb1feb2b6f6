//! Zeros behind the end of a log that was cut or torn, durably, before anything is appended there (hazard A2).

use crate::space::{BLOCK_BYTES, block_floor};
use rt::{Core, File, Reservation, Sync};
use std::io;

/// The last block is written anew, the rest zeroed to `length`, the end of the file.
pub(super) async fn behind(
    core: &Core,
    file: &File,
    position: u64,
    last_block: &[u8],
    length: u64,
) -> io::Result<()> {
    let mut from = block_floor(position);
    if !last_block.is_empty() {
        let mut buf = core.buffers().take(BLOCK_BYTES as usize, Reservation::CatchUp).await;
        buf.fill(0);
        buf[..last_block.len()].copy_from_slice(last_block);
        file.write_at(vec![buf.freeze(0..BLOCK_BYTES as usize)], from, Sync::Data).await?;
        from += BLOCK_BYTES;
    }
    if from < length {
        file.zero_range(from..length).await?;
    }
    Ok(())
}
