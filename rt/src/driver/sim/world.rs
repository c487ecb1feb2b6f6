//! The world of one simulation: virtual time, events in order, operations in flight, and a hash over everything that
//! happens. Every choice is drawn from the seed.

use super::disk::{Fault, OpKind, SimDisk, errno};
use super::net::{Attempt, Net, TokenId, WINDOW_BYTES};
use super::{SimConfig, Token};
use crate::buf::Slice;
use crate::core::splitmix;
use crate::op::{Done, Handle, NO_DATA, Op, OpKey, Opened, Value};
use crate::time::Instant;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::rc::Rc;

const SECTOR: u64 = 512;

pub(super) type OpId = (u16, OpKey);

struct InFlight {
    op: Op,
    number: u64,
    cancelled: bool,
}

#[derive(Clone, Copy)]
struct OpenFile {
    inode: u64,
    direct: bool,
    locks: bool,
    reads: bool,
    writes: bool,
}

pub(super) struct World {
    pub(super) now: u64,
    pub(super) config: SimConfig,
    pub(super) disk: SimDisk,
    pub(super) net: Net,
    pub(super) hash: u64,
    random: u64,
    number_next: u64,
    token_next: TokenId,
    closed: Rc<RefCell<Vec<TokenId>>>,
    files: BTreeMap<TokenId, OpenFile>,
    in_flight: BTreeMap<OpId, InFlight>,
    /// What is tried next, by time and then by number.
    events: BTreeMap<(u64, u64), OpId>,
    parked: BTreeMap<TokenId, BTreeSet<OpId>>,
    done: HashMap<u16, Vec<(OpKey, Done)>>,
}

impl World {
    pub(super) fn new(seed: u64, config: SimConfig, disk: SimDisk) -> World {
        World {
            now: 0,
            config,
            disk,
            net: Net::default(),
            hash: seed,
            random: seed,
            number_next: 0,
            token_next: 0,
            closed: Rc::default(),
            files: BTreeMap::new(),
            in_flight: BTreeMap::new(),
            events: BTreeMap::new(),
            parked: BTreeMap::new(),
            done: HashMap::new(),
        }
    }

    pub(super) fn draw(&mut self) -> u64 {
        splitmix(&mut self.random)
    }

    pub(super) fn submit(&mut self, id: OpId, op: Op) {
        let number = self.number();
        if changes_disk(&op) {
            self.disk.count_op();
        }
        if let Op::Write { file, data, pos, .. } = &op
            && let Some(file) = self.files.get(&file.token())
        {
            let bytes = gather(data, usize::MAX);
            self.disk.begin_write(number, file.inode, *pos, bytes);
        }
        let at = self.now + self.latency(&op);
        self.in_flight.insert(id, InFlight { op, number, cancelled: false });
        self.events.insert((at, number), id);
    }

    /// Waiting operations end at once; what is at the disk already runs to its end.
    pub(super) fn cancel(&mut self, id: OpId) {
        let Some(flight) = self.in_flight.get_mut(&id) else { return };
        if matches!(flight.op, Op::Accept { .. } | Op::Recv { .. } | Op::Send { .. } | Op::Connect { .. }) {
            flight.cancelled = true;
            self.parked.values_mut().for_each(|waiting| {
                waiting.remove(&id);
            });
            self.schedule(id);
        }
    }

    pub(super) fn shutdown(&mut self, token: TokenId) {
        self.net.shutdown(token);
        self.touch_both(token);
    }

    pub(super) fn reset_connections(&mut self) {
        for token in self.net.connections() {
            self.net.reset(token);
            self.touch(token);
        }
    }

    pub(super) fn take_done(&mut self, core: u16, into: &mut Vec<(OpKey, Done)>) {
        if let Some(done) = self.done.get_mut(&core) {
            into.append(done);
        }
    }

    pub(super) fn has_done(&self) -> bool {
        self.done.values().any(|done| !done.is_empty())
    }

    pub(super) fn next_event(&self) -> Option<Instant> {
        self.events.first_key_value().map(|((at, _), _)| Instant::from_nanos(*at))
    }

    /// Lets everything happen that is due.
    pub(super) fn advance(&mut self, to: u64) {
        self.now = self.now.max(to);
        self.close_dropped();
        while let Some(entry) = self.events.first_entry() {
            if entry.key().0 > self.now || self.disk.has_crashed() {
                break;
            }
            let id = entry.remove();
            self.attempt(id);
            self.close_dropped();
        }
    }

    pub(super) fn drop_everything(&mut self) {
        self.in_flight.clear();
        self.done.clear();
        self.events.clear();
    }

    fn attempt(&mut self, id: OpId) {
        let Some(mut flight) = self.in_flight.remove(&id) else { return };
        let outcome = if flight.cancelled {
            Attempt::Done(Err(errno(libc::ECANCELED)))
        } else {
            self.try_op(&mut flight)
        };
        match outcome {
            Attempt::Wait => {
                let token = waits_on(&flight.op);
                self.parked.entry(token).or_default().insert(id);
                self.in_flight.insert(id, flight);
            }
            Attempt::Done(result) => {
                self.note(id, &result);
                self.done.entry(id.0).or_default().push((id.1, flight.op.done(result)));
            }
        }
    }

    fn try_op(&mut self, flight: &mut InFlight) -> Attempt<Value> {
        match &mut flight.op {
            Op::Accept { listener } => match self.net.accept(listener.token()) {
                Attempt::Wait => Attempt::Wait,
                Attempt::Done(Err(e)) => Attempt::Done(Err(e)),
                Attempt::Done(Ok((token, local, remote))) => {
                    Attempt::Done(Ok(Value::Connected(self.handle(token), local, remote)))
                }
            },
            Op::Recv { socket, buf, range } => {
                let (token, range) = (socket.token(), range.clone());
                if self.breaks(token) {
                    return Attempt::Done(Err(errno(libc::ECONNRESET)));
                }
                let most = self.shortened(range.len());
                let got = self.net.recv(token, &mut buf[range.start..range.start + most]);
                self.touch_both(token);
                counted(got)
            }
            Op::Send { socket, data } => {
                let token = socket.token();
                if self.breaks(token) {
                    return Attempt::Done(Err(errno(libc::ECONNRESET)));
                }
                let bytes = gather(data, WINDOW_BYTES);
                let most = self.shortened(bytes.len());
                let sent = self.net.send(token, &bytes[..most]);
                self.touch_both(token);
                counted(sent)
            }
            _other => Attempt::Done(self.finish(flight)),
        }
    }

    fn finish(&mut self, flight: &mut InFlight) -> io::Result<Value> {
        let number = flight.number;
        let fault = kind_of(&flight.op).and_then(|kind| self.fault(kind, &flight.op));
        let mut read_bytes_max = usize::MAX;
        match fault {
            Some(_) if matches!(flight.op, Op::Write { .. }) => {}
            Some(Fault::ShortRead(bytes)) if matches!(flight.op, Op::Read { .. }) => read_bytes_max = bytes,
            Some(Fault::Error(code)) => return Err(errno(code)),
            Some(
                Fault::ShortWrite(_)
                | Fault::ShortRead(_)
                | Fault::TornWrite(_)
                | Fault::LostWrite
                | Fault::MisdirectedWrite(_),
            ) => panic!("this fault is for another kind of operation"),
            None => {}
        }
        let disk = self.disk.clone();
        match &mut flight.op {
            Op::Open { path, how } => {
                let inode = disk.open(path, *how)?;
                let (reads, writes) = (how.read || !how.write, how.write);
                Ok(self.open_file(OpenFile { inode, direct: how.direct, locks: false, reads, writes }))
            }
            Op::Lock { path } => {
                let inode = disk.lock(path)?;
                Ok(self.open_file(OpenFile { inode, direct: false, locks: true, reads: true, writes: true }))
            }
            Op::CreateDirAll { path } => disk.create_dir_all(path).map(unit),
            Op::Rename { from, to } => disk.rename(from, to).map(unit),
            Op::Unlink { path } => disk.unlink(path).map(unit),
            Op::RemoveDirAll { path } => disk.remove_dir_all(path).map(unit),
            Op::SyncDir { path } => disk.sync_dir(path).map(unit),
            Op::ListDir { path } => disk.list_dir(path).map(Value::Entries),
            Op::FreeBytes { .. } => Ok(Value::Len(disk.free_bytes())),
            Op::Read { file, buf, pos } => {
                let file = self.file(file)?;
                check(file.reads, libc::EBADF)?;
                check(!file.direct || aligned(*pos, buf), libc::EINVAL)?;
                let most = buf.len().min(read_bytes_max);
                Ok(Value::Count(disk.read(file.inode, *pos, &mut buf[..most])))
            }
            Op::Write { file, data, pos, sync } => {
                let file = self.file(file)?;
                check(file.writes, libc::EBADF)?;
                let mut at = *pos;
                for slice in data.iter() {
                    check(!file.direct || aligned(at, slice), libc::EINVAL)?;
                    at += slice.len() as u64;
                }
                disk.end_write(number, *sync, fault).map(Value::Count)
            }
            Op::Fsync { file, .. } => {
                disk.sync(self.file(file)?.inode);
                Ok(Value::Unit)
            }
            Op::Allocate { file, range } => disk.allocate(self.file(file)?.inode, range.clone()).map(unit),
            Op::Zero { file, range } => disk.zero(self.file(file)?.inode, range.clone()).map(unit),
            Op::Truncate { file, len } => {
                disk.truncate(self.file(file)?.inode, *len);
                Ok(Value::Unit)
            }
            // The simulated disk knows of no holes: whatever lies there is to be looked at.
            Op::NextData { file, from } => {
                let len = disk.len(self.file(file)?.inode);
                Ok(Value::Len(if *from < len { *from } else { NO_DATA }))
            }
            Op::Len { file } => Ok(Value::Len(disk.len(self.file(file)?.inode))),
            Op::Listen { addr, shared } => {
                let token = self.token();
                let local = self.net.listen(token, *addr, *shared)?;
                Ok(Value::Listening(self.handle(token), local))
            }
            Op::Connect { addr } => {
                let choice = self.draw();
                let World { net, token_next, .. } = self;
                let next = || {
                    *token_next += 1;
                    *token_next
                };
                let (token, local, listener) = net.connect(*addr, next, choice)?;
                self.touch(listener);
                Ok(Value::Connected(self.handle(token), local, *addr))
            }
            Op::Offload { job } => {
                std::mem::replace(job, Box::new(|| ()))();
                Ok(Value::Unit)
            }
            Op::Accept { .. } | Op::Recv { .. } | Op::Send { .. } => unreachable!("tried by try_op"),
        }
    }

    /// What goes wrong with this operation: a fault that was asked for, or one that the seed draws.
    fn fault(&mut self, kind: OpKind, op: &Op) -> Option<Fault> {
        if let Some(asked) = self.disk.fault(kind) {
            return Some(asked);
        }
        let bytes = match op {
            Op::Read { buf, .. } => buf.len() as u64,
            Op::Write { data, .. } => data.iter().map(|slice| slice.len() as u64).sum(),
            _other => 0,
        };
        if self.happens(self.config.disk_error_per_million) {
            return Some(match kind {
                OpKind::Write if self.draw() & 1 == 0 => Fault::TornWrite(self.some_sectors(bytes)),
                _other => Fault::Error(libc::EIO),
            });
        }
        let comes_short = bytes > SECTOR && self.happens(self.config.short_disk_io_per_million);
        match kind {
            OpKind::Read if comes_short => Some(Fault::ShortRead(self.some_sectors(bytes))),
            OpKind::Write if comes_short => Some(Fault::ShortWrite(self.some_sectors(bytes))),
            _other => None,
        }
    }

    /// At least one, and fewer than there are where there are more.
    fn some_sectors(&mut self, bytes: u64) -> usize {
        let sectors = 1 + self.draw() % (bytes / SECTOR).saturating_sub(1).max(1);
        usize::try_from((sectors * SECTOR).min(bytes)).expect("not more than the count")
    }

    fn happens(&mut self, per_million: u32) -> bool {
        per_million > 0 && self.draw() % 1_000_000 < u64::from(per_million)
    }

    fn open_file(&mut self, file: OpenFile) -> Value {
        let token = self.token();
        self.files.insert(token, file);
        Value::Handle(self.handle(token))
    }

    fn file(&self, handle: &Handle) -> io::Result<OpenFile> {
        self.files.get(&handle.token()).copied().ok_or(errno(libc::EBADF))
    }

    fn token(&mut self) -> TokenId {
        self.token_next += 1;
        self.token_next
    }

    fn handle(&self, token: TokenId) -> Handle {
        Handle(Rc::new(Opened::Sim(Token { id: token, closed: self.closed.clone() })))
    }

    fn close_dropped(&mut self) {
        let dropped = std::mem::take(&mut *self.closed.borrow_mut());
        for token in dropped {
            if let Some(file) = self.files.remove(&token) {
                if file.locks {
                    self.disk.unlock(file.inode);
                }
                continue;
            }
            for peer in self.net.close(token) {
                self.touch(peer);
            }
        }
    }

    /// The socket changed: who waits for it tries again.
    fn touch(&mut self, token: TokenId) {
        for id in self.parked.remove(&token).unwrap_or_default() {
            self.schedule(id);
        }
    }

    fn touch_both(&mut self, token: TokenId) {
        self.touch(token);
        if let Some(peer) = self.net.peer(token) {
            self.touch(peer);
        }
    }

    fn schedule(&mut self, id: OpId) {
        let delay = 1_000 + self.draw() % self.config.net_latency_nanos_max.max(1);
        let number = self.number();
        self.events.insert((self.now + delay, number), id);
    }

    fn number(&mut self) -> u64 {
        self.number_next += 1;
        self.number_next
    }

    /// Reads and writes on sockets come short as often as not, where the simulation asks for it.
    fn shortened(&mut self, bytes: usize) -> usize {
        if !self.config.short_socket_io || bytes < 2 || self.draw() & 1 == 0 {
            return bytes;
        }
        let most = u64::try_from(bytes).expect("a count of bytes fits");
        usize::try_from(1 + self.draw() % most).expect("not more than the count")
    }

    fn breaks(&mut self, token: TokenId) -> bool {
        if !self.happens(self.config.reset_per_million) {
            return false;
        }
        self.net.reset(token);
        self.touch_both(token);
        true
    }

    fn latency(&mut self, op: &Op) -> u64 {
        let most = match op {
            Op::Accept { .. }
            | Op::Recv { .. }
            | Op::Send { .. }
            | Op::Connect { .. }
            | Op::Listen { .. } => self.config.net_latency_nanos_max,
            _disk => self.config.disk_latency_nanos_max,
        };
        let base = 1_000 + self.draw() % most.max(1);
        if kind_of(op).is_some() && self.happens(self.config.slow_disk_per_million) {
            return base + self.config.slow_disk_nanos;
        }
        base
    }

    fn note(&mut self, id: OpId, result: &io::Result<Value>) {
        let what = match result {
            Ok(Value::Count(n)) => *n as u64,
            Ok(Value::Len(n)) => *n,
            Ok(Value::Entries(entries)) => entries.len() as u64,
            Ok(Value::Unit | Value::Handle(_) | Value::Listening(..) | Value::Connected(..)) => 1 << 32,
            Err(e) => 2 << 32 | u64::from(e.raw_os_error().unwrap_or(0).unsigned_abs()),
        };
        for word in [self.now, u64::from(id.0), u64::from(id.1.index), u64::from(id.1.generation), what] {
            self.hash = (self.hash ^ word).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23);
        }
    }
}

/// The bytes of the slices in one piece, at most so many.
fn gather(data: &[Slice], most: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for slice in data {
        let count = slice.len().min(most - bytes.len());
        bytes.extend_from_slice(&slice[..count]);
    }
    bytes
}

fn unit(_: ()) -> Value {
    Value::Unit
}

fn counted(attempt: Attempt<usize>) -> Attempt<Value> {
    match attempt {
        Attempt::Wait => Attempt::Wait,
        Attempt::Done(result) => Attempt::Done(result.map(Value::Count)),
    }
}

fn check(holds: bool, code: i32) -> io::Result<()> {
    if holds { Ok(()) } else { Err(errno(code)) }
}

/// What direct I/O asks for: address, position and length in whole sectors.
fn aligned(pos: u64, bytes: &[u8]) -> bool {
    pos.is_multiple_of(SECTOR)
        && (bytes.len() as u64).is_multiple_of(SECTOR)
        && (bytes.as_ptr().addr() as u64).is_multiple_of(SECTOR)
}

fn waits_on(op: &Op) -> TokenId {
    match op {
        Op::Accept { listener: on } | Op::Recv { socket: on, .. } | Op::Send { socket: on, .. } => on.token(),
        _other => unreachable!("only sockets wait"),
    }
}

fn kind_of(op: &Op) -> Option<OpKind> {
    Some(match op {
        Op::Open { .. } | Op::Lock { .. } => OpKind::Open,
        Op::Read { .. } => OpKind::Read,
        Op::Write { .. } => OpKind::Write,
        Op::Fsync { .. } | Op::SyncDir { .. } => OpKind::Sync,
        Op::Allocate { .. } | Op::Zero { .. } => OpKind::Allocate,
        Op::Truncate { .. } => OpKind::Truncate,
        Op::CreateDirAll { .. } | Op::Rename { .. } | Op::Unlink { .. } | Op::RemoveDirAll { .. } => {
            OpKind::Names
        }
        Op::ListDir { .. }
        | Op::FreeBytes { .. }
        | Op::Len { .. }
        | Op::NextData { .. }
        | Op::Listen { .. }
        | Op::Accept { .. }
        | Op::Connect { .. }
        | Op::Recv { .. }
        | Op::Send { .. }
        | Op::Offload { .. } => return None,
    })
}

fn changes_disk(op: &Op) -> bool {
    match kind_of(op) {
        Some(OpKind::Read) | None => false,
        Some(OpKind::Open) => match op {
            Op::Open { how, .. } => how.create || how.create_new,
            _lock => true,
        },
        Some(OpKind::Write | OpKind::Sync | OpKind::Allocate | OpKind::Truncate | OpKind::Names) => true,
    }
}
