//! Consumers: they read on from any offset, wait for more, and ask where the log begins and ends.

use std::rc::Rc;

use net::error_code::ErrorCode;

use super::verify::{EARLIEST, LATEST, offset_at};
use super::{Clients, Connection, Failed, GiveUp, TOPICS};

const FETCH_BYTES: i32 = 16 << 10;
const READS_PER_START: u64 = 6;
const WAIT_MS_MAX: u64 = 20;

pub async fn run(clients: Rc<Clients>) {
    let mut connection = Connection::new(&clients);
    for _ in 0..clients.life.batches / 4 {
        let topic = clients.random.borrow_mut().pick(&TOPICS);
        let index = clients.between(0, u64::try_from(topic.partitions).expect("a few partitions"));
        let index = i32::try_from(index).expect("a few partitions");
        if follow(&clients, &mut connection, topic.name, index).await.is_err() {
            return;
        }
        if clients.one_in(4) {
            connection.leave();
        }
    }
}

async fn follow(
    clients: &Rc<Clients>,
    connection: &mut Connection,
    topic: &str,
    index: i32,
) -> Result<(), GiveUp> {
    let what = format!("reading {topic}-{index}");
    let client = connection.client().await?;
    let Ok(begin) = clients.answer(&what, offset_at(&client, topic, index, EARLIEST)).await else {
        return Ok(());
    };
    let Ok(end) = clients.answer(&what, offset_at(&client, topic, index, LATEST)).await else {
        return Ok(());
    };
    if begin != 0 {
        clients.fail(format!("{what}: it begins at {begin}, and nothing was deleted"));
    }
    let mut at = i64::try_from(clients.between(0, u64::try_from(end).unwrap_or(0) + 1)).expect("an offset");
    for _ in 0..READS_PER_START {
        let wait = i32::try_from(clients.between(0, WAIT_MS_MAX)).expect("a few milliseconds");
        let client = connection.client().await?;
        let fetched = match clients.answer(&what, client.fetch(topic, index, at, FETCH_BYTES, wait)).await {
            Ok(fetched) => fetched,
            Err(Failed::Refused(ErrorCode::KafkaStorageError)) | Err(Failed::NotAnswered) => return Ok(()),
            Err(Failed::Refused(code)) => {
                clients.fail(format!("{what}: offset {at} is refused: {code}"));
                return Err(GiveUp);
            }
        };
        let mut model = clients.model.borrow_mut();
        let read = |partition: &mut crate::model::partition::Partition| {
            partition.read(at, fetched.high_watermark, &fetched.records)
        };
        let Some(seen) = model.check(topic, index, read) else { return Err(GiveUp) };
        if seen.next == at && at < fetched.high_watermark {
            model.fail(format!("{what}: nothing at {at}, before {}", fetched.high_watermark));
            return Err(GiveUp);
        }
        model.counts.read += seen.records;
        at = seen.next;
    }
    Ok(())
}
