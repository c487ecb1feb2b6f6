//! What is deleted, what is refused, and what is left after kill -9.

use engine::ids::{Offset, PartitionId};
use engine::log::Faults;
use net::error_code::ErrorCode;
use net::messages::delete_records::{
    DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsResponse, DeleteRecordsTopic,
};
use rt::sim::{Fault, OpKind, SimDisk};

use super::*;
use crate::groups::create_topic as create_offsets_topic;
use crate::shard::tests::{fetch, live, produce, settings, start_with, topic_id, try_create};

const EIO: i32 = 5;
const NONE: i16 = 0;
const OUT_OF_RANGE: i16 = ErrorCode::OffsetOutOfRange as i16;
const UNKNOWN: i16 = ErrorCode::UnknownTopicOrPartition as i16;

/// (topic, what is asked for, what is told)
type Case = (&'static str, &'static [(i32, i64)], &'static [(i32, i64, i16)]);

/// Asks for (partition, offset) of one topic; gives (partition, low watermark, error).
async fn delete(shard: &Rc<Shard>, version: i16, name: &str, wanted: &[(i32, i64)]) -> Vec<(i32, i64, i16)> {
    let one = |&(partition_index, offset): &(i32, i64)| DeleteRecordsPartition { partition_index, offset };
    let topic = DeleteRecordsTopic { name: name.into(), partitions: wanted.iter().map(one).collect() };
    let body = DeleteRecordsRequest { topics: vec![topic], timeout_ms: 1000 };
    let told = ask(shard, ApiKey::DeleteRecords, version, &body).await;
    let response: DeleteRecordsResponse = told.read();
    let partitions = response.topics.iter().flat_map(|topic| &topic.partitions);
    partitions.map(|one| (one.partition_index, one.low_watermark, one.error_code)).collect()
}

#[test]
fn records_are_gone_for_every_reader_also_after_kill_9() {
    let disk = SimDisk::new();
    live(&disk, |core, disk| async move {
        let shard = start_with(&core, Faults::default(), settings(&[])).await;
        assert_eq!(try_create(&shard, "orders", 3).await, NONE);
        create_offsets_topic(&shard).await;
        let partition = PartitionId { topic: topic_id(&shard), index: 0 };
        for offset in 0..10 {
            assert_eq!(produce(&shard, partition, "x").await, (ErrorCode::None, offset));
        }
        let cases: [Case; 9] = [
            ("orders", &[(0, 11)], &[(0, -1, OUT_OF_RANGE)]),
            ("orders", &[(0, -2)], &[(0, -1, OUT_OF_RANGE)]),
            ("orders", &[(1, 0), (2, -1)], &[(1, 0, NONE), (2, 0, NONE)]),
            ("orders", &[(3, 0), (-1, 0)], &[(-1, -1, UNKNOWN), (3, -1, UNKNOWN)]),
            ("orders", &[(0, 3)], &[(0, 3, NONE)]),
            ("orders", &[(0, 1)], &[(0, 3, NONE)]),
            ("orders", &[(0, 6), (0, 5)], &[(0, 5, NONE)]),
            ("missing", &[(0, 0)], &[(0, -1, UNKNOWN)]),
            ("__consumer_offsets", &[(0, 0)], &[(0, -1, ErrorCode::InvalidTopicException as i16)]),
        ];
        for (version, (name, wanted, expect)) in (0..=2).cycle().zip(cases) {
            assert_eq!(delete(&shard, version, name, wanted).await, expect, "{name} {wanted:?}");
        }
        assert_eq!(fetch(&shard, partition, 4).await.error, ErrorCode::OffsetOutOfRange);
        let fetched = fetch(&shard, partition, 5).await;
        assert_eq!((fetched.error, fetched.log_start_offset), (ErrorCode::None, 5));

        disk.fail_next(OpKind::Write, Fault::Error(EIO));
        assert_eq!(
            delete(&shard, 2, "orders", &[(0, 9)]).await,
            [(0, -1, ErrorCode::KafkaStorageError as i16)]
        );
        assert_eq!(fetch(&shard, partition, 5).await.error, ErrorCode::None, "nothing was promised");
    });
    live(&disk, |core, _| async move {
        let shard = start_with(&core, Faults::default(), settings(&[])).await;
        let partition = PartitionId { topic: topic_id(&shard), index: 0 };
        assert_eq!(fetch(&shard, partition, 4).await.error, ErrorCode::OffsetOutOfRange);
        assert_eq!(fetch(&shard, partition, 5).await.log_start_offset, 5);
        assert_eq!(delete(&shard, 2, "orders", &[(0, -1)]).await, [(0, 10, NONE)]);
        let log = shard.hosted(partition).and_then(|hosted| hosted.open_log()).expect("it is open");
        assert_eq!((log.log_start_offset(), log.log_end_offset()), (Offset(10), Offset(10)));
        assert_eq!(produce(&shard, partition, "next").await, (ErrorCode::None, 10));
    });
    live(&disk, |core, _| async move {
        let shard = start_with(&core, Faults::default(), settings(&[])).await;
        let partition = PartitionId { topic: topic_id(&shard), index: 0 };
        let fetched = fetch(&shard, partition, 10).await;
        assert_eq!((fetched.log_start_offset, fetched.high_watermark), (10, 11));
    });
}
