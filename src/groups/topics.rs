//! Topics in requests about offsets: which there are, their names and ids. What does not exist is answered here, and the
//! coordinator is asked about the rest; its answers take their places among ours.

use coord::group::{Answer, Budget, Request};
use coord::metadata::{Image, Topic};
use engine::ids::TopicId;
use net::error_code::ErrorCode;
use net::messages::offset_commit::{
    OffsetCommitRequest, OffsetCommitResponse, OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use net::messages::offset_delete::{
    OffsetDeleteRequest, OffsetDeleteResponsePartition, OffsetDeleteResponseTopic,
};
use net::messages::offset_fetch::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopics, OffsetFetchResponsePartitions,
    OffsetFetchResponseTopics,
};

use super::request::BY_ID_FROM;

/// What is left to ask.
pub enum Checked<'a> {
    /// Nothing.
    Answered(Answer),
    Ask(Request<'a>, Rest),
}

/// What the answer says of what was not asked. Each list is in the order of the request; what has no error in it is the
/// coordinator's to say, and it says that in the same order. Of offsets that are fetched only the topics that are not
/// there are here, each with its place: what is asked may be a thousand times smaller than what is told.
#[derive(Default)]
pub enum Rest {
    #[default]
    Nothing,
    Commit(Vec<OffsetCommitResponseTopic<'static>>),
    Fetch(Vec<(usize, OffsetFetchResponseTopics<'static>)>),
    Delete(Vec<OffsetDeleteResponseTopic<'static>>),
}

/// Fills in names and ids, and takes out what does not exist.
pub fn check<'a>(image: &Image, version: i16, request: Request<'a>, budget: &Budget) -> Checked<'a> {
    match request {
        Request::Commit(request) => commit(image, version, request),
        Request::FetchOffsets(request) => fetch(image, version, request, budget),
        Request::DeleteOffsets(request) => delete(image, request),
        Request::Join(_)
        | Request::Sync(_)
        | Request::Heartbeat(_)
        | Request::Leave(_)
        | Request::Describe { .. }
        | Request::List { .. }
        | Request::Delete { .. }
        | Request::ConsumerHeartbeat(_)
        | Request::ConsumerDescribe { .. } => Checked::Ask(request, Rest::Nothing),
    }
}

fn commit<'a>(image: &Image, version: i16, mut request: OffsetCommitRequest<'a>) -> Checked<'a> {
    let mut told = Vec::with_capacity(request.topics.len());
    for topic in &mut request.topics {
        let found = find(image, version, &topic.name, topic.topic_id);
        if let Ok(found) = found {
            if topic.partitions.is_empty() {
                // As in Kafka, nothing is said of it.
                continue;
            }
            topic.name = found.name.clone().into();
            topic.topic_id = found.id.0;
        }
        let code = |index: i32| match &found {
            Ok(topic) if topic.partition(index).is_some() => ErrorCode::None,
            Ok(_) => ErrorCode::UnknownTopicOrPartition,
            Err(code) => *code,
        };
        told.push(OffsetCommitResponseTopic {
            name: topic.name.to_string().into(),
            topic_id: topic.topic_id,
            partitions: topic
                .partitions
                .iter()
                .map(|one| OffsetCommitResponsePartition {
                    partition_index: one.partition_index,
                    error_code: code(one.partition_index) as i16,
                })
                .collect(),
        });
        topic.partitions.retain(|one| code(one.partition_index) == ErrorCode::None);
    }
    request.topics.retain(|topic| !topic.partitions.is_empty());
    if request.topics.is_empty() {
        // As in Kafka, not even the group is looked at.
        let answer = OffsetCommitResponse { topics: told, ..OffsetCommitResponse::default() };
        return Checked::Answered(Answer::Commit(answer));
    }
    Checked::Ask(Request::Commit(request), Rest::Commit(told))
}

fn fetch<'a>(
    image: &Image,
    version: i16,
    mut request: OffsetFetchRequestGroup<'a>,
    budget: &Budget,
) -> Checked<'a> {
    let mut unknown = Vec::new();
    for (place, topic) in request.topics.iter_mut().flatten().enumerate() {
        match find(image, version, &topic.name, topic.topic_id) {
            Ok(found) => {
                topic.name = found.name.clone().into();
                topic.topic_id = found.id.0;
            }
            // By name, a topic that is gone may be asked about.
            Err(_) if version < BY_ID_FROM => {}
            Err(code) => {
                let rows = topic.partition_indexes.len();
                if !budget.take(rows.saturating_mul(size_of::<OffsetFetchResponsePartitions<'_>>())) {
                    let refused = Request::FetchOffsets(request).refused(ErrorCode::InvalidRequest);
                    return Checked::Answered(refused);
                }
                unknown.push((place, not_found(topic, code)));
            }
        }
    }
    let mut places = unknown.iter().map(|(place, _)| *place).peekable();
    let mut place = 0;
    request.topics.iter_mut().for_each(|topics| {
        topics.retain(|_| {
            place += 1;
            places.next_if_eq(&(place - 1)).is_none()
        });
    });
    Checked::Ask(Request::FetchOffsets(request), Rest::Fetch(unknown))
}

fn not_found(topic: &OffsetFetchRequestTopics<'_>, code: ErrorCode) -> OffsetFetchResponseTopics<'static> {
    let partition = |partition_index: &i32| OffsetFetchResponsePartitions {
        partition_index: *partition_index,
        committed_offset: -1,
        committed_leader_epoch: -1,
        metadata: Some("".into()),
        error_code: code as i16,
    };
    OffsetFetchResponseTopics {
        name: topic.name.to_string().into(),
        topic_id: topic.topic_id,
        partitions: topic.partition_indexes.iter().map(partition).collect(),
    }
}

fn delete<'a>(image: &Image, mut request: OffsetDeleteRequest<'a>) -> Checked<'a> {
    let mut told = Vec::with_capacity(request.topics.len());
    for topic in &mut request.topics {
        let found = image.topic(&topic.name);
        let code = |index: i32| match found.and_then(|found| found.partition(index)) {
            Some(_) => ErrorCode::None,
            None => ErrorCode::UnknownTopicOrPartition,
        };
        let partition = |partition_index: i32| OffsetDeleteResponsePartition {
            partition_index,
            error_code: code(partition_index) as i16,
        };
        told.push(OffsetDeleteResponseTopic {
            name: topic.name.to_string().into(),
            partitions: topic.partitions.iter().map(|one| partition(one.partition_index)).collect(),
        });
        topic.partitions.retain(|one| code(one.partition_index) == ErrorCode::None);
    }
    request.topics.retain(|topic| !topic.partitions.is_empty());
    Checked::Ask(Request::DeleteOffsets(request), Rest::Delete(told))
}

fn find<'i>(image: &'i Image, version: i16, name: &str, id: [u8; 16]) -> Result<&'i Topic, ErrorCode> {
    if version >= BY_ID_FROM {
        return image.topic_by_id(TopicId(id)).map(|topic| &**topic).ok_or(ErrorCode::UnknownTopicId);
    }
    image.topic(name).map(|topic| &**topic).ok_or(ErrorCode::UnknownTopicOrPartition)
}

impl Rest {
    /// The whole answer.
    pub fn fill(self, mut answer: Box<Answer>) -> Box<Answer> {
        match self {
            Rest::Nothing => {}
            Rest::Commit(told) => fill_commit(told, &mut answer),
            Rest::Fetch(unknown) => fill_fetch(unknown, &mut answer),
            Rest::Delete(told) => fill_delete(told, &mut answer),
        }
        answer
    }
}

fn fill_commit(mut told: Vec<OffsetCommitResponseTopic<'static>>, answer: &mut Answer) {
    let Answer::Commit(answer) = answer else { return };
    let open = told.iter_mut().flat_map(|topic| &mut topic.partitions);
    let said = answer.topics.iter().flat_map(|topic| &topic.partitions);
    fill_codes(
        open.map(|one| (one.partition_index, &mut one.error_code)),
        said.map(|one| (one.partition_index, one.error_code)),
    );
    answer.topics = told;
}

/// Gives each partition that was asked about, having no error of its own, the code that the coordinator said.
fn fill_codes<'t>(told: impl Iterator<Item = (i32, &'t mut i16)>, said: impl Iterator<Item = (i32, i16)>) {
    let open = told.filter(|(_, code)| **code == ErrorCode::None as i16);
    for ((index, code), (said_index, said_code)) in open.zip(said) {
        assert!(index == said_index, "the coordinator keeps the order");
        *code = said_code;
    }
}

fn fill_fetch(unknown: Vec<(usize, OffsetFetchResponseTopics<'static>)>, answer: &mut Answer) {
    let Answer::FetchOffsets(answer) = answer else { return };
    if answer.error_code == 0 && !unknown.is_empty() {
        let mut known = std::mem::take(&mut answer.topics).into_iter();
        for (place, topic) in unknown {
            answer.topics.extend(known.by_ref().take(place - answer.topics.len()));
            answer.topics.push(topic);
        }
        answer.topics.extend(known);
    }
}

fn fill_delete(mut told: Vec<OffsetDeleteResponseTopic<'static>>, answer: &mut Answer) {
    let Answer::DeleteOffsets(answer) = answer else { return };
    if answer.error_code == 0 {
        let open = told.iter_mut().flat_map(|topic| &mut topic.partitions);
        let said = answer.topics.iter().flat_map(|topic| &topic.partitions);
        fill_codes(
            open.map(|one| (one.partition_index, &mut one.error_code)),
            said.map(|one| (one.partition_index, one.error_code)),
        );
        answer.topics = told;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use coord::metadata::{Change, Partition};
    use engine::ids::LeaderEpoch;
    use net::messages::offset_commit::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
    use net::messages::offset_delete::{
        OffsetDeleteRequestPartition, OffsetDeleteRequestTopic, OffsetDeleteResponse,
    };
    use net::messages::offset_fetch::OffsetFetchResponseGroup;

    use super::*;

    const KNOWN: [u8; 16] = [1; 16];
    const GONE: [u8; 16] = [9; 16];

    /// Has the topic `a` with two partitions.
    fn image() -> Image {
        let partition = Partition {
            replicas: Vec::new(),
            isr: Vec::new(),
            leader: None,
            leader_epoch: LeaderEpoch(0),
            partition_epoch: 0,
        };
        let topic = Topic {
            id: TopicId(KNOWN),
            name: "a".to_owned(),
            configs: Default::default(),
            partitions: vec![partition.clone(), partition],
        };
        let mut image = Image::default();
        image.absorb(&Change::TopicCreated(Arc::new(topic)));
        image
    }

    #[test]
    fn offsets_of_topics_that_are_gone_are_told_among_those_that_were_asked_for() {
        let topic = |topic_id, index| OffsetFetchRequestTopics {
            topic_id,
            partition_indexes: vec![index],
            ..Default::default()
        };
        let request = OffsetFetchRequestGroup {
            topics: Some(vec![topic(KNOWN, 0), topic(GONE, 0), topic(KNOWN, 1)]),
            ..Default::default()
        };
        let Checked::Ask(Request::FetchOffsets(asked), rest) =
            check(&image(), 10, Request::FetchOffsets(request), &Budget::default())
        else {
            panic!("there is something to ask");
        };
        let asked = asked.topics.expect("topics");
        assert!(asked.iter().all(|topic| topic.name == "a" && topic.topic_id == KNOWN));
        let said =
            |(topic, committed_offset): (&OffsetFetchRequestTopics<'_>, i64)| OffsetFetchResponseTopics {
                topic_id: topic.topic_id,
                partitions: vec![OffsetFetchResponsePartitions {
                    partition_index: topic.partition_indexes[0],
                    committed_offset,
                    ..Default::default()
                }],
                ..Default::default()
            };
        let answer = OffsetFetchResponseGroup {
            topics: asked.iter().zip([5, 7]).map(said).collect(),
            ..Default::default()
        };
        let Answer::FetchOffsets(whole) = *rest.fill(Box::new(Answer::FetchOffsets(answer))) else {
            panic!("it stays what it is");
        };
        let told = |topic: &OffsetFetchResponseTopics<'_>| {
            let one = &topic.partitions[0];
            (topic.topic_id, one.partition_index, one.committed_offset, one.error_code)
        };
        let unknown = ErrorCode::UnknownTopicId as i16;
        let whole: Vec<_> = whole.topics.iter().map(told).collect();
        assert_eq!(whole, [(KNOWN, 0, 5, 0), (GONE, 0, -1, unknown), (KNOWN, 1, 7, 0)]);
    }

    #[test]
    fn a_commit_of_nothing_that_exists_asks_nobody() {
        let partition = OffsetCommitRequestPartition { partition_index: 2, ..Default::default() };
        let topic = |topic_id| OffsetCommitRequestTopic {
            topic_id,
            partitions: vec![partition.clone()],
            ..Default::default()
        };
        let request = OffsetCommitRequest { topics: vec![topic(KNOWN), topic(GONE)], ..Default::default() };
        let Checked::Answered(Answer::Commit(answer)) =
            check(&image(), 10, Request::Commit(request), &Budget::default())
        else {
            panic!("there is nothing to ask");
        };
        let codes: Vec<i16> = answer.topics.iter().map(|topic| topic.partitions[0].error_code).collect();
        let wanted = [ErrorCode::UnknownTopicOrPartition, ErrorCode::UnknownTopicId].map(|code| code as i16);
        assert_eq!(codes, wanted);
    }

    #[test]
    fn deleting_what_is_not_there_is_refused_in_its_place() {
        let partition = |partition_index| OffsetDeleteRequestPartition { partition_index };
        let topic = |name: &'static str, partitions: &[i32]| OffsetDeleteRequestTopic {
            name: name.into(),
            partitions: partitions.iter().copied().map(partition).collect(),
        };
        let request = OffsetDeleteRequest {
            topics: vec![topic("gone", &[0]), topic("a", &[7, 1])],
            ..Default::default()
        };
        let Checked::Ask(Request::DeleteOffsets(asked), rest) =
            check(&image(), 0, Request::DeleteOffsets(request), &Budget::default())
        else {
            panic!("there is something to ask");
        };
        assert_eq!((asked.topics.len(), asked.topics[0].partitions[0].partition_index), (1, 1));
        let subscribed = ErrorCode::GroupSubscribedToTopic as i16;
        let said = OffsetDeleteResponsePartition { partition_index: 1, error_code: subscribed };
        let answer = OffsetDeleteResponse {
            topics: vec![OffsetDeleteResponseTopic { name: "a".into(), partitions: vec![said] }],
            ..Default::default()
        };
        let Answer::DeleteOffsets(whole) = *rest.fill(Box::new(Answer::DeleteOffsets(answer))) else {
            panic!("it stays what it is");
        };
        let codes = whole.topics.iter().flat_map(|topic| &topic.partitions).map(|one| one.error_code);
        let unknown = ErrorCode::UnknownTopicOrPartition as i16;
        assert_eq!(codes.collect::<Vec<_>>(), [unknown, unknown, subscribed]);
    }
}
