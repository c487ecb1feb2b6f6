//! One connection to a broker: requests out, frames in, versions agreed at the start.
//!
//! Two ways of use: `call` sends one request and waits for its answer; a pipelined user takes `sender` and `frames` apart and
//! matches the answers, which come in order, itself. Topics go by name, so versions that only know topic ids are not used.

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use net::api::{Api, ApiKey, Request};
use net::header::{RequestHeader, ResponseHeader};
use net::messages::api_versions;
use net::wire::{self, Decode, Encode, Reader, Writer};
use rt::{BufMut, Core, Reservation, Slice, Stream};

use crate::progress::SILENT_AT_MOST;

pub const CLIENT_ID: &str = "corelog-bench";
const RECEIVE_BYTES: usize = 64 << 10;
const FRAME_BYTES_MAX: usize = 128 << 20;
/// How long a single answer is waited for; longer than a broker may take for what it is asked here.
const ANSWER_WAIT: Duration = Duration::from_secs(35);
/// The answer to an ApiVersions request in a version the broker does not know comes in version 0 with this code.
const UNSUPPORTED_VERSION: i16 = 35;

#[derive(Debug)]
pub enum Error {
    Io(io::Error),
    /// The broker there ended the connection.
    Closed(SocketAddr),
    /// What came is not the answer it should be.
    Protocol(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Io(error) => write!(f, "{error}"),
            Error::Closed(peer) => write!(f, "the broker at {peer} closed the connection"),
            Error::Protocol(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for Error {}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Error {
        Error::Io(error)
    }
}

impl From<wire::Error> for Error {
    fn from(error: wire::Error) -> Error {
        Error::Protocol(format!("an answer cannot be read: {error}"))
    }
}

impl From<wire::EncodeError> for Error {
    fn from(error: wire::EncodeError) -> Error {
        Error::Protocol(format!("a request cannot be written: {error}"))
    }
}

/// The newest version of each API used here that names topics by their names.
fn version_wanted(key: ApiKey) -> i16 {
    match key {
        ApiKey::Produce | ApiKey::Fetch | ApiKey::Metadata => 12,
        ApiKey::JoinGroup | ApiKey::OffsetCommit | ApiKey::OffsetFetch => 9,
        ApiKey::ListOffsets | ApiKey::CreateTopics => 7,
        ApiKey::SyncGroup | ApiKey::LeaveGroup => 5,
        ApiKey::Heartbeat | ApiKey::InitProducerId => 4,
        _ => 3,
    }
}

/// What the broker speaks: lowest and highest version by key.
#[derive(Clone, Default)]
struct Versions(Rc<Vec<(i16, i16, i16)>>);

impl Versions {
    fn of(&self, key: ApiKey) -> Result<i16, Error> {
        let known = self.0.iter().find(|(k, _, _)| *k == key.as_i16());
        let (_, low, high) =
            known.ok_or_else(|| Error::Protocol(format!("the broker does not serve {}", key.name())))?;
        let version = version_wanted(key).min(*high);
        if version < *low {
            return Err(Error::Protocol(format!("the broker's oldest version of {} is {low}", key.name())));
        }
        Ok(version)
    }
}

pub struct Link {
    core: Core,
    stream: Stream,
    frames: Frames,
    sender: Sender,
}

/// The sending half.
#[derive(Clone)]
pub struct Sender {
    stream: Stream,
    versions: Versions,
    correlation: Rc<Cell<i32>>,
}

/// The receiving half: cuts the stream into frames.
pub struct Frames {
    core: Core,
    stream: Stream,
    buf: Option<BufMut>,
    /// What of the buffer was received and not consumed yet.
    start: usize,
    end: usize,
}

/// An answer, owned; decoded by `body`.
pub struct Answer {
    bytes: Vec<u8>,
    version: i16,
}

impl Answer {
    pub fn body<A: Api>(&self) -> Result<A::Response<'_>, Error> {
        let mut reader = Reader::new(&self.bytes);
        ResponseHeader::decode(&mut reader, A::KEY, self.version)?;
        Ok(A::Response::decode(&mut reader, self.version)?)
    }
}

pub fn resolve(address: &str) -> io::Result<SocketAddr> {
    let found = address.to_socket_addrs().map_err(|error| about(address, &error))?;
    let found = found.min_by_key(|address| !address.is_ipv4());
    found.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("{address} has no address")))
}

/// An error of the system, and the file or address it is about.
pub fn about(what: impl fmt::Display, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{what}: {error}"))
}

/// What the future gives, if it is there before the limit is over.
pub async fn within<F: Future>(core: &Core, limit: Duration, future: F) -> Option<F::Output> {
    let (mut future, mut limit) = (pin!(future), pin!(core.sleep(limit)));
    std::future::poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => limit.as_mut().poll(cx).map(|_| None),
    })
    .await
}

impl Link {
    pub async fn connect(core: &Core, address: SocketAddr) -> Result<Link, Error> {
        let unreachable = |error| about(format!("no broker can be reached at {address}"), &error);
        let stream = core.connect(address).await.map_err(unreachable)?;
        let sender =
            Sender { stream: stream.clone(), versions: Versions::default(), correlation: Rc::default() };
        let frames = Frames::new(core, stream.clone());
        let mut link = Link { core: core.clone(), stream, frames, sender };
        link.agree_on_versions().await?;
        Ok(link)
    }

    async fn agree_on_versions(&mut self) -> Result<(), Error> {
        let request = api_versions::ApiVersionsRequest {
            client_software_name: Cow::Borrowed(CLIENT_ID),
            client_software_version: Cow::Borrowed(env!("CARGO_PKG_VERSION")),
        };
        let mut answer = self.call_in(&request, 3).await?;
        // An old broker answers in version 0, which begins with the code in any version.
        let code = answer.bytes.get(4..6).map_or(0, |code| i16::from_be_bytes([code[0], code[1]]));
        if code == UNSUPPORTED_VERSION {
            answer = self.call_in(&api_versions::ApiVersionsRequest::default(), 0).await?;
        }
        let body = answer.body::<api_versions::Api>()?;
        if body.error_code != 0 {
            return Err(Error::Protocol(format!("ApiVersions was answered with error {}", body.error_code)));
        }
        let served =
            body.api_keys.iter().map(|api| (api.api_key, api.min_version, api.max_version)).collect();
        self.sender.versions = Versions(Rc::new(served));
        Ok(())
    }

    pub async fn call<R: Request>(&mut self, request: &R) -> Result<Answer, Error> {
        let version = self.sender.version::<R::Api>()?;
        self.call_in(request, version).await
    }

    /// As `call`, for what may rightly take long, such as joining a group: nothing is said while it is waited for.
    pub async fn call_within<R: Request>(&mut self, request: &R, limit: Duration) -> Result<Answer, Error> {
        let version = self.sender.version::<R::Api>()?;
        let Link { core, sender, frames, stream } = self;
        let asked = async {
            sender.send(request, version).await?;
            Ok::<_, Error>(frames.next().await?.to_vec())
        };
        let bytes = within(core, limit, asked).await.unwrap_or_else(|| {
            Err(Error::Protocol(format!(
                "the broker at {} did not answer {} within {} s",
                stream.peer_addr(),
                R::Api::KEY.name(),
                limit.as_secs()
            )))
        })?;
        Ok(Answer { bytes, version })
    }

    async fn call_in<R: Request>(&mut self, request: &R, version: i16) -> Result<Answer, Error> {
        let Link { core, sender, frames, stream } = self;
        let asked = async {
            sender.send(request, version).await?;
            Ok::<_, Error>(frames.next().await?.to_vec())
        };
        let mut asked = pin!(asked);
        let (peer, name) = (stream.peer_addr(), R::Api::KEY.name());
        let mut answered = within(core, SILENT_AT_MOST, asked.as_mut()).await;
        if answered.is_none() {
            eprintln!("bench: waiting for {peer} to answer {name}");
            answered = within(core, ANSWER_WAIT - SILENT_AT_MOST, asked).await;
        }
        let bytes = answered.unwrap_or_else(|| {
            let wait = ANSWER_WAIT.as_secs();
            Err(Error::Protocol(format!("the broker at {peer} did not answer {name} within {wait} s")))
        })?;
        Ok(Answer { bytes, version })
    }

    pub fn version<A: Api>(&self) -> Result<i16, Error> {
        self.sender.version::<A>()
    }

    pub fn core(&self) -> &Core {
        &self.core
    }

    /// For pipelining: what sends, what receives, and the stream to shut down when something is wrong.
    pub fn split(self) -> (Sender, Frames, Stream) {
        (self.sender, self.frames, self.stream)
    }
}

impl Sender {
    pub fn version<A: Api>(&self) -> Result<i16, Error> {
        self.versions.of(A::KEY)
    }

    /// Sends one request; returns its correlation id. One at a time.
    pub async fn send<R: Request>(&self, request: &R, version: i16) -> Result<i32, Error> {
        let (id, data) = self.encode(request, version)?;
        self.send_encoded(data).await?;
        Ok(id)
    }

    pub fn encode<R: Request>(&self, request: &R, version: i16) -> Result<(i32, Vec<Slice>), Error> {
        let correlation_id = self.correlation.get();
        self.correlation.set(correlation_id.wrapping_add(1) & i32::MAX);
        let mut writer = Writer::new();
        let header =
            RequestHeader { key: R::Api::KEY, version, correlation_id, client_id: Cow::Borrowed(CLIENT_ID) };
        header.encode(&mut writer)?;
        Encode::encode(request, &mut writer, version)?;
        Ok((correlation_id, writer.finish()?))
    }

    pub async fn send_encoded(&self, data: Vec<Slice>) -> Result<(), Error> {
        let sent = self.stream.send(data).await;
        sent.map_err(|error| about(self.stream.peer_addr(), &error))?;
        Ok(())
    }
}

impl Frames {
    pub fn new(core: &Core, stream: Stream) -> Frames {
        Frames { core: core.clone(), stream, buf: None, start: 0, end: 0 }
    }

    /// The next frame, without its length. `Closed` when the stream ends between frames.
    pub async fn next(&mut self) -> Result<&[u8], Error> {
        let range = loop {
            let mut wanted = 4;
            if let Some(head) = self.received().first_chunk::<4>() {
                let announced = usize::try_from(i32::from_be_bytes(*head)).unwrap_or(usize::MAX);
                if announced > FRAME_BYTES_MAX {
                    return Err(Error::Protocol(format!("a frame of {announced} bytes was announced")));
                }
                wanted += announced;
                if self.end - self.start >= wanted {
                    break self.start + 4..self.start + wanted;
                }
            }
            self.receive(wanted).await?;
        };
        self.start = range.end;
        let buf = self.buf.as_deref().expect("a frame lies in it");
        Ok(&buf[range])
    }

    /// Whether a whole frame is there already, so that `next` would not wait.
    pub fn has_next(&self) -> bool {
        let received = self.received();
        received.first_chunk::<4>().is_some_and(|head| {
            usize::try_from(i32::from_be_bytes(*head)).is_ok_and(|announced| received.len() - 4 >= announced)
        })
    }

    fn received(&self) -> &[u8] {
        self.buf.as_deref().map_or(&[], |buf| &buf[self.start..self.end])
    }

    /// Receives more, with room for `wanted` bytes from `start`.
    async fn receive(&mut self, wanted: usize) -> Result<(), Error> {
        let mut buf = match self.buf.take() {
            Some(buf) if buf.len() >= wanted => buf,
            old => {
                let bytes = wanted.next_power_of_two().max(RECEIVE_BYTES);
                let mut larger = self.core.buffers().take(bytes, Reservation::Fetch).await;
                larger.set_len(bytes);
                if let Some(old) = old {
                    larger[..self.end].copy_from_slice(&old[..self.end]);
                }
                larger
            }
        };
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.start + wanted > buf.len() {
            buf.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        let range = self.end..buf.len();
        let (received, buf) = self.stream.recv(buf, range).await;
        self.buf = Some(buf);
        let peer = self.stream.peer_addr();
        match received.map_err(|error| about(peer, &error))? {
            0 => Err(Error::Closed(peer)),
            bytes => {
                self.end += bytes;
                Ok(())
            }
        }
    }
}
