//! What a record holds: derived from (run, writer, partition, sequence), so that whoever reads it back can tell whether it is
//! the right one, whole, and where it belongs.
//!
//! ```text
//!  0        4        6      8          12         16                24               32
//!  +--------+--------+------+----------+----------+-----------------+----------------+------- ~ ----+
//!  | "CLGB" | format | writer | partition | run      | sequence        | intended, ns   | filling      |
//!  | 4      | u16    | u16  | u32      | u32      | u64             | u64            | size - 32    |
//!  +--------+--------+------+----------+----------+-----------------+----------------+------- ~ ----+
//! ```
//! All little-endian. The filling is a window of a table of letters, seeded by the run; which window follows from the
//! sequence, the partition and the writer. So writing a record is one copy and checking one is one comparison, while another
//! record's bytes in its place do not pass. `intended` is the due time on the sender's clock, for end-to-end latency; it is
//! the only field that a reader cannot derive.

pub const HEAD_BYTES: usize = 32;
pub const RECORD_BYTES_MIN: usize = HEAD_BYTES;
pub const RECORD_BYTES_MAX: usize = 16 << 20;
const MAGIC: [u8; 4] = *b"CLGB";
const FORMAT: u16 = 1;
/// Windows start at any of these many places of the table.
const WINDOWS: usize = 1 << 16;

/// Who wrote a record. Within one stream sequences go up by one from zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Stream {
    pub run: u32,
    pub partition: i32,
    pub writer: u16,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Head {
    pub stream: Stream,
    pub sequence: u64,
    pub intended: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// Not a record of this tool: something else was written to the topic.
    Foreign,
    /// Its head names a place, its filling is not what belongs there.
    Filling,
}

/// The letters of one run.
pub struct Filling {
    run: u32,
    table: Vec<u8>,
}

impl Filling {
    pub fn new(run: u32, record_bytes_max: usize) -> Filling {
        assert!(record_bytes_max <= RECORD_BYTES_MAX);
        let mut state = u64::from(run) ^ 0x9e37_79b9_7f4a_7c15;
        let letters = WINDOWS + record_bytes_max;
        let table = (0..letters).map(|_| b'A' + (next_random(&mut state) % 26) as u8).collect();
        Filling { run, table }
    }

    pub fn record_bytes_max(&self) -> usize {
        self.table.len() - WINDOWS
    }

    /// Appends a record's value of `record_bytes` bytes.
    pub fn write(&self, out: &mut Vec<u8>, head: Head, record_bytes: usize) {
        assert!(record_bytes >= RECORD_BYTES_MIN);
        assert_eq!(head.stream.run, self.run);
        let mut bytes = [0; HEAD_BYTES];
        bytes[0..4].copy_from_slice(&MAGIC);
        bytes[4..6].copy_from_slice(&FORMAT.to_le_bytes());
        bytes[6..8].copy_from_slice(&head.stream.writer.to_le_bytes());
        bytes[8..12].copy_from_slice(&head.stream.partition.to_le_bytes());
        bytes[12..16].copy_from_slice(&head.stream.run.to_le_bytes());
        bytes[16..24].copy_from_slice(&head.sequence.to_le_bytes());
        bytes[24..32].copy_from_slice(&head.intended.to_le_bytes());
        out.extend_from_slice(&bytes);
        out.extend_from_slice(self.window(&head, record_bytes - HEAD_BYTES));
    }

    /// Whether `value` is exactly what this run wrote under its head.
    pub fn check(&self, head: &Head, value: &[u8]) -> Result<(), Fault> {
        assert_eq!(head.stream.run, self.run);
        let filling = &value[HEAD_BYTES..];
        if filling.len() > self.record_bytes_max() || filling != self.window(head, filling.len()) {
            return Err(Fault::Filling);
        }
        Ok(())
    }

    fn window(&self, head: &Head, len: usize) -> &[u8] {
        let place =
            head.sequence ^ ((head.stream.partition as u64) << 40) ^ (u64::from(head.stream.writer) << 24);
        let start = (place.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48) as usize;
        &self.table[start..start + len]
    }
}

/// Reads a record's head.
pub fn read_head(value: &[u8]) -> Result<Head, Fault> {
    let head: &[u8; HEAD_BYTES] = value.first_chunk().ok_or(Fault::Foreign)?;
    if head[0..4] != MAGIC || u16_at(head, 4) != FORMAT {
        return Err(Fault::Foreign);
    }
    let stream = Stream { writer: u16_at(head, 6), partition: u32_at(head, 8) as i32, run: u32_at(head, 12) };
    Ok(Head { stream, sequence: u64_at(head, 16), intended: u64_at(head, 24) })
}

fn u16_at(bytes: &[u8; HEAD_BYTES], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8; HEAD_BYTES], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) | u32::from(u16_at(bytes, at + 2)) << 16
}

fn u64_at(bytes: &[u8; HEAD_BYTES], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

/// splitmix64: small, seeded, good enough for letters.
fn next_random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(partition: i32, writer: u16, sequence: u64) -> Head {
        Head { stream: Stream { run: 7, partition, writer }, sequence, intended: 99 }
    }

    #[test]
    fn what_was_written_passes_and_any_flipped_byte_does_not() {
        let filling = Filling::new(7, 200);
        for size in [32, 33, 100, 200] {
            let mut value = Vec::new();
            filling.write(&mut value, head(3, 2, 12_345), size);
            assert_eq!(value.len(), size);
            let found = read_head(&value).expect("a record of this tool");
            assert_eq!(found, head(3, 2, 12_345));
            assert_eq!(filling.check(&found, &value), Ok(()));
            for at in HEAD_BYTES..size {
                let mut broken = value.clone();
                broken[at] ^= 1;
                assert_eq!(filling.check(&found, &broken), Err(Fault::Filling));
            }
        }
    }

    #[test]
    fn another_places_filling_does_not_pass() {
        let filling = Filling::new(7, 100);
        for other in [head(3, 2, 6), head(4, 2, 5), head(3, 1, 5)] {
            let mut value = Vec::new();
            filling.write(&mut value, other, 100);
            assert_eq!(filling.check(&head(3, 2, 5), &value), Err(Fault::Filling));
        }
    }

    #[test]
    fn strangers_are_recognised() {
        assert_eq!(read_head(b"hello"), Err(Fault::Foreign));
        assert_eq!(read_head(&[0; 64]), Err(Fault::Foreign));
    }
}
