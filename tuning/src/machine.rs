//! The machine as the kernel describes it: CPUs with their cores, nodes and siblings, memory, and what of it this
//! process may use.
//!
//! Containers hide parts of `/sys`, so nothing here fails: what cannot be read is taken as the plainest case (one
//! node, no siblings, no limit), and a machine always has at least one CPU that may be used.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde::Serialize;

use crate::cpu_list;

mod cgroup;
pub use cgroup::Limits;

/// One logical CPU that is online.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Cpu {
    pub id: usize,
    pub package: usize,
    pub core: usize,
    pub node: usize,
    /// All logical CPUs of the same physical core, this one included, ascending.
    pub siblings: Vec<usize>,
    /// Whether the affinity mask of this process contains it.
    pub allowed: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Kernel {
    pub major: u32,
    pub minor: u32,
    pub release: String,
}

impl Kernel {
    pub fn is_at_least(&self, major: u32, minor: u32) -> bool {
        (self.major, self.minor) >= (major, minor)
    }

    fn parse(release: &str) -> Kernel {
        let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().unwrap_or(0));
        let (major, minor) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        Kernel { major, minor, release: release.to_string() }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Machine {
    /// Ascending by id, never empty.
    pub cpus: Vec<Cpu>,
    pub kernel: Kernel,
    /// RAM of the host; 0 when unknown.
    pub memory_bytes: u64,
    pub limits: Limits,
}

impl Machine {
    /// The machine this process runs on.
    pub fn here() -> Machine {
        Machine::read(Path::new("/"))
    }

    /// The machine described by the files below `root`.
    pub fn read(root: &Path) -> Machine {
        Machine {
            cpus: read_cpus(root),
            kernel: Kernel::parse(&text(root, "proc/sys/kernel/osrelease").unwrap_or_default()),
            memory_bytes: memory_total(root).unwrap_or(0),
            limits: Limits::read(root),
        }
    }

    /// The CPUs this process may run on.
    pub fn allowed(&self) -> impl Iterator<Item = &Cpu> {
        self.cpus.iter().filter(|cpu| cpu.allowed)
    }

    pub fn nodes(&self) -> Vec<usize> {
        self.cpus.iter().map(|cpu| cpu.node).collect::<BTreeSet<_>>().into_iter().collect()
    }

    pub fn cpu(&self, id: usize) -> Option<&Cpu> {
        self.cpus.iter().find(|cpu| cpu.id == id)
    }

    /// Physical cores among the allowed CPUs.
    pub fn core_count(&self) -> usize {
        self.allowed()
            .map(|cpu| cpu.siblings.first().copied().unwrap_or(cpu.id))
            .collect::<BTreeSet<_>>()
            .len()
    }

    /// The smaller of RAM and the cgroup's limit; `None` when neither is known.
    pub fn memory_usable_bytes(&self) -> Option<u64> {
        let ram = (self.memory_bytes > 0).then_some(self.memory_bytes);
        [ram, self.limits.memory_bytes].into_iter().flatten().min()
    }

    /// CPU time this process may use, in whole CPUs: the affinity mask, cut by the cgroup's quota.
    pub fn cpu_budget(&self) -> usize {
        let allowed = self.allowed().count().max(1);
        match self.limits.cpu_milli {
            Some(milli) => allowed.min(usize::try_from(milli / 1000).unwrap_or(usize::MAX)).max(1),
            None => allowed,
        }
    }

    /// The cgroup gives less CPU time than the affinity mask has CPUs: others run on these CPUs too, and the
    /// scheduler must stay free to move our threads.
    pub fn is_shared(&self) -> bool {
        let allowed = u64::try_from(self.allowed().count()).unwrap_or(u64::MAX);
        self.limits.cpu_milli.is_some_and(|milli| milli < allowed.saturating_mul(1000))
    }
}

fn read_cpus(root: &Path) -> Vec<Cpu> {
    let online = list(root, "sys/devices/system/cpu/online");
    let mask = status_field(root, "Cpus_allowed_list:").and_then(|value| cpu_list::parse(&value));
    let ids = online.or_else(|| mask.clone()).filter(|ids| !ids.is_empty()).unwrap_or_else(|| vec![0]);
    let nodes = read_nodes(root);
    let mut cpus: Vec<Cpu> = ids.into_iter().map(|id| read_cpu(root, id, mask.as_deref(), &nodes)).collect();
    if !cpus.iter().any(|cpu| cpu.allowed) {
        // The mask names only CPUs that are not online, which cannot be: trust the CPUs.
        cpus.iter_mut().for_each(|cpu| cpu.allowed = true);
    }
    cpus
}

fn read_cpu(root: &Path, id: usize, mask: Option<&[usize]>, nodes: &[(usize, Vec<usize>)]) -> Cpu {
    let topology = format!("sys/devices/system/cpu/cpu{id}/topology");
    let siblings = list(root, &format!("{topology}/thread_siblings_list"));
    Cpu {
        id,
        package: number(root, &format!("{topology}/physical_package_id")).unwrap_or(0),
        core: number(root, &format!("{topology}/core_id")).unwrap_or(id),
        node: nodes.iter().find(|(_, cpus)| cpus.contains(&id)).map_or(0, |(node, _)| *node),
        siblings: siblings.filter(|ids| ids.contains(&id)).unwrap_or_else(|| vec![id]),
        allowed: mask.is_none_or(|mask| mask.contains(&id)),
    }
}

fn read_nodes(root: &Path) -> Vec<(usize, Vec<usize>)> {
    let nodes = list(root, "sys/devices/system/node/online").unwrap_or_default();
    nodes
        .into_iter()
        .map(|node| {
            (node, list(root, &format!("sys/devices/system/node/node{node}/cpulist")).unwrap_or_default())
        })
        .collect()
}

fn memory_total(root: &Path) -> Option<u64> {
    let info = text(root, "proc/meminfo")?;
    let line = info.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

fn status_field(root: &Path, name: &str) -> Option<String> {
    let status = text(root, "proc/self/status")?;
    status.lines().find_map(|line| line.strip_prefix(name)).map(|value| value.trim().to_string())
}

/// A small file below `root`, trimmed.
pub(crate) fn text(root: &Path, path: &str) -> Option<String> {
    fs::read_to_string(root.join(path)).ok().map(|text| text.trim().to_string())
}

pub(crate) fn number(root: &Path, path: &str) -> Option<usize> {
    text(root, path)?.parse().ok()
}

fn list(root: &Path, path: &str) -> Option<Vec<usize>> {
    cpu_list::parse(&text(root, path)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_releases_are_ordered_by_their_numbers() {
        let check = |release: &str, expect: (u32, u32)| {
            let kernel = Kernel::parse(release);
            assert_eq!((kernel.major, kernel.minor), expect, "{release}");
        };
        check("6.18.44-fc-v595", (6, 18));
        check("5.4.0", (5, 4));
        check("6", (6, 0));
        check("", (0, 0));
        assert!(Kernel::parse("6.10.1").is_at_least(6, 9));
    }

    #[test]
    fn a_machine_without_files_has_one_cpu() {
        let empty = tempfile::tempdir().expect("a folder");
        let machine = Machine::read(empty.path());
        assert_eq!(machine.cpus.len(), 1);
        assert_eq!(machine.cpu_budget(), 1);
        assert_eq!(machine.memory_usable_bytes(), None);
    }
}
