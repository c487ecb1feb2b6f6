//! The client against a broker of a few lines.

use net::api::ApiKey;
use net::client::{Client, Error, Options};
use net::error_code::ErrorCode;
use net::frame::{Cut, FrameCutter};
use net::header::{RequestHeader, ResponseHeader};
use net::messages::api_versions::{ApiVersion, ApiVersionsResponse};
use net::messages::fetch::{self, FetchRequest, FetchResponse, FetchableTopicResponse, PartitionData};
use net::messages::metadata::{MetadataResponse, MetadataResponseBroker, MetadataResponseTopic};
use net::messages::produce::{
    PartitionProduceResponse, ProduceRequest, ProduceResponse, TopicProduceResponse,
};
use net::wire::{Decode, Encode, Reader, Records, Writer};
use rt::{Class, Config, Core, Reservation, Slice, Stream};

const TOPIC_ID: [u8; 16] = [7; 16];

/// Which ApiVersions the broker speaks at most.
#[derive(Clone, Copy)]
struct Broker {
    api_versions_max: i16,
}

/// What becomes of a request.
enum Outcome {
    Send(Vec<Slice>),
    Silent,
    Close,
}

impl Broker {
    fn versions(self) -> ApiVersionsResponse<'static> {
        let served = [(18, 0, self.api_versions_max), (0, 0, 13), (1, 4, 17), (3, 0, 13)];
        let api_keys = served
            .map(|(api_key, min_version, max_version)| ApiVersion { api_key, min_version, max_version })
            .to_vec();
        ApiVersionsResponse { api_keys, ..Default::default() }
    }

    fn answer(self, frame: &[u8]) -> Outcome {
        let mut r = Reader::new(frame);
        let header = RequestHeader::decode(&mut r).unwrap();
        let version = header.version;
        let mut w = Writer::new();
        ResponseHeader { correlation_id: header.correlation_id }.encode(&mut w, header.key, version);
        match header.key {
            ApiKey::ApiVersions if version > self.api_versions_max => {
                let error_code = ErrorCode::UnsupportedVersion.as_i16();
                ApiVersionsResponse { error_code, ..self.versions() }.encode(&mut w, 0).unwrap();
            }
            ApiKey::ApiVersions => self.versions().encode(&mut w, version).unwrap(),
            ApiKey::Metadata => metadata().encode(&mut w, version).unwrap(),
            ApiKey::Produce => {
                let request = ProduceRequest::decode(&mut r, version).unwrap();
                if request.acks == 0 {
                    return Outcome::Silent;
                }
                produced(&request).encode(&mut w, version).unwrap();
            }
            ApiKey::Fetch => {
                let request = FetchRequest::decode(&mut r, version).unwrap();
                fetched(&request).encode(&mut w, version).unwrap();
            }
            _ => return Outcome::Close,
        }
        Outcome::Send(w.finish().unwrap())
    }
}

fn metadata() -> MetadataResponse<'static> {
    let broker = MetadataResponseBroker { node_id: 1, host: "here".into(), port: 9092, rack: None };
    let topic = MetadataResponseTopic { name: Some("t".into()), topic_id: TOPIC_ID, ..Default::default() };
    MetadataResponse { brokers: vec![broker], topics: vec![topic], ..Default::default() }
}

/// The number of record bytes is the base offset, so that a test sees which answer is whose.
fn produced<'a>(request: &ProduceRequest<'a>) -> ProduceResponse<'a> {
    let topic = &request.topic_data[0];
    let partition = &topic.partition_data[0];
    let base_offset = partition.records.len() as i64;
    let answer = PartitionProduceResponse { index: partition.index, base_offset, ..Default::default() };
    let topic = TopicProduceResponse {
        name: topic.name.clone(),
        topic_id: topic.topic_id,
        partition_responses: vec![answer],
    };
    ProduceResponse { responses: vec![topic], ..Default::default() }
}

/// Two slices, as large as asked for together; offset 404 is out of range.
fn fetched<'a>(request: &FetchRequest<'a>) -> FetchResponse<'a> {
    let topic = &request.topics[0];
    let partition = &topic.partitions[0];
    let bytes = usize::try_from(partition.partition_max_bytes).unwrap();
    let slices = vec![Slice::from(vec![1; bytes / 2]), Slice::from(vec![2; bytes - bytes / 2])];
    let error = if partition.fetch_offset == 404 { ErrorCode::OffsetOutOfRange } else { ErrorCode::None };
    let answer = PartitionData {
        error_code: error.as_i16(),
        high_watermark: 9,
        records: Records::Slices(slices),
        ..Default::default()
    };
    let topic = FetchableTopicResponse {
        topic: topic.topic.clone(),
        topic_id: topic.topic_id,
        partitions: vec![answer],
    };
    FetchResponse { responses: vec![topic], ..Default::default() }
}

async fn serve(core: Core, stream: Stream, broker: Broker) {
    let cutter = FrameCutter::new(1 << 20);
    let mut received = Vec::new();
    loop {
        let buf = core.buffers().take(4096, Reservation::Produce).await;
        let (count, buf) = stream.recv(buf, 0..4096).await;
        let Ok(count @ 1..) = count else { return };
        received.extend_from_slice(&buf[..count]);
        let mut out = Vec::new();
        let mut closing = false;
        while let Ok(Cut::Frame(content)) = cutter.cut(&received) {
            match broker.answer(&received[content.clone()]) {
                Outcome::Send(answer) => out.extend(answer),
                Outcome::Silent => {}
                Outcome::Close => closing = true,
            }
            received.drain(..content.end);
            if closing {
                break;
            }
        }
        if stream.send(out).await.is_err() || closing {
            return stream.shutdown();
        }
    }
}

/// Runs a test's client against a broker on this core.
fn with_client<F, Fut>(broker: Broker, options: Options, test: F)
where
    F: FnOnce(Core, Client) -> Fut + 'static,
    Fut: Future<Output = ()> + 'static,
{
    rt::block_on_one(Config::default(), |core| async move {
        let listener = core.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_addr();
        let accepting = core.clone();
        core.spawn(Class::Produce, async move {
            let (stream, _) = listener.accept().await.unwrap();
            serve(accepting, stream, broker).await;
        })
        .detach();
        let client = Client::connect(&core, address, options).await.unwrap();
        test(core.clone(), client).await;
    })
    .unwrap();
}

const MODERN: Broker = Broker { api_versions_max: 4 };

#[test]
fn many_calls_in_flight_each_get_their_own_answer() {
    with_client(MODERN, Options::default(), |core, client| async move {
        let calls: Vec<_> = (1..300)
            .map(|bytes| {
                let client = client.clone();
                core.spawn(Class::Produce, async move {
                    let records = Slice::from(vec![0; bytes]);
                    client.produce("t", 0, records, -1, 1000).await.unwrap().base_offset
                })
            })
            .collect();
        for (call, bytes) in calls.into_iter().zip(1..) {
            assert_eq!(call.await.unwrap(), bytes);
        }
    });
}

#[test]
fn a_broker_with_old_api_versions_is_asked_again_in_version_0() {
    let old = Broker { api_versions_max: 2 };
    with_client(old, Options::default(), |_, client| async move {
        assert_eq!(client.version::<fetch::Api>().unwrap(), 17);
        assert!(matches!(
            client.version::<net::messages::create_topics::Api>(),
            Err(Error::NoVersion(ApiKey::CreateTopics))
        ));
    });
}

#[test]
fn topics_go_by_id_once_metadata_told_it_and_records_come_whole() {
    with_client(MODERN, Options::default(), |_, client| async move {
        let by_name = client.fetch("t", 0, 0, 100, 10).await.unwrap();
        client.refresh_metadata(Some(&["t"])).await.unwrap();
        assert_eq!(client.metadata().topic_id("t"), Some(TOPIC_ID));
        assert_eq!(client.metadata().address(1), Some(("here", 9092)));
        let by_id = client.fetch("t", 0, 0, 300_000, 10).await.unwrap();
        assert_eq!((by_name.records.len(), by_id.records.len()), (100, 300_000));
        assert_eq!((by_id.records[0], by_id.records[299_999], by_id.high_watermark), (1, 2, 9));
        let beyond = client.fetch("t", 0, 404, 1, 10).await;
        assert!(matches!(beyond, Err(Error::Broker(ErrorCode::OffsetOutOfRange))));
    });
}

#[test]
fn a_request_without_an_answer_does_not_disturb_the_next() {
    with_client(MODERN, Options::default(), |_, client| async move {
        client.post(&ProduceRequest { topic_data: vec![], ..Default::default() }, 12).await.unwrap();
        assert_eq!(client.produce("t", 0, Slice::from(vec![0; 5]), 1, 9).await.unwrap().base_offset, 5);
    });
}

#[test]
fn what_the_version_cannot_say_leaves_the_connection_usable() {
    with_client(MODERN, Options::default(), |_, client| async move {
        let named_only = FetchRequest { replica_id: 5, ..Default::default() };
        assert!(matches!(client.call(&named_only).await, Err(Error::Encode(_))));
        assert!(client.refresh_metadata(None).await.is_ok());
    });
}

#[test]
fn an_answer_above_the_limit_ends_the_connection_and_says_why() {
    let options = Options { answer_bytes_max: 1000, ..Options::default() };
    with_client(MODERN, options, |_, client| async move {
        let outcome = client.fetch("t", 0, 0, 2000, 10).await;
        assert!(matches!(outcome, Err(Error::Frame(_))), "{outcome:?}");
        assert!(client.is_closed());
        assert!(client.refresh_metadata(None).await.is_err());
    });
}
