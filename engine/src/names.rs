//! Names on disk: partition folders, segment files, and the small file by which a folder says what it is.
//!
//! A folder is `<topic>-<partition>-<topic id>`; the name in it is for people, the identity is in `partition`, so that
//! metadata can be rebuilt from folders and a folder that strayed is recognised (hazard A11). Names are not durable by
//! themselves: whoever creates, renames or unlinks syncs the directory before anything that depends on it is
//! acknowledged (hazard A5). The file has two fixed slots and is never renamed.
//!
//! ```text
//! partition: slot 0 at 0, slot 1 at 4096; the valid slot with the higher sequence holds
//!  0 magic "CLOGPART"   8 version u16 = 2   10 zero u16   12 crc32c of 16..112+name, u32   16 sequence u64
//! 24 topic id 16 bytes   40 partition i32   44 name bytes u16   46 flags u16 (1: the truncation is under way)
//! 48 log start i64   56 last truncation's offset i64 (-1: none)   64 its epoch i32   68 truncations so far u32
//! 72 compacted up to i64   80 segments rewritten up to i64   88 a swap's base i64 (-1: none) 96 its end i64
//! 104 segments rewritten so far u32   108 zero u32   112 topic name   zeros to 4096
//! ```
//! Version 1 is read too: nothing was ever compacted, and the name is at 72.
//! All integers are little endian.

use crate::ids::{LeaderEpoch, Offset, PartitionId, TopicId};
use crate::space::BLOCK_BYTES;
use rt::{Core, File, Open, Reservation, Sync};
use std::io;
use std::path::{Path, PathBuf};

pub const PARTITION_FILE: &str = "partition";
const MAGIC: &[u8; 8] = b"CLOGPART";
const VERSION: u16 = 2;
const SLOT_BYTES: usize = BLOCK_BYTES as usize;
const NAME_AT: usize = 112;
const NAME_AT_1: usize = 72;
const UNDER_WAY: u16 = 1;
/// What is read of a file at a time.
const READ_PIECE_BYTES: usize = 256 << 10;
/// Kafka's limit for a topic name.
const TOPIC_NAME_BYTES_MAX: usize = 249;
/// How much of a topic's name goes into its folder's name: a file name holds 255 bytes.
const FOLDER_TOPIC_BYTES_MAX: usize = 180;

/// The name of a partition's folder.
pub fn folder(topic: &str, id: PartitionId) -> String {
    let mut name: String = topic
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') { c } else { '_' })
        .take(FOLDER_TOPIC_BYTES_MAX)
        .collect();
    if name.is_empty() || name.starts_with('.') {
        name.insert(0, '_');
    }
    format!("{name}-{}-{}", id.index, id.topic)
}

/// The partition that a folder's name speaks of; its file decides.
pub fn parse_folder(name: &str) -> Option<PartitionId> {
    let (rest, hex) = name.rsplit_once('-')?;
    let (_, index) = rest.rsplit_once('-')?;
    if hex.len() != 32 || !hex.is_ascii() {
        return None;
    }
    let mut topic = [0; 16];
    for (at, byte) in topic.iter_mut().enumerate() {
        *byte = u8::from_str_radix(hex.get(at * 2..at * 2 + 2)?, 16).ok()?;
    }
    Some(PartitionId { topic: TopicId(topic), index: index.parse().ok()? })
}

/// The topic in a folder's name; `None` where it was cut off.
pub fn folder_topic(name: &str) -> Option<&str> {
    let (rest, _) = name.rsplit_once('-')?;
    let (topic, _) = rest.rsplit_once('-')?;
    (topic.len() < FOLDER_TOPIC_BYTES_MAX).then_some(topic)
}

pub fn segment(base: Offset) -> String {
    format!("{:020}.log", base.0)
}

pub fn index(base: Offset) -> String {
    format!("{:020}.index", base.0)
}

/// What a compaction writes before it takes the place of the segment, and its index.
pub fn cleaned(base: Offset) -> String {
    format!("{:020}.cleaned", base.0)
}

pub fn cleaned_index(base: Offset) -> String {
    format!("{:020}.cleaned-index", base.0)
}

/// Whether a file is one of those two.
pub fn is_cleaned(name: &str) -> bool {
    let digits = name.strip_suffix(".cleaned").or_else(|| name.strip_suffix(".cleaned-index"));
    digits.is_some_and(|digits| parse_base(digits).is_some())
}

/// The base offset of a segment file's name.
pub fn parse_segment(name: &str) -> Option<Offset> {
    parse_base(name.strip_suffix(".log")?)
}

pub fn parse_index(name: &str) -> Option<Offset> {
    parse_base(name.strip_suffix(".index")?)
}

fn parse_base(digits: &str) -> Option<Offset> {
    if digits.len() != 20 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok().map(Offset)
}

/// What a partition's folder says of itself, and the two facts that must be durable before an answer: where the log
/// starts and which truncation is under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    pub sequence: u64,
    pub id: PartitionId,
    pub topic_name: String,
    pub log_start: Offset,
    /// The last one.
    pub truncation: Option<Truncation>,
    /// How many there were: what a checkpoint says of another number of them is about another log.
    pub truncations: u32,
    pub compaction: Compaction,
}

/// How far a log was compacted, and the swap of segments that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Compaction {
    /// Below this the newest record of each key is known to be the only one, but for what a later compaction finds.
    pub clean_to: Offset,
    /// Segments that begin below this may not be those that an older checkpoint knows.
    pub rewritten_to: Offset,
    /// How many segments were put in the place of others.
    pub rewrites: u32,
    pub swap: Option<Swap>,
}

/// The segments over `base..end` go, and one that was written beside them, whole and durable, takes their place. Decided
/// and perhaps not finished: a start does it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Swap {
    pub base: Offset,
    pub end: Offset,
}

/// Everything from `to` on was taken away, in `epoch`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Truncation {
    pub to: Offset,
    pub epoch: LeaderEpoch,
    /// Decided and perhaps not finished: a start does it again.
    pub under_way: bool,
}

/// Why a slot or file does not say what the folder is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// Nothing valid in either slot.
    Damaged,
    /// Written by a newer Corelog.
    Newer(u16),
}

impl Partition {
    /// The version that this release writes.
    pub const FORMAT: u16 = VERSION;

    pub fn encode(&self) -> Vec<u8> {
        let name = self.topic_name.as_bytes();
        assert!(name.len() <= TOPIC_NAME_BYTES_MAX);
        let mut slot = vec![0; SLOT_BYTES];
        slot[0..8].copy_from_slice(MAGIC);
        slot[8..10].copy_from_slice(&VERSION.to_le_bytes());
        slot[16..24].copy_from_slice(&self.sequence.to_le_bytes());
        slot[24..40].copy_from_slice(&self.id.topic.0);
        slot[40..44].copy_from_slice(&self.id.index.to_le_bytes());
        slot[44..46].copy_from_slice(&(name.len() as u16).to_le_bytes());
        slot[48..56].copy_from_slice(&self.log_start.0.to_le_bytes());
        let none = Truncation { to: Offset::UNKNOWN, epoch: LeaderEpoch::UNKNOWN, under_way: false };
        let truncation = self.truncation.unwrap_or(none);
        slot[56..64].copy_from_slice(&truncation.to.0.to_le_bytes());
        slot[64..68].copy_from_slice(&truncation.epoch.0.to_le_bytes());
        slot[46..48].copy_from_slice(&u16::from(truncation.under_way).to_le_bytes());
        slot[68..72].copy_from_slice(&self.truncations.to_le_bytes());
        let Compaction { clean_to, rewritten_to, rewrites, swap } = self.compaction;
        let swap = swap.unwrap_or(Swap { base: Offset::UNKNOWN, end: Offset::UNKNOWN });
        for (at, offset) in [(72, clean_to), (80, rewritten_to), (88, swap.base), (96, swap.end)] {
            slot[at..at + 8].copy_from_slice(&offset.0.to_le_bytes());
        }
        slot[104..108].copy_from_slice(&rewrites.to_le_bytes());
        slot[NAME_AT..NAME_AT + name.len()].copy_from_slice(name);
        let crc = crc32c::crc32c(&slot[16..NAME_AT + name.len()]);
        slot[12..16].copy_from_slice(&crc.to_le_bytes());
        slot
    }

    pub fn decode(slot: &[u8]) -> Result<Partition, Unreadable> {
        let field = |at: usize, len: usize| slot.get(at..at + len).ok_or(Unreadable::Damaged);
        if field(0, 8)? != MAGIC {
            return Err(Unreadable::Damaged);
        }
        let version = u16::from_le_bytes(array(field(8, 2)?)?);
        if version > VERSION {
            return Err(Unreadable::Newer(version));
        }
        let name_bytes = usize::from(u16::from_le_bytes(array(field(44, 2)?)?));
        if name_bytes > TOPIC_NAME_BYTES_MAX {
            return Err(Unreadable::Damaged);
        }
        let name_at = if version == 1 { NAME_AT_1 } else { NAME_AT };
        let crc = u32::from_le_bytes(array(field(12, 4)?)?);
        if crc32c::crc32c(field(16, name_at - 16 + name_bytes)?) != crc {
            return Err(Unreadable::Damaged);
        }
        let to = i64::from_le_bytes(array(field(56, 8)?)?);
        let epoch = LeaderEpoch(i32::from_le_bytes(array(field(64, 4)?)?));
        let under_way = u16::from_le_bytes(array(field(46, 2)?)?) & UNDER_WAY != 0;
        let name = std::str::from_utf8(field(name_at, name_bytes)?).map_err(|_| Unreadable::Damaged)?;
        let compaction = if version == 1 { Compaction::default() } else { decode_compaction(slot)? };
        Ok(Partition {
            sequence: u64::from_le_bytes(array(field(16, 8)?)?),
            id: PartitionId {
                topic: TopicId(array(field(24, 16)?)?),
                index: i32::from_le_bytes(array(field(40, 4)?)?),
            },
            topic_name: name.to_owned(),
            log_start: Offset(i64::from_le_bytes(array(field(48, 8)?)?)),
            truncation: (to >= 0).then_some(Truncation { to: Offset(to), epoch, under_way }),
            truncations: u32::from_le_bytes(array(field(68, 4)?)?),
            compaction,
        })
    }

    /// The newest valid slot of a whole file.
    pub fn choose(file: &[u8]) -> Result<Partition, Unreadable> {
        let slots = file.chunks(SLOT_BYTES).take(2).map(Partition::decode);
        slots
            .reduce(|a, b| match (a, b) {
                (Ok(a), Ok(b)) => Ok(if b.sequence > a.sequence { b } else { a }),
                (Err(Unreadable::Newer(v)), _) | (_, Err(Unreadable::Newer(v))) => Err(Unreadable::Newer(v)),
                (Ok(a), Err(Unreadable::Damaged)) => Ok(a),
                (Err(Unreadable::Damaged), b) => b,
            })
            .unwrap_or(Err(Unreadable::Damaged))
    }

    fn slot(&self) -> u64 {
        (self.sequence % 2) * BLOCK_BYTES
    }
}

fn decode_compaction(slot: &[u8]) -> Result<Compaction, Unreadable> {
    let field = |at: usize| slot.get(at..at + 8).ok_or(Unreadable::Damaged);
    let offset = |at: usize| Ok(Offset(i64::from_le_bytes(array(field(at)?)?)));
    let (base, end) = (offset(88)?, offset(96)?);
    Ok(Compaction {
        clean_to: offset(72)?,
        rewritten_to: offset(80)?,
        rewrites: u32::from_le_bytes(array(slot.get(104..108).ok_or(Unreadable::Damaged)?)?),
        swap: (base.0 >= 0).then_some(Swap { base, end }),
    })
}

fn array<const N: usize>(bytes: &[u8]) -> Result<[u8; N], Unreadable> {
    bytes.try_into().map_err(|_| Unreadable::Damaged)
}

/// The open partition file of a log; writes alternate between the slots.
pub struct PartitionFile {
    file: File,
    pub current: Partition,
}

impl PartitionFile {
    /// Opens a folder's file; `None` where there is none yet, or nothing was ever written to it.
    pub async fn open(core: &Core, dir: &Path) -> io::Result<Option<Result<PartitionFile, Unreadable>>> {
        let file = match core.open(dir.join(PARTITION_FILE), Open::write().direct()).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        let bytes = read_all(&file, 2 * SLOT_BYTES).await?;
        if bytes.iter().all(|&byte| byte == 0) {
            return Ok(None);
        }
        Ok(Some(Partition::choose(&bytes).map(|current| PartitionFile { file, current })))
    }

    /// Makes a new folder and its file. Both directories are synced before this returns.
    pub async fn create(
        core: &Core,
        dir: &Path,
        id: PartitionId,
        topic_name: &str,
        sync_dirs: bool,
    ) -> io::Result<PartitionFile> {
        core.create_dir_all(dir.to_path_buf()).await?;
        let file = core.open(dir.join(PARTITION_FILE), Open::write().create().direct()).await?;
        let current = Partition {
            sequence: 1,
            id,
            topic_name: topic_name.to_owned(),
            log_start: Offset::ZERO,
            truncation: None,
            truncations: 0,
            compaction: Compaction::default(),
        };
        let created = PartitionFile { file, current };
        created.file.allocate(0..2 * BLOCK_BYTES).await?;
        created.write(core, &created.current).await?;
        if sync_dirs {
            core.sync_dir(dir.to_path_buf()).await?;
            if let Some(parent) = dir.parent() {
                core.sync_dir(parent.to_path_buf()).await?;
            }
        }
        Ok(created)
    }

    /// Makes what was read durable.
    pub async fn sync(&self) -> io::Result<()> {
        self.file.sync_data().await
    }

    /// Makes a changed fact durable in the older slot.
    pub async fn store(&mut self, core: &Core, change: impl FnOnce(&mut Partition)) -> io::Result<()> {
        let mut next = self.current.clone();
        change(&mut next);
        next.sequence += 1;
        // A write that failed is tried again in the same slot: the other one is the last that is known to be good.
        self.write(core, &next).await?;
        self.current = next;
        Ok(())
    }

    async fn write(&self, core: &Core, next: &Partition) -> io::Result<()> {
        let mut buf = core.buffers().take(SLOT_BYTES, Reservation::Control).await;
        buf[..SLOT_BYTES].copy_from_slice(&next.encode());
        let slice = buf.freeze(0..SLOT_BYTES);
        self.file.write_at(vec![slice], next.slot(), Sync::Data).await
    }
}

/// Reads `bytes` from the start of a file, by pieces; what lies past its end is left out.
pub async fn read_all(file: &File, bytes: usize) -> io::Result<Vec<u8>> {
    let mut whole = Vec::new();
    while whole.len() < bytes {
        let piece = (bytes - whole.len()).next_multiple_of(SLOT_BYTES).min(READ_PIECE_BYTES);
        let read = file.read_exactly(whole.len() as u64, piece, Reservation::Control).await?;
        whole.extend_from_slice(&read);
        if read.len() < piece {
            break;
        }
    }
    whole.truncate(bytes);
    Ok(whole)
}

/// Reads what folder `dir` says of itself, for tools and for rebuilding metadata.
pub async fn identify(core: &Core, dir: PathBuf) -> io::Result<Result<Partition, Unreadable>> {
    let file = core.open(dir.join(PARTITION_FILE), Open::read().direct()).await?;
    Ok(Partition::choose(&read_all(&file, 2 * SLOT_BYTES).await?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(sequence: u64) -> Partition {
        Partition {
            sequence,
            id: PartitionId { topic: TopicId([7; 16]), index: 3 },
            topic_name: "orders".into(),
            log_start: Offset(42),
            truncation: Some(Truncation { to: Offset(40), epoch: LeaderEpoch(5), under_way: true }),
            truncations: 3,
            compaction: Compaction {
                clean_to: Offset(17),
                rewritten_to: Offset(30),
                rewrites: 2,
                swap: Some(Swap { base: Offset(10), end: Offset(30) }),
            },
        }
    }

    #[test]
    fn folder_names_go_both_ways() {
        let id = PartitionId { topic: TopicId([0xab; 16]), index: 12 };
        for topic in ["orders", "a-b.c_d", "-", &"x".repeat(249)] {
            let name = folder(topic, id);
            assert!(name.len() <= 255);
            assert_eq!(parse_folder(&name), Some(id), "{name}");
        }
        assert_eq!(folder("../x", id), format!("_.._x-12-{}", id.topic));
        assert_eq!(parse_folder("lost+found"), None);
        assert_eq!(parse_segment(&segment(Offset(17))), Some(Offset(17)));
        assert_eq!(parse_segment("0.log"), None);
        assert!(is_cleaned(&cleaned(Offset(17))) && is_cleaned(&cleaned_index(Offset(17))));
        assert!(!is_cleaned(&segment(Offset(17))) && !is_cleaned("x.cleaned"));
        assert_eq!(parse_segment(&cleaned(Offset(17))), None);
    }

    #[test]
    fn the_newest_valid_slot_wins_and_damage_is_seen() {
        let (old, new) = (sample(1), sample(2));
        let file = [old.encode(), new.encode()].concat();
        assert_eq!(Partition::choose(&file), Ok(new));
        for at in 0..NAME_AT + 6 {
            let mut torn = file.clone();
            torn[SLOT_BYTES + at] ^= 0x10;
            let chosen = Partition::choose(&torn);
            assert!(
                matches!(chosen, Ok(ref p) if p.sequence == 1) || (8..12).contains(&at),
                "byte {at}: {chosen:?}"
            );
        }
        assert_eq!(Partition::choose(&[0; 8192]), Err(Unreadable::Damaged));
        let mut newer = file.clone();
        newer[8] = 9;
        assert_eq!(Partition::choose(&newer), Err(Unreadable::Newer(9)));
    }

    #[test]
    fn what_the_release_before_compaction_wrote_is_read() {
        let plain = Partition { compaction: Compaction::default(), ..sample(4) };
        let mut slot = plain.encode();
        slot[8] = 1;
        slot.copy_within(NAME_AT..NAME_AT + 6, NAME_AT_1);
        slot[NAME_AT_1 + 6..].fill(0);
        let crc = crc32c::crc32c(&slot[16..NAME_AT_1 + 6]);
        slot[12..16].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(Partition::decode(&slot), Ok(plain));
    }
}
