//! One core of a broker over the simulated disk, asked by frames as a connection would.

use std::borrow::Cow;
use std::net::Ipv4Addr;

use super::*;

mod configs;
mod delete_records;

pub(crate) const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

pub(crate) fn frame(key: ApiKey, version: i16, body: &impl Encode) -> Slice {
    let header = RequestHeader { key, version, correlation_id: 7, client_id: Cow::Borrowed("test") };
    let mut writer = Writer::new();
    header.encode(&mut writer).expect("a header");
    body.encode(&mut writer, version).expect("the version can say it");
    Slice::from(writer.into_body().expect("it is small"))
}

/// The bytes of an answer.
pub(crate) struct Told(Vec<u8>, ApiKey, i16);

impl Told {
    pub fn read<'a, T: Decode<'a>>(&'a self) -> T {
        let mut reader = Reader::new(&self.0[4..]);
        ResponseHeader::decode(&mut reader, self.1, self.2).expect("a header");
        T::decode(&mut reader, self.2).expect("a body")
    }
}

pub(crate) async fn ask(shard: &Rc<Shard>, key: ApiKey, version: i16, body: &impl Encode) -> Told {
    let received = shard.core.now();
    match handle(shard.clone(), CLIENT, frame(key, version, body), received).await.reply {
        Reply::Bytes(slices) => Told(slices.iter().flat_map(|slice| slice.to_vec()).collect(), key, version),
        other => panic!("{key:?} v{version} was answered with {other:?}"),
    }
}
