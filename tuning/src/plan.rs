//! Which logical CPU each shard is pinned to, or why none is: a pure function of the machine and the `[cores]` wish.
//!
//! Invariants of a plan: at least one shard; either every shard is pinned or none is; no CPU is used twice; every pin
//! is in the affinity mask.
//!
//! A hard pin helps only where nobody else needs the CPU. With fewer than [`PIN_CPUS_MIN`] CPUs, or under a cgroup
//! quota below the CPUs of the mask, the shard would wait behind a neighbour that the scheduler could have avoided;
//! there the plan leaves the threads to the scheduler unless the pin list says otherwise.

use std::collections::BTreeSet;
use std::fmt;

use serde::Serialize;

use crate::cpu_list;
use crate::machine::{Cpu, Machine};

/// Below this many usable CPUs nothing is pinned unasked: clients, interrupts and helpers have nowhere else to go.
pub const PIN_CPUS_MIN: usize = 4;
/// What a shard with a CPU of its own looks around before it sleeps.
pub const SPIN_US: u32 = 50;
/// Mail queues exist per ordered pair of shards, so their number is bounded.
pub const SHARDS_MAX: usize = 256;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Pin {
    /// Pin where it helps.
    #[default]
    Auto,
    Off,
    /// One logical CPU per shard, in shard order.
    List(Vec<usize>),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Numa {
    /// One node where all shards fit on it, else node after node.
    #[default]
    Auto,
    /// Shards in turn over all nodes.
    Spread,
    /// Only CPUs of this node.
    Node(usize),
}

/// What `[cores]` asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Wish {
    /// Number of shards; `None` takes every usable CPU but the spare ones.
    pub count: Option<usize>,
    pub pin: Pin,
    /// CPUs left to the rest of the host.
    pub spare: usize,
    pub numa: Numa,
    /// Microseconds a shard looks around before it sleeps; `None` decides by whether its CPU is its own.
    pub spin_us: Option<u32>,
}

impl Wish {
    /// How many shards are asked for, whether or not they can be had; one where that is left to the machine.
    pub fn count_asked(&self) -> usize {
        let listed = match &self.pin {
            Pin::List(list) => list.len(),
            Pin::Auto | Pin::Off => 1,
        };
        self.count.unwrap_or(listed).max(1)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Shard {
    /// The logical CPU it is pinned to.
    pub cpu: Option<usize>,
    /// The NUMA node of that CPU.
    pub node: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "reason")]
pub enum Unpinned {
    Asked,
    FewCpus { usable: usize },
    Shared { cpu_milli: u64, allowed: usize },
    Oversubscribed { shards: usize, usable: usize },
}

impl fmt::Display for Unpinned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Unpinned::Asked => write!(f, "cores.pin = \"off\""),
            Unpinned::FewCpus { usable } => {
                write!(
                    f,
                    "only {usable} of the {PIN_CPUS_MIN} CPUs it takes to pin without crowding out the host"
                )
            }
            Unpinned::Shared { cpu_milli, allowed } => {
                let (whole, tenths) = (cpu_milli / 1000, cpu_milli % 1000 / 100);
                write!(f, "the cgroup grants {whole}.{tenths} of {allowed} CPUs, so they are shared")
            }
            Unpinned::Oversubscribed { shards, usable } => write!(f, "{shards} shards share {usable} CPUs"),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// In shard order, never empty.
    pub shards: Vec<Shard>,
    /// Allowed CPUs that no shard is pinned to, ascending; all of them when nothing is pinned.
    pub free: Vec<usize>,
    pub unpinned: Option<Unpinned>,
    /// Microseconds a shard looks around before it sleeps, at most.
    pub spin_us: u32,
    /// What is worth knowing about this plan, as sentences.
    pub notes: Vec<String>,
}

impl Plan {
    pub fn pins(&self) -> Vec<usize> {
        self.shards.iter().filter_map(|shard| shard.cpu).collect()
    }
}

impl fmt::Display for Plan {
    /// `4 shards, pinned to CPUs 2-5; 0-1 left to the host; spin up to 50 us before they sleep`, or why nothing is pinned.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.shards.len();
        write!(f, "{count} {}", if count == 1 { "shard" } else { "shards" })?;
        match &self.unpinned {
            Some(why) => write!(f, ", not pinned: {why}"),
            None if self.free.is_empty() => write!(f, ", pinned to CPUs {}", cpu_list::format(&self.pins())),
            None => {
                let (pins, free) = (cpu_list::format(&self.pins()), cpu_list::format(&self.free));
                write!(f, ", pinned to CPUs {pins}; {free} left to the host")
            }
        }?;
        match self.spin_us {
            0 => Ok(()),
            spin => write!(f, "; spin up to {spin} us before they sleep"),
        }
    }
}

/// A wish this machine cannot grant. Each says which key to change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    NoSuchCpus { cpus: Vec<usize>, online: Vec<usize> },
    NotAllowed { cpus: Vec<usize>, allowed: Vec<usize> },
    PinnedTwice { cpus: Vec<usize> },
    EmptyList,
    CountExceedsList { count: usize, listed: usize },
    ZeroShards,
    TooManyShards { count: usize },
    NoSuchNode { node: usize, nodes: Vec<usize> },
    NodeNotAllowed { node: usize },
    NothingLeft { spare: usize, usable: usize },
}

impl std::error::Error for Error {}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::NoSuchCpus { cpus, online } => write!(
                f,
                "cores.pin names {}, not online; this machine has {}",
                named(cpus),
                cpu_list::format(online)
            ),
            Error::NotAllowed { cpus, allowed } => write!(
                f,
                "cores.pin names {}, but this process may only run on {} (taskset, cpuset or container \
                 limits); choose among those or widen the mask",
                named(cpus),
                cpu_list::format(allowed)
            ),
            Error::PinnedTwice { cpus } => {
                write!(f, "cores.pin names {} twice; two shards on one CPU would take turns", named(cpus))
            }
            Error::EmptyList => {
                write!(f, "cores.pin is an empty list; name one CPU per shard, or \"auto\" or \"off\"")
            }
            Error::CountExceedsList { count, listed } => write!(
                f,
                "cores.count is {count} but cores.pin lists {listed}; list one CPU per shard or lower cores.count"
            ),
            Error::ZeroShards => write!(f, "cores.count is 0; a broker needs at least one shard"),
            Error::TooManyShards { count } => {
                write!(f, "cores.count is {count}; at most {SHARDS_MAX} are supported")
            }
            Error::NoSuchNode { node, nodes } => {
                write!(f, "cores.numa names node {node}; this machine has {}", cpu_list::format(nodes))
            }
            Error::NodeNotAllowed { node } => {
                write!(f, "cores.numa names node {node}, but this process may run on none of its CPUs")
            }
            Error::NothingLeft { spare, usable } => write!(
                f,
                "cores.spare keeps {spare} CPUs back, but only {usable} can be used; leave at least one to a shard"
            ),
        }
    }
}

impl Error {
    /// The key to change.
    pub fn key(&self) -> &'static str {
        match self {
            Error::NoSuchCpus { .. }
            | Error::NotAllowed { .. }
            | Error::PinnedTwice { .. }
            | Error::EmptyList => "cores.pin",
            Error::CountExceedsList { .. } | Error::ZeroShards | Error::TooManyShards { .. } => "cores.count",
            Error::NoSuchNode { .. } | Error::NodeNotAllowed { .. } => "cores.numa",
            Error::NothingLeft { .. } => "cores.spare",
        }
    }
}

fn named(cpus: &[usize]) -> String {
    format!("CPU{} {}", if cpus.len() == 1 { "" } else { "s" }, cpu_list::format(cpus))
}

/// Decides where the shards run.
///
/// # Errors
/// All that cannot be had, not only the first of it.
pub fn plan(machine: &Machine, wish: &Wish) -> Result<Plan, Vec<Error>> {
    let errors = errors(machine, wish);
    if !errors.is_empty() {
        return Err(errors);
    }
    let mut plan = match &wish.pin {
        Pin::List(list) => plan_list(machine, &list[..wish.count.unwrap_or(list.len())]),
        Pin::Auto | Pin::Off => plan_free(machine, wish),
    };
    plan.spin_us = wish.spin_us.unwrap_or_else(|| spin_us(machine, &plan));
    assert!(!plan.shards.is_empty());
    assert!(plan.pins().is_empty() || plan.pins().len() == plan.shards.len());
    Ok(plan)
}

fn errors(machine: &Machine, wish: &Wish) -> Vec<Error> {
    let mut errors = Vec::new();
    let listed = match &wish.pin {
        Pin::List(list) => Some(list.len()),
        Pin::Auto | Pin::Off => None,
    };
    match wish.count.or(listed) {
        Some(0) if wish.count.is_some() => errors.push(Error::ZeroShards),
        Some(count) if count > SHARDS_MAX => errors.push(Error::TooManyShards { count }),
        Some(_) | None => {}
    }
    match &wish.pin {
        Pin::List(list) => list_errors(machine, wish, list, &mut errors),
        Pin::Auto | Pin::Off => free_errors(machine, wish, &mut errors),
    }
    errors
}

fn list_errors(machine: &Machine, wish: &Wish, list: &[usize], errors: &mut Vec<Error>) {
    if list.is_empty() {
        errors.push(Error::EmptyList);
        return;
    }
    let (mut unknown, mut forbidden, mut twice, mut seen) = (vec![], vec![], vec![], BTreeSet::new());
    for id in list {
        let again = !seen.insert(*id);
        match machine.cpu(*id) {
            _ if again => twice.push(*id),
            None => unknown.push(*id),
            Some(cpu) if !cpu.allowed => forbidden.push(*id),
            Some(_) => {}
        }
    }
    if !unknown.is_empty() {
        errors.push(Error::NoSuchCpus { cpus: unknown, online: ids(machine.cpus.iter()) });
    }
    if !forbidden.is_empty() {
        errors.push(Error::NotAllowed { cpus: forbidden, allowed: ids(machine.allowed()) });
    }
    if !twice.is_empty() {
        twice.dedup();
        errors.push(Error::PinnedTwice { cpus: twice });
    }
    let count = wish.count.unwrap_or(list.len());
    if count > list.len() {
        errors.push(Error::CountExceedsList { count, listed: list.len() });
    }
    let taken = &list[..count.min(list.len())];
    if machine.allowed().filter(|cpu| !taken.contains(&cpu.id)).count() < wish.spare {
        errors.push(Error::NothingLeft { spare: wish.spare, usable: machine.allowed().count() });
    }
}

fn free_errors(machine: &Machine, wish: &Wish, errors: &mut Vec<Error>) {
    let usable = usable(machine, wish.numa).len();
    match wish.numa {
        Numa::Node(node) if !machine.nodes().contains(&node) => {
            errors.push(Error::NoSuchNode { node, nodes: machine.nodes() });
        }
        Numa::Node(node) if usable == 0 => errors.push(Error::NodeNotAllowed { node }),
        Numa::Auto | Numa::Spread | Numa::Node(_) => {
            if wish.spare >= usable {
                errors.push(Error::NothingLeft { spare: wish.spare, usable });
            }
        }
    }
}

/// A shard looks around before it sleeps only where nobody else needs its CPU: all are pinned, no quota throttles them,
/// no shard is another's hyper-thread, and CPUs are left for clients and interrupts.
fn spin_us(machine: &Machine, plan: &Plan) -> u32 {
    let alone = plan.unpinned.is_none()
        && !machine.is_shared()
        && !plan.free.is_empty()
        && sharing_a_physical_core(machine, &plan.pins()) == 0;
    if alone && machine.allowed().count() >= PIN_CPUS_MIN { SPIN_US } else { 0 }
}

fn plan_list(machine: &Machine, list: &[usize]) -> Plan {
    let mut plan = pinned(machine, list);
    let allowed = machine.allowed().count();
    let why = match machine.limits.cpu_milli {
        Some(cpu_milli) if machine.is_shared() => Some(Unpinned::Shared { cpu_milli, allowed }),
        Some(_) | None if allowed < PIN_CPUS_MIN => Some(Unpinned::FewCpus { usable: allowed }),
        Some(_) | None => None,
    };
    if let Some(why) = why {
        plan.notes.push(format!(
            "Pinned as cores.pin asks, although {why}: a shard that waits for its CPU stalls its partitions."
        ));
    }
    note_nodes_and_siblings(machine, &mut plan);
    plan
}

fn plan_free(machine: &Machine, wish: &Wish) -> Plan {
    let usable = usable(machine, wish.numa);
    let budget = usable.len().min(machine.cpu_budget());
    let count = wish.count.unwrap_or_else(|| budget.min(usable.len() - wish.spare).clamp(1, SHARDS_MAX));
    let candidates = keep_back(usable, wish.spare);
    let unpinned = if wish.pin == Pin::Off {
        Some(Unpinned::Asked)
    } else if let (true, Some(cpu_milli)) = (machine.is_shared(), machine.limits.cpu_milli) {
        Some(Unpinned::Shared { cpu_milli, allowed: machine.allowed().count() })
    } else if count > candidates.len() {
        Some(Unpinned::Oversubscribed { shards: count, usable: candidates.len() })
    } else if machine.allowed().count() < PIN_CPUS_MIN {
        Some(Unpinned::FewCpus { usable: machine.allowed().count() })
    } else {
        None
    };
    if let Some(why) = unpinned {
        let shards = vec![Shard { cpu: None, node: None }; count];
        return Plan {
            shards,
            free: ids(machine.allowed()),
            unpinned: Some(why),
            spin_us: 0,
            notes: Vec::new(),
        };
    }
    let order = placement(&candidates, count, wish.numa);
    let mut plan = pinned(machine, &order[..count]);
    note_nodes_and_siblings(machine, &mut plan);
    plan
}

fn usable(machine: &Machine, numa: Numa) -> Vec<&Cpu> {
    let is_on = |cpu: &&Cpu| match numa {
        Numa::Node(node) => cpu.node == node,
        Numa::Auto | Numa::Spread => true,
    };
    machine.allowed().filter(is_on).collect()
}

/// Drops `spare` CPUs, whole physical cores first and from the lowest on, where kernels by default deliver
/// interrupts. Leaves physical-first order: one thread of every core before any second thread.
fn keep_back(mut cpus: Vec<&Cpu>, spare: usize) -> Vec<&Cpu> {
    cpus.sort_by_key(|cpu| (cpu.siblings.first().copied(), cpu.id));
    let mut kept = cpus.split_off(spare);
    kept.sort_by_key(|cpu| (rank(cpu, &cpus), cpu.siblings.first().copied(), cpu.id));
    kept
}

/// The position among its siblings; a CPU whose sibling is spared counts as a second thread, as that one is busy.
fn rank(cpu: &Cpu, spared: &[&Cpu]) -> usize {
    let before = cpu.siblings.iter().filter(|id| **id < cpu.id).count();
    let beside = spared.iter().filter(|other| cpu.siblings.contains(&other.id) && other.id > cpu.id).count();
    before + beside
}

fn placement(candidates: &[&Cpu], count: usize, numa: Numa) -> Vec<usize> {
    let mut nodes: Vec<usize> = candidates.iter().map(|cpu| cpu.node).collect();
    nodes.sort_unstable();
    nodes.dedup();
    let mut queues: Vec<Vec<usize>> = nodes
        .iter()
        .map(|node| candidates.iter().filter(|cpu| cpu.node == *node).map(|cpu| cpu.id).collect())
        .collect();
    match numa {
        Numa::Spread => {
            let depth = queues.iter().map(Vec::len).max().unwrap_or(0);
            (0..depth).flat_map(|at| queues.iter().filter_map(move |queue| queue.get(at).copied())).collect()
        }
        Numa::Auto | Numa::Node(_) => {
            // The smallest node that holds all of them, else the largest first. Both keep neighbours together.
            match queues.iter().filter(|queue| queue.len() >= count).min_by_key(|queue| queue.len()) {
                Some(queue) => queue.clone(),
                None => {
                    queues.sort_by_key(|queue| std::cmp::Reverse(queue.len()));
                    queues.concat()
                }
            }
        }
    }
}

fn pinned(machine: &Machine, cpus: &[usize]) -> Plan {
    let shards =
        cpus.iter().map(|id| Shard { cpu: Some(*id), node: machine.cpu(*id).map(|cpu| cpu.node) }).collect();
    let free = ids(machine.allowed().filter(|cpu| !cpus.contains(&cpu.id)));
    Plan { shards, free, unpinned: None, spin_us: 0, notes: Vec::new() }
}

fn note_nodes_and_siblings(machine: &Machine, plan: &mut Plan) {
    let pins = plan.pins();
    let mut nodes: Vec<usize> = plan.shards.iter().filter_map(|shard| shard.node).collect();
    nodes.sort_unstable();
    nodes.dedup();
    if nodes.len() > 1 {
        plan.notes.push(format!(
            "Shards span NUMA nodes {}; mail between them is slower.",
            cpu_list::format(&nodes)
        ));
    }
    let paired = sharing_a_physical_core(machine, &pins);
    if paired > 0 {
        plan.notes.push(format!("{paired} shards share a physical core with another shard (hyper-threads)."));
    }
}

/// How many of these CPUs are hyper-threads of one core with another of them.
fn sharing_a_physical_core(machine: &Machine, cpus: &[usize]) -> usize {
    let siblings = |id: &usize| machine.cpu(*id).map(|cpu| cpu.siblings.as_slice()).unwrap_or_default();
    let shares = |id: &&usize| siblings(id).iter().any(|other| other != *id && cpus.contains(other));
    cpus.iter().filter(shares).count()
}

fn ids<'a>(cpus: impl Iterator<Item = &'a Cpu>) -> Vec<usize> {
    cpus.map(|cpu| cpu.id).collect()
}
