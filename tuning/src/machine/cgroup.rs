//! What the control group grants: CPU time and memory, of version 2 and of version 1.
//!
//! A limit of any ancestor binds too, so every level up to the mount is read and the smallest counts. Inside a
//! container the path in `/proc/self/cgroup` may not exist below the mount; levels that are missing are skipped.

use std::path::Path;

use serde::Serialize;

use super::text;

/// Version 1 writes a number near 2^63 for "no limit".
const UNLIMITED_BYTES: u64 = 1 << 60;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Limits {
    /// Thousandths of a CPU.
    pub cpu_milli: Option<u64>,
    pub memory_bytes: Option<u64>,
}

impl Limits {
    pub fn read(root: &Path) -> Limits {
        let mut limits = Limits::default();
        for line in text(root, "proc/self/cgroup").unwrap_or_default().lines() {
            let mut fields = line.splitn(3, ':');
            let (Some(_), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next())
            else {
                continue;
            };
            for level in levels(path) {
                limits.take(root, controllers, level);
            }
        }
        limits
    }

    fn take(&mut self, root: &Path, controllers: &str, level: &str) {
        if controllers.is_empty() {
            for mount in ["sys/fs/cgroup", "sys/fs/cgroup/unified"] {
                self.narrow_cpu(cpu_max(root, &format!("{mount}{level}/cpu.max")));
                self.narrow_memory(bytes(root, &format!("{mount}{level}/memory.max")));
            }
            return;
        }
        for controller in controllers.split(',') {
            let folder = format!("sys/fs/cgroup/{controller}{level}");
            match controller {
                "cpu" => self.narrow_cpu(cfs_quota(root, &folder)),
                "memory" => self.narrow_memory(bytes(root, &format!("{folder}/memory.limit_in_bytes"))),
                _ => {}
            }
        }
    }

    fn narrow_cpu(&mut self, milli: Option<u64>) {
        self.cpu_milli = [self.cpu_milli, milli].into_iter().flatten().min();
    }

    fn narrow_memory(&mut self, bytes: Option<u64>) {
        self.memory_bytes = [self.memory_bytes, bytes].into_iter().flatten().min();
    }
}

/// `/a/b` gives `/a/b`, `/a` and the empty string for the mount itself.
fn levels(path: &str) -> Vec<&str> {
    let path = path.trim_end_matches('/');
    let mut levels = vec![path];
    levels.extend(path.rmatch_indices('/').map(|(at, _)| &path[..at]));
    levels.dedup();
    levels
}

fn cpu_max(root: &Path, path: &str) -> Option<u64> {
    let line = text(root, path)?;
    let (quota, period) = line.split_once(' ')?;
    milli(quota.parse().ok()?, period.parse().ok()?)
}

fn cfs_quota(root: &Path, folder: &str) -> Option<u64> {
    let quota = text(root, &format!("{folder}/cpu.cfs_quota_us"))?.parse().ok()?; // -1, no limit, does not parse
    milli(quota, text(root, &format!("{folder}/cpu.cfs_period_us"))?.parse().ok()?)
}

fn milli(quota_us: u64, period_us: u64) -> Option<u64> {
    quota_us.checked_mul(1000)?.checked_div(period_us)
}

fn bytes(root: &Path, path: &str) -> Option<u64> {
    text(root, path)?.parse().ok().filter(|bytes| *bytes < UNLIMITED_BYTES)
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_level_up_to_the_mount_is_read() {
        assert_eq!(super::levels("/a/b"), ["/a/b", "/a", ""]);
        assert_eq!(super::levels("/"), [""]);
    }
}
