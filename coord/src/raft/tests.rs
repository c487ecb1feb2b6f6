//! One node and several, with a disk that keeps what was persisted and a network that does what the test says.

use super::*;
use crate::metadata::{Command, Listener, Metadata, NodeId};

/// A node with its disk and state machine.
struct Host {
    node: Node,
    disk: Durable,
    commands: Vec<Vec<u8>>,
    /// Terms that were durable when messages left.
    sent: Vec<Message>,
}

impl Host {
    fn start(id: u64, disk: Durable) -> Host {
        let node = Node::new(id, disk.clone()).expect("its disk is sound");
        Host { node, disk, commands: Vec::new(), sent: Vec::new() }
    }

    fn restart(self) -> Host {
        Host::start(self.node.id(), self.disk)
    }

    fn write(&mut self, write: &Write) {
        if let Some(snapshot) = &write.snapshot {
            self.disk.snapshot = snapshot.clone();
            self.disk.entries.clear();
        }
        if let Some(hard_state) = write.hard_state {
            self.disk.hard_state = hard_state;
        }
        if let Some(first) = write.entries.first() {
            self.disk.entries.retain(|entry| entry.index < first.index);
            self.disk.entries.extend(write.entries.iter().cloned());
        }
    }

    /// Works until there is nothing to do.
    fn run(&mut self) {
        while let Some(effects) = self.node.ready() {
            if let Some(write) = &effects.write {
                self.write(write);
            }
            if effects.restore.is_some() {
                self.commands.clear();
            }
            self.sent.extend(effects.messages);
            for entry in &effects.committed {
                if entry.is_command() {
                    self.commands.push(entry.data.clone());
                }
                self.node.applied(entry.index);
            }
            if effects.write.is_some() {
                self.sent.extend(self.node.persisted(effects.number));
            }
        }
    }

    fn snapshot(&mut self) {
        let snapshot = self.node.snapshot(self.commands.concat());
        self.disk = Durable {
            hard_state: self.node.hard_state(),
            snapshot: snapshot.clone(),
            entries: self.node.entries_after_applied(),
        };
        self.node.compacted(snapshot);
    }
}

fn sole() -> Host {
    let mut host = Host::start(1, Durable::bootstrap(&[1], b"state".to_vec()));
    host.run();
    host
}

#[test]
fn a_sole_voter_leads_at_once_and_commits_what_is_durable() {
    let mut host = sole();
    assert!(host.node.is_settled());
    let first = host.node.propose(b"a".to_vec()).expect("it leads");
    let second = host.node.propose(b"b".to_vec()).expect("it leads");
    assert_eq!(second, ProposalId { index: first.index + 1, term: first.term });
    let effects = host.node.ready().expect("there is a write");
    assert_eq!(effects.write.as_ref().map(|write| write.entries.len()), Some(2), "both share one write");
    assert!(effects.committed.is_empty(), "nothing is committed before it is durable");
    let waiting = host.node.propose(b"c".to_vec()).expect("proposals go on meanwhile");
    assert!(host.node.ready().is_none(), "one write at a time");
    host.write(effects.write.as_ref().expect("checked above"));
    assert!(host.node.persisted(effects.number).is_empty());
    let next = host.node.ready().expect("two are committed, one is to be written");
    let committed: Vec<(u64, &[u8])> = next.committed.iter().map(|e| (e.index, e.data.as_slice())).collect();
    assert_eq!(committed, [(first.index, b"a".as_slice()), (second.index, b"b".as_slice())]);
    assert_eq!(next.write.as_ref().map(|write| write.entries[0].index), Some(waiting.index));
}

#[test]
fn hazard_a12_term_and_vote_are_durable_before_anything_that_speaks_of_them() {
    let disk = Durable::bootstrap(&[1, 2, 3], Vec::new());
    let mut host = Host::start(1, disk.clone());
    let mut votes = 0;
    for tick in 0..200 {
        host.node.tick(tick * 4 + 1);
        while let Some(effects) = host.node.ready() {
            let spoken = effects.messages.iter().filter(|m| m.get_msg_type() == MessageType::MsgRequestVote);
            assert_eq!(spoken.count(), 0, "a vote is asked for with its write still out");
            if let Some(write) = &effects.write {
                host.write(write);
                let after = host.node.persisted(effects.number);
                for message in after {
                    if message.get_msg_type() == MessageType::MsgRequestVote {
                        assert_eq!((host.disk.hard_state.term, host.disk.hard_state.vote), (message.term, 1));
                        votes += 1;
                    }
                    // Pre-votes are granted, votes are not: it campaigns for real and gets no further.
                    if message.get_msg_type() == MessageType::MsgRequestPreVote {
                        grant(&mut host.node, &message, MessageType::MsgRequestPreVoteResponse);
                    }
                }
            } else {
                for message in effects.messages {
                    if message.get_msg_type() == MessageType::MsgRequestPreVote {
                        grant(&mut host.node, &message, MessageType::MsgRequestPreVoteResponse);
                    }
                }
            }
        }
    }
    assert!(votes > 0);
    // The vote it gave itself binds it after a crash: another candidate of that term gets none.
    let term = host.disk.hard_state.term;
    let mut host = host.restart();
    let mut ask = Message::default();
    ask.set_msg_type(MessageType::MsgRequestVote);
    (ask.from, ask.to, ask.term, ask.index, ask.log_term) = (2, 1, term, 1, 1);
    host.node.step(ask).expect("a peer may ask");
    host.run();
    assert!(host.sent.iter().any(|m| m.get_msg_type() == MessageType::MsgRequestVoteResponse && m.reject));
}

fn grant(node: &mut Node, asked: &Message, kind: MessageType) {
    let mut answer = Message::default();
    answer.set_msg_type(kind);
    (answer.from, answer.to, answer.term) = (asked.to, asked.from, asked.term);
    let _late = node.step(answer);
}

#[test]
fn a_restart_goes_on_from_what_was_durable_in_a_later_term() {
    let mut host = sole();
    for data in [b"a", b"b"] {
        host.node.propose(data.to_vec()).expect("it leads");
        host.run();
    }
    host.node.propose(b"lost".to_vec()).expect("it leads");
    let term = host.node.term();
    let mut host = host.restart();
    host.run();
    assert_eq!(host.commands, [b"a", b"b"]);
    assert!(host.node.term() > term);
    assert!(host.node.is_settled());
}

#[test]
fn a_crash_after_the_write_keeps_the_proposal_whatever_was_told() {
    let mut host = sole();
    host.node.propose(b"a".to_vec()).expect("it leads");
    let effects = host.node.ready().expect("there is a write");
    host.write(&effects.write.expect("there is one"));
    let mut host = host.restart();
    host.run();
    assert_eq!(host.commands, [b"a"]);
}

#[test]
fn a_snapshot_replaces_the_log_and_a_restart_begins_there() {
    let mut host = sole();
    let mut due = 0;
    for number in 0..SNAPSHOT_ENTRIES {
        host.node.propose(number.to_be_bytes().to_vec()).expect("it leads");
        if number % 100 == 0 {
            host.run();
        }
        if host.node.snapshot_due() {
            due += 1;
            host.snapshot();
        }
    }
    host.run();
    assert!(host.node.snapshot_due() || due == 1);
    host.snapshot();
    assert!(host.disk.entries.is_empty());
    // One more that is written and not applied: it is no part of the snapshot and stays.
    host.node.propose(b"behind".to_vec()).expect("it leads");
    let effects = host.node.ready().expect("there is a write");
    host.write(&effects.write.expect("there is one"));
    assert!(host.node.persisted(effects.number).is_empty());
    host.snapshot();
    assert_eq!(host.disk.entries.len(), 1);
    let round = Snapshot::decode(&host.disk.snapshot.encode());
    assert_eq!(round.as_ref(), Ok(&host.disk.snapshot));
    let applied = host.node.applied_index();
    let mut host = host.restart();
    assert_eq!(host.node.applied_index(), applied);
    host.node.propose(b"after".to_vec()).expect("it leads");
    host.run();
    let commands: Vec<&[u8]> = host.commands.iter().map(Vec::as_slice).collect();
    assert_eq!(commands, [b"behind".as_slice(), b"after"]);
}

#[test]
fn limits_and_other_leaders_are_told() {
    let mut host = sole();
    assert_eq!(host.node.propose(vec![0; ENTRY_BYTES_MAX + 1]), Err(ProposeError::TooLarge));
    let mut taken = 0;
    while host.node.propose(vec![0; ENTRY_BYTES_MAX]).is_ok() {
        taken += 1;
        assert!(taken < 10, "there is no limit");
    }
    assert_eq!(host.node.propose(vec![0; ENTRY_BYTES_MAX]), Err(ProposeError::Busy));
    host.run();
    assert!(host.node.propose(b"more".to_vec()).is_ok());
    let mut follower = Host::start(1, Durable::bootstrap(&[1, 2], Vec::new()));
    assert_eq!(follower.node.propose(Vec::new()), Err(ProposeError::NotLeader { leader: None }));
    assert_eq!(follower.node.read_index(Vec::new()), Err(ProposeError::NotLeader { leader: None }));
}

#[test]
fn damage_is_refused_not_cut() {
    let entry = |index, term| Entry { index, term, kind: EntryKind::Normal, data: Vec::new() };
    let base = Durable::bootstrap(&[1], Vec::new());
    let cases = [
        (Durable { entries: vec![entry(3, 1)], ..base.clone() }, RestoreError::Gap { index: 3 }),
        (Durable { entries: vec![entry(2, 2), entry(3, 1)], ..base.clone() }, RestoreError::Gap { index: 3 }),
        (
            Durable { hard_state: HardState { term: 1, vote: 0, commit: 5 }, ..base.clone() },
            RestoreError::CommitPastEnd { commit: 5, last: 1 },
        ),
        (Durable::bootstrap(&[], Vec::new()), RestoreError::Voters),
        (Durable::bootstrap(&[1, 1], Vec::new()), RestoreError::Voters),
        (Durable::bootstrap(&[0], Vec::new()), RestoreError::Voters),
    ];
    for (disk, expect) in cases {
        assert_eq!(Node::new(1, disk).err(), Some(expect));
    }
}

#[test]
fn messages_that_no_peer_sends_are_refused() {
    let mut host = Host::start(1, Durable::bootstrap(&[1, 2], Vec::new()));
    let message = |kind, from, commit| {
        let mut message = Message::default();
        message.set_msg_type(kind);
        (message.from, message.to, message.term, message.commit) = (from, 1, 1, commit);
        message
    };
    let cases = [
        (message(MessageType::MsgPropose, 2, 0), StepError::Forwarded),
        (message(MessageType::MsgReadIndex, 2, 0), StepError::Forwarded),
        (message(MessageType::MsgHup, 2, 0), StepError::Local),
        (message(MessageType::MsgHeartbeat, 1, 0), StepError::NotForUs),
        (message(MessageType::MsgHeartbeat, 2, 9), StepError::Contradiction),
        (message(MessageType::MsgSnapshot, 2, 0), StepError::Contradiction),
    ];
    for (message, expect) in cases {
        assert_eq!(host.node.step(message.clone()), Err(expect), "{message:?}");
    }
}

/// Delivers everything until the network is silent, but to and from `cut`.
fn settle(hosts: &mut [Host], cut: Option<u64>) {
    loop {
        let mut mail = Vec::new();
        for host in hosts.iter_mut() {
            host.run();
            mail.append(&mut host.sent);
        }
        if mail.is_empty() {
            return;
        }
        for message in mail.into_iter().filter(|m| Some(m.to) != cut && Some(m.from) != cut) {
            if let Some(host) = hosts.iter_mut().find(|host| host.node.id() == message.to) {
                host.node.step(message).expect("peers send what they may");
            }
        }
    }
}

fn elect(hosts: &mut [Host], cut: Option<u64>) -> usize {
    for tick in 0u64..500 {
        for (at, host) in hosts.iter_mut().enumerate() {
            let mixed = (tick * 3 + at as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            host.node.tick(mixed >> 40);
        }
        settle(hosts, cut);
        let leads = |host: &Host| host.node.is_settled() && Some(host.node.id()) != cut;
        if let Some(leader) = hosts.iter().position(leads) {
            return leader;
        }
    }
    panic!("nobody was elected");
}

#[test]
fn three_voters_apply_one_log_and_a_lost_proposal_is_known() {
    let disk = Durable::bootstrap(&[1, 2, 3], Vec::new());
    let mut hosts: Vec<Host> = (1..=3).map(|id| Host::start(id, disk.clone())).collect();
    let old = elect(&mut hosts, None);
    hosts[old].node.propose(b"a".to_vec()).expect("it leads");
    settle(&mut hosts, None);
    let cut = hosts[old].node.id();
    let mut waiters = Proposals::default();
    waiters.add(hosts[old].node.propose(b"lost".to_vec()).expect("it still thinks so"), "waiter");
    let new = elect(&mut hosts, Some(cut));
    assert_ne!(old, new);
    hosts[new].node.propose(b"b".to_vec()).expect("it leads");
    settle(&mut hosts, Some(cut));
    let overwritten =
        hosts[new].disk.entries.iter().find(|entry| entry.index == 4 && entry.term > 2).cloned();
    for _ in 0..40 {
        hosts[new].node.tick(1);
        settle(&mut hosts, None);
    }
    for host in &hosts {
        assert_eq!(host.commands, [b"a", b"b"]);
    }
    let overwritten = overwritten.expect("the new leader wrote there");
    assert_eq!(waiters.settle(&overwritten), [Outcome::Lost("waiter")]);
    assert!(waiters.is_empty());
}

#[test]
fn one_voter_becomes_three_in_one_joint_change_by_a_snapshot_that_names_them() {
    let mut hosts = vec![sole()];
    hosts[0].node.propose(b"a".to_vec()).expect("it leads");
    hosts[0].run();
    hosts[0].snapshot();
    let members = [Member::Voter(2), Member::Voter(3)];
    hosts[0].node.propose_members(&members).expect("nothing is pending");
    assert_eq!(hosts[0].node.propose_members(&members), Err(ProposeError::ChangePending));
    hosts[0].run();
    // Joiners know the group and nothing else; what they lack comes by snapshot.
    for id in [2, 3] {
        hosts.push(Host::start(id, Durable::bootstrap(&[1], Vec::new())));
    }
    for _ in 0..200 {
        hosts[0].node.tick(1);
        if hosts[0].node.snapshot_due() {
            hosts[0].snapshot();
        }
        settle(&mut hosts, None);
    }
    let mut voters = hosts[0].node.voters();
    voters.voters.sort_unstable();
    assert_eq!(voters, Voters::of(&[1, 2, 3]));
    hosts[0].node.propose(b"b".to_vec()).expect("it leads");
    settle(&mut hosts, None);
    assert!(hosts.iter().all(|host| host.commands.last().is_some_and(|last| last == b"b")));
    assert_eq!(hosts[0].node.propose_members(&[]), Err(ProposeError::InvalidChange));
    let all = [Member::Removed(1), Member::Removed(2), Member::Removed(3)];
    assert_eq!(hosts[0].node.propose_members(&all), Err(ProposeError::InvalidChange));
}

#[test]
fn a_read_is_answered_behind_what_was_committed() {
    let mut host = sole();
    host.node.read_index(b"r".to_vec()).expect("it has committed in its term");
    let effects = host.node.ready().expect("the read is ready");
    assert_eq!(effects.reads, [Read { index: host.node.applied_index(), context: b"r".to_vec() }]);
    let fresh = &mut Node::new(1, Durable::bootstrap(&[1], Vec::new())).expect("sound");
    assert_eq!(fresh.read_index(Vec::new()), Err(ProposeError::NotReady));
}

/// The way from a command to the state, as the controller's core goes it.
#[test]
fn metadata_over_raft() {
    let first = Metadata::new("cluster".to_owned()).encode();
    let mut host = Host::start(1, Durable::bootstrap(&[raft_id(0)], first));
    let mut metadata = Metadata::decode(&host.disk.snapshot.data).expect("it was encoded");
    let mut waiters = Proposals::default();
    let listener =
        Listener { name: "PLAINTEXT".to_owned(), host: "h".to_owned(), port: 9092, security_protocol: 0 };
    let register = Command::RegisterBroker {
        node: NodeId(0),
        storage: [1; 16],
        incarnation: [2; 16],
        listeners: vec![listener],
        rack: None,
    };
    waiters.add(host.node.propose(register.encode()).expect("it leads"), "register");
    let mut answered = Vec::new();
    while let Some(effects) = host.node.ready() {
        for entry in &effects.committed {
            if entry.is_command() {
                let command = Command::decode(&entry.data).expect("this release wrote it");
                let applied = metadata.apply(entry.index, &command);
                assert_eq!(applied.refused, None);
            } else {
                metadata.skip(entry.index);
            }
            host.node.applied(entry.index);
            answered.extend(waiters.settle(entry));
        }
        if effects.write.is_some() {
            assert!(host.node.persisted(effects.number).is_empty());
        }
    }
    assert_eq!(answered, [Outcome::Committed("register")]);
    assert!(metadata.image().broker(NodeId(0)).is_some());
}
