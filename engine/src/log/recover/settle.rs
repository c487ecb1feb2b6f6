//! What lies behind the end that was found: nothing, a torn tail that is zeroed, or damage that is left as it is (A2, A4).

use super::{OpenError, Progress, Recovery};
use crate::ids::Offset;
use crate::log::config::Durability;
use crate::log::tear::{self, Behind, Stop};
use crate::log::zero;
use crate::segment::Segment;
use crate::space::{BLOCK_BYTES, block_ceil, block_floor};
use rt::Reservation;
use std::path::Path;

/// How far behind an end bytes are looked at: the largest allocation step and one flush fit well.
const BEHIND_BYTES_MAX: u64 = 96 << 20;
const BEHIND_WINDOW_BYTES: u64 = 128 << 10;

impl Recovery<'_> {
    /// Makes the last segment appendable: nothing but zeros behind its end, all of it on stable media. Returns the
    /// filled part of its last block.
    pub(super) async fn settle(
        &self,
        segment: &mut Segment,
        progress: &Progress,
        (path, length): (&Path, u64),
        clean: bool,
        cut: Option<Offset>,
    ) -> Result<Vec<u8>, OpenError> {
        let failed = |error| OpenError::Io { path: path.to_path_buf(), error };
        let (pos, start) = (segment.position, block_floor(segment.position));
        let behind = self.read_behind(segment, start, length).await.map_err(failed)?;
        let filled = (pos - start) as usize;
        let last_block = behind.get(..filled).unwrap_or_default().to_vec();
        segment.written = block_ceil(pos);
        if clean {
            return Ok(last_block);
        }
        if let Some(cut) = cut {
            // What lies behind was to go anyway; what lies before was durable when that was decided.
            if progress.end < cut {
                let why = format!(
                    "a truncation to {cut} was under way, but the log is good to {} only",
                    progress.end
                );
                return Err(OpenError::Damaged { path: path.to_path_buf(), position: pos, why });
            }
            zero::behind(self.core, &segment.file, segment.position, &last_block, length)
                .await
                .map_err(failed)?;
            segment.file.sync_data().await.map_err(failed)?;
            return Ok(last_block);
        }
        let fsync = self.how.config.durability == Durability::Fsync;
        let stop = Stop {
            pos,
            end: progress.end,
            epoch: progress.last_epoch(),
            torn_bytes_max: fsync.then(|| {
                let flush = self.how.limits.flush_bytes_max as u64;
                flush.max(u64::from(self.how.config.max_message_bytes)) + BLOCK_BYTES
            }),
        };
        let judged = tear::judge(behind.get(filled..).unwrap_or_default(), &stop);
        if let Behind::Damaged { position, why } = &judged
            && !self.faults().cut_damage
        {
            return Err(OpenError::Damaged {
                path: path.to_path_buf(),
                position: *position,
                why: why.clone(),
            });
        }
        if self.faults().no_zeroing {
            return Ok(last_block);
        }
        if judged != Behind::Clean {
            zero::behind(self.core, &segment.file, segment.position, &last_block, length)
                .await
                .map_err(failed)?;
        }
        segment.file.sync_data().await.map_err(failed)?;
        Ok(last_block)
    }

    /// What the process before this one had in flight may still reach the device after its death. The file system
    /// changes a file's allocation only when all direct writes to it have ended, so asking for a block that is there
    /// already waits for them and does nothing else.
    pub(super) async fn outwait_writes(&self, segment: &Segment, length: u64) -> std::io::Result<()> {
        match length {
            0 => Ok(()),
            length => segment.file.allocate(length - 1..length).await,
        }
    }

    async fn read_behind(&self, segment: &Segment, start: u64, length: u64) -> std::io::Result<Vec<u8>> {
        let length = length.min(start + BEHIND_BYTES_MAX);
        let mut bytes = Vec::new();
        let mut at = start;
        while at < length {
            // Steps of allocated, never written space lie behind most ends; reading them would take the start's time.
            match segment.file.next_data(at).await? {
                Some(data) if data < length => {
                    let data = block_floor(data).max(at);
                    bytes.resize(bytes.len() + (data - at) as usize, 0);
                    at = data;
                }
                Some(_) | None => break,
            }
            let want = (block_ceil(length) - at).min(BEHIND_WINDOW_BYTES) as usize;
            let window = segment.file.read_exactly(at, want, Reservation::CatchUp).await?;
            if window.is_empty() {
                break;
            }
            bytes.extend_from_slice(&window);
            at += window.len() as u64;
        }
        let filled = (segment.position - start) as usize;
        if bytes.get(filled..).is_none_or(tear::is_zero) {
            bytes.truncate(filled);
            return Ok(bytes);
        }
        // A torn flush may end in such space; it is judged with the zeros that belong to it.
        let flush = self.how.limits.flush_bytes_max as u64 + u64::from(self.how.config.max_message_bytes);
        let judged = length.saturating_sub(start).min(bytes.len() as u64 + flush + BLOCK_BYTES);
        bytes.resize((judged as usize).max(bytes.len()), 0);
        Ok(bytes)
    }
}
