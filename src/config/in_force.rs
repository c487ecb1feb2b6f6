//! What the config means on this machine: pins, bytes of memory, and the limits that follow from them.

use serde::Serialize;
use tuning::{Machine, Plan};

use super::keys::MEMORY_BUDGET_MIN;
use super::units::format_bytes;
use super::{Budget, Config, Problem, Problems};

/// A shard with less could not hold one request beside its caches.
const CORE_MEMORY_MIN: u64 = 16 << 20;
/// Kafka's `socket.request.max.bytes`. A request lies in one buffer, which may be half as large again as asked for, and
/// its batches are copied once more into tail buffers of the same reservation (20 % of a core's memory held back, 56 %
/// at best). So auto is at most a fifth of a core's memory, and more than a third could never be had.
const REQUEST_BYTES_DEFAULT: u64 = 100 << 20;
/// Kafka's `fetch.max.bytes`.
const FETCH_BYTES_DEFAULT: u64 = 55 << 20;

/// The settled values; nothing in here is "auto".
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct InForce {
    pub plan: Plan,
    pub memory_budget_bytes: u64,
    /// `memory_budget_bytes` over the shards.
    pub core_memory_bytes: u64,
    /// How the budget came about, for the banner: `30% of 8 GiB`.
    pub memory_reason: String,
    pub request_bytes_max: u64,
    pub connection_bytes_in_flight_max: u64,
    pub fetch_bytes_max: u64,
}

impl Config {
    /// Settles what depends on the machine and checks the relations to it.
    pub fn resolve(&self, machine: &Machine) -> Result<InForce, Problems> {
        let mut problems = Vec::new();
        // The place of the first of the keys that was given; all of them may be defaults.
        let mut report = |keys: &[&str], message: String| {
            problems.push(Problem { place: self.places.first_of(keys), message });
        };
        let plan = match tuning::plan(machine, &self.cores) {
            Ok(plan) => Ok(plan),
            Err(errors) => {
                let keys = ["cores.pin", "cores.count", "cores.spare", "cores.numa"];
                for error in &errors {
                    let own = keys.iter().copied().filter(|key| *key == error.key());
                    report(&own.chain(keys).collect::<Vec<_>>(), error.to_string());
                }
                Err(self.cores.count_asked())
            }
        };
        // What else does not fit is said too, by the number of shards that was asked for.
        let shards = plan.as_ref().map_or_else(|asked| *asked, |plan| plan.shards.len());
        let shards = u64::try_from(shards).unwrap_or(u64::MAX);
        let (budget, memory_reason) = budget(self.memory.budget, machine.memory_usable_bytes());
        if let Some(usable) = machine.memory_usable_bytes().filter(|usable| *usable < budget) {
            report(
                &["memory.budget"],
                format!(
                    "memory.budget is {}, but this process may use {}; lower it (at least {}) or raise the limit",
                    format_bytes(budget),
                    format_bytes(usable),
                    format_bytes(MEMORY_BUDGET_MIN)
                ),
            );
        }
        let core = budget / shards;
        if core < CORE_MEMORY_MIN {
            report(
                &["cores.count", "memory.budget"],
                format!(
                    "memory.budget of {} over {shards} shards leaves {} each, but a shard needs {}; raise memory.budget or \
                 lower cores.count",
                    format_bytes(budget),
                    format_bytes(core),
                    format_bytes(CORE_MEMORY_MIN)
                ),
            );
        }
        let mut bounded = |key: &str, given: Option<u64>, auto: u64, share: u64| {
            if let Some(bytes) = given.filter(|bytes| *bytes > share) {
                report(
                    &[&format!("limits.{key}")],
                    format!(
                        "limits.{key} is {}, but one core's memory leaves {} for it; lower it, raise memory.budget or \
                     lower cores.count",
                        format_bytes(bytes),
                        format_bytes(share)
                    ),
                );
            }
            given.unwrap_or(auto.min(share))
        };
        let limits = &self.limits;
        let request = bounded(
            "request_bytes_max",
            limits.request_bytes_max,
            REQUEST_BYTES_DEFAULT.min(core / 5),
            core / 3,
        );
        let in_flight = bounded(
            "connection_bytes_in_flight_max",
            limits.connection_bytes_in_flight_max,
            request,
            core / 2,
        );
        let fetch = bounded("fetch_bytes_max", limits.fetch_bytes_max, FETCH_BYTES_DEFAULT, core / 4);
        if in_flight < request {
            let keys = ["limits.connection_bytes_in_flight_max", "limits.request_bytes_max"];
            report(
                &keys,
                format!(
                    "limits.connection_bytes_in_flight_max is {}, less than one request of limits.request_bytes_max ({}) \
                 may have; raise the first or lower the second",
                    format_bytes(in_flight),
                    format_bytes(request)
                ),
            );
        }
        if u64::from(self.topics.max_message_bytes) > request {
            let keys = ["topics.message.max.bytes", "limits.request_bytes_max", "memory.budget"];
            report(
                &keys,
                format!(
                    "topics.message.max.bytes is {}, more than a request may have (limits.request_bytes_max, {}); lower it, \
                 or raise limits.request_bytes_max and memory.budget",
                    format_bytes(u64::from(self.topics.max_message_bytes)),
                    format_bytes(request)
                ),
            );
        }
        let Some(plan) = plan.ok().filter(|_| problems.is_empty()) else { return Err(Problems(problems)) };
        Ok(InForce {
            plan,
            memory_budget_bytes: budget,
            core_memory_bytes: core,
            memory_reason,
            request_bytes_max: request,
            connection_bytes_in_flight_max: in_flight,
            fetch_bytes_max: fetch,
        })
    }
}

fn budget(asked: Budget, usable: Option<u64>) -> (u64, String) {
    let percent = match asked {
        Budget::Bytes(bytes) => return (bytes, "as configured".to_string()),
        Budget::Share(percent) => percent,
    };
    let Some(usable) = usable else {
        return (MEMORY_BUDGET_MIN, "the least; this machine's memory is unknown".to_string());
    };
    let share = usable / 100 * u64::from(percent);
    let of = format!("{percent}% of {}", format_bytes(usable));
    if share < MEMORY_BUDGET_MIN {
        (MEMORY_BUDGET_MIN, format!("the least; {of} is less"))
    } else {
        (share, of)
    }
}
