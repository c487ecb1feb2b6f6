//! The one banner of a start: what runs, on what, with which promises. A pure function from facts to text or JSON.
//!
//! Everything in it is what is in force, never what was merely asked for.

use serde::Serialize;
use tuning::Plan;

use crate::config::units::format_bytes;
use crate::config::{Config, Durability, InForce};

/// What the banner says.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Facts {
    pub version: String,
    pub node_id: i32,
    pub kernel: String,
    /// The driver that runs, and why it was picked.
    pub driver: String,
    pub driver_reason: String,
    pub cores: Plan,
    pub memory_budget_bytes: u64,
    pub memory_reason: String,
    pub durability: Durability,
    pub listeners: Vec<Listener>,
    /// Absolute.
    pub data_dir: String,
    pub file_system: String,
    pub free_bytes: u64,
    /// What an operator should know before trusting this broker, as sentences.
    pub warnings: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Listener {
    pub name: String,
    /// What was bound, with the port that was picked.
    pub address: String,
    pub advertised: String,
}

impl Facts {
    /// The facts that config and machine give; what the start finds out (driver, addresses, disk) is the caller's.
    pub fn new(config: &Config, in_force: &InForce, kernel: &str) -> Facts {
        Facts {
            version: env!("CARGO_PKG_VERSION").to_string(),
            node_id: config.node.id,
            kernel: kernel.to_string(),
            driver: String::new(),
            driver_reason: String::new(),
            cores: in_force.plan.clone(),
            memory_budget_bytes: in_force.memory_budget_bytes,
            memory_reason: in_force.memory_reason.clone(),
            durability: config.durability,
            listeners: Vec::new(),
            data_dir: config.data.dir.display().to_string(),
            file_system: String::new(),
            free_bytes: 0,
            warnings: in_force.plan.notes.clone(),
        }
    }

    /// The banner as text, ending in a line break.
    pub fn text(&self) -> String {
        let mut out = format!("corelog {} · node {}\n", self.version, self.node_id);
        let mut line = |name: &str, value: &str| out.push_str(&format!("  {name:<11} {value}\n"));
        line("kernel", &format!("Linux {}", self.kernel));
        line("driver", &with_reason(&self.driver, &self.driver_reason));
        line("cores", &self.cores.to_string());
        let shards = u64::try_from(self.cores.shards.len()).unwrap_or(u64::MAX).max(1);
        let budget = format_bytes(self.memory_budget_bytes);
        let each = format_bytes(self.memory_budget_bytes / shards);
        line("memory", &format!("{budget} for buffers and caches, {each} per core ({})", self.memory_reason));
        line("durability", &self.durability.to_string());
        for listener in &self.listeners {
            let Listener { name, address, advertised } = listener;
            let told = if address == advertised {
                String::new()
            } else {
                format!(", clients are told {advertised}")
            };
            line("listener", &format!("{name} {address}{told}"));
        }
        let disk = if self.file_system.is_empty() {
            String::new()
        } else {
            format!(" ({}, {} free)", self.file_system, format_bytes(self.free_bytes))
        };
        line("data", &format!("{}{disk}", self.data_dir));
        self.warnings.iter().for_each(|warning| line("note", warning));
        out
    }

    /// The banner as one line of JSON.
    pub fn json(&self) -> String {
        serde_json::to_string(self).expect("strings and numbers are always JSON")
    }
}

fn with_reason(what: &str, why: &str) -> String {
    if why.is_empty() { what.to_string() } else { format!("{what}: {why}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tuning::plan::{Shard, Unpinned};

    fn facts() -> Facts {
        Facts {
            version: "0.1.0".into(),
            node_id: 1,
            kernel: "6.12.1".into(),
            driver: "ring".into(),
            driver_reason: "the kernel offers io_uring with everything the driver needs".into(),
            cores: Plan {
                shards: vec![Shard { cpu: Some(2), node: Some(0) }, Shard { cpu: Some(3), node: Some(0) }],
                free: vec![0, 1],
                unpinned: None,
                spin_us: 0,
                notes: vec![],
            },
            memory_budget_bytes: 3 << 30,
            memory_reason: "30% of 10 GiB".into(),
            durability: Durability::Fsync,
            listeners: vec![Listener {
                name: "kafka".into(),
                address: "127.0.0.1:9092".into(),
                advertised: "127.0.0.1:9092".into(),
            }],
            data_dir: "/var/lib/corelog".into(),
            file_system: "xfs".into(),
            free_bytes: 400 << 30,
            warnings: vec![],
        }
    }

    #[test]
    fn the_banner_says_what_is_in_force() {
        let expect = "\
corelog 0.1.0 · node 1
  kernel      Linux 6.12.1
  driver      ring: the kernel offers io_uring with everything the driver needs
  cores       2 shards, pinned to CPUs 2-3; 0-1 left to the host
  memory      3 GiB for buffers and caches, 1.5 GiB per core (30% of 10 GiB)
  durability  fsync: acknowledged records are on stable media
  listener    kafka 127.0.0.1:9092
  data        /var/lib/corelog (xfs, 400 GiB free)
";
        assert_eq!(facts().text(), expect);
    }

    #[test]
    fn what_departs_from_the_plain_case_is_told() {
        let mut facts = facts();
        facts.cores.shards = vec![Shard { cpu: None, node: None }; 2];
        facts.cores.unpinned = Some(Unpinned::FewCpus { usable: 2 });
        facts.durability = Durability::Write { flush_messages: i64::MAX, flush_ms: 250 };
        facts.listeners[0].advertised = "broker:19092".into();
        facts.warnings.push("The device has a volatile write cache.".into());
        let text = facts.text();
        for part in [
            "2 shards, not pinned: only 2 of the 4 CPUs it takes",
            "write: acknowledged records survive the process, not the host; flushed every 250 ms",
            "kafka 127.0.0.1:9092, clients are told broker:19092",
            "note        The device has a volatile write cache.",
        ] {
            assert!(text.contains(part), "{part} is missing in:\n{text}");
        }
        assert!(facts.json().contains("\"flush_ms\":250"), "{}", facts.json());
    }
}
