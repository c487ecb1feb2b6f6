//! The metadata's Raft group on its disk: proposes commands, makes what Raft says durable in its order, and gives back
//! what was committed.
//!
//! With one voter a commit is one write of the log. It is the same path that several voters will take, less the messages
//! to the others; this broker has no one to send them to.

use std::cell::RefCell;

use coord::metadata::{Command, Metadata, NodeId};
use coord::raft::{self, Durable, ENTRY_BYTES_MAX, Effects, Entry, EntryKind, Node, ProposeError};
use engine::folder::Folder;
use engine::raft_log::{self, RaftLog, RaftSnapshot, Recovered};
use rt::Core;
use rt::sync::Semaphore;

/// A sole voter elects itself within this many ticks, or something is wrong.
const ELECTION_TICKS_MAX: u32 = 1000;
/// What an entry takes in the log beside its command, at most.
const ENTRY_BYTES: usize = 64;

pub struct MetadataLog {
    core: Core,
    /// One user of the node and the log at a time.
    turn: Semaphore,
    state: RefCell<Option<State>>,
}

struct State {
    node: Node,
    log: RaftLog,
}

/// A committed entry: its index, and its command unless it is one of Raft's own.
pub type Committed = (u64, Option<Command>);

impl MetadataLog {
    /// Opens the log, or begins a cluster of this one node, and gives the metadata at its end.
    ///
    /// # Errors
    /// The log cannot be read or is damaged, or holds what this release does not know.
    pub async fn open(core: &Core, folder: &Folder, node: NodeId) -> Result<(MetadataLog, Metadata), String> {
        let (log, recovered) =
            RaftLog::open(core, &folder.raft_dir()).await.map_err(|error| error.to_string())?;
        let id = raft::raft_id(node.0);
        let begun = !recovered.snapshot.data.is_empty();
        let durable = if begun { durable(recovered)? } else { begin_cluster(&log, folder, id).await? };
        let mut metadata = Metadata::decode(&durable.snapshot.data).map_err(unknown)?;
        let node =
            Node::new(id, durable).map_err(|error| format!("the metadata log cannot be used: {error}"))?;
        let this = MetadataLog {
            core: core.clone(),
            turn: Semaphore::new(1),
            state: RefCell::new(Some(State { node, log })),
        };
        for (index, command) in this.lead().await? {
            match command {
                Some(command) => drop(metadata.apply(index, &command)),
                None => metadata.skip(index),
            }
        }
        Ok((this, metadata))
    }

    /// Commits commands in their order, with one write. Gives every entry that was committed, in order.
    ///
    /// # Errors
    /// On a full disk nothing was done, and the next call tries again. Otherwise the write failed, or another node leads:
    /// whether the commands come to be is unknown until a restart.
    pub async fn commit(&self, commands: &[Command]) -> Result<Vec<Committed>, String> {
        let _turn = self.turn.acquire(1).await;
        let commands: Vec<Vec<u8>> = commands.iter().map(Command::encode).collect();
        if commands.iter().any(|command| command.len() > ENTRY_BYTES_MAX) {
            return Err(ProposeError::TooLarge.to_string());
        }
        let mut state = self.take()?;
        let bytes = commands.iter().map(|command| command.len() + ENTRY_BYTES).sum();
        if let Err(error) = state.log.make_room(bytes).await {
            *self.state.borrow_mut() = Some(state);
            return Err(error.to_string());
        }
        let mut committed = Vec::new();
        for command in commands {
            let mut proposed = state.node.propose(command.clone());
            if proposed == Err(ProposeError::Busy) {
                // What was proposed before is committed first.
                committed.extend(state.work().await?);
                proposed = state.node.propose(command);
            }
            proposed.map_err(|error| error.to_string())?;
        }
        committed.extend(state.work().await?);
        *self.state.borrow_mut() = Some(state);
        Ok(committed)
    }

    /// Starts a new generation of the log once the old one is long, from this snapshot of the metadata.
    ///
    /// # Errors
    /// The old generation stays in force, or no more can be committed before a restart.
    pub async fn compact_if_due(&self, metadata: impl FnOnce() -> Vec<u8>) -> Result<(), String> {
        let _turn = self.turn.acquire(1).await;
        let mut state = self.take()?;
        if state.node.snapshot_due() {
            let snapshot = state.node.snapshot(metadata());
            let rest = state.node.entries_after_applied().into_iter().map(entry_of).collect();
            let hard_state = hard_state_of(state.node.hard_state());
            let compacted = state.log.compact(snapshot_of(&snapshot), hard_state, rest).await;
            if let Err(error) = compacted {
                *self.state.borrow_mut() = Some(state);
                return Err(error.to_string());
            }
            state.node.compacted(snapshot);
        }
        *self.state.borrow_mut() = Some(state);
        Ok(())
    }

    /// Ticks until this sole voter leads and has committed an entry of its own term.
    async fn lead(&self) -> Result<Vec<Committed>, String> {
        let _turn = self.turn.acquire(1).await;
        let mut state = self.take()?;
        let mut committed = state.work().await?;
        for _ in 0..ELECTION_TICKS_MAX {
            if state.node.is_leader() && state.node.is_settled() {
                *self.state.borrow_mut() = Some(state);
                return Ok(committed);
            }
            state.node.tick(self.core.random_u64());
            committed.extend(state.work().await?);
        }
        Err("this node is not the only voter of its cluster, and this release serves no other".to_owned())
    }

    /// The state while its turn lasts. A failure on the way leaves nothing behind: the log is unknown from there on.
    fn take(&self) -> Result<State, String> {
        self.state.borrow_mut().take().ok_or_else(|| {
            "an earlier write of the metadata log failed; restart the broker to go on from what is on disk".to_owned()
        })
    }
}

impl State {
    /// Does what Raft has ready until there is nothing left.
    async fn work(&mut self) -> Result<Vec<Committed>, String> {
        let mut committed = Vec::new();
        while let Some(effects) = self.node.ready() {
            let Effects { write, number, committed: entries, .. } = effects;
            if let Some(write) = write {
                if write.snapshot.is_some() {
                    return Err("a sole voter was sent a snapshot of another node's metadata".to_owned());
                }
                let entries: Vec<raft_log::Entry> = write.entries.into_iter().map(entry_of).collect();
                let written = self.log.append(&entries, write.hard_state.map(hard_state_of)).await;
                written.map_err(|error| error.to_string())?;
                self.node.persisted(number);
            }
            for entry in entries {
                let index = entry.index;
                let command = if entry.is_command() {
                    Some(Command::decode(&entry.data).map_err(unknown)?)
                } else {
                    None
                };
                committed.push((index, command));
                self.node.applied(index);
            }
        }
        Ok(committed)
    }
}

async fn begin_cluster(log: &RaftLog, folder: &Folder, id: u64) -> Result<Durable, String> {
    let metadata = Metadata::new(cluster_id(folder.uuid()));
    let durable = Durable::bootstrap(&[id], metadata.encode());
    let hard_state = hard_state_of(durable.hard_state);
    let written = log.compact(snapshot_of(&durable.snapshot), hard_state, Vec::new()).await;
    written.map_err(|error| format!("the metadata log cannot be written: {error}"))?;
    Ok(durable)
}

/// A cluster is named after the storage that it began on: 22 characters of URL-safe base64, as Kafka's are.
fn cluster_id(uuid: [u8; 16]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let bits = u128::from_be_bytes(uuid);
    let digit = |place: u32| {
        let value = if place == 21 { (bits << 4) & 63 } else { (bits >> (122 - 6 * place)) & 63 };
        char::from(DIGITS[usize::try_from(value).expect("six bits")])
    };
    (0..22).map(digit).collect()
}

fn unknown(error: impl std::fmt::Display) -> String {
    format!("the metadata log holds what this release cannot read: {error}. Start the release that wrote it")
}

/// The metadata that a log on disk amounts to, its last entries included: for tools, on a stopped broker's.
///
/// # Errors
/// Holds what this release does not know.
pub fn metadata_of(recovered: Recovered) -> Result<Metadata, String> {
    let durable = durable(recovered)?;
    let mut metadata = Metadata::decode(&durable.snapshot.data).map_err(unknown)?;
    for entry in durable.entries {
        match entry.is_command() {
            true => drop(metadata.apply(entry.index, &Command::decode(&entry.data).map_err(unknown)?)),
            false => metadata.skip(entry.index),
        }
    }
    Ok(metadata)
}

fn durable(recovered: Recovered) -> Result<Durable, String> {
    let state = recovered.hard_state;
    Ok(Durable {
        hard_state: raft::HardState { term: state.term, vote: state.vote, commit: state.commit },
        snapshot: raft::Snapshot::decode(&recovered.snapshot.data).map_err(unknown)?,
        entries: recovered.entries.into_iter().map(entry_from).collect::<Result<_, String>>()?,
    })
}

fn hard_state_of(state: raft::HardState) -> raft_log::HardState {
    raft_log::HardState { term: state.term, vote: state.vote, commit: state.commit }
}

fn snapshot_of(snapshot: &raft::Snapshot) -> RaftSnapshot {
    RaftSnapshot { index: snapshot.index, term: snapshot.term, data: snapshot.encode() }
}

/// On disk an entry's data begins with its kind, one byte.
fn entry_of(entry: Entry) -> raft_log::Entry {
    let mut data = vec![entry.kind as u8];
    data.extend_from_slice(&entry.data);
    raft_log::Entry { index: entry.index, term: entry.term, data }
}

fn entry_from(entry: raft_log::Entry) -> Result<Entry, String> {
    let (kind, data) = entry.data.split_first().ok_or_else(|| unknown("an entry without a kind"))?;
    let kind = EntryKind::from_u8(*kind).ok_or_else(|| unknown(format!("an entry of kind {kind}")))?;
    Ok(Entry { index: entry.index, term: entry.term, kind, data: data.to_vec() })
}

#[cfg(test)]
mod tests;
