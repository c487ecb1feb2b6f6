//! What the broker's config says about groups, under Kafka's names, and the limits that are ours.

use std::ops::RangeInclusive;

/// The longest member, instance, protocol or topic name taken from a client, in bytes. Kafka has no limit but the
/// 32,767 bytes of a string; ours is the same, named.
pub const NAME_BYTES_MAX: usize = 32_767;

/// The most protocols a member may offer. Kafka's clients offer one for each assignor.
pub const PROTOCOLS_MAX: usize = 100;

/// The most bytes of protocol metadata a member may bring, all protocols together.
pub const METADATA_BYTES_MAX: usize = 1 << 20;

/// The most topics a member may subscribe to by name.
pub const SUBSCRIBED_TOPICS_MAX: usize = 100_000;

/// The most ids that a group waits for after MEMBER_ID_REQUIRED; the client that would exceed it is refused.
pub const PENDING_MEMBERS_MAX: usize = 10_000;

/// The most bytes that the answers to one request about groups, members and offsets may hold on one core; who asks for
/// more is refused, and asks about fewer groups at a time. Kafka has no such limit.
pub const ANSWER_BYTES_MAX: usize = 64 << 20;

/// The longest regular expression of a subscription, in bytes.
pub const REGEX_BYTES_MAX: usize = 10_000;

/// How long a new member's JoinGroup may be parked: it has no id to heartbeat with, and its connection cannot be seen to
/// break while its request is parked.
pub const NEW_MEMBER_JOIN_TIMEOUT_MS: u64 = 5 * 60 * 1000;

/// The most timers that one step fires; the rest are due at once.
pub const TIMERS_PER_STEP_MAX: usize = 128;

/// The most groups that one step of loading's end, or of a sweep, looks at.
pub const GROUPS_PER_STEP_MAX: usize = 64;

/// Such a step ends, too, when the groups it looked at have so many members together.
pub const MEMBERS_PER_STEP_MAX: usize = 1000;

/// The most entries (offsets, members, timers, answers) that one step of unloading drops.
pub const UNLOADED_PER_STEP_MAX: usize = 256;

/// The most offsets that one step of a sweep looks at, and the most tombstones it writes.
pub const OFFSETS_PER_STEP_MAX: usize = 1000;

/// Whether live groups may change between the classic and the consumer protocol.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MigrationPolicy {
    Disabled,
    Downgrade,
    Upgrade,
    Bidirectional,
}

impl MigrationPolicy {
    /// As `group.consumer.migration.policy` has it.
    pub fn name(self) -> &'static str {
        match self {
            MigrationPolicy::Disabled => "disabled",
            MigrationPolicy::Downgrade => "downgrade",
            MigrationPolicy::Upgrade => "upgrade",
            MigrationPolicy::Bidirectional => "bidirectional",
        }
    }

    pub fn upgrades(self) -> bool {
        matches!(self, MigrationPolicy::Upgrade | MigrationPolicy::Bidirectional)
    }

    pub fn downgrades(self) -> bool {
        matches!(self, MigrationPolicy::Downgrade | MigrationPolicy::Bidirectional)
    }
}

/// `group.*` and `offsets.*`, with Kafka's defaults.
#[derive(Clone, PartialEq, Debug)]
pub struct Settings {
    pub group_max_size: usize,
    pub group_min_session_timeout_ms: i32,
    pub group_max_session_timeout_ms: i32,
    pub group_initial_rebalance_delay_ms: u64,
    pub offset_metadata_max_bytes: usize,
    /// How long an answer waits for its append.
    pub offsets_commit_timeout_ms: u64,
    pub offsets_retention_ms: i64,
    pub offsets_retention_check_interval_ms: u64,
    pub consumer_max_size: usize,
    pub consumer_session_timeout_ms: i32,
    pub consumer_heartbeat_interval_ms: i32,
    pub consumer_assignment_interval_ms: i32,
    /// What a group may ask for instead (`group.consumer.min.*` and `.max.*`).
    pub consumer_session_timeout_bounds_ms: RangeInclusive<i32>,
    pub consumer_heartbeat_interval_bounds_ms: RangeInclusive<i32>,
    pub consumer_assignment_interval_bounds_ms: RangeInclusive<i32>,
    /// `group.consumer.assignors`: the first one is the default.
    pub consumer_assignors: Vec<String>,
    pub consumer_migration_policy: MigrationPolicy,
    /// How often a group's regular expressions are resolved anew at most, and at least.
    pub regex_refresh_min_ms: u64,
    pub regex_refresh_max_ms: u64,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            group_max_size: i32::MAX.unsigned_abs() as usize,
            group_min_session_timeout_ms: 6_000,
            group_max_session_timeout_ms: 1_800_000,
            group_initial_rebalance_delay_ms: 3_000,
            offset_metadata_max_bytes: 4_096,
            offsets_commit_timeout_ms: 5_000,
            offsets_retention_ms: 10_080 * 60 * 1000,
            offsets_retention_check_interval_ms: 600_000,
            consumer_max_size: i32::MAX.unsigned_abs() as usize,
            consumer_session_timeout_ms: 45_000,
            consumer_heartbeat_interval_ms: 5_000,
            consumer_assignment_interval_ms: 1_000,
            consumer_session_timeout_bounds_ms: 45_000..=60_000,
            consumer_heartbeat_interval_bounds_ms: 5_000..=15_000,
            consumer_assignment_interval_bounds_ms: 0..=15_000,
            consumer_assignors: vec!["uniform".to_owned(), "range".to_owned()],
            consumer_migration_policy: MigrationPolicy::Bidirectional,
            regex_refresh_min_ms: 10_000,
            regex_refresh_max_ms: 600_000,
        }
    }
}

/// What the resource GROUP of one group sets, instead of the broker's settings.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct GroupConfig {
    pub consumer_session_timeout_ms: Option<i32>,
    pub consumer_heartbeat_interval_ms: Option<i32>,
    pub consumer_assignment_interval_ms: Option<i32>,
}
