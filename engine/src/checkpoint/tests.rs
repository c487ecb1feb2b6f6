use super::*;
use crate::batch::build::BatchBuilder;
use crate::batch::{Batch, Codec};
use crate::ids::{FilePos, ProducerId};

fn log(partition: i32) -> Saved {
    let mut index = SparseIndex::new(Offset(100), 50);
    let mut producers = ProducerStates::new();
    for number in 0..20 {
        let offset = 100 + number;
        let sequence = i32::try_from(number).unwrap();
        let mut builder = BatchBuilder::new(Codec::None)
            .producer(ProducerId(i64::from(partition)), 0, sequence)
            .base_offset(Offset(offset));
        builder.append(7 * number, None, Some(b"v"), &[]);
        let bytes = builder.finish();
        producers.apply(&Batch::parse(&bytes).unwrap().0);
        index.note(Offset(offset), FilePos(number.cast_unsigned() * 69), 69, 7 * number);
    }
    let mut epochs = EpochCache::new();
    epochs.assign(LeaderEpoch(2), Offset(0));
    epochs.assign(LeaderEpoch(3), Offset(110));
    Saved {
        id: PartitionId::new(TopicId([9; 16]), partition),
        epoch: LeaderEpoch(3),
        log_start: Offset(40),
        end: Offset(120),
        segment: Offset(100),
        position: 20 * 69,
        clean: partition == 1,
        index,
        first_timestamp: 0,
        max_timestamp: 133,
        epochs,
        producers,
        truncations: if partition == 2 { 7 } else { 0 },
        rewrites: 0,
    }
}

fn logs() -> Vec<Saved> {
    (0..3).map(log).collect()
}

#[test]
fn everything_comes_back() {
    let bytes = encode(7, &logs());
    assert_eq!(decode(&bytes), Ok(Checkpoint { sequence: 7, logs: logs() }));
    assert_eq!(decode(&encode(1, &[])), Ok(Checkpoint { sequence: 1, logs: Vec::new() }));
    let compacted: Vec<Saved> = logs().into_iter().map(|log| Saved { rewrites: 3, ..log }).collect();
    assert_eq!(decode(&encode(7, &compacted)), Ok(Checkpoint { sequence: 7, logs: compacted }));
    let over_an_older_one = [bytes, vec![0xcc; 100]].concat();
    assert!(decode(&over_an_older_one).is_ok());
}

#[test]
fn hazard_a5_the_newest_valid_slot_counts_and_damage_is_told() {
    let (old, new) = (encode(7, &logs()[..1]), encode(8, &logs()));
    for (a, b, newest) in [(&old, &new, Slot::B), (&new, &old, Slot::A)] {
        let chosen = choose(a, b);
        let (slot, checkpoint) = chosen.newest.clone().unwrap();
        assert_eq!((slot, checkpoint.sequence, chosen.damaged.len()), (newest, 8, 0));
        assert_eq!((chosen.next_slot(), chosen.next_sequence()), (newest.other(), 9));
    }
    for bit in (0..new.len() * 8).step_by(7) {
        let mut flipped = new.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let chosen = choose(&flipped, &old);
        let (slot, checkpoint) = chosen.newest.clone().unwrap();
        assert_eq!((slot, checkpoint.sequence), (Slot::B, 7), "bit {bit}");
        assert!(matches!(chosen.damaged.as_slice(), [(Slot::A, _)]), "bit {bit}");
        assert_eq!(chosen.next_slot(), Slot::A, "the valid one is never overwritten");
    }
}

#[test]
fn slots_that_were_never_written_are_not_damage() {
    let empty = Chosen { newest: None, damaged: Vec::new() };
    assert_eq!(choose(&[], &[]), empty);
    assert_eq!(choose(&[0; 4096], &[]), empty);
    assert_eq!((empty.next_slot(), empty.next_sequence()), (Slot::A, 1));
    let torn = &encode(1, &logs())[..100];
    assert_eq!(choose(torn, &[]).damaged, [(Slot::A, Damage::Short)]);
}

#[test]
fn a_log_that_contradicts_itself_is_refused() {
    let check = |change: &dyn Fn(&mut Saved)| {
        let mut lying = log(0);
        change(&mut lying);
        let found = decode(&encode(1, &[lying]));
        assert!(matches!(found, Err(Damage::Content(_))), "{found:?}");
    };
    check(&|log| log.end = Offset(39));
    check(&|log| log.end = Offset(119));
    check(&|log| log.log_start = Offset(-1));
    check(&|log| log.segment = Offset(90));
    check(&|log| log.position = 69);
}

#[test]
fn the_format_is_fixed() {
    let mut small = log(1);
    (small.index, small.producers) = (SparseIndex::new(Offset(100), 4096), ProducerStates::new());
    let hex: String = encode(5, &[small]).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, GOLDEN);
}

const GOLDEN: &str = "434c435001000000c5000000b27bd6cc050000000000000001000000b500000009090909090909090909090909090909\
    010000000300000028000000000000007800000000000000640000000000000064050000000000000000000000000000\
    85000000000000000164000000000000000010000000000000ffffffffffffffff000000002c000000434c4550010000\
    001c000000ba85a16402000000020000000000000000000000030000006e000000000000001c000000434c5053010000\
    000c0000009bfe3455000000000000000000000000";
