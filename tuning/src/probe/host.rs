//! Limits of this process and settings of the host that cost latency: frequency governors, interrupts, swap.

use std::path::Path;

use rustix::process::{Resource, getrlimit};
use serde::Serialize;

use crate::cpu_list;
use crate::machine::text;

/// A soft and a hard limit; `None` is unlimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Limit {
    pub soft: Option<u64>,
    pub hard: Option<u64>,
}

impl Limit {
    fn of(resource: Resource) -> Limit {
        let limit = getrlimit(resource);
        Limit { soft: limit.current, hard: limit.maximum }
    }

    pub fn allows(&self, needed: u64) -> bool {
        self.soft.is_none_or(|soft| soft >= needed)
    }
}

/// An interrupt that may be delivered to the listed CPUs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Irq {
    pub number: u32,
    pub name: String,
    pub cpus: Vec<usize>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Host {
    pub memlock: Limit,
    pub open_files: Limit,
    /// CPU and governor; empty where the host does not scale frequencies or hides it.
    pub governors: Vec<(usize, String)>,
    /// Device interrupts that have fired; those that never did cost nothing.
    pub irqs: Vec<Irq>,
    /// Swap areas in use, as (name, bytes).
    pub swap: Vec<(String, u64)>,
    pub swappiness: Option<u32>,
}

pub fn probe_host(root: &Path) -> Host {
    Host {
        memlock: Limit::of(Resource::Memlock),
        open_files: Limit::of(Resource::Nofile),
        governors: governors(root),
        irqs: irqs(root),
        swap: swap(root),
        swappiness: text(root, "proc/sys/vm/swappiness").and_then(|value| value.parse().ok()),
    }
}

fn governors(root: &Path) -> Vec<(usize, String)> {
    let online = text(root, "sys/devices/system/cpu/online").and_then(|list| cpu_list::parse(&list));
    let governor = |cpu: usize| {
        let path = format!("sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor");
        text(root, &path).map(|name| (cpu, name))
    };
    online.unwrap_or_default().into_iter().filter_map(governor).collect()
}

/// Lines of /proc/interrupts look like ` 29:  17  3  PCI-MSIX-0000:00:02.0  1-edge  virtio1-req.0`; the first line
/// names one column for each CPU.
fn irqs(root: &Path) -> Vec<Irq> {
    let table = text(root, "proc/interrupts").unwrap_or_default();
    let mut lines = table.lines();
    let columns = lines.next().map_or(0, |head| head.split_whitespace().count());
    lines.filter_map(|line| irq(root, line, columns)).collect()
}

fn irq(root: &Path, line: &str, columns: usize) -> Option<Irq> {
    let (number, rest) = line.split_once(':')?;
    let number: u32 = number.trim().parse().ok()?; // NMI, LOC and the like have no affinity
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let fired = fields.iter().take(columns).any(|count| *count != "0");
    let name = fields.get(columns..)?.last()?.to_string();
    let list = text(root, &format!("proc/irq/{number}/effective_affinity_list"))
        .filter(|list| !list.is_empty())
        .or_else(|| text(root, &format!("proc/irq/{number}/smp_affinity_list")))?;
    fired.then_some(Irq { number, name, cpus: cpu_list::parse(&list)? })
}

fn swap(root: &Path) -> Vec<(String, u64)> {
    let table = text(root, "proc/swaps").unwrap_or_default();
    let area = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let kib: u64 = fields.get(2)?.parse().ok()?;
        Some((fields.first()?.to_string(), kib.saturating_mul(1024)))
    };
    table.lines().skip(1).filter_map(area).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(files: &[(&str, &str)]) -> Host {
        let root = tempfile::tempdir().expect("a folder");
        for (path, content) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
            std::fs::write(path, content).expect("a file");
        }
        probe_host(root.path())
    }

    #[test]
    fn interrupts_that_fired_are_listed_with_their_cpus() {
        let table = "           CPU0       CPU1\n 24:   1   0  IO-APIC   5-edge  ACPI:Ged\n \
                     29:   7   9  PCI-MSIX-0000:00:02.0   1-edge  virtio1-req.0\n \
                     30:   0   0  PCI-MSIX-0000:00:02.0   2-edge  virtio1-req.1\nNMI:   3   3  Non-maskable\n";
        let found = host(&[
            ("proc/interrupts", table),
            ("proc/irq/24/smp_affinity_list", "0-1\n"),
            ("proc/irq/24/effective_affinity_list", "0\n"),
            ("proc/irq/29/smp_affinity_list", "1\n"),
            ("proc/irq/30/smp_affinity_list", "1\n"),
        ]);
        let seen: Vec<_> =
            found.irqs.iter().map(|irq| (irq.number, irq.name.as_str(), irq.cpus.clone())).collect();
        assert_eq!(seen, [(24, "ACPI:Ged", vec![0]), (29, "virtio1-req.0", vec![1])]);
    }

    #[test]
    fn swap_and_governors_are_read() {
        let found = host(&[
            ("proc/swaps", "Filename Type Size Used Priority\n/dev/sda2 partition 1024 0 -2\n"),
            ("sys/devices/system/cpu/online", "0-1"),
            ("sys/devices/system/cpu/cpu1/cpufreq/scaling_governor", "powersave\n"),
        ]);
        assert_eq!(found.swap, [("/dev/sda2".to_string(), 1 << 20)]);
        assert_eq!(found.governors, [(1, "powersave".to_string())]);
    }

    #[test]
    fn a_limit_of_none_allows_everything() {
        assert!(Limit { soft: None, hard: None }.allows(u64::MAX));
        assert!(!Limit { soft: Some(8), hard: None }.allows(9));
    }
}
