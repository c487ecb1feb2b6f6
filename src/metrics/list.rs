//! The one list of what is told: names, kinds, meanings, and where each value comes from.
//!
//! Names follow Prometheus: a counter ends in `_total`, the unit stands before that. docs/operations/metrics.md is made
//! from this list and a test holds it to it.

use coord::group::Reason;
use net::api::ApiKey;
use net::error_code::ErrorCode;
use rt::{Reservation, STALL_BUCKETS};

use super::{CoreMetrics, Stage};

/// One metric, whatever labels it has.
pub struct Family {
    pub name: &'static str,
    pub kind: Kind,
    pub help: &'static str,
    pub samples: Samples,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows while the process lives.
    Counter,
    Gauge,
    Histogram,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        }
    }
}

/// Label values, and the number that goes with them.
type Labelled<L> = Vec<(L, u64)>;

/// Where the values come from.
pub enum Samples {
    /// Always 1; its labels are what it tells.
    Info(&'static [(&'static str, &'static str)]),
    /// One for each core.
    PerCore(fn(&CoreMetrics) -> u64),
    /// Several for each core, told apart by one more label.
    PerCoreBy(&'static str, fn(&CoreMetrics) -> Labelled<&'static str>),
    /// Added up over the cores.
    MergedBy(&'static [&'static str], fn(&CoreMetrics) -> Labelled<Vec<String>>),
    /// Histograms added up over the cores.
    Stages(&'static [Stage]),
}

impl Samples {
    pub fn labels(&self) -> Vec<&'static str> {
        match self {
            Samples::Info(labels) => labels.iter().map(|(name, _)| *name).collect(),
            Samples::PerCore(_) => vec!["core"],
            Samples::PerCoreBy(label, _) => vec!["core", label],
            Samples::MergedBy(labels, _) => labels.to_vec(),
            Samples::Stages(_) => vec!["stage", "le"],
        }
    }
}

const fn counter(name: &'static str, help: &'static str, value: fn(&CoreMetrics) -> u64) -> Family {
    Family { name, kind: Kind::Counter, help, samples: Samples::PerCore(value) }
}

const fn gauge(name: &'static str, help: &'static str, value: fn(&CoreMetrics) -> u64) -> Family {
    Family { name, kind: Kind::Gauge, help, samples: Samples::PerCore(value) }
}

pub const FAMILIES: &[Family] = &[
    Family {
        name: "corelog_build_info",
        kind: Kind::Gauge,
        help: "Always 1; the label says which version runs.",
        samples: Samples::Info(&[("version", env!("CARGO_PKG_VERSION"))]),
    },
    Family {
        name: "corelog_produce_stage_seconds",
        kind: Kind::Histogram,
        help: "Where the time of produce requests goes, by the stages explained above.",
        samples: Samples::Stages(&Stage::PRODUCE),
    },
    Family {
        name: "corelog_fetch_stage_seconds",
        kind: Kind::Histogram,
        help: "Where the time of fetch requests goes, by the stages explained above.",
        samples: Samples::Stages(&Stage::FETCH),
    },
    Family {
        name: "corelog_requests_total",
        kind: Kind::Counter,
        help: "Requests taken up, by the name of their API.",
        samples: Samples::MergedBy(&["api"], requests),
    },
    Family {
        name: "corelog_errors_total",
        kind: Kind::Counter,
        help: "Error codes in answers: one for each topic, partition or resource that was told one.",
        samples: Samples::MergedBy(&["api", "error"], errors),
    },
    counter(
        "corelog_requests_unanswerable_total",
        "Requests that are not served or cannot be decoded, and produce failures under acks=0: their connection was closed.",
        |core| core.recorded.unanswerable,
    ),
    gauge("corelog_connections_open", "Connections of clients.", |core| core.connections_open),
    counter("corelog_connections_accepted_total", "Connections taken.", |core| {
        core.recorded.connections_accepted
    }),
    counter(
        "corelog_connections_refused_total",
        "Connections closed at once because limits.connections_max was reached.",
        |core| core.recorded.connections_refused,
    ),
    counter("corelog_received_bytes_total", "Bytes received from sockets.", |core| {
        core.runtime.received_bytes
    }),
    counter("corelog_sent_bytes_total", "Bytes sent to sockets.", |core| core.runtime.sent_bytes),
    counter("corelog_appended_batches_total", "Record batches appended.", |core| core.logs.batches),
    counter("corelog_appended_bytes_total", "Bytes of record batches appended.", |core| core.logs.bytes),
    counter(
        "corelog_append_copied_bytes_total",
        "Bytes of batches copied in user space on their way from the receive buffer to the disk; one copy means as many as \
         were appended.",
        |core| core.logs.bytes_copied,
    ),
    counter(
        "corelog_append_tail_copied_bytes_total",
        "Bytes of partly filled blocks copied out of a flush and into the next one, because a block under DMA must not change.",
        |core| core.logs.tail_bytes_copied,
    ),
    counter(
        "corelog_receive_moved_bytes_total",
        "Bytes of requests moved between receive buffers, because their beginning had arrived before their length was known.",
        |core| core.recorded.head_bytes_moved,
    ),
    counter("corelog_fetched_bytes_total", "Bytes of record batches in answers to fetches.", |core| {
        core.recorded.fetched_bytes
    }),
    counter(
        "corelog_fetch_copied_bytes_total",
        "Bytes of those that do not leave from the buffers that disk or producer filled; 0 means that no fetch copies.",
        |core| core.recorded.fetched_bytes_copied,
    ),
    counter("corelog_append_duplicates_total", "Batches that an idempotent producer sent again.", |core| {
        core.logs.duplicates
    }),
    counter(
        "corelog_flushes_total",
        "Writes of appended batches, each with its sync where that is asked for.",
        |core| core.logs.flushes,
    ),
    counter("corelog_flushed_bytes_total", "Bytes of those writes, padded to whole blocks.", |core| {
        core.logs.flushed_bytes
    }),
    counter(
        "corelog_journaled_flushes_total",
        "Flushes of appended batches that the core's journal made durable, several with one write; segments get them later.",
        |core| core.logs.journaled,
    ),
    counter("corelog_journal_writes_total", "Writes of the core's journal, each with its sync.", |core| {
        core.journal.writes
    }),
    counter("corelog_journal_bytes_total", "Bytes of those writes, padded to whole blocks.", |core| {
        core.journal.bytes
    }),
    counter(
        "corelog_journal_refused_flushes_total",
        "Flushes that went to their segments at once because neither of the journal's files had room.",
        |core| core.journal.refused,
    ),
    counter(
        "corelog_zeros_ahead_bytes_total",
        "Zeros written behind the ends of logs so that the next flushes meet written blocks.",
        |core| core.logs.zeros_ahead_bytes,
    ),
    counter("corelog_segment_rolls_total", "Segments begun because one was full or too old.", |core| {
        core.logs.rolls
    }),
    counter("corelog_compactions_total", "Compactions of a log that ran to their end.", |core| {
        core.logs.compactions
    }),
    counter(
        "corelog_compactions_failed_total",
        "Compactions that gave up: no space, damage, or a log that closed or was truncated meanwhile.",
        |core| core.logs.compactions_failed,
    ),
    counter(
        "corelog_compaction_read_bytes_total",
        "Bytes of batches that compactions went over, to learn keys and again to clean.",
        |core| core.logs.compaction_bytes_read,
    ),
    counter("corelog_compaction_written_bytes_total", "Bytes of batches that they left.", |core| {
        core.logs.compaction_bytes_written
    }),
    counter("corelog_compaction_records_kept_total", "Records that compactions left.", |core| {
        core.logs.compaction_records_kept
    }),
    counter(
        "corelog_compaction_records_removed_total",
        "Records that compactions removed, because later ones of their keys made them void.",
        |core| core.logs.compaction_records_removed,
    ),
    counter("corelog_reads_from_memory_total", "Reads served from the buffers of recent appends.", |core| {
        core.logs.reads_from_tail
    }),
    counter(
        "corelog_searched_bytes_total",
        "Bytes searched for the ends of logs when they were opened: what lay behind the last checkpoint.",
        |core| core.logs.bytes_searched,
    ),
    counter(
        "corelog_chunks_read_total",
        "Chunks of segments read from the disk for fetches behind the recent appends, asked for or ahead of them.",
        |core| core.logs.reads_from_disk,
    ),
    counter("corelog_chunks_read_bytes_total", "Bytes of those chunks.", |core| core.logs.bytes_from_disk),
    Family {
        name: "corelog_partitions",
        kind: Kind::Gauge,
        help: "Partitions that this broker keeps: open, opening, or offline after a failure of the disk or of recovery.",
        samples: Samples::PerCoreBy("state", |core| {
            let partitions = core.partitions;
            vec![("open", partitions.open), ("opening", partitions.opening), ("offline", partitions.offline)]
        }),
    },
    gauge("corelog_groups", "Consumer groups coordinated here.", |core| core.groups.groups),
    gauge("corelog_committed_offsets", "Offsets that those groups have committed.", |core| {
        core.groups.offsets
    }),
    gauge(
        "corelog_group_requests_waiting",
        "Requests about groups that wait for the disk or for other members.",
        |core| core.groups.waiting,
    ),
    Family {
        name: "corelog_group_rebalances_total",
        kind: Kind::Counter,
        help: "Rebalances of groups: plans of classic leaders that took effect, targets computed for consumer groups.",
        samples: Samples::PerCoreBy("protocol", |core| {
            let counted = core.groups.counted;
            vec![("classic", counted.rebalances_classic), ("consumer", counted.rebalances_consumer)]
        }),
    },
    Family {
        name: "corelog_group_members_removed_total",
        kind: Kind::Counter,
        help: "Members of groups that went: left by themselves or were removed by an administrator, their session timed \
               out, they were too slow in a rebalance, another process took a static member's place, or the group was full.",
        samples: Samples::PerCoreBy("reason", |core| {
            Reason::ALL.iter().map(|why| (why.name(), core.groups.counted.removed(*why))).collect()
        }),
    },
    counter(
        "corelog_offset_commits_total",
        "Offsets committed: one for each partition of a commit.",
        |core| core.groups.counted.offset_commits,
    ),
    counter("corelog_offset_expirations_total", "Committed offsets whose retention was over.", |core| {
        core.groups.counted.offset_expirations
    }),
    Family {
        name: "corelog_memory_used_bytes",
        kind: Kind::Gauge,
        help: "Buffer memory in use, by the reservation it was taken on.",
        samples: Samples::PerCoreBy("reservation", |core| {
            Reservation::ALL.iter().map(|of| of.name()).zip(core.memory_bytes.iter().copied()).collect()
        }),
    },
    gauge("corelog_memory_budget_bytes", "Buffer memory that the core may use in all.", |core| {
        core.memory_budget_bytes
    }),
    gauge(
        "corelog_tail_cache_bytes",
        "Buffers of recent appends kept for readers; given back when memory is needed.",
        |core| core.tail_bytes,
    ),
    gauge(
        "corelog_chunk_cache_bytes",
        "Chunks of segments kept for readers behind the recent appends; given back when memory is needed.",
        |core| core.chunk_bytes,
    ),
    gauge(
        "corelog_journal_kept_bytes",
        "Buffers of appends that the journal has and no segment; an eighth of what produce may take at most.",
        |core| core.journal_kept_bytes,
    ),
    counter(
        "corelog_kernel_enters_total",
        "Times the core entered the kernel to submit or to wait.",
        |core| core.runtime.enters,
    ),
    counter("corelog_kernel_sleeps_total", "Times it went to sleep there.", |core| core.runtime.sleeps),
    counter(
        "corelog_spins_total",
        "Times it looked around before it would have slept (cores.spin).",
        |core| core.runtime.spins,
    ),
    counter("corelog_spin_hits_total", "Those of them that found something to do.", |core| {
        core.runtime.spins_hit
    }),
    counter("corelog_doorbells_total", "Times another thread had to wake the core.", |core| {
        core.runtime.doorbells
    }),
    Family {
        name: "corelog_operations_total",
        kind: Kind::Counter,
        help: "Operations of the driver that ended well, by their kind; helped ones ran on another thread.",
        samples: Samples::PerCoreBy("operation", |core| {
            let stats = &core.runtime;
            vec![
                ("read", stats.reads),
                ("write", stats.writes),
                ("sync", stats.syncs),
                ("receive", stats.receives),
                ("send", stats.sends),
                ("accept", stats.accepts),
                ("connect", stats.connects),
                ("helped", stats.helped),
                ("cancelled", stats.cancelled),
            ]
        }),
    },
    gauge("corelog_operations_in_flight", "Operations that the driver has not finished.", |core| {
        core.runtime.operations_in_flight as u64
    }),
    counter("corelog_file_read_bytes_total", "Bytes read from files.", |core| core.runtime.read_bytes),
    counter("corelog_file_written_bytes_total", "Bytes written to files.", |core| core.runtime.written_bytes),
    gauge("corelog_tasks", "Tasks that live.", |core| core.runtime.tasks as u64),
    counter("corelog_task_polls_total", "Times a task ran until it had to wait.", |core| core.runtime.polls),
    counter("corelog_task_panics_total", "Tasks that ended by a panic: a bug of the broker.", |core| {
        core.runtime.panics
    }),
    Family {
        name: "corelog_task_stalls_total",
        kind: Kind::Counter,
        help: "Polls by how long they kept the core: at least so many microseconds and less than twice that (0: less than \
               two).",
        samples: Samples::PerCoreBy("from_us", |core| {
            STALL_FROM_US.into_iter().zip(core.runtime.stalls).collect()
        }),
    },
];

/// Where the buckets of `rt::Stats::stalls` begin.
const STALL_FROM_US: [&str; STALL_BUCKETS] = [
    "0", "2", "4", "8", "16", "32", "64", "128", "256", "512", "1024", "2048", "4096", "8192", "16384",
    "32768", "65536", "131072", "262144", "524288", "1048576", "2097152", "4194304", "8388608",
];

fn requests(core: &CoreMetrics) -> Labelled<Vec<String>> {
    core.recorded.requests.iter().map(|(key, count)| (vec![api(*key)], *count)).collect()
}

fn errors(core: &CoreMetrics) -> Labelled<Vec<String>> {
    let error = |code| ErrorCode::from_i16(code).map_or(code.to_string(), |code| code.name().to_owned());
    let labelled = core.recorded.errors.iter();
    labelled.map(|((key, code), count)| (vec![api(*key), error(*code)], *count)).collect()
}

fn api(key: i16) -> String {
    ApiKey::from_i16(key).map_or(key.to_string(), |key| key.name().to_owned())
}
