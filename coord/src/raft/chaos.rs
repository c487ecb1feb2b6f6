//! Three voters under a seed: messages lost and reordered, nodes that die before, inside and after a write.
//!
//! Checked at every step: all nodes hand out one sequence of entries; a proposal that was committed anywhere stays.

use super::*;

struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).expect("31 bits") % end
    }
}

struct World {
    random: Random,
    nodes: Vec<(Node, Durable)>,
    mail: Vec<Message>,
    /// What was committed, by whomever first, from index 2 on.
    history: Vec<(u64, u64, Vec<u8>)>,
    proposed: u64,
}

impl World {
    fn new(seed: u64) -> World {
        let disk = Durable::bootstrap(&[1, 2, 3], Vec::new());
        let start = |id| (Node::new(id, disk.clone()).expect("it is sound"), disk.clone());
        World {
            random: Random(seed),
            nodes: (1..=3).map(start).collect(),
            mail: Vec::new(),
            history: Vec::new(),
            proposed: 0,
        }
    }

    fn step(&mut self, faults: bool) {
        let at = self.random.below(3);
        match self.random.below(if faults { 1020 } else { 1000 }) {
            0..500 => self.deliver(),
            500..570 => {
                let random = self.random.0 >> 20;
                self.nodes[at].0.tick(random);
            }
            570..950 => self.work(at, faults),
            950..1000 => {
                let data = self.proposed.to_be_bytes().to_vec();
                self.proposed += u64::from(self.nodes[at].0.propose(data).is_ok());
            }
            1000..1018 => drop(self.take_mail()),
            _ => self.restart(at),
        }
    }

    fn take_mail(&mut self) -> Option<Message> {
        let count = self.mail.len();
        (count > 0).then(|| self.mail.swap_remove(self.random.below(count)))
    }

    fn deliver(&mut self) {
        let Some(message) = self.take_mail() else { return };
        let to = usize::try_from(message.to - 1).expect("small");
        self.nodes[to].0.step(message).expect("peers send what they may");
    }

    /// One round of work; with faults the node may die around its write.
    fn work(&mut self, at: usize, faults: bool) {
        let Some(effects) = self.nodes[at].0.ready() else { return };
        for entry in &effects.committed {
            self.committed(entry);
            self.nodes[at].0.applied(entry.index);
        }
        self.mail.extend(effects.messages);
        let Some(write) = effects.write else { return };
        match if faults { self.random.below(60) } else { 59 } {
            0 => return self.restart(at),
            1 => {
                // The write is torn: its hard state is there, some of its entries are.
                let kept = self.random.below(write.entries.len() + 1);
                store(&mut self.nodes[at].1, &Write { entries: write.entries[..kept].to_vec(), ..write });
                return self.restart(at);
            }
            2 => {
                store(&mut self.nodes[at].1, &write);
                return self.restart(at);
            }
            _ => store(&mut self.nodes[at].1, &write),
        }
        let messages = self.nodes[at].0.persisted(effects.number);
        self.mail.extend(messages);
    }

    fn restart(&mut self, at: usize) {
        let (node, disk) = &mut self.nodes[at];
        *node = Node::new(node.id(), disk.clone()).expect("a crash leaves a sound disk");
    }

    fn committed(&mut self, entry: &Entry) {
        let place = usize::try_from(entry.index - 2).expect("small");
        let fact = (entry.index, entry.term, entry.data.clone());
        match self.history.get(place) {
            Some(known) => assert_eq!(*known, fact, "two contents at one index"),
            None => {
                assert_eq!(place, self.history.len(), "a hole in what is committed");
                self.history.push(fact);
            }
        }
    }
}

fn store(disk: &mut Durable, write: &Write) {
    if let Some(hard_state) = write.hard_state {
        disk.hard_state = hard_state;
    }
    if let Some(first) = write.entries.first() {
        disk.entries.retain(|entry| entry.index < first.index);
        disk.entries.extend(write.entries.iter().cloned());
    }
}

#[test]
fn hazard_a12_no_committed_entry_is_lost_or_replaced_whatever_crashes() {
    let mut in_storms = 0;
    for seed in 0..30 {
        let mut world = World::new(seed);
        (0..10_000).for_each(|_| world.step(true));
        let before = world.history.len();
        in_storms += before;
        (0..30_000).for_each(|_| world.step(false));
        assert!(world.history.len() > before, "seed {seed}: nothing goes on once the faults end");
        let longest = world.nodes.iter().map(|(node, _)| node.applied_index()).max();
        assert_eq!(longest, Some(world.history.len() as u64 + 1), "seed {seed}");
    }
    assert!(in_storms > 1_000, "too little was committed under faults: {in_storms}");
}
