//! `bench groups fill`: many distinct committed offsets; and how long a broker that starts takes to have them again.
//!
//! Group `g` of a run has offset `g * partitions + p + 1` in partition `p`, so a later process knows what must be there.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use rt::{Class, Core};

use super::offsets::{self, Commit};
use super::{NS_PER_MS, NS_PER_S, Scene, coordinator, on_stage};
use crate::cli::FillGroups;
use crate::link::{Error, Link, resolve};
use crate::progress::{Pace, Patience, Progress};
use crate::report::Report;
use crate::run_on_core;
use crate::topic;

const POLL: Duration = Duration::from_millis(20);
/// While a broker starts it is asked again after so long.
const ASK_AGAIN: Duration = Duration::from_millis(2);
const LOAD_PATIENCE: Duration = Duration::from_secs(120);
const FILL_PATIENCE: Duration = Duration::from_secs(60);
const GROUPS_AT_ONCE: usize = 50;

pub fn run(options: &FillGroups) -> Result<Report, Error> {
    let asked = options.clone();
    if !options.wait_loaded {
        return on_stage(&options.target, options.partitions, move |scene| fill(scene, asked));
    }
    run_on_core(move |core| async move { wait_loaded(&core, asked).await })
}

/// What the groups are to have.
#[derive(Clone)]
struct Plan {
    prefix: String,
    topic: String,
    offsets: u64,
    partitions: u64,
}

impl Plan {
    fn new(options: &FillGroups) -> Plan {
        Plan {
            prefix: options.group.clone(),
            topic: options.target.topic.clone(),
            offsets: options.offsets,
            partitions: u64::try_from(options.partitions).expect("the command line says at least 1"),
        }
    }

    fn groups(&self) -> u64 {
        self.offsets.div_ceil(self.partitions)
    }

    fn id(&self, group: u64) -> String {
        format!("{}-{group}", self.prefix)
    }

    /// Partition and offset; the last group may have fewer.
    fn offsets_of(&self, group: u64) -> Vec<(i32, i64)> {
        let first = group * self.partitions;
        let count = self.partitions.min(self.offsets - first);
        (0..count).map(|partition| (partition as i32, (first + partition + 1) as i64)).collect()
    }

    /// Whether the broker has all of them; else the code that says why it does not tell yet.
    async fn check(&self, link: &mut Link, groups: &[u64]) -> Result<Result<(), i16>, Error> {
        let ids: Vec<String> = groups.iter().map(|group| self.id(*group)).collect();
        let found = match offsets::fetch(link, &ids.iter().map(String::as_str).collect::<Vec<_>>()).await? {
            Ok(found) => found,
            Err(code) => return Ok(Err(code)),
        };
        for (group, id) in groups.iter().zip(&ids) {
            let expected: BTreeMap<i32, i64> = self.offsets_of(*group).into_iter().collect();
            if found.get(id) != Some(&expected) {
                let there = found.get(id).map_or(0, BTreeMap::len);
                return Err(Error::Protocol(format!(
                    "group {id} does not have the {} offsets that were committed; it has {there}, or others",
                    expected.len()
                )));
            }
        }
        Ok(Ok(()))
    }

    fn conditions(&self, bootstrap: &str) -> BTreeMap<&'static str, String> {
        BTreeMap::from([
            ("bootstrap", bootstrap.to_owned()),
            ("topic", self.topic.clone()),
            ("groups", self.groups().to_string()),
            ("offsets of a group", self.partitions.to_string()),
        ])
    }
}

/// Committing under way.
struct Filling {
    plan: Plan,
    next: Cell<u64>,
    done: Cell<u64>,
    running: Cell<u32>,
    failure: RefCell<Option<Error>>,
}

impl Filling {
    async fn work(&self, mut link: Link) -> Result<(), Error> {
        while self.next.get() < self.plan.groups() {
            let group = self.next.replace(self.next.get() + 1);
            let (id, offsets) = (self.plan.id(group), self.plan.offsets_of(group));
            let commit = Commit { group: &id, topic: &self.plan.topic, offsets: &offsets, member: None };
            offsets::commit(&mut link, &commit).await?;
            self.done.set(self.done.get() + 1);
        }
        Ok(())
    }
}

async fn fill(mut scene: Scene, options: FillGroups) -> Result<Report, Error> {
    let core = scene.core.clone();
    let plan = Plan::new(&options);
    let there = one_coordinator(&mut scene.link, &plan).await?;
    let filling = Rc::new(Filling {
        plan: plan.clone(),
        next: Cell::new(0),
        done: Cell::new(0),
        running: Cell::new(options.connections),
        failure: RefCell::new(None),
    });
    let mut links = Vec::new();
    for _ in 0..options.connections {
        links.push(Link::connect(&core, there).await?);
    }
    let start = core.now().as_nanos();
    for link in links {
        let filling = filling.clone();
        core.spawn(Class::Produce, async move {
            if let Err(error) = filling.work(link).await {
                filling.failure.borrow_mut().get_or_insert(error);
            }
            filling.running.set(filling.running.get() - 1);
        });
    }
    let mut progress = Progress::new(options.output.quiet, start);
    let mut patience = Patience::new(FILL_PATIENCE, start);
    while filling.running.get() > 0 {
        core.sleep(POLL).await;
        filling.failure.borrow_mut().take().map_or(Ok(()), Err)?;
        let (now, done) = (core.now().as_nanos(), filling.done.get());
        if patience.look(now, done) == Pace::Over {
            return Err(Error::Protocol(format!("no commit was answered after {done} groups")));
        }
        if progress.is_due(now) {
            progress.tell(now - start, now, &format!("{done} of {} groups committed", plan.groups()));
        }
    }
    progress.end();
    filling.failure.borrow_mut().take().map_or(Ok(()), Err)?;
    let seconds = (core.now().as_nanos() - start) as f64 / NS_PER_S;
    let mut link = Link::connect(&core, there).await?;
    for some in (0..plan.groups()).collect::<Vec<_>>().chunks(GROUPS_AT_ONCE) {
        plan.check(&mut link, some).await?.map_err(|code| {
            Error::Protocol(format!("offsets cannot be read back: {}", topic::describe_code(code)))
        })?;
    }
    let mut report =
        Report { command: "groups fill", conditions: plan.conditions(&scene.bootstrap), ..Report::default() };
    report.conditions.insert("connections", options.connections.to_string());
    report.figures.insert("offsets", plan.offsets as f64);
    report.figures.insert("filled_after_s", seconds);
    report.notes.push("all offsets were read back".to_owned());
    Ok(report)
}

/// The only coordinator: what is committed here must come back from one place when that one restarts.
async fn one_coordinator(link: &mut Link, plan: &Plan) -> Result<std::net::SocketAddr, Error> {
    let mut all = BTreeSet::new();
    for group in 0..plan.groups() {
        all.insert(coordinator::address(link, &plan.id(group)).await?);
    }
    let first = all.pop_first().expect("there is at least one group");
    match all.is_empty() {
        true => Ok(first),
        false => {
            Err(Error::Protocol("the groups have several coordinators; this is for one broker".to_owned()))
        }
    }
}

/// From the call until every group answers with what it had: asked of a broker that may not listen yet.
async fn wait_loaded(core: &Core, options: FillGroups) -> Result<Report, Error> {
    let plan = Plan::new(&options);
    let bootstrap = options.target.bootstrap.as_deref().expect("the command line requires it");
    let address = resolve(bootstrap)?;
    let groups: Vec<u64> = (0..plan.groups()).collect();
    let progress = Progress::new(options.output.quiet, core.now().as_nanos());
    let start = core.now().as_nanos();
    let mut patience = Patience::new(LOAD_PATIENCE, start);
    let mut link = None;
    let (mut connected_at, mut first_at, mut asked, mut loaded) = (None, None, 0u64, 0);
    while loaded < groups.len() {
        let why = match &mut link {
            None => match Link::connect(core, address).await {
                Ok(made) => {
                    connected_at.get_or_insert(core.now().as_nanos());
                    link = Some(made);
                    continue;
                }
                Err(error) => error.to_string(),
            },
            Some(made) => {
                let end = groups.len().min(loaded + GROUPS_AT_ONCE);
                asked += 1;
                match plan.check(made, &groups[loaded..end]).await {
                    Ok(Ok(())) => {
                        first_at.get_or_insert(core.now().as_nanos());
                        loaded = end;
                        continue;
                    }
                    Ok(Err(code)) if coordinator::may_pass(code) => topic::describe_code(code),
                    Ok(Err(code)) => return Err(Error::Protocol(topic::describe_code(code))),
                    // A broker that ends a connection while it starts is asked again.
                    Err(error @ (Error::Io(_) | Error::Closed(_))) => {
                        link = None;
                        error.to_string()
                    }
                    Err(error) => return Err(error),
                }
            }
        };
        match patience.look(core.now().as_nanos(), loaded as u64) {
            Pace::Moving => {}
            Pace::Silent => progress.say(&format!("{loaded} of {} groups are loaded; {why}", groups.len())),
            Pace::Over => {
                let (waited, all) = (LOAD_PATIENCE.as_secs(), groups.len());
                return Err(Error::Protocol(format!(
                    "{loaded} of {all} groups are loaded after {waited} s: {why}"
                )));
            }
        }
        core.sleep(ASK_AGAIN).await;
    }
    let end = core.now().as_nanos();
    let mut report =
        Report { command: "groups fill", conditions: plan.conditions(bootstrap), ..Report::default() };
    let after = |at: Option<u64>| at.unwrap_or(end).saturating_sub(start) as f64 / NS_PER_MS;
    report.figures = BTreeMap::from([
        ("offsets", plan.offsets as f64),
        ("connected_after_ms", after(connected_at)),
        ("first_groups_after_ms", after(first_at)),
        ("loaded_after_ms", after(Some(end))),
        ("requests", asked as f64),
    ]);
    report.notes.push("all offsets are what was committed".to_owned());
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_group_may_have_fewer_and_no_offset_is_there_twice() {
        let plan = Plan { prefix: "g".to_owned(), topic: "t".to_owned(), offsets: 25, partitions: 10 };
        assert_eq!(plan.groups(), 3);
        let all: Vec<(i32, i64)> = (0..3).flat_map(|group| plan.offsets_of(group)).collect();
        assert_eq!(all.iter().map(|(_, offset)| *offset).collect::<Vec<_>>(), (1..=25).collect::<Vec<_>>());
        assert_eq!(all[24], (4, 25));
    }
}
