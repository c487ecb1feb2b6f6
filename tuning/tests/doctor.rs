//! Hosts with one thing wrong at a time, and what the doctor says, in `tests/golden/doctor.txt`.

use std::fmt::Write as _;
use std::path::PathBuf;

use tuning::doctor::{Facts, Severity, examine, render};
use tuning::machine::{Cpu, Kernel, Limits, Machine};
use tuning::plan::{Pin, Wish};
use tuning::probe::{Direct, Disk, Features, FileSystem, Host, Irq, Limit, Uring, WriteCache};

mod golden_file;

const GIB: u64 = 1 << 30;
const FEATURES: Features = Features {
    coop_taskrun: true,
    single_issuer: true,
    defer_taskrun: true,
    submit_all: true,
    ext_arg: true,
    no_drop: true,
    send_zc: true,
};

fn good() -> Facts {
    let cpu = |id| Cpu { id, package: 0, core: id, node: 0, siblings: vec![id], allowed: true };
    let machine = Machine {
        cpus: (0..8).map(cpu).collect(),
        kernel: Kernel { major: 6, minor: 12, release: "6.12.1".into() },
        memory_bytes: 32 * GIB,
        limits: Limits::default(),
    };
    Facts {
        plan: Ok(tuning::plan(&machine, &Wish { spare: 2, ..Wish::default() }).expect("a plan")),
        machine,
        uring: Uring::Ready { features: FEATURES },
        host: Host {
            memlock: Limit { soft: None, hard: None },
            open_files: Limit { soft: Some(65_536), hard: Some(1_048_576) },
            governors: (0..8).map(|cpu| (cpu, "performance".to_string())).collect(),
            irqs: vec![Irq { number: 24, name: "eth0".into(), cpus: vec![0] }],
            swap: vec![],
            swappiness: Some(60),
        },
        data_dir: PathBuf::from("/var/lib/corelog"),
        disk: Ok(Disk {
            folder: PathBuf::from("/var/lib/corelog"),
            file_system: FileSystem { name: "xfs".into(), magic: 0 },
            device: Some("nvme0n1".into()),
            rotational: Some(false),
            write_cache: WriteCache::WriteThrough,
            direct: Direct::Works { align_bytes: 512 },
            direct_align_reported: Some((4, 512)),
            free_bytes: 400 * GIB,
            total_bytes: 900 * GIB,
        }),
        has_fallback_driver: false,
        connections_max: 20_000,
        memory_budget_bytes: Some(9 * GIB),
    }
}

fn disk(facts: &mut Facts) -> &mut Disk {
    facts.disk.as_mut().expect("the good host has a disk")
}

type Change = fn(&mut Facts);

fn cases() -> Vec<(&'static str, Change)> {
    vec![
        ("an old kernel", |facts| {
            facts.machine.kernel = Kernel { major: 5, minor: 4, release: "5.4.0".into() };
            facts.host.memlock = Limit { soft: Some(65_536), hard: Some(65_536) };
            facts.uring = Uring::Missing;
        }),
        ("a kernel before 6.1", |facts| {
            facts.machine.kernel = Kernel { major: 5, minor: 15, release: "5.15.0".into() };
            let features = Features { single_issuer: false, defer_taskrun: false, ..FEATURES };
            facts.uring = Uring::Ready { features };
        }),
        ("io_uring turned off", |facts| facts.uring = Uring::Disabled { sysctl: 2 }),
        ("io_uring filtered, with another driver", |facts| {
            facts.uring = Uring::Filtered;
            facts.has_fallback_driver = true;
        }),
        ("io_uring without memory", |facts| facts.uring = Uring::NoMemory),
        ("few files", |facts| facts.host.open_files = Limit { soft: Some(1024), hard: Some(4096) }),
        ("a plan that cannot be had", |facts| {
            facts.plan = Err("cores.count is 0".into());
            facts.memory_budget_bytes = None;
        }),
        ("a pin list where the CPUs are needed", |facts| {
            facts.machine.cpus.truncate(2);
            let wish = Wish { pin: Pin::List(vec![0, 1]), ..Wish::default() };
            facts.plan = Ok(tuning::plan(&facts.machine, &wish).expect("a plan"));
        }),
        ("a pin list of hyper-threads", |facts| {
            facts.machine.cpus[4..6].iter_mut().for_each(|cpu| cpu.siblings = vec![4, 5]);
            let wish = Wish { pin: Pin::List(vec![4, 5]), ..Wish::default() };
            facts.plan = Ok(tuning::plan(&facts.machine, &wish).expect("a plan"));
        }),
        ("interrupts on pinned CPUs", |facts| {
            facts.host.irqs.push(Irq { number: 31, name: "eth0-rx-1".into(), cpus: vec![3] });
        }),
        ("powersave", |facts| facts.host.governors[4].1 = "powersave".into()),
        ("a large budget", |facts| facts.memory_budget_bytes = Some(30 * GIB)),
        ("swap", |facts| facts.host.swap.push(("/dev/sda2".into(), 2 * GIB))),
        ("no folder", |facts| facts.disk = Err("/srv/none: Permission denied".into())),
        ("no direct I/O", |facts| disk(facts).direct = Direct::Refused { error: "Invalid argument".into() }),
        ("a volatile cache", |facts| disk(facts).write_cache = WriteCache::Volatile),
        ("an unknown cache", |facts| disk(facts).write_cache = WriteCache::Unknown),
        ("a full disk", |facts| disk(facts).free_bytes = GIB / 2),
    ]
}

#[test]
fn each_lack_is_found_with_its_cure() {
    let mut out = format!("# all is well\n{}\n", render(&examine(&good())));
    for (name, change) in cases() {
        let mut facts = good();
        change(&mut facts);
        let findings = examine(&facts);
        writeln!(out, "# {name}").expect("a string grows");
        for finding in findings.iter().filter(|finding| finding.severity != Severity::Ok) {
            writeln!(out, "{}", render(std::slice::from_ref(finding))).expect("a string grows");
        }
    }
    golden_file::check("doctor.txt", &out);
}

#[test]
fn what_is_wrong_and_can_be_mended_says_how() {
    for (name, change) in cases() {
        let mut facts = good();
        change(&mut facts);
        for finding in examine(&facts) {
            let bad = finding.severity >= Severity::Warning;
            let mended_by_config = finding.topic == "cores";
            assert!(!bad || !finding.meaning.is_empty(), "{name}: {finding:?}");
            assert!(!bad || mended_by_config || !finding.fix.is_empty(), "{name}: {finding:?}");
        }
    }
}
