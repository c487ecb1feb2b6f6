//! Simulated names: a change of a directory is durable only when the directories it touches were synced after it.
//! After a power cut any subset of the others may be there, and a file below a lost directory is lost.

use super::inode::Keep;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

pub(super) type InodeId = u64;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Entry {
    File(InodeId),
    Dir,
}

#[derive(Clone)]
enum Change {
    Add(PathBuf, Entry),
    Remove(PathBuf),
    Rename(PathBuf, PathBuf),
}

#[derive(Clone)]
struct Pending {
    change: Change,
    /// Directories that were not synced since.
    waits_for: BTreeSet<PathBuf>,
}

type Map = BTreeMap<PathBuf, Entry>;

#[derive(Clone, Default)]
pub(super) struct Names {
    now: Map,
    durable: Map,
    pending: Vec<Pending>,
}

impl Names {
    pub(super) fn get(&self, path: &Path) -> Option<Entry> {
        if path.parent().is_none() {
            return Some(Entry::Dir);
        }
        self.now.get(path).copied()
    }

    pub(super) fn add(&mut self, path: &Path, entry: Entry) {
        self.change(Change::Add(path.to_path_buf(), entry), &[path]);
    }

    pub(super) fn add_durable(&mut self, path: &Path, entry: Entry) {
        self.now.insert(path.to_path_buf(), entry);
        self.durable.insert(path.to_path_buf(), entry);
    }

    pub(super) fn remove(&mut self, path: &Path) {
        self.change(Change::Remove(path.to_path_buf()), &[path]);
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) {
        if self.get(from) == Some(Entry::Dir) {
            for pending in &mut self.pending {
                pending.waits_for =
                    pending.waits_for.iter().map(|dir| moved(dir, from, to).unwrap_or(dir.clone())).collect();
            }
        }
        self.change(Change::Rename(from.to_path_buf(), to.to_path_buf()), &[from, to]);
    }

    pub(super) fn sync_dir(&mut self, dir: &Path) {
        for pending in std::mem::take(&mut self.pending) {
            let Pending { change, mut waits_for } = pending;
            waits_for.remove(dir);
            if waits_for.is_empty() {
                apply(&mut self.durable, &change);
            } else {
                self.pending.push(Pending { change, waits_for });
            }
        }
    }

    pub(super) fn children(&self, dir: &Path) -> Vec<(PathBuf, Entry)> {
        self.now.iter().filter(|(p, _)| p.parent() == Some(dir)).map(|(p, e)| (p.clone(), *e)).collect()
    }

    pub(super) fn below(&self, dir: &Path) -> Vec<PathBuf> {
        self.now.keys().filter(|p| p.starts_with(dir)).cloned().collect()
    }

    pub(super) fn files(&self) -> impl Iterator<Item = (&PathBuf, InodeId)> {
        self.now.iter().filter_map(|(path, entry)| match entry {
            Entry::File(id) => Some((path, *id)),
            Entry::Dir => None,
        })
    }

    pub(super) fn crash(&mut self, random: &mut u64, keep: Keep) {
        for pending in std::mem::take(&mut self.pending) {
            if keep.draw(random) {
                apply(&mut self.durable, &pending.change);
            }
        }
        let all = self.durable.clone();
        let is_dir = |path: &Path| path.parent().is_none() || all.get(path) == Some(&Entry::Dir);
        self.durable.retain(|path, _| path.ancestors().skip(1).all(is_dir));
        self.now = self.durable.clone();
    }

    fn change(&mut self, change: Change, paths: &[&Path]) {
        apply(&mut self.now, &change);
        let waits_for = paths.iter().filter_map(|p| p.parent()).map(Path::to_path_buf).collect();
        self.pending.push(Pending { change, waits_for });
    }
}

fn moved(path: &Path, from: &Path, to: &Path) -> Option<PathBuf> {
    let rest = path.strip_prefix(from).ok()?;
    Some(if rest.as_os_str().is_empty() { to.to_path_buf() } else { to.join(rest) })
}

/// A change whose ground is missing (an earlier one was lost) does nothing.
fn apply(map: &mut Map, change: &Change) {
    match change {
        Change::Add(path, entry) => {
            map.insert(path.clone(), *entry);
        }
        Change::Remove(path) => map.retain(|p, _| !p.starts_with(path)),
        Change::Rename(from, to) => {
            let moving: Map =
                map.iter().filter_map(|(p, e)| moved(p, from, to).map(|new| (new, *e))).collect();
            if !moving.is_empty() {
                map.retain(|p, _| !p.starts_with(from) && !p.starts_with(to));
                map.extend(moving);
            }
        }
    }
}
