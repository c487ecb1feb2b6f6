//! Random schedules of consumer groups: members that heartbeat, confirm late, vanish and come back, topics that grow,
//! appends that fail or lag, coordinators that are killed. A client owns a partition from the answer that told it until it
//! confirmed to have given it up, or was fenced; no partition has two such owners.

use std::collections::BTreeSet;

use super::random::Random;
use super::*;

#[derive(Clone, Default)]
struct Client {
    id: String,
    instance: Option<String>,
    epoch: i32,
    /// What it reads from.
    owned: BTreeSet<(u8, i32)>,
    /// What it was told to read from.
    told: BTreeSet<(u8, i32)>,
    call: Option<u64>,
    names: Vec<&'static str>,
    /// Until when the coordinator cannot have given its partitions away.
    alive_until: u64,
}

struct Schedule {
    world: World,
    random: Random,
    clients: Vec<Client>,
    topics: Vec<(&'static str, u8, usize)>,
    processes: usize,
    shared_seen: usize,
}

const SESSION_MS: u64 = 45_000;

impl Schedule {
    fn new(seed: u64) -> Schedule {
        let topics = vec![("t", 1, 4), ("u", 2, 3)];
        let mut world = world_of(&topics);
        world.hold = true;
        let mut schedule = Schedule {
            world,
            random: Random(seed * 0x9e37_79b9 + 7),
            clients: Vec::new(),
            topics,
            processes: 0,
            shared_seen: 0,
        };
        for at in 0..4 {
            let client = schedule.process((at == 0).then(|| "i".to_owned()));
            schedule.clients.push(client);
        }
        schedule
    }

    fn process(&mut self, instance: Option<String>) -> Client {
        self.processes += 1;
        let names = if self.random.one_in(3) { vec!["t"] } else { vec!["t", "u"] };
        Client { id: format!("m{}", self.processes), instance, names, ..Client::default() }
    }

    fn run(&mut self, steps: usize) {
        for _ in 0..steps {
            match self.random.below(24) {
                0..12 => self.beat(),
                12..18 => self.world.make_durable(1),
                18 | 19 => {
                    let ms = [10, 1_000, 9_000][self.random.below(3)];
                    self.world.advance(ms);
                }
                20 if self.random.one_in(3) && !self.world.open.is_empty() => {
                    self.world.fail(E::NotEnoughReplicas);
                }
                21 if self.random.one_in(6) => self.kill_coordinator(),
                22 if self.random.one_in(4) => {
                    let at = self.random.below(2);
                    self.topics[at].2 += 1;
                    self.world.follow(topics(&self.topics));
                }
                _ => {
                    if self.random.one_in(5) {
                        let at = self.random.below(self.clients.len());
                        let instance = self.clients[at].instance.clone();
                        self.clients[at] = self.process(instance);
                    }
                }
            }
            self.collect();
            self.world.check_invariants();
            self.check_owners();
        }
    }

    fn kill_coordinator(&mut self) {
        let survives = self.random.below(self.world.open.len() + 1);
        for append in self.world.open.drain(..survives) {
            self.world.log.extend(append.records);
        }
        let mut next = World::loaded(
            self.world.shard.core.settings.clone(),
            self.world.shard.core.image.borrow().clone(),
            std::mem::take(&mut self.world.log),
            self.world.now,
        );
        next.hold = true;
        next.calls = self.world.calls;
        self.world = next;
        self.clients.iter_mut().for_each(|client| client.call = None);
    }

    fn beat(&mut self) {
        let at = self.random.below(self.clients.len());
        let client = &mut self.clients[at];
        if client.call.is_some() {
            return;
        }
        // It gives up before it says so; what it was given it takes when it was told.
        if self.random.one_in(2) {
            client.owned = client.owned.intersection(&client.told).copied().collect();
        }
        let mut beat =
            if client.epoch == 0 { Beat::join(&client.id) } else { Beat::stay(&client.id, client.epoch) };
        beat.instance = client.instance.clone();
        beat.names = (client.epoch == 0).then(|| client.names.clone());
        if client.epoch == 0 {
            client.owned.clear();
        } else {
            let by_topic = |topic: u8| {
                let list = client.owned.iter().filter(|(of, _)| *of == topic).map(|(_, index)| *index);
                ([topic; 16], list.collect())
            };
            beat.owned = Some(vec![by_topic(1), by_topic(2)]);
        }
        if client.epoch != 0 && self.random.one_in(25) {
            beat.epoch = if client.instance.is_some() { -2 } else { -1 };
            client.owned.clear();
            client.told.clear();
        }
        client.call = Some(self.world.call(1, Request::ConsumerHeartbeat(beat.request())));
        // The coordinator renewed the session when it took the call.
        client.alive_until = self.world.now.ms + SESSION_MS;
    }

    fn collect(&mut self) {
        for at in 0..self.clients.len() {
            let Some(call) = self.clients[at].call else { continue };
            let Some(answer) = self.world.answers.remove(&call) else { continue };
            let Answer::ConsumerHeartbeat(answer) = answer else { panic!("{answer:?}") };
            let client = &mut self.clients[at];
            client.call = None;
            match code(answer.error_code) {
                E::None if answer.member_epoch < 0 => {
                    let instance = client.instance.clone();
                    self.clients[at] = self.process(instance);
                }
                E::None => {
                    client.epoch = answer.member_epoch;
                    if let Some(assignment) = answer.assignment {
                        let topics = assignment.topic_partitions.iter();
                        let pairs = topics.flat_map(|t| t.partitions.iter().map(|p| (t.topic_id[0], *p)));
                        client.told = pairs.collect();
                        client.owned.extend(client.told.iter().copied());
                    }
                }
                E::CoordinatorNotAvailable => {}
                E::FencedMemberEpoch | E::UnknownMemberId => {
                    client.epoch = 0;
                    client.owned.clear();
                    client.told.clear();
                }
                E::UnreleasedInstanceId | E::FencedInstanceId => {}
                other => panic!("{other:?}"),
            }
        }
        self.world.answers.clear();
    }

    /// Of the clients whose sessions cannot have run out, and that have not been put out for keeping what they were to
    /// give up: those hear of it with their next answer.
    fn check_owners(&mut self) {
        let now = self.world.now.ms;
        let is_member = |id: &str| match self.world.shard.groups.get("g") {
            Some(Group::Consumer(group)) => group.has_member(id),
            Some(Group::Classic(_)) | None => false,
        };
        let mut owners = BTreeMap::new();
        let mut members = 0;
        for client in self.clients.iter().filter(|client| now < client.alive_until && is_member(&client.id)) {
            members += usize::from(!client.owned.is_empty());
            for partition in &client.owned {
                let other = owners.insert(*partition, &client.id);
                assert_eq!(other, None, "{partition:?} is read by {} and by {other:?}", client.id);
            }
        }
        self.shared_seen += usize::from(members > 1);
    }
}

#[test]
fn no_schedule_gives_a_partition_to_two() {
    let mut shared = 0;
    for seed in 1..80 {
        let mut schedule = Schedule::new(seed);
        schedule.run(400);
        shared += schedule.shared_seen;
        schedule.world.hold = false;
        schedule.world.make_durable(usize::MAX);
        schedule.world.check_replay();
    }
    assert!(shared > 1_000, "{shared}");
}

#[test]
fn members_that_do_what_they_are_told_settle() {
    let mut schedule = Schedule::new(5);
    schedule.run(300);
    schedule.world.hold = false;
    schedule.world.make_durable(usize::MAX);
    // Whoever has vanished runs out; the others go on, and confirm what they give up.
    for _ in 0..40 {
        schedule.world.advance(3_000);
        for at in 0..schedule.clients.len() {
            schedule.collect();
            let client = &mut schedule.clients[at];
            client.owned = client.owned.intersection(&client.told).copied().collect();
            let mut beat =
                if client.epoch == 0 { Beat::join(&client.id) } else { Beat::stay(&client.id, client.epoch) };
            beat.instance = client.instance.clone();
            beat.names = Some(client.names.clone());
            beat.timeout_ms = 60_000;
            let owned = |topic: u8| {
                let list = client.owned.iter().filter(|(of, _)| *of == topic).map(|(_, index)| *index);
                ([topic; 16], list.collect())
            };
            beat.owned = Some(if client.epoch == 0 { Vec::new() } else { vec![owned(1), owned(2)] });
            let call = schedule.world.call(1, Request::ConsumerHeartbeat(beat.request()));
            schedule.clients[at].call = Some(call);
        }
    }
    schedule.collect();
    assert_eq!(schedule.world.described().group_state, "Stable");
    let total: usize = schedule.topics.iter().map(|(_, _, count)| count).sum();
    let owned: usize = schedule.clients.iter().map(|client| client.owned.len()).sum();
    assert_eq!(owned, total, "every partition is read");
    schedule.world.check_replay();
}
