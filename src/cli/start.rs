//! `corelog start`: config and machine to a running broker, one banner, and the line that scripts wait for.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use tuning::Machine;
use tuning::doctor::{Finding, Severity, open_files};
use tuning::probe::{probe_disk, probe_host, probe_uring};

use super::{ConfigArgs, fail, print};
use crate::banner::{Facts, Listener};
use crate::broker::{self, Before, Process, Ready, Start};
use crate::config::units::format_bytes;
use crate::config::{Config, Driver, InForce, Setting};
use crate::settings::Settings;

/// How many notes of one kind the banner has.
const NOTES_MAX: usize = 10;

#[derive(Args, Debug)]
#[command(after_help = "\
The start prints one banner with what is in force (driver, cores, memory, durability, data folder), then one line that
scripts can wait for: `ready: kafka HOST:PORT` (with admin.listen set, one line `ready: admin HOST:PORT` before it). SIGINT, SIGTERM and SIGHUP flush and end it with status 0. After a crash, or
kill -9, start it again on the same folder: every acknowledged record is there.

What is set where: the config file is laid over the defaults, --set over the file (the last one for a key wins), and
--data and --listen, short for data.dir and listeners.kafka, over both. `corelog config example` prints every key.

Examples:
  corelog start                               on 127.0.0.1:9092, data in ./corelog-data, every CPU, 30% of memory
  corelog start --data /var/lib/corelog --listen 127.0.0.1:0
                                              a free port; the ready line says which
  corelog start --set listeners.advertised=broker1:9092 --listen 0.0.0.0:9092
                                              for clients on other hosts
  corelog start --config corelog.toml --set durability.default=write --set cores.count=2
  corelog start --set admin.listen=127.0.0.1:9644
                                              with metrics for Prometheus on http://127.0.0.1:9644/metrics
  corelog start --set runtime.driver=posix    where io_uring is not allowed (auto finds out by itself)

If it does not start, `corelog doctor` says what this machine lacks, and the command that mends it.
")]
pub struct Command {
    #[command(flatten)]
    config: ConfigArgs,
    /// Data folder, by default ./corelog-data; made if it is not there
    #[arg(long, value_name = "DIR")]
    data: Option<String>,
    /// Where to serve the Kafka protocol, by default 127.0.0.1:9092; port 0 picks a free one
    #[arg(long, value_name = "HOST:PORT")]
    listen: Option<String>,
}

impl Command {
    pub fn run(self) -> ExitCode {
        match self.start() {
            Ok(()) => ExitCode::SUCCESS,
            Err(why) => fail(why),
        }
    }

    fn start(self) -> Result<(), String> {
        let data = self.data.map(|data| Setting::argument(&format!("--data {data}"), "data.dir", &data));
        let listen = self
            .listen
            .map(|listen| Setting::argument(&format!("--listen {listen}"), "listeners.kafka", &listen));
        let extra: Vec<Setting> = data.into_iter().chain(listen).collect();
        let config = self.config.load(&extra).map_err(|problems| problems.to_string())?;
        let machine = Machine::here();
        let in_force = config.resolve(&machine).map_err(|problems| problems.to_string())?;
        let open_files = tuning::apply::raise_open_files();
        let mut settings = Settings::new(&config, &in_force)?;
        let cores = settings.core_count;
        settings.limits.bound_by_open_files(open_files, cores);
        let start = Start {
            settings,
            listen: config.listeners.kafka.resolve("listeners.kafka")?,
            admin: config.admin.listen.as_ref().map(|address| address.resolve("admin.listen")).transpose()?,
            advertised_host: config.listeners.advertised(0).host,
            advertised_port: config.listeners.advertised.as_ref().map(|address| address.port),
        };
        let process = Process {
            pins: in_force.plan.shards.iter().map(|shard| shard.cpu).collect(),
            spin: Duration::from_micros(in_force.plan.spin_us.into()),
            core_memory_bytes: usize::try_from(in_force.core_memory_bytes).unwrap_or(usize::MAX),
            driver: match config.runtime.driver {
                Driver::Auto => rt::DriverKind::Auto,
                Driver::Ring => rt::DriverKind::Ring,
                Driver::Posix => rt::DriverKind::Posix,
            },
            files_by_threads: match config.runtime.driver {
                Driver::Auto => !probe_uring(Path::new("/")).is_ready(),
                Driver::Ring => false,
                Driver::Posix => true,
            },
        };
        let kernel = machine.kernel.release;
        broker::run(start, process, move |ready| tell(&config, &in_force, &kernel, ready))
    }
}

/// The banner, what went wrong with single partitions, and the ready line. Nobody reading them stops no broker.
fn tell(config: &Config, in_force: &InForce, kernel: &str, ready: &Ready) {
    let mut facts = Facts::new(config, in_force, kernel);
    facts.driver = ready.driver.clone();
    let advertised = config.listeners.advertised(ready.address.port());
    facts.listeners = vec![Listener {
        name: "kafka".to_owned(),
        address: ready.address.to_string(),
        advertised: format!("{}:{}", advertised.host, advertised.port),
    }];
    facts.listeners.extend(ready.admin.map(|address| Listener {
        name: "admin".to_owned(),
        address: address.to_string(),
        advertised: address.to_string(),
    }));
    facts.data_dir = absolute(&config.data.dir).display().to_string();
    if let Ok(disk) = probe_disk(Path::new("/"), &config.data.dir) {
        facts.file_system = disk.file_system.name;
        facts.free_bytes = disk.free_bytes;
    }
    let opened = format!("{} partitions opened in {} ms", ready.partitions, ready.took.as_millis());
    facts.warnings.push(match ready.before {
        Before::New => "the data folder is new: there is no topic yet".to_owned(),
        Before::Clean => format!("{opened} after a clean stop"),
        Before::Unclean => {
            let searched = format_bytes(ready.searched_bytes);
            format!("{opened} after no clean stop: {searched} behind the checkpoints were searched for the logs' ends")
        }
    });
    let files = open_files(&probe_host(Path::new("/")).open_files, u64::from(config.limits.connections_max));
    if files.severity != Severity::Ok {
        let Finding { topic, found, meaning, fix, .. } = files;
        facts.warnings.push(format!("{topic}: {found}. {meaning} {}", fix.join(" ")));
    }
    facts.warnings.extend(some_of(ready.notes.iter().cloned(), "more such notes"));
    let failed = ready.failed.iter().map(|why| format!("not served: {why}"));
    facts.warnings.extend(some_of(
        failed,
        "more partitions are not served; `corelog log dump` on the stopped broker says why",
    ));
    let admin = ready.admin.map(|address| format!("ready: admin {address}\n")).unwrap_or_default();
    print(&format!("{}{admin}ready: kafka {}\n", facts.text(), ready.address));
}

/// At most so many, then how many more there are: a thousand must not bury the rest of the banner.
fn some_of(notes: impl ExactSizeIterator<Item = String>, more: &str) -> Vec<String> {
    let left = notes.len().saturating_sub(NOTES_MAX);
    let mut some: Vec<String> = notes.take(NOTES_MAX).collect();
    if left > 0 {
        some.push(format!("{left} {more}"));
    }
    some
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf())
}

#[cfg(test)]
mod tests {
    use super::{NOTES_MAX, some_of};

    #[test]
    fn many_notes_are_some_and_a_count() {
        let notes = |count: usize| some_of((0..count).map(|n| n.to_string()), "more");
        assert_eq!(notes(NOTES_MAX).len(), NOTES_MAX);
        let many = notes(1_000);
        assert_eq!((many.len(), many.last().map(String::as_str)), (NOTES_MAX + 1, Some("990 more")));
    }
}
