//! `bench groups commit`: OffsetCommits by consumers that only commit, one under way on each connection.
//!
//! Each group belongs to one connection and its offsets only grow, so at the end the coordinator must give back exactly the
//! last offset that was acknowledged; that is checked for every group.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use rt::{Class, Core, Instant};

use super::offsets::{self, Commit};
use super::{NS_PER_S, Scene, Span, coordinator, new_group, on_stage, set_latencies, set_usage, used_by_now};
use crate::cli::CommitGroups;
use crate::histogram::Latencies;
use crate::link::{Error, Link, resolve};
use crate::process::Broker;
use crate::progress::Progress;
use crate::report::{Report, is_client_bound, is_saturated};
use crate::run_on_core;
use crate::schedule::{Schedule, Window, partitions_of};
use crate::topic::{self, Topic};
use crate::writing::nanos;

const POLL: Duration = Duration::from_millis(20);
/// How long answers are waited for at the end.
const DRAIN_WAIT: Duration = Duration::from_secs(40);
const CEILING_WARMUP: Duration = Duration::from_millis(200);
const CEILING_TIME: Duration = Duration::from_secs(1);
/// Groups asked for in one OffsetFetch.
const GROUPS_AT_ONCE: usize = 100;
const US_PER_S: f64 = 1e6;

pub fn run(options: &CommitGroups) -> Result<Report, Error> {
    if options.groups < options.connections {
        return Err(Error::Protocol(format!(
            "{} connections cannot share {} groups: --groups must not be below --connections",
            options.connections, options.groups
        )));
    }
    let asked = options.clone();
    let mut report = on_stage(&options.target, options.partitions, move |scene| commit(scene, asked))?;
    if options.rate.is_none() && !options.no_ceiling {
        match ceiling(options) {
            Ok(per_s) => {
                report.figures.insert("ceiling_commits_per_s", per_s);
                report.client_bound = Some(is_client_bound(report.figures["commits_per_s"], per_s));
            }
            Err(error) => report.notes.push(format!("the ceiling could not be measured: {error}")),
        }
    }
    if report.client_bound == Some(true) {
        report.notes.push("CLIENT-BOUND: this tool is part of the limit".to_owned());
    }
    Ok(report)
}

async fn commit(mut scene: Scene, options: CommitGroups) -> Result<Report, Error> {
    let run = Run::start(&scene.core, &mut scene.link, &scene.topic, &options).await?;
    let began_ms = scene.core.wall_ms();
    let (before, after) = run.watch(&scene.pids, options.output.quiet).await?;
    let checked = run.read_back().await?;
    let seconds = (run.window.0.end - run.window.0.start) as f64 / NS_PER_S;
    let commits = run.in_window.get() as f64;
    let mut report = Report { command: "groups commit", ..Report::default() };
    report.conditions = BTreeMap::from([
        ("bootstrap", scene.bootstrap),
        ("topic", scene.topic.name.clone()),
        ("groups", options.groups.to_string()),
        ("connections", options.connections.to_string()),
        ("in flight", "1 on each".to_owned()),
        ("offsets of a commit", options.partitions.to_string()),
        ("loop", if options.rate.is_some() { "open, from the intended time" } else { "closed" }.to_owned()),
    ]);
    report.figures.insert("commits_per_s", commits / seconds);
    report.figures.insert("offsets_per_s", commits * f64::from(options.partitions) / seconds);
    if let Some(rate) = options.rate {
        report.target_per_s = Some(rate);
        report.saturated = Some(is_saturated(commits / seconds, rate as f64));
        if report.saturated == Some(true) {
            report.notes.push("SATURATED: the latencies are those of a queue".to_owned());
        }
    }
    set_usage(&mut report, before, after);
    if let Some(brokers) = report.brokers.filter(|_| commits > 0.0) {
        report.figures.insert("broker_cpu_us_per_commit", brokers.cpu_s * US_PER_S / commits);
    }
    report.notes.push(format!("{checked} groups were read back: each has its last acknowledged offset"));
    let span = Span { began_ms, seconds };
    let taken = [("commit latency", run.latencies.take())];
    set_latencies(&mut report, &taken, &span, options.output.hdr.as_deref())?;
    Ok(report)
}

/// Connections at work.
struct Run {
    core: Core,
    topic: String,
    partitions: i32,
    start: u64,
    window: Window,
    lanes: RefCell<Vec<Lane>>,
    running: Cell<usize>,
    total: Cell<u64>,
    in_window: Cell<u64>,
    latencies: RefCell<Latencies>,
    failure: RefCell<Option<Error>>,
}

/// One consumer's groups, and a connection to each of their coordinators.
struct Lane {
    links: BTreeMap<SocketAddr, Link>,
    groups: Vec<Group>,
    schedule: Option<Schedule>,
}

struct Group {
    id: String,
    coordinator: SocketAddr,
    /// The last offset that was acknowledged.
    committed: i64,
}

impl Run {
    async fn start(
        core: &Core,
        link: &mut Link,
        topic: &Topic,
        options: &CommitGroups,
    ) -> Result<Rc<Run>, Error> {
        let lanes = connect(core, link, options).await?;
        let start = core.now().as_nanos();
        let measured_from = start + nanos(options.warmup);
        let end = measured_from + nanos(options.duration);
        let run = Rc::new(Run {
            core: core.clone(),
            topic: topic.name.clone(),
            partitions: options.partitions,
            start,
            window: Window(measured_from..end),
            running: Cell::new(lanes.len()),
            lanes: RefCell::default(),
            total: Cell::new(0),
            in_window: Cell::new(0),
            latencies: RefCell::default(),
            failure: RefCell::new(None),
        });
        let ticks = |rate| ((end - start) as f64 / NS_PER_S * rate as f64).round() as u64;
        let count = lanes.len() as u64;
        for (index, mut lane) in (0..).zip(lanes) {
            lane.schedule = options.rate.map(|rate| Schedule::new(rate, count, index, start, ticks(rate)));
            let run = run.clone();
            core.spawn(Class::Produce, async move {
                if let Err(error) = lane.work(&run).await {
                    run.failure.borrow_mut().get_or_insert(error);
                }
                run.lanes.borrow_mut().push(lane);
                run.running.set(run.running.get() - 1);
            });
        }
        Ok(run)
    }

    /// Sees the run to its end; what was used when the window began and when it ended.
    async fn watch(&self, pids: &[u32], is_quiet: bool) -> Result<(super::Used, super::Used), Error> {
        let mut progress = Progress::new(is_quiet, self.start);
        let (mut before, mut after, mut last) = (None, None, 0);
        while self.running.get() > 0 {
            self.core.sleep_until(Instant::from_nanos(self.core.now().as_nanos() + nanos(POLL))).await;
            let now = self.core.now().as_nanos();
            self.failure.borrow_mut().take().map_or(Ok(()), Err)?;
            if now >= self.window.0.start {
                before.get_or_insert_with(|| used_by_now(pids));
            }
            if now >= self.window.0.end {
                after.get_or_insert_with(|| used_by_now(pids));
            }
            if now >= self.window.0.end + nanos(DRAIN_WAIT) {
                return Err(Error::Protocol(format!("{} commits were not answered", self.running.get())));
            }
            if progress.is_due(now) {
                let total = self.total.get();
                progress.tell(
                    now - self.start,
                    now,
                    &format!("{total} commits, {} since the last line", total - last),
                );
                last = total;
            }
        }
        progress.end();
        self.failure.borrow_mut().take().map_or(Ok(()), Err)?;
        let now = used_by_now(pids);
        Ok((before.unwrap_or(now), after.unwrap_or(now)))
    }

    fn acknowledged(&self, due: u64, now: u64) {
        self.total.set(self.total.get() + 1);
        if self.window.contains(now) {
            self.in_window.set(self.in_window.get() + 1);
            self.latencies.borrow_mut().record(now.saturating_sub(due));
        }
    }

    /// How many groups have the offset that was acknowledged last; an error for the first that has not.
    async fn read_back(&self) -> Result<usize, Error> {
        let (mut lanes, mut checked) = (self.lanes.take(), 0);
        for Lane { links, groups, .. } in &mut lanes {
            for (coordinator, link) in links.iter_mut() {
                let there: Vec<&Group> =
                    groups.iter().filter(|group| group.coordinator == *coordinator).collect();
                for some in there.chunks(GROUPS_AT_ONCE) {
                    self.check(link, some).await?;
                    checked += some.len();
                }
            }
        }
        Ok(checked)
    }

    async fn check(&self, link: &mut Link, groups: &[&Group]) -> Result<(), Error> {
        let ids: Vec<&str> = groups.iter().map(|group| group.id.as_str()).collect();
        let found = offsets::fetch(link, &ids).await?;
        let found = found.map_err(|code| {
            Error::Protocol(format!("offsets cannot be read back: {}", topic::describe_code(code)))
        })?;
        for group in groups.iter().filter(|group| group.committed > 0) {
            let expected = (0..self.partitions).map(|partition| (partition, group.committed)).collect();
            let there = found.get(&group.id);
            if there != Some(&expected) {
                return Err(Error::Protocol(format!(
                    "group {} committed {} to {} partitions and has {there:?}",
                    group.id, group.committed, self.partitions
                )));
            }
        }
        Ok(())
    }
}

impl Lane {
    async fn work(&mut self, run: &Run) -> Result<(), Error> {
        let mut offsets: Vec<(i32, i64)> = (0..run.partitions).map(|partition| (partition, 0)).collect();
        for tick in 0.. {
            let now = run.core.now().as_nanos();
            let due = self.schedule.map_or(now, |schedule| schedule.due_at(tick));
            if now.max(due) >= run.window.0.end {
                return Ok(());
            }
            if due > now {
                run.core.sleep_until(Instant::from_nanos(due)).await;
            }
            let turn = usize::try_from(tick).unwrap_or(0) % self.groups.len();
            let group = &mut self.groups[turn];
            let next = group.committed + 1;
            offsets.iter_mut().for_each(|(_, offset)| *offset = next);
            let link = self.links.get_mut(&group.coordinator).expect("connected at the start");
            let commit = Commit { group: &group.id, topic: &run.topic, offsets: &offsets, member: None };
            offsets::commit(link, &commit).await?;
            group.committed = next;
            run.acknowledged(due, run.core.now().as_nanos());
        }
        Ok(())
    }
}

/// Deals out the groups, and connects everything before any clock starts.
async fn connect(core: &Core, link: &mut Link, options: &CommitGroups) -> Result<Vec<Lane>, Error> {
    let prefix = new_group();
    let all: Vec<i32> = (0..).take(options.groups as usize).collect();
    let mut lanes = Vec::new();
    for connection in 0..options.connections as usize {
        let (mut links, mut groups) = (BTreeMap::new(), Vec::new());
        for index in partitions_of(&all, options.connections as usize, connection) {
            let id = format!("{prefix}-{index}");
            let address = coordinator::address(link, &id).await?;
            if let std::collections::btree_map::Entry::Vacant(place) = links.entry(address) {
                place.insert(Link::connect(core, address).await?);
            }
            groups.push(Group { id, coordinator: address, committed: 0 });
        }
        lanes.push(Lane { links, groups, schedule: None });
    }
    Ok(lanes)
}

/// The same load against a null broker in a process of its own, for a second.
fn ceiling(options: &CommitGroups) -> Result<f64, Error> {
    let broker = Broker::null(usize::try_from(options.partitions).unwrap_or(1))?;
    let (bootstrap, mut options) = (broker.bootstrap.clone(), options.clone());
    (options.warmup, options.duration) = (CEILING_WARMUP, CEILING_TIME);
    run_on_core(move |core| async move {
        let mut link = Link::connect(&core, resolve(&bootstrap)?).await?;
        let topic = topic::find(&mut link, &options.target.topic, None).await?;
        let run = Run::start(&core, &mut link, &topic, &options).await?;
        run.watch(&[], true).await?;
        Ok(run.in_window.get() as f64 / CEILING_TIME.as_secs_f64())
    })
}
