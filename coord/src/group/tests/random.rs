//! Random schedules: clients that join, sync, commit, leave and vanish, appends that fail or lag, coordinators that are
//! killed between any two steps. After every step the invariants of the issue hold.

use super::*;

pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % bound
    }

    pub fn one_in(&mut self, bound: usize) -> bool {
        self.below(bound) == 0
    }
}

/// What a plan gives away: one for each client, and for each former self that is taken for alive.
const PARTITIONS: [u8; 16] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16];

/// What the model client believes of itself.
#[derive(Default, Clone)]
struct Client {
    instance: Option<String>,
    member: String,
    generation: i32,
    leads: Vec<String>,
    call: Option<u64>,
    assigned: bool,
}

struct Schedule {
    world: World,
    random: Random,
    clients: Vec<Client>,
    /// The offset that was acknowledged last, and those that may have been written since.
    acknowledged: i64,
    attempted: i64,
    /// Which member was told to own what, by generation.
    owners: BTreeMap<(i32, Vec<u8>), String>,
    assignments_seen: usize,
    commits_seen: usize,
}

impl Schedule {
    fn new(seed: u64) -> Schedule {
        let mut world = World::new(Settings { group_initial_rebalance_delay_ms: 100, ..Settings::default() });
        world.hold = true;
        let client = |at: usize| Client {
            instance: at.is_multiple_of(3).then(|| format!("i{at}")),
            generation: -1,
            ..Client::default()
        };
        Schedule {
            world,
            random: Random(seed * 2_654_435_761 + 1),
            clients: (0..5).map(client).collect(),
            acknowledged: -1,
            attempted: 0,
            owners: BTreeMap::new(),
            assignments_seen: 0,
            commits_seen: 0,
        }
    }

    fn run(&mut self, steps: usize) {
        for _ in 0..steps {
            match self.random.below(20) {
                0..8 => self.client_acts(),
                8..13 => self.world.make_durable(1),
                13..17 => {
                    let ms = [1, 50, 1_000, 5_000][self.random.below(4)];
                    self.world.advance(ms);
                }
                17 if self.random.one_in(4) && !self.world.open.is_empty() => {
                    self.world.fail(E::NotEnoughReplicas)
                }
                18 if self.random.one_in(8) => self.kill_coordinator(),
                _ => {
                    let at = self.random.below(self.clients.len());
                    if self.random.one_in(6) {
                        // The process dies; a static one comes back under its instance.
                        let instance = self.clients[at].instance.clone();
                        self.clients[at] = Client { instance, generation: -1, ..Client::default() };
                    } else if self.random.one_in(3) {
                        // It does not wait any longer, and asks again.
                        self.clients[at].call = None;
                    }
                }
            }
            self.collect();
            self.world.check_invariants();
            if self.world.shard.group_count() == 0 {
                // Its generations begin anew.
                self.owners.clear();
            }
        }
    }

    /// What was appended may or may not have become durable; nobody is told.
    fn kill_coordinator(&mut self) {
        let survives = self.random.below(self.world.open.len() + 1);
        for append in self.world.open.drain(..survives) {
            self.world.log.extend(append.records);
        }
        let mut next = World::loaded(
            self.world.shard.core.settings.clone(),
            Image::default(),
            std::mem::take(&mut self.world.log),
            self.world.now,
        );
        next.hold = true;
        next.calls = self.world.calls;
        self.world = next;
        self.clients.iter_mut().for_each(|client| client.call = None);
    }

    fn client_acts(&mut self) {
        let at = self.random.below(self.clients.len());
        let client = self.clients[at].clone();
        if client.call.is_some() {
            return;
        }
        let instance = client.instance.clone();
        let call = match self.random.below(6) {
            _ if client.member.is_empty() || client.generation < 0 => {
                let join = Join { instance, ..Join::member(&client.member) };
                self.world.join(9, &join)
            }
            0 => self.world.join(9, &Join { instance, ..Join::member(&client.member) }),
            1 | 2 if !client.assigned => {
                // One partition for each, and each time to others: a second plan must not come true behind the first.
                let shift = self.random.below(client.leads.len().max(1));
                let turned = client.leads.iter().cycle().skip(shift).zip(&PARTITIONS);
                let plan: Vec<(&str, &[u8])> = turned
                    .take(client.leads.len())
                    .map(|(member, partition)| (&**member, std::slice::from_ref(partition)))
                    .collect();
                let mut request = sync_request(&client.member, client.generation, &plan);
                request.group_instance_id = instance.map(Into::into);
                self.world.call(5, Request::Sync(request))
            }
            3 if self.random.one_in(5) => {
                let row = MemberIdentity {
                    member_id: client.member.clone().into(),
                    group_instance_id: instance.map(Into::into),
                    reason: None,
                };
                let request = LeaveGroupRequest {
                    group_id: "g".into(),
                    members: vec![row],
                    ..LeaveGroupRequest::default()
                };
                self.world.call(5, Request::Leave(request))
            }
            4 | 5 if client.assigned => {
                self.attempted += 1;
                let commit = Commit {
                    offset: self.attempted,
                    generation: client.generation,
                    member: &client.member,
                    instance: instance.as_deref(),
                    ..Commit::default()
                };
                self.world.call(9, Request::Commit(commit.request()))
            }
            _ => {
                let request = HeartbeatRequest {
                    group_id: "g".into(),
                    generation_id: client.generation,
                    member_id: client.member.clone().into(),
                    group_instance_id: instance.map(Into::into),
                };
                self.world.call(4, Request::Heartbeat(request))
            }
        };
        self.clients[at].call = Some(call);
    }

    fn collect(&mut self) {
        for at in 0..self.clients.len() {
            let Some(call) = self.clients[at].call else { continue };
            let Some(answer) = self.world.answers.remove(&call) else { continue };
            self.clients[at].call = None;
            self.hear(at, answer);
        }
        // Calls of processes that are gone.
        self.world.answers.clear();
    }

    fn hear(&mut self, at: usize, answer: Answer) {
        let why = error(&answer);
        let client = &mut self.clients[at];
        match why {
            E::None => {}
            E::MemberIdRequired => {}
            E::UnknownMemberId | E::FencedInstanceId => {
                *client = Client { instance: client.instance.clone(), generation: -1, ..Client::default() };
                return;
            }
            _ => {
                client.generation = -1;
                client.assigned = false;
                return;
            }
        }
        match answer {
            Answer::Join(answer) => {
                client.member = answer.member_id.to_string();
                client.generation = answer.generation_id;
                client.assigned = false;
                client.leads = answer.members.iter().map(|member| member.member_id.to_string()).collect();
            }
            Answer::Sync(answer) => {
                if answer.assignment.is_empty() {
                    return;
                }
                client.assigned = true;
                self.assignments_seen += 1;
                let key = (client.generation, answer.assignment.to_vec());
                // One partition, one owner in a generation: a static member's new process is the same owner.
                let owner = client.instance.clone().unwrap_or_else(|| client.member.clone());
                let was = self.owners.insert(key, owner.clone());
                assert!(was.is_none_or(|was| was == owner), "two owners in one generation");
            }
            Answer::Commit(_) => {
                self.commits_seen += 1;
            }
            Answer::Leave(_) => {
                *client = Client { instance: client.instance.clone(), generation: -1, ..Client::default() };
            }
            _ => {}
        }
        if why == E::None && matches!(self.world.shard.phase, Phase::Active) {
            self.note_committed();
        }
    }

    /// What the durable log says was committed never goes back: acknowledged or not, commits are in the order of attempts.
    fn note_committed(&mut self) {
        let mut replayed = World::loaded(quick(), Image::default(), self.world.log.clone(), self.world.now);
        let committed = replayed.offset("g", "t", 0);
        assert!(committed >= self.acknowledged, "{committed} after {}", self.acknowledged);
        self.acknowledged = committed;
    }
}

#[test]
fn no_schedule_breaks_a_promise() {
    let (mut assignments, mut commits) = (0, 0);
    for seed in 1..60 {
        let mut schedule = Schedule::new(seed);
        schedule.run(400);
        assignments += schedule.assignments_seen;
        commits += schedule.commits_seen;
        // At rest: everything answered that was asked, and a shard that loads the log shows the same.
        schedule.world.hold = false;
        schedule.world.make_durable(usize::MAX);
        schedule.world.advance(10 * 60 * 1_000);
        assert!(schedule.world.waiting.is_empty(), "seed {seed}: {:?}", schedule.world.waiting);
        let state = schedule.world.state();
        assert!(["Empty", "Dead"].contains(&&*state), "seed {seed}: {state}");
        schedule.world.check_replay();
    }
    assert!(assignments > 100, "{assignments}");
    assert!(commits > 50, "{commits}");
}
