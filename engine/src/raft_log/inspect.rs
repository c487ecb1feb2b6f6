//! Looking into the controller's log of a stopped broker, and cutting it where it is damaged. For tools.

use super::format::{self, Look, Record};
use super::{Recovered, generations, path_of};
use crate::space::BLOCK_BYTES;
use rt::{Core, Open, Slice, Sync};
use std::io;
use std::path::{Path, PathBuf};

/// One file of the log.
pub struct GenerationFacts {
    pub path: PathBuf,
    pub bytes: u64,
    pub groups: Vec<GroupFacts>,
    /// Where it is damaged, and why.
    pub damage: Option<(u64, String)>,
    /// What the groups before the damage amount to.
    pub recovered: Recovered,
}

/// One write.
pub struct GroupFacts {
    pub position: u64,
    pub bytes: u64,
    pub sequence: u64,
    /// Each record in words.
    pub records: Vec<String>,
}

/// Every generation that is there, oldest first.
pub async fn inspect(core: &Core, dir: &Path) -> io::Result<Vec<GenerationFacts>> {
    let mut found = Vec::new();
    let numbers = match generations(core, dir).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        listed => listed?,
    };
    for generation in numbers {
        let path = path_of(dir, generation);
        let bytes = read(core, &path).await?;
        found.push(examine(path, &bytes, generation));
    }
    Ok(found)
}

async fn read(core: &Core, path: &Path) -> io::Result<Vec<u8>> {
    let file = core.open(path.to_path_buf(), Open::read()).await?;
    let bytes = usize::try_from(file.len().await?).map_err(|_| io::ErrorKind::FileTooLarge)?;
    crate::names::read_all(&file, bytes).await
}

fn examine(path: PathBuf, bytes: &[u8], generation: u64) -> GenerationFacts {
    let mut facts = GenerationFacts {
        path,
        bytes: bytes.len() as u64,
        groups: Vec::new(),
        damage: None,
        recovered: Recovered::default(),
    };
    let (mut at, mut sequence, mut chain) = (0, generation << 32, 0);
    while let Look::Group(group) = format::look(&bytes[at..], sequence, chain) {
        let records = format::records(group.body);
        let described = records.iter().flatten().map(describe).collect();
        let applied = records
            .ok_or("a record is malformed")
            .and_then(|records| records.into_iter().try_for_each(|record| facts.recovered.apply(record)));
        if let Err(why) = applied {
            facts.damage = Some((at as u64, why.to_owned()));
            return facts;
        }
        let (position, length) = (at as u64, group.length as u64);
        facts.groups.push(GroupFacts { position, bytes: length, sequence, records: described });
        (at, sequence, chain) = (at + group.length, sequence + 1, group.crc);
    }
    let nothing = (at == 0).then(|| "its first group is not readable".to_owned());
    let behind = format::damage_behind(&bytes[at..], sequence);
    facts.damage = behind.or(nothing).map(|why| (at as u64, why));
    facts
}

fn describe(record: &Record) -> String {
    match record {
        Record::HardState(state) => {
            format!("term {}, vote {}, commit {}", state.term, state.vote, state.commit)
        }
        Record::Entry(entry) => {
            format!("entry {} of term {}, {} bytes", entry.index, entry.term, entry.data.len())
        }
        Record::Snapshot(snapshot) => {
            format!("snapshot to {} of term {}, {} bytes", snapshot.index, snapshot.term, snapshot.data.len())
        }
    }
}

/// Ends the log before its damage. What is cut off is kept beside it first. What was done, as sentences.
///
/// # Errors
/// The disk's, or nothing before the damage is readable.
pub async fn cut(core: &Core, facts: &GenerationFacts) -> io::Result<Vec<String>> {
    let Some((position, _)) = facts.damage else { return Ok(Vec::new()) };
    if position == 0 {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "nothing in it is readable"));
    }
    let bytes = read(core, &facts.path).await?;
    let at = usize::try_from(position).unwrap_or(usize::MAX).min(bytes.len());
    let end = bytes.iter().rposition(|&byte| byte != 0).map_or(at, |last| last + 1).max(at);
    let kept = PathBuf::from(format!("{}.{at}-{end}.damaged", facts.path.display()));
    let copy = core.open(kept.clone(), Open::write().create()).await?;
    copy.truncate(0).await?;
    copy.write_at(vec![Slice::from(bytes[at..end].to_vec())], 0, Sync::Data).await?;
    copy.sync_all().await?;
    let dir = facts.path.parent().unwrap_or(Path::new("")).to_path_buf();
    core.sync_dir(dir).await?;
    let file = core.open(facts.path.clone(), Open::write()).await?;
    let until = file.len().await?;
    assert!(position.is_multiple_of(BLOCK_BYTES));
    file.zero_range(position..until).await?;
    file.sync_all().await?;
    Ok(vec![
        format!("kept what is cut off in {}", kept.display()),
        format!("ended {} at byte {position}", facts.path.display()),
    ])
}
