use coord::metadata::{Command, Listener, Metadata, NodeId};
use engine::ids::{LeaderEpoch, PartitionId, TopicId};
use std::collections::BTreeMap;

fn write(name: &str, bytes: &[u8]) {
    std::fs::write(format!("{}/../fuzz/corpus/metadata/{name}", env!("CARGO_MANIFEST_DIR")), bytes).unwrap();
}

fn run(commands: &[Command]) -> Vec<u8> {
    let mut out = Vec::new();
    for command in commands {
        let one = command.encode();
        out.extend_from_slice(&(one.len() as u16).to_le_bytes());
        out.extend_from_slice(&one);
    }
    out
}

#[test]
fn generate() {
    let node = NodeId(1);
    let listener =
        Listener { name: "PLAINTEXT".into(), host: "localhost".into(), port: 9092, security_protocol: 0 };
    let register = Command::RegisterBroker {
        node,
        storage: [1; 16],
        incarnation: [2; 16],
        listeners: vec![listener],
        rack: Some("a".into()),
    };
    let started = Command::BrokerStarted { node, incarnation: [2; 16], lost: Vec::new() };
    let id = TopicId([7; 16]);
    let configs = BTreeMap::from([("corelog.durability".to_owned(), "write".to_owned())]);
    let create =
        Command::CreateTopic { id, name: "orders".into(), partitions: vec![vec![node], vec![node]], configs };
    let more = Command::CreatePartitions { id, existing: 2, partitions: vec![vec![node]] };
    let set = Command::SetTopicConfigs {
        id,
        changes: vec![("retention.ms".into(), Some("1".into())), ("corelog.durability".into(), None)],
    };
    let ids = Command::AllocateProducerIds { node, count: 1000 };
    let alter = Command::AlterPartition {
        id: PartitionId { topic: id, index: 0 },
        leader: node,
        broker_epoch: 1,
        leader_epoch: LeaderEpoch(1),
        partition_epoch: 0,
        isr: vec![node],
    };
    let fence = Command::FenceBroker { node, epoch: 1 };
    let delete = Command::DeleteTopic { id };
    let gone = Command::UnregisterBroker { node };
    let all = [register, started, create, more, set, ids, alter, fence, delete, gone];
    write("life", &run(&all));
    for (name, count) in [("registered", 2), ("created", 3), ("grown", 4), ("configured", 6), ("altered", 7)]
    {
        write(name, &run(&all[..count]));
    }
    let mut metadata = Metadata::new("cluster".into());
    for (index, command) in (1..).zip(&all[..6]) {
        metadata.apply(index, command);
    }
    write("snapshot", &metadata.encode());
    write("snapshot-empty", &Metadata::new(String::new()).encode());
    write(
        "twice",
        &run(&[
            all[0].clone(),
            all[1].clone(),
            all[2].clone(),
            all[2].clone(),
            all[8].clone(),
            all[2].clone(),
        ]),
    );
}
