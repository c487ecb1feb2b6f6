//! Random schedules of an application that moves from one protocol to the other and back: processes of both kinds come and
//! go in one group, so that it is upgraded and downgraded with everything in flight. Who owns what is checked after every
//! step; what is durable must load to the same.

use super::random::Random;
use super::*;

#[derive(Clone, Default)]
struct Process {
    classic: bool,
    instance: Option<String>,
    id: String,
    /// The generation, or the member epoch.
    epoch: i32,
    leads: Vec<String>,
    call: Option<u64>,
}

struct Schedule {
    world: World,
    random: Random,
    processes: Vec<Process>,
    born: usize,
    /// How many durable records there were when the log was last loaded and compared.
    compared: usize,
    comparisons: usize,
    /// How often the group was seen to be of each type.
    seen: (usize, usize),
}

impl Schedule {
    fn new(seed: u64) -> Schedule {
        let mut world = world_of(&[("t", 1, 5)]);
        world.hold = true;
        let random = Random(seed * 0x1234_5677 + 3);
        let mut schedule = Schedule {
            world,
            random,
            processes: Vec::new(),
            born: 0,
            compared: 0,
            comparisons: 0,
            seen: (0, 0),
        };
        for at in 0..4 {
            let process = schedule.process((at == 0).then(|| "i".to_owned()));
            schedule.processes.push(process);
        }
        schedule
    }

    fn process(&mut self, instance: Option<String>) -> Process {
        self.born += 1;
        // Releases roll out and are rolled back.
        let odd_one = self.random.one_in(8);
        let classic = (self.born / 8).is_multiple_of(2) != odd_one;
        let id = if classic { String::new() } else { format!("m{}", self.born) };
        Process { classic, instance, id, epoch: if classic { -1 } else { 0 }, ..Process::default() }
    }

    fn run(&mut self, steps: usize) {
        for _ in 0..steps {
            match self.random.below(24) {
                0..12 => self.act(),
                12..18 => self.world.make_durable(1),
                18..20 => {
                    let ms = [10, 1_000, 9_000, 50_000][self.random.below(4)];
                    self.world.advance(ms);
                }
                20 if self.random.one_in(3) && !self.world.open.is_empty() => {
                    self.world.fail(E::NotEnoughReplicas);
                    if let Some(Group::Classic(group)) = self.world.shard.groups.get("g")
                        && group.is_empty()
                    {
                        // As in Kafka a group that could not record that it is empty is empty all the same.
                        self.compared = self.world.log.len();
                    }
                }
                21 if self.random.one_in(6) => self.kill_coordinator(),
                _ => {
                    if self.random.one_in(3) {
                        let at = self.random.below(self.processes.len());
                        let instance = self.processes[at].instance.clone();
                        self.processes[at] = self.process(instance);
                    }
                }
            }
            self.collect();
            self.world.check_invariants();
            self.compare_with_log();
            match self.world.shard.groups.get("g") {
                Some(Group::Classic(_)) => self.seen.0 += 1,
                Some(Group::Consumer(_)) => self.seen.1 += 1,
                None => {}
            }
        }
    }

    /// Whenever nothing is in flight that is not persisted, the durable records load to what there is.
    fn compare_with_log(&mut self) {
        let is_at_rest = match self.world.shard.groups.get("g") {
            Some(Group::Classic(group)) => group.is_at_rest(),
            Some(Group::Consumer(_)) | None => true,
        };
        if is_at_rest && self.world.open.is_empty() && self.world.log.len() != self.compared {
            self.compared = self.world.log.len();
            self.comparisons += 1;
            self.world.check_replay();
        }
    }

    fn kill_coordinator(&mut self) {
        let survives = self.random.below(self.world.open.len() + 1);
        for append in self.world.open.drain(..survives) {
            self.world.log.extend(append.records);
        }
        let settings = self.world.shard.core.settings.clone();
        let image = self.world.shard.core.image.borrow().clone();
        let log = std::mem::take(&mut self.world.log);
        let mut next = World::loaded(settings, image, log, self.world.now);
        next.hold = true;
        next.calls = self.world.calls;
        self.world = next;
        self.processes.iter_mut().for_each(|process| process.call = None);
    }

    fn act(&mut self) {
        let at = self.random.below(self.processes.len());
        if self.processes[at].call.is_some() {
            return;
        }
        let process = self.processes[at].clone();
        let call =
            if process.classic { self.classic_request(&process) } else { self.consumer_request(&process) };
        self.processes[at].call = Some(call);
    }

    fn classic_request(&mut self, process: &Process) -> u64 {
        let instance = process.instance.clone();
        match self.random.below(6) {
            _ if process.id.is_empty() || process.epoch < 0 => {
                self.world.join(9, &Join { instance, ..Join::member(&process.id) })
            }
            0 => self.world.join(9, &Join { instance, ..Join::member(&process.id) }),
            1 | 2 => {
                let plan: Vec<(&str, &[u8])> = process.leads.iter().map(|m| (&**m, &b""[..])).collect();
                let mut request = sync_request(&process.id, process.epoch, &plan);
                request.group_instance_id = instance.map(Into::into);
                self.world.call(5, Request::Sync(request))
            }
            3 if self.random.one_in(4) => {
                let row = MemberIdentity {
                    member_id: process.id.clone().into(),
                    group_instance_id: instance.map(Into::into),
                    reason: None,
                };
                let members = vec![row];
                let request =
                    LeaveGroupRequest { group_id: "g".into(), members, ..LeaveGroupRequest::default() };
                self.world.call(5, Request::Leave(request))
            }
            _ => {
                let request = HeartbeatRequest {
                    group_id: "g".into(),
                    generation_id: process.epoch,
                    member_id: process.id.clone().into(),
                    group_instance_id: instance.map(Into::into),
                };
                self.world.call(4, Request::Heartbeat(request))
            }
        }
    }

    fn consumer_request(&mut self, process: &Process) -> u64 {
        let mut beat = match process.epoch {
            0 => Beat::join(&process.id),
            epoch => Beat::stay(&process.id, epoch),
        };
        beat.instance = process.instance.clone();
        if process.epoch > 0 {
            // It may or may not have given up what it was told to.
            beat.owned = self.random.one_in(2).then(Vec::new);
            if self.random.one_in(20) {
                beat.epoch = if process.instance.is_some() { -2 } else { -1 };
            }
        }
        self.world.call(1, Request::ConsumerHeartbeat(beat.request()))
    }

    fn collect(&mut self) {
        for at in 0..self.processes.len() {
            let Some(answer) = self.processes[at].call.and_then(|call| self.world.answers.remove(&call))
            else {
                continue;
            };
            let process = &mut self.processes[at];
            process.call = None;
            match (error(&answer), answer) {
                (E::None | E::MemberIdRequired, Answer::Join(answer)) => {
                    process.id = answer.member_id.to_string();
                    process.epoch = answer.generation_id;
                    process.leads = answer.members.iter().map(|m| m.member_id.to_string()).collect();
                }
                (E::None, Answer::ConsumerHeartbeat(answer)) if answer.member_epoch >= 0 => {
                    process.epoch = answer.member_epoch;
                }
                (E::None, Answer::Sync(_) | Answer::Heartbeat(_)) => {}
                (E::None, _) | (E::UnknownMemberId | E::FencedInstanceId, _) => {
                    let instance = process.instance.clone();
                    self.processes[at] = self.process(instance);
                }
                (_, _) => process.epoch = if process.classic { -1 } else { 0 },
            }
        }
        self.world.answers.clear();
    }
}

#[test]
fn no_schedule_of_both_protocols_breaks_the_group() {
    let (mut classic, mut consumer, mut comparisons) = (0, 0, 0);
    for seed in 1..40 {
        let mut schedule = Schedule::new(seed);
        schedule.run(400);
        classic += schedule.seen.0;
        consumer += schedule.seen.1;
        comparisons += schedule.comparisons;
        schedule.world.hold = false;
        schedule.world.make_durable(usize::MAX);
        // Until nothing is in flight that a load would not bring back.
        schedule.world.advance(10 * 60 * 1_000);
        assert!(schedule.world.waiting.is_empty(), "seed {seed}: {:?}", schedule.world.waiting);
        schedule.world.check_invariants();
        schedule.world.check_replay();
    }
    assert!(classic > 1_000, "{classic}");
    assert!(consumer > 1_000, "{consumer}");
    assert!(comparisons > 500, "{comparisons}");
}
