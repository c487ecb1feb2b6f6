//! What the last Metadata answers said: brokers, topic ids, leaders.

use crate::messages::metadata::MetadataResponse;
use crate::wire::Uuid;
use std::collections::BTreeMap;

#[derive(Debug, Clone, Default)]
pub struct MetadataCache {
    brokers: BTreeMap<i32, (String, i32)>,
    topics: BTreeMap<String, Topic>,
    cluster_id: Option<String>,
}

#[derive(Debug, Clone, Default)]
struct Topic {
    id: Uuid,
    /// Leader and leader epoch by partition.
    leaders: BTreeMap<i32, (i32, i32)>,
}

impl MetadataCache {
    /// Takes over what an answer says. Topics with an error are forgotten; a leader of an older epoch of the
    /// same topic is not believed.
    pub fn update(&mut self, response: &MetadataResponse<'_>) {
        self.cluster_id = response.cluster_id.as_deref().map(str::to_owned);
        let brokers = response.brokers.iter();
        self.brokers = brokers.map(|b| (b.node_id, (b.host.clone().into_owned(), b.port))).collect();
        for topic in &response.topics {
            let Some(name) = topic.name.as_deref() else { continue };
            if topic.error_code != 0 {
                self.topics.remove(name);
                continue;
            }
            let known = self.topics.entry(name.to_owned()).or_default();
            if known.id != topic.topic_id {
                *known = Topic { id: topic.topic_id, leaders: BTreeMap::new() };
            }
            for partition in &topic.partitions {
                let leader = (partition.leader_id, partition.leader_epoch);
                let slot = known.leaders.entry(partition.partition_index).or_insert(leader);
                if leader.1 < 0 || leader.1 >= slot.1 {
                    *slot = leader;
                }
            }
        }
    }

    pub fn cluster_id(&self) -> Option<&str> {
        self.cluster_id.as_deref()
    }

    /// Host and port of a broker.
    pub fn address(&self, node: i32) -> Option<(&str, i32)> {
        self.brokers.get(&node).map(|(host, port)| (host.as_str(), *port))
    }

    /// The broker that leads a partition; None where it has none or is not known.
    pub fn leader(&self, topic: &str, partition: i32) -> Option<i32> {
        self.topics.get(topic)?.leaders.get(&partition).map(|(node, _)| *node).filter(|node| *node >= 0)
    }

    /// The partitions of a topic, in order.
    pub fn partitions(&self, topic: &str) -> Vec<i32> {
        self.topics.get(topic).map(|topic| topic.leaders.keys().copied().collect()).unwrap_or_default()
    }

    /// The id of a topic; None where the broker gives none.
    pub fn topic_id(&self, topic: &str) -> Option<Uuid> {
        self.topics.get(topic).map(|topic| topic.id).filter(|id| *id != [0; 16])
    }

    pub fn topics(&self) -> impl Iterator<Item = &str> {
        self.topics.keys().map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::metadata::{MetadataResponsePartition, MetadataResponseTopic};

    fn answer(id: u8, leader_id: i32, leader_epoch: i32, error_code: i16) -> MetadataResponse<'static> {
        let partition = MetadataResponsePartition { leader_id, leader_epoch, ..Default::default() };
        let topic = MetadataResponseTopic {
            error_code,
            name: Some("t".into()),
            topic_id: [id; 16],
            partitions: vec![partition],
            ..Default::default()
        };
        MetadataResponse { topics: vec![topic], ..Default::default() }
    }

    #[test]
    fn a_leader_of_an_older_epoch_is_not_believed_but_a_new_topic_is() {
        let mut cache = MetadataCache::default();
        cache.update(&answer(1, 10, 5, 0));
        cache.update(&answer(1, 11, 4, 0));
        assert_eq!(cache.leader("t", 0), Some(10));
        cache.update(&answer(1, 12, 6, 0));
        assert_eq!(cache.leader("t", 0), Some(12));
        cache.update(&answer(2, 13, 0, 0));
        assert_eq!(cache.leader("t", 0), Some(13));
        assert_eq!(cache.topic_id("t"), Some([2; 16]));
        cache.update(&answer(2, -1, 1, 0));
        assert_eq!(cache.leader("t", 0), None);
        assert_eq!(cache.partitions("t"), [0]);
        cache.update(&answer(2, 13, 2, 3));
        assert_eq!(cache.topics().count(), 0);
    }
}
