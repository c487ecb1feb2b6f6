//! The client on a stream: one task sends, one receives, any number of calls wait.
//!
//! A call that is dropped leaves the connection intact: its request belongs to the sending task from the
//! moment it was queued, and its answer is thrown away when it comes.

use super::{Calls, Error, MetadataCache, Reply, Versions};
use crate::api::{Api, ApiKey, Request};
use crate::error_code::ErrorCode;
use crate::frame::{self, Cut, FrameCutter};
use crate::header::RequestHeader;
use crate::messages::api_versions::{self, ApiVersionsRequest};
use crate::messages::metadata::{MetadataRequest, MetadataRequestTopic};
use crate::wire::{Encode, Writer};
use rt::sync::{Event, Semaphore, oneshot};
use rt::{Class, Core, Reservation, Slice, Stream};
use std::borrow::Cow;
use std::cell::{Cell, Ref, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;

/// What one receive has room for when no larger frame is on its way.
const RECEIVE_BYTES: usize = 64 << 10;
/// Requests that are queued leave together, up to this many pieces.
const PIECES_PER_SEND_MAX: usize = 256;
/// Pieces that requests without an answer may leave in the queue; those with one are bounded by `calls_max`.
const QUEUE_PIECES_MAX: usize = 4096;

#[derive(Debug, Clone)]
pub struct Options {
    pub client_id: String,
    /// Calls that wait for an answer; further ones wait for their turn.
    pub calls_max: usize,
    /// The largest answer taken.
    pub answer_bytes_max: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options { client_id: "corelog".to_owned(), calls_max: 1024, answer_bytes_max: 32 << 20 }
    }
}

/// A connection to one broker. Clone is a counter; the last one dropped closes the connection.
#[derive(Clone)]
pub struct Client(Rc<Handle>);

/// Closes the connection when nobody holds the client any more, though the two tasks still hold [`Shared`].
struct Handle(Rc<Shared>);

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.close();
    }
}

type Waiter = oneshot::Sender<(Slice, i16)>;

struct Shared {
    stream: Stream,
    options: Options,
    versions: RefCell<Versions>,
    metadata: RefCell<MetadataCache>,
    calls: RefCell<Calls<Waiter>>,
    turns: Semaphore,
    /// Encoded requests that were not handed to the stream yet.
    queue: RefCell<Vec<Slice>>,
    queued: Event,
    sent: Event,
    closed: Cell<bool>,
    /// Why this side ended the connection.
    cause: Cell<Option<frame::Error>>,
}

impl Shared {
    fn close(&self) {
        if !self.closed.replace(true) {
            self.stream.shutdown();
        }
        self.calls.borrow_mut().abandon();
        self.queued.notify_all();
        self.sent.notify_all();
    }

    fn ended(&self) -> Error {
        self.cause.get().map_or(Error::Closed, Error::Frame)
    }
}

impl Client {
    /// Connects and agrees on versions.
    pub async fn connect(core: &Core, addr: SocketAddr, options: Options) -> Result<Client, Error> {
        let stream = core.connect(addr).await?;
        let shared = Rc::new(Shared {
            stream,
            versions: RefCell::default(),
            metadata: RefCell::default(),
            calls: RefCell::default(),
            turns: Semaphore::new(options.calls_max),
            queue: RefCell::default(),
            queued: Event::new(),
            sent: Event::new(),
            closed: Cell::new(false),
            cause: Cell::new(None),
            options,
        });
        core.spawn(Class::Produce, send_requests(shared.clone())).detach();
        core.spawn(Class::Fetch, receive_answers(core.clone(), shared.clone())).detach();
        let client = Client(Rc::new(Handle(shared)));
        client.agree_on_versions().await?;
        Ok(client)
    }

    fn shared(&self) -> &Shared {
        &self.0.0
    }

    /// A broker that does not know our newest version answers in version 0, with what it does know.
    async fn agree_on_versions(&self) -> Result<(), Error> {
        let name = Cow::Borrowed("corelog");
        let version = Cow::Borrowed(env!("CARGO_PKG_VERSION"));
        let request = ApiVersionsRequest { client_software_name: name, client_software_version: version };
        let newest = *<api_versions::Api as Api>::VERSIONS.end();
        let mut reply = self.call_in(&request, newest).await?;
        if is_unsupported_version(&reply) {
            reply = self.call_in(&ApiVersionsRequest::default(), 0).await?;
        }
        let response = reply.decode()?;
        if response.error_code != 0 {
            let code = ErrorCode::from_i16(response.error_code);
            return Err(Error::Broker(code.unwrap_or(ErrorCode::UnknownServerError)));
        }
        *self.shared().versions.borrow_mut() = Versions::from_response(&response);
        Ok(())
    }

    /// The version a call of this API uses.
    pub fn version<A: Api>(&self) -> Result<i16, Error> {
        self.shared().versions.borrow().choose::<A>(i16::MAX)
    }

    /// Sends a request in the newest common version and waits for its answer.
    pub async fn call<R: Request>(&self, request: &R) -> Result<Reply<R::Api>, Error> {
        self.call_up_to(request, i16::MAX).await
    }

    /// Like [`Client::call`], in a version no newer than `newest`.
    pub async fn call_up_to<R: Request>(&self, request: &R, newest: i16) -> Result<Reply<R::Api>, Error> {
        let version = self.shared().versions.borrow().choose::<R::Api>(newest)?;
        self.call_in(request, version).await
    }

    async fn call_in<R: Request>(&self, request: &R, version: i16) -> Result<Reply<R::Api>, Error> {
        let shared = self.shared();
        let _turn = shared.turns.acquire(1).await;
        if shared.closed.get() {
            return Err(shared.ended());
        }
        let (waiter, answer) = oneshot::channel();
        let id = shared.calls.borrow_mut().begin(R::Api::KEY, version, waiter);
        let frame = encode(R::Api::KEY, request, version, id, &shared.options.client_id);
        // After a request that cannot be encoded its entry waits for no answer; the id is taken back.
        let frame = frame.inspect_err(|_| shared.calls.borrow_mut().forget(id))?;
        self.enqueue(frame);
        let (body, version) = answer.await.map_err(|_| shared.ended())?;
        Ok(Reply::new(body, version))
    }

    /// Queues a request that gets no answer, Produce with acks=0, once there is room in the queue.
    pub async fn post<R: Request>(&self, request: &R, newest: i16) -> Result<(), Error> {
        let shared = self.shared();
        while !shared.closed.get() && shared.queue.borrow().len() >= QUEUE_PIECES_MAX {
            shared.sent.wait().await;
        }
        if shared.closed.get() {
            return Err(shared.ended());
        }
        let version = shared.versions.borrow().choose::<R::Api>(newest)?;
        let id = shared.calls.borrow_mut().skip_id();
        self.enqueue(encode(R::Api::KEY, request, version, id, &shared.options.client_id)?);
        Ok(())
    }

    fn enqueue(&self, frame: Vec<Slice>) {
        self.shared().queue.borrow_mut().extend(frame);
        self.shared().queued.notify_all();
    }

    /// Asks about these topics, or all of them, and remembers the answer.
    pub async fn refresh_metadata(&self, topics: Option<&[&str]>) -> Result<(), Error> {
        let named = |name: &&str| MetadataRequestTopic {
            name: Some(Cow::Owned((*name).to_owned())),
            ..Default::default()
        };
        let topics = topics.map(|names| names.iter().map(named).collect());
        let request = MetadataRequest { topics, allow_auto_topic_creation: false, ..Default::default() };
        let reply = self.call(&request).await?;
        self.shared().metadata.borrow_mut().update(&reply.decode()?);
        Ok(())
    }

    /// What was last heard. Not to be held across an await.
    pub fn metadata(&self) -> Ref<'_, MetadataCache> {
        self.shared().metadata.borrow()
    }

    pub fn is_closed(&self) -> bool {
        self.shared().closed.get()
    }
}

/// Whether the answer is the version 0 body with error 35 that says "not this version".
fn is_unsupported_version(reply: &Reply<api_versions::Api>) -> bool {
    let old = Reply::<api_versions::Api>::new(reply.whole(), 0);
    old.decode().is_ok_and(|response| response.error_code == ErrorCode::UnsupportedVersion.as_i16())
}

fn encode(
    key: ApiKey,
    request: &impl Encode,
    version: i16,
    correlation_id: i32,
    client_id: &str,
) -> Result<Vec<Slice>, Error> {
    let mut w = Writer::new();
    RequestHeader { key, version, correlation_id, client_id: Cow::Borrowed(client_id) }.encode(&mut w)?;
    request.encode(&mut w, version)?;
    Ok(w.finish()?)
}

async fn send_requests(shared: Rc<Shared>) {
    while !shared.closed.get() {
        let some = {
            let mut queue = shared.queue.borrow_mut();
            let count = queue.len().min(PIECES_PER_SEND_MAX);
            queue.drain(..count).collect::<Vec<Slice>>()
        };
        if some.is_empty() {
            shared.queued.wait().await;
        } else if shared.stream.send(some).await.is_err() {
            break;
        } else {
            shared.sent.notify_all();
        }
    }
    shared.close();
}

/// A broker that breaks the protocol and one that goes away end the same: every call hears `Closed`.
async fn receive_answers(core: Core, shared: Rc<Shared>) {
    let cutter = FrameCutter::new(shared.options.answer_bytes_max);
    let mut pending = Slice::empty();
    loop {
        match cutter.cut(&pending) {
            Ok(Cut::Frame(content)) => {
                let end = content.end;
                let frame = pending.slice(content);
                pending = pending.slice(end..pending.len());
                let Ok((waiter, version, body)) = shared.calls.borrow_mut().finish(&frame) else { break };
                // Nobody may be waiting any more; then the answer is dropped.
                drop(waiter.send((frame.slice(body..frame.len()), version)));
            }
            Ok(Cut::Missing(bytes)) => match receive(&core, &shared.stream, &pending, bytes).await {
                Some(more) => pending = more,
                None => break,
            },
            Err(why) => {
                shared.cause.set(Some(why));
                break;
            }
        }
    }
    shared.close();
}

/// What is pending and at least `missing` bytes more, in one piece. None at the end of the stream, and for a
/// frame that this core's memory could never hold.
async fn receive(core: &Core, stream: &Stream, pending: &Slice, missing: usize) -> Option<Slice> {
    let wanted = pending.len() + missing;
    let size = wanted.max(RECEIVE_BYTES);
    if size > core.buffers().largest(Reservation::Fetch) {
        return None;
    }
    let mut buffer = core.buffers().take(size, Reservation::Fetch).await;
    buffer[..pending.len()].copy_from_slice(pending);
    let mut filled = pending.len();
    while filled < wanted {
        let room = filled..buffer.len();
        let (received, back) = stream.recv(buffer, room).await;
        buffer = back;
        match received {
            Ok(count) if count > 0 => filled += count,
            Ok(_) | Err(_) => return None,
        }
    }
    Some(buffer.freeze(0..filled))
}
