//! One flipped bit in every kind of file: a start says so and serves the rest, looking finds it, mending gives back
//! everything that is not damaged.

use super::*;
use crate::batch::build::BatchBuilder;
use crate::batch::{self, Codec};
use crate::ids::TopicId;
use crate::log::{AppendKind, Durability, Log, LogConfig};
use crate::store::{OpenPartition, Store};
use rt::sim::{CrashPlan, Sim, SimConfig, SimDisk};
use std::collections::BTreeMap;
use std::future::Future;
use std::rc::Rc;

const DATA: &str = "/data/broker";
const BATCHES: i64 = 30;
const VALUE_BYTES: usize = 9000;

fn id(index: i32) -> PartitionId {
    PartitionId { topic: TopicId([7; 16]), index }
}

fn dir_of(index: i32) -> PathBuf {
    Path::new(DATA).join("logs").join(names::folder("orders", id(index)))
}

fn how(index: i32, epoch: i32) -> OpenPartition {
    let config = LogConfig {
        segment_bytes: 100_000,
        durability: Durability::Fsync,
        after_max_ms: i64::MAX,
        ..LogConfig::default()
    };
    OpenPartition { id: id(index), topic_name: "orders".into(), config, epoch: LeaderEpoch(epoch) }
}

fn value(offset: i64) -> Vec<u8> {
    let mut value = format!("value {offset} ").into_bytes();
    value.resize(VALUE_BYTES, b'x');
    value
}

fn on<T: 'static, F: Future<Output = T> + 'static>(disk: &SimDisk, test: impl Fn(Core) -> F) -> T {
    let sim = Sim::with_disk(1, SimConfig::default(), disk.clone());
    let done = sim.run(test).expect("runs to its end").remove(0);
    // The process ends, and its lock with it.
    sim.crash(CrashPlan::KILLED);
    done
}

/// Two partitions with sealed segments, a checkpoint in the middle, and no clean stop.
fn written() -> SimDisk {
    let sim = Sim::new(1, SimConfig::default());
    let ran = sim.run(|core| async move {
        let store = Store::open(&core, Path::new(DATA)).await.expect("opens");
        for index in 0..2 {
            let log = store.open_log(how(index, 1)).await.expect("opens");
            for offset in 0..BATCHES {
                let mut builder = BatchBuilder::new(Codec::None);
                builder.append(1000, None, Some(&value(offset)), &[]);
                let bytes = Slice::from(builder.finish());
                log.append(bytes, AppendKind::Client).await.expect("appends");
                log.committed(Offset(offset)).await.expect("commits");
                if index == 0 && offset == 24 {
                    store.checkpoint().await.expect("is written");
                }
            }
        }
        core.sleep(std::time::Duration::from_secs(1)).await;
    });
    ran.expect("runs");
    sim.crash(CrashPlan::STRICT)
}

/// What is read of a partition: values by offset. An error ends it.
async fn contents(log: &Log) -> Result<BTreeMap<i64, Vec<u8>>, String> {
    let mut found = BTreeMap::new();
    let mut at = log.log_start_offset();
    while at < log.high_watermark() {
        let out =
            log.read(at, 1 << 20, true, log.high_watermark()).await.map_err(|error| format!("{error:?}"))?;
        let bytes: Vec<u8> = out.slices.iter().flat_map(|slice| slice.to_vec()).collect();
        for batch in batch::batches(&bytes) {
            let batch = batch.expect("a whole batch");
            for record in batch::walk::Records::new(&batch, batch.records_bytes()) {
                let record = record.expect("a record");
                found.insert(record.offset.0, record.value.unwrap_or_default().to_vec());
            }
        }
        assert!(out.next > at);
        at = out.next;
    }
    Ok(found)
}

/// Values by offset, and notes.
type Started = (BTreeMap<i64, Vec<u8>>, Vec<String>);

/// Opens partition `index` after the flip and reads all of it; what the folder and the log had to say besides.
fn start(disk: &SimDisk, index: i32, epoch: i32) -> Result<Started, String> {
    on(disk, move |core| async move {
        let store = Store::open(&core, Path::new(DATA)).await.map_err(|error| error.to_string())?;
        let log = store.open_log(how(index, epoch)).await.map_err(|error| error.to_string())?;
        let notes = [store.folder().notes(), log.notes()].concat();
        let found = contents(&log).await?;
        Ok((found, notes))
    })
}

fn look_at(disk: &SimDisk) -> Report {
    on(disk, |core| async move {
        let epochs = HashMap::from([(id(0), LeaderEpoch(1)), (id(1), LeaderEpoch(1))]);
        inspect(&core, Path::new(DATA), &epochs, &|_| true).await.expect("is readable")
    })
}

fn mend_all(disk: &SimDisk) {
    let found = Rc::new(look_at(disk));
    on(disk, move |core| {
        let found = found.clone();
        async move {
            for partition in found.partitions.iter().filter(|one| one.is_damaged()) {
                mend(&core, partition).await.expect("is mended");
            }
        }
    });
}

fn segment_file(index: i32, number: usize, disk: &SimDisk) -> (String, SegmentSpot) {
    let report = look_at(disk);
    let partition = report.partitions.into_iter().find(|one| one.id == id(index)).expect("is there");
    let segment = partition.segments.into_iter().nth(number).expect("is there");
    let batches = segment.examined.batches;
    (segment.path.display().to_string(), SegmentSpot { batches })
}

struct SegmentSpot {
    batches: Vec<segment::BatchFacts>,
}

/// Flips a bit of partition 0 at `byte` of batch `number` of segment `segment`, mends, and gives what is lost.
fn check_flip(segment: usize, number: usize, byte: u64, refused: bool) -> Vec<i64> {
    let disk = written();
    let (path, spot) = segment_file(0, segment, &disk);
    let batch = &spot.batches[number];
    disk.flip_bit(&path, (batch.position + byte) * 8 + 1);
    let what = format!("segment {segment}, batch {number}, byte {byte}");

    let before = start(&disk, 0, 2);
    if refused {
        let why = before.err().unwrap_or_default();
        assert!(why.contains("corelog log repair"), "{what}: {why}");
    }
    assert_eq!(start(&disk, 1, 2).expect("the other partition is served").0.len() as i64, BATCHES);
    let report = look_at(&disk);
    let found = report.partitions.iter().find(|one| one.id == id(0)).expect("is there");
    assert!(found.is_damaged(), "{what} is found");

    mend_all(&disk);
    let again = look_at(&disk);
    let faults: Vec<_> =
        again.partitions.iter().filter(|one| one.is_damaged()).map(|one| &one.faults).collect();
    assert!(faults.is_empty(), "{what}: {faults:?}");
    let (values, _) = start(&disk, 0, 3).unwrap_or_else(|why| panic!("{what}: {why}"));
    for (offset, found) in &values {
        assert!(found == &value(*offset), "{what}: offset {offset}");
    }
    (0..BATCHES).filter(|offset| !values.contains_key(offset)).collect()
}

#[test]
fn hazard_a4_a_repair_restores_what_its_neighbours_prove() {
    // Base offset, length, epoch and magic of batches in the active segment; base offset and epoch in a sealed one.
    for (segment, number, byte, refused) in
        [(2, 7, 7, true), (2, 7, 11, true), (2, 7, 16, true), (0, 3, 7, false), (0, 3, 15, false)]
    {
        assert_eq!(check_flip(segment, number, byte, refused), Vec::<i64>::new());
    }
}

#[test]
fn hazard_a4_a_repair_loses_the_damaged_batch_only() {
    let first_active = 22;
    for (segment, number, byte, refused, lost) in [
        (2, 5, 400, true, first_active + 5),
        (2, 7, 400, true, 29),
        (0, 3, 400, false, 3),
        (1, 0, 30, false, 11),
    ] {
        assert_eq!(check_flip(segment, number, byte, refused), [lost], "segment {segment}, batch {number}");
    }
}

#[test]
fn damaged_bytes_are_kept_and_a_filler_takes_their_place() {
    let disk = written();
    let (path, spot) = segment_file(0, 0, &disk);
    let batch = &spot.batches[3];
    disk.flip_bit(&path, (batch.position + 400) * 8);
    let bytes = disk.contents(&path).expect("is there");
    on(&disk, |core| async move {
        let file = PartitionFile::open(&core, &dir_of(0)).await.expect("opens");
        let mut file = file.expect("is there").expect("is readable");
        file.store(&core, |partition| partition.compaction.clean_to = Offset(20)).await.expect("stores");
    });
    mend_all(&disk);
    let kept = format!("{path}.{}-{}.{KEPT_SUFFIX}", batch.position, batch.position + batch.bytes);
    let at = |position: u64| usize::try_from(position).expect("fits");
    let damaged = &bytes[at(batch.position)..at(batch.position + batch.bytes)];
    assert_eq!(disk.contents(&kept).expect("is kept"), damaged);
    let report = look_at(&disk);
    let partition = report.partitions.iter().find(|one| one.id == id(0)).expect("is there");
    let filler = &partition.segments[0].examined.batches[3];
    assert_eq!((filler.base, filler.next, filler.records), (Offset(3), Offset(4), 0));
    assert_eq!(partition.says.as_ref().map(|says| says.compaction.clean_to), Ok(Offset(3)));
}

#[test]
fn a_folder_that_forgot_what_it_is_is_named_again() {
    let disk = written();
    let path = dir_of(0).join(names::PARTITION_FILE);
    for slot in 0..2 {
        disk.flip_bit(&path, (slot * 4096 + 30) * 8);
    }
    assert!(start(&disk, 0, 2).is_err_and(|why| why.contains("corelog log repair")));
    mend_all(&disk);
    let (values, _) = start(&disk, 0, 3).expect("is served again");
    assert_eq!(values.len() as i64, BATCHES);
}

#[test]
fn a_missing_segment_is_told_and_costs_its_own_offsets() {
    let disk = written();
    on(&disk, |core| async move {
        core.unlink(dir_of(0).join(names::segment(Offset(11)))).await.expect("is there");
        core.sync_dir(dir_of(0)).await.expect("syncs");
    });
    mend_all(&disk);
    let (values, _) = start(&disk, 0, 2).expect("is served");
    assert_eq!(values.keys().copied().collect::<Vec<_>>(), (0..11).chain(22..BATCHES).collect::<Vec<_>>());
}

#[test]
fn damaged_indexes_and_checkpoints_are_told_and_need_no_repair() {
    let disk = written();
    disk.flip_bit(dir_of(0).join(names::index(Offset(0))), 400);
    for slot in 0..2 {
        let path = Path::new(DATA).join("checkpoints").join(format!("core-0.{slot}"));
        if disk.contents(&path).is_some_and(|bytes| bytes.len() > 100) {
            disk.flip_bit(&path, 800);
        }
    }
    assert!(!look_at(&disk).partitions.iter().any(PartitionFacts::is_damaged));
    let (values, notes) = start(&disk, 0, 2).expect("is served");
    assert_eq!(values.len() as i64, BATCHES);
    assert!(notes.iter().any(|note| note.contains("checkpoint slot")), "{notes:?}");
}
