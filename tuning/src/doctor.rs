//! What the host lacks, what that means, and the command that mends it: a pure function from facts to findings.
//!
//! Every check gives exactly one finding, also when all is well, so that the report shows what was looked at. Commands
//! are printed, never run.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

use crate::cpu_list;
use crate::machine::Machine;
use crate::plan::Plan;
use crate::probe::{DIRECT_ALIGN_MAX, Direct, Disk, Host, Irq, Limit, Uring, WriteCache};

/// The first kernel with every flag the ring driver wants, and the first it runs on at all.
const KERNEL_BEST: (u32, u32) = (6, 1);
const KERNEL_MIN: (u32, u32) = (5, 11);
/// Files besides connections: segments, indexes, rings, doorbells.
const FILES_BESIDE_CONNECTIONS: u64 = 4096;
/// Less is a disk about to be full: allocation steps alone take 32 MiB for each busy partition.
const FREE_BYTES_LOW: u64 = 2 << 30;
/// A ring of 4,096 entries with its completions, on kernels that account it.
const RING_LOCKED_BYTES: u64 = 1 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    Ok,
    /// Worth knowing; nothing to do.
    Note,
    /// It runs, but slower or with less safety than this machine could give.
    Warning,
    /// The broker cannot start, or not with what the config asks for.
    Problem,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Severity::Ok => "ok",
            Severity::Note => "note",
            Severity::Warning => "warning",
            Severity::Problem => "PROBLEM",
        })
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub severity: Severity,
    /// What was looked at, in a word or two.
    pub topic: &'static str,
    /// What was found.
    pub found: String,
    /// What it means for the broker; empty when all is well.
    pub meaning: String,
    /// Commands or settings that mend it, one a line; empty when there is nothing to do.
    pub fix: Vec<String>,
}

impl Finding {
    fn ok(topic: &'static str, found: impl Into<String>) -> Finding {
        Finding {
            severity: Severity::Ok,
            topic,
            found: found.into(),
            meaning: String::new(),
            fix: Vec::new(),
        }
    }

    fn note(topic: &'static str, found: impl Into<String>, meaning: impl Into<String>) -> Finding {
        Finding { severity: Severity::Note, meaning: meaning.into(), ..Finding::ok(topic, found) }
    }

    fn warning(topic: &'static str, found: impl Into<String>, meaning: &str, fix: &[&str]) -> Finding {
        let fix = fix.iter().map(|line| line.to_string()).collect();
        Finding {
            severity: Severity::Warning,
            meaning: meaning.to_string(),
            fix,
            ..Finding::ok(topic, found)
        }
    }

    fn problem(topic: &'static str, found: impl Into<String>, meaning: &str, fix: &[&str]) -> Finding {
        Finding { severity: Severity::Problem, ..Finding::warning(topic, found, meaning, fix) }
    }
}

/// All that is looked at. The caller gathers it: this module reads nothing.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Facts {
    pub machine: Machine,
    /// The plan, or why `[cores]` cannot be had.
    pub plan: Result<Plan, String>,
    pub uring: Uring,
    pub host: Host,
    /// As configured; it need not exist yet.
    pub data_dir: PathBuf,
    /// The data folder, or the nearest parent that exists; or why it cannot be looked at.
    pub disk: Result<Disk, String>,
    /// Whether the config lets the broker fall back to the posix driver.
    pub has_fallback_driver: bool,
    pub connections_max: u64,
    /// None where the config does not fit this machine.
    pub memory_budget_bytes: Option<u64>,
}

/// One finding per check, in a fixed order.
pub fn examine(facts: &Facts) -> Vec<Finding> {
    let shards = facts.plan.as_ref().map_or(1, |plan| plan.shards.len());
    let mut findings = vec![
        kernel(&facts.machine, facts.has_fallback_driver),
        uring(&facts.uring, facts.has_fallback_driver),
        memlock(&facts.host, &facts.machine, shards),
        open_files(&facts.host.open_files, facts.connections_max),
        cores(&facts.plan),
    ];
    let pins = facts.plan.as_ref().map(Plan::pins).unwrap_or_default();
    findings.push(interrupts(&facts.host, &pins));
    findings.push(governor(&facts.host, &pins));
    findings.extend(facts.memory_budget_bytes.map(|budget| memory(&facts.machine, budget)));
    findings.push(swap(&facts.host));
    match &facts.disk {
        Ok(disk) => findings.extend([direct(disk), write_cache(disk), free_space(disk)]),
        Err(error) => {
            let make =
                format!("sudo install -d -o \"$USER\" '{}'    (or set data.dir)", facts.data_dir.display());
            let meaning = "The broker cannot write its logs there.";
            findings.push(Finding::problem("data folder", error.clone(), meaning, &[&make]));
        }
    }
    findings
}

fn kernel(machine: &Machine, has_fallback: bool) -> Finding {
    let kernel = &machine.kernel;
    if kernel.major == 0 {
        return Finding::note("kernel", "version unknown", "/proc/sys/kernel/osrelease cannot be read here.");
    }
    let fix = ["install a kernel of 6.1 or later from your distribution, then reboot"];
    if kernel.is_at_least(KERNEL_BEST.0, KERNEL_BEST.1) {
        Finding::ok("kernel", format!("Linux {}", kernel.release))
    } else if kernel.is_at_least(KERNEL_MIN.0, KERNEL_MIN.1) {
        let found = format!("Linux {}, older than 6.1", kernel.release);
        let meaning = "The broker runs, but every completion interrupts it: DEFER_TASKRUN came with 6.1.";
        Finding::warning("kernel", found, meaning, &fix)
    } else {
        let found = format!("Linux {}, older than 5.11", kernel.release);
        if has_fallback {
            return Finding::warning("kernel", found, "The broker uses a slower driver, posix.", &fix);
        }
        let meaning =
            "The io_uring driver waits with a timeout that came with 5.11; before that it does not start.";
        Finding::problem("kernel", found, meaning, &fix)
    }
}

fn uring(uring: &Uring, has_fallback: bool) -> Finding {
    const TOPIC: &str = "io_uring";
    let fix: &[&str] = match uring {
        Uring::Ready { features } if features.foregone().is_empty() => {
            return Finding::ok(TOPIC, uring.reason());
        }
        Uring::Ready { .. } => {
            let meaning = "The driver runs without these flags, at more CPU time for each request.";
            return Finding::note(TOPIC, uring.reason(), meaning);
        }
        Uring::Missing | Uring::TooOld { .. } => {
            &["install a kernel of 6.1 or later built with CONFIG_IO_URING"]
        }
        Uring::Disabled { .. } => &[
            "sudo sysctl -w kernel.io_uring_disabled=0",
            "echo kernel.io_uring_disabled=0 | sudo tee /etc/sysctl.d/90-corelog.conf",
        ],
        Uring::Filtered => &[
            "docker run --security-opt seccomp=FILE    (a profile that allows io_uring_setup, _enter and _register)",
            "Kubernetes: securityContext.seccompProfile of type Localhost with that profile",
        ],
        Uring::NoMemory => &["ulimit -l unlimited    (systemd: LimitMEMLOCK=infinity)"],
        Uring::Failed { .. } => &["strace -e io_uring_setup corelog doctor    (shows the call that failed)"],
    };
    if has_fallback {
        Finding::warning(TOPIC, uring.reason(), "The broker uses a slower driver, posix.", fix)
    } else {
        Finding::problem(
            TOPIC,
            uring.reason(),
            "runtime.driver = \"ring\" lets the broker use nothing else; \"auto\" or \"posix\" does without io_uring.",
            fix,
        )
    }
}

fn memlock(host: &Host, machine: &Machine, shards: usize) -> Finding {
    const TOPIC: &str = "locked memory";
    let needed = RING_LOCKED_BYTES.saturating_mul(u64::try_from(shards).unwrap_or(u64::MAX));
    let found = format!("limit {}", limit(&host.memlock, size));
    // Since 5.12 rings are accounted to the memory cgroup instead.
    if host.memlock.allows(needed) || machine.kernel.is_at_least(5, 12) {
        return Finding::ok(TOPIC, found);
    }
    let meaning = "This kernel counts io_uring's rings as locked memory; the broker's do not fit.";
    Finding::warning(TOPIC, found, meaning, &["ulimit -l unlimited    (systemd: LimitMEMLOCK=infinity)"])
}

/// Whether the limit of open files is enough for so many connections and for logs; the start looks at it too.
pub fn open_files(open_files: &Limit, connections_max: u64) -> Finding {
    const TOPIC: &str = "open files";
    let needed = connections_max.saturating_add(FILES_BESIDE_CONNECTIONS);
    let found = format!("limit {}", limit(open_files, |count| count.to_string()));
    if open_files.hard.is_none_or(|hard| hard >= needed) {
        // The broker raises its own soft limit to the hard one when it starts.
        return Finding::ok(TOPIC, found);
    }
    let meaning = format!(
        "limits.connections_max = {connections_max} and the log files may need {needed}; past the limit, connections \
         are refused and topics cannot be created."
    );
    let commands = [format!("ulimit -n {needed}    (systemd: LimitNOFILE={needed})")];
    Finding::warning(TOPIC, found, &meaning, &[&commands[0]])
}

fn cores(plan: &Result<Plan, String>) -> Finding {
    const TOPIC: &str = "cores";
    let plan = match plan {
        Ok(plan) => plan,
        Err(error) => {
            return Finding::problem(TOPIC, error.clone(), "The broker does not start with this.", &[]);
        }
    };
    if plan.notes.is_empty() {
        Finding::ok(TOPIC, plan.to_string())
    } else {
        Finding::note(TOPIC, plan.to_string(), plan.notes.join(" "))
    }
}

fn interrupts(host: &Host, pins: &[usize]) -> Finding {
    const TOPIC: &str = "interrupts";
    if pins.is_empty() {
        return Finding::ok(TOPIC, "no CPU is pinned");
    }
    // An interrupt that may also go elsewhere is the kernel's to place.
    let held = |irq: &&Irq| !irq.cpus.is_empty() && irq.cpus.iter().all(|cpu| pins.contains(cpu));
    let irqs: Vec<&Irq> = host.irqs.iter().filter(held).collect();
    if irqs.is_empty() {
        return Finding::ok(TOPIC, "no device interrupts are bound to pinned CPUs");
    }
    let shown: Vec<String> =
        irqs.iter().take(4).map(|irq| format!("{} ({})", irq.number, irq.name)).collect();
    let more = if irqs.len() > shown.len() {
        format!(" and {} more", irqs.len() - shown.len())
    } else {
        String::new()
    };
    let found = format!("{} bound to pinned CPUs: {}{more}", irqs.len(), shown.join(", "));
    let meaning = "Each stops a shard in the middle of its work. Queues of NVMe disks are bound one per CPU by the \
                   kernel and may stay; network queues are better kept on CPUs of their own.";
    let fix = [
        "set cores.spare = 1 (or more), so that a CPU is left to them, then",
        "echo SPARE_CPU | sudo tee /proc/irq/NUMBER/smp_affinity_list    (and stop irqbalance)",
    ];
    Finding { severity: Severity::Note, ..Finding::warning(TOPIC, found, meaning, &fix) }
}

fn governor(host: &Host, pins: &[usize]) -> Finding {
    const TOPIC: &str = "CPU governor";
    let concerns = |cpu: usize| pins.is_empty() || pins.contains(&cpu);
    let slow: Vec<usize> = host
        .governors
        .iter()
        .filter(|(cpu, name)| concerns(*cpu) && name != "performance")
        .map(|(cpu, _)| *cpu)
        .collect();
    let Some((_, name)) = host.governors.iter().find(|(cpu, _)| slow.contains(cpu)) else {
        let found =
            if host.governors.is_empty() { "frequency is not scaled by this host" } else { "performance" };
        return Finding::ok(TOPIC, found);
    };
    let meaning =
        "A CPU that sleeps between requests runs slowly when the next one comes; tail latencies grow.";
    let found = format!("\"{name}\" on CPUs {}", cpu_list::format(&slow));
    Finding::warning(TOPIC, found, meaning, &["sudo cpupower frequency-set -g performance"])
}

fn memory(machine: &Machine, budget: u64) -> Finding {
    const TOPIC: &str = "memory";
    let Some(usable) = machine.memory_usable_bytes() else {
        return Finding::note(
            TOPIC,
            "size unknown",
            "The budget is what memory.budget says, at least 256 MiB.",
        );
    };
    let found = format!("budget {} of {}", size(budget), size(usable));
    if budget > usable / 10 * 8 {
        let meaning = "Little is left for the kernel and for everything else; the broker may be killed for lack of memory.";
        return Finding::warning(
            TOPIC,
            found,
            meaning,
            &["lower memory.budget, or give the host or container more"],
        );
    }
    Finding::ok(TOPIC, found)
}

fn swap(host: &Host) -> Finding {
    const TOPIC: &str = "swap";
    let bytes = host.swap.iter().fold(0u64, |sum, (_, bytes)| sum.saturating_add(*bytes));
    if bytes == 0 {
        return Finding::ok(TOPIC, "none");
    }
    let found = match host.swappiness {
        Some(swappiness) => format!("{} in use, swappiness {swappiness}", size(bytes)),
        None => format!("{} in use", size(bytes)),
    };
    if host.swappiness.is_some_and(|swappiness| swappiness <= 1) {
        return Finding::ok(TOPIC, found);
    }
    let meaning =
        "A shard whose memory was swapped out stalls every partition it owns until the page is back.";
    let fix =
        ["sudo swapoff -a    (and remove the entry from /etc/fstab)", "or: sudo sysctl -w vm.swappiness=1"];
    Finding::warning(TOPIC, found, meaning, &fix)
}

fn direct(disk: &Disk) -> Finding {
    const TOPIC: &str = "direct I/O";
    let place = format!("{} on {}", disk.folder.display(), disk.file_system.name);
    match &disk.direct {
        Direct::Works { align_bytes } => {
            assert!(*align_bytes <= DIRECT_ALIGN_MAX);
            Finding::ok(TOPIC, format!("works at {place}, aligned to {align_bytes} bytes"))
        }
        Direct::Refused { error } => {
            let found = format!("refused at {place}: {error}");
            let meaning =
                "Logs are written past the page cache; without that the broker cannot keep its promises.";
            Finding::problem(TOPIC, found, meaning, &["put data.dir on ext4 or XFS on a local disk"])
        }
    }
}

fn write_cache(disk: &Disk) -> Finding {
    const TOPIC: &str = "write cache";
    let device = disk.device.as_deref().unwrap_or("the device");
    match disk.write_cache {
        WriteCache::WriteThrough => {
            Finding::ok(TOPIC, format!("{device} has none that power loss could empty"))
        }
        WriteCache::Unknown => Finding::note(
            TOPIC,
            "unknown for this folder's device",
            "Under corelog.durability = fsync every flush is asked of the device; it must honour that.",
        ),
        WriteCache::Volatile => Finding::note(
            TOPIC,
            format!("{device} has a volatile write cache"),
            "fsync makes the device flush it at each acknowledgement, which is safe and costs latency; write durability \
             does not, so power loss may take its last records. Disks with power-loss protection report none.",
        ),
    }
}

fn free_space(disk: &Disk) -> Finding {
    const TOPIC: &str = "free space";
    let found = format!("{} of {}", size(disk.free_bytes), size(disk.total_bytes));
    if disk.free_bytes >= FREE_BYTES_LOW {
        return Finding::ok(TOPIC, found);
    }
    let meaning = "When space runs out, producers get KAFKA_STORAGE_ERROR until some is free again.";
    let fix = ["free some, enlarge the volume, or lower topics.log.retention.bytes"];
    Finding::warning(TOPIC, found, meaning, &fix)
}

fn limit(limit: &Limit, show: impl Fn(u64) -> String) -> String {
    let text = |value: Option<u64>| value.map_or_else(|| "unlimited".to_string(), &show);
    format!("{} (hard {})", text(limit.soft), text(limit.hard))
}

fn size(bytes: u64) -> String {
    let gib = 1u64 << 30;
    if bytes >= 10 * gib {
        format!("{} GiB", bytes / gib)
    } else if bytes >= 1 << 20 {
        format!("{} MiB", bytes >> 20)
    } else {
        format!("{} KiB", bytes >> 10)
    }
}

/// The report as text: one line per check, and below it what it means and what to do.
pub fn render(findings: &[Finding]) -> String {
    let mut out = String::new();
    for finding in findings {
        out.push_str(&format!("{:<8} {:<14} {}\n", finding.severity, finding.topic, finding.found));
        if !finding.meaning.is_empty() {
            out.push_str(&format!("{:24}{}\n", "", finding.meaning));
        }
        finding.fix.iter().for_each(|fix| out.push_str(&format!("{:24}-> {fix}\n", "")));
    }
    let count = |severity| findings.iter().filter(|finding| finding.severity == severity).count();
    let (problems, warnings) = (count(Severity::Problem), count(Severity::Warning));
    out.push_str(&match (problems, warnings) {
        (0, 0) => "\nThis machine is ready.\n".to_string(),
        (0, _) => format!("\nThe broker runs here; {} would do it good.\n", counted(warnings, "change")),
        (_, _) => format!(
            "\n{} must be mended before the broker can run as configured.\n",
            counted(problems, "problem")
        ),
    });
    out
}

fn counted(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}
