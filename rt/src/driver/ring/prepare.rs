//! From an operation to a submission queue entry, and the memory besides the buffer that the kernel reads meanwhile.

use crate::buf::Slice;
use crate::driver::sockets;
use crate::file::{Sync, VECTORS_MAX};
use crate::op::{Handle, Op, Value};
use io_uring::{opcode, squeue, types};
use rustix::net::SocketFlags;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr;

/// What the kernel holds the address of while the operation runs. Boxed: it does not move.
pub(super) struct Pinned {
    vectors: Vec<libc::iovec>,
    header: Option<libc::msghdr>,
    address: Option<Address>,
    socket: Option<OwnedFd>,
}

enum Address {
    V4(libc::sockaddr_in),
    V6(libc::sockaddr_in6),
}

impl Pinned {
    fn of_vectors(vectors: Vec<libc::iovec>) -> Box<Pinned> {
        Box::new(Pinned { vectors, header: None, address: None, socket: None })
    }
}

type Prepared = (squeue::Entry, Option<Box<Pinned>>);

pub(super) fn entry(op: &mut Op) -> io::Result<Prepared> {
    Ok(match op {
        Op::Read { file, buf, pos } => {
            let len = length(buf.len())?;
            (opcode::Read::new(fd(file), buf.as_mut_ptr(), len).offset(*pos).build(), None)
        }
        Op::Write { file, data, pos, sync } => write(file, data, *pos, *sync)?,
        Op::Fsync { file, data_only } => {
            let flags = if *data_only { types::FsyncFlags::DATASYNC } else { types::FsyncFlags::empty() };
            (opcode::Fsync::new(fd(file)).flags(flags).build(), None)
        }
        Op::Accept { listener } => {
            let accept = opcode::Accept::new(fd(listener), ptr::null_mut(), ptr::null_mut());
            (accept.flags(libc::SOCK_CLOEXEC).build(), None)
        }
        Op::Connect { addr } => connect(*addr)?,
        Op::Recv { socket, buf, range } => {
            let into = &mut buf[range.clone()];
            (opcode::Recv::new(fd(socket), into.as_mut_ptr(), length(into.len())?).build(), None)
        }
        Op::Send { socket, data } => send(socket, data)?,
        Op::Open { .. }
        | Op::CreateDirAll { .. }
        | Op::Rename { .. }
        | Op::Unlink { .. }
        | Op::RemoveDirAll { .. }
        | Op::SyncDir { .. }
        | Op::ListDir { .. }
        | Op::FreeBytes { .. }
        | Op::Lock { .. }
        | Op::Allocate { .. }
        | Op::Zero { .. }
        | Op::Truncate { .. }
        | Op::Len { .. }
        | Op::NextData { .. }
        | Op::Listen { .. }
        | Op::Offload { .. } => unreachable!("done by helper threads or at once"),
    })
}

fn write(file: &Handle, data: &[Slice], pos: u64, sync: Sync) -> io::Result<Prepared> {
    let flags = match sync {
        Sync::None => 0,
        Sync::Data => libc::RWF_DSYNC,
    };
    if let [one] = data {
        let write = opcode::Write::new(fd(file), one.as_ptr(), length(one.len())?);
        return Ok((write.offset(pos).rw_flags(flags).build(), None));
    }
    let pinned = Pinned::of_vectors(vectors(data)?);
    let count = length(pinned.vectors.len())?;
    let writev = opcode::Writev::new(fd(file), pinned.vectors.as_ptr(), count);
    Ok((writev.offset(pos).rw_flags(flags).build(), Some(pinned)))
}

fn send(socket: &Handle, data: &[Slice]) -> io::Result<Prepared> {
    // WAITALL lets the kernel go on after a short send.
    let flags = libc::MSG_NOSIGNAL | libc::MSG_WAITALL;
    if let [one] = data {
        let send = opcode::Send::new(fd(socket), one.as_ptr(), length(one.len())?);
        return Ok((send.flags(flags).build(), None));
    }
    let mut pinned = Pinned::of_vectors(vectors(data)?);
    // SAFETY: a message header of zeros is one with nothing in it.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = pinned.vectors.as_mut_ptr();
    header.msg_iovlen = pinned.vectors.len();
    let header = ptr::from_ref(pinned.header.insert(header));
    let send = opcode::SendMsg::new(fd(socket), header).flags(flags.cast_unsigned());
    Ok((send.build(), Some(pinned)))
}

fn connect(addr: SocketAddr) -> io::Result<Prepared> {
    let socket = sockets::stream_for(&addr, SocketFlags::empty())?;
    let raw = types::Fd(socket.as_raw_fd());
    let mut pinned = Pinned::of_vectors(Vec::new());
    pinned.socket = Some(socket);
    let (at, len): (*const libc::sockaddr, usize) = match pinned.address.insert(encode(addr)) {
        Address::V4(v4) => (ptr::from_ref(v4).cast(), size_of::<libc::sockaddr_in>()),
        Address::V6(v6) => (ptr::from_ref(v6).cast(), size_of::<libc::sockaddr_in6>()),
    };
    Ok((opcode::Connect::new(raw, at, length(len)?).build(), Some(pinned)))
}

fn encode(addr: SocketAddr) -> Address {
    match addr {
        SocketAddr::V4(v4) => Address::V4(libc::sockaddr_in {
            sin_family: libc::sa_family_t::try_from(libc::AF_INET).expect("2 fits"),
            sin_port: v4.port().to_be(),
            sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(v4.ip().octets()) },
            sin_zero: [0; 8],
        }),
        SocketAddr::V6(v6) => Address::V6(libc::sockaddr_in6 {
            sin6_family: libc::sa_family_t::try_from(libc::AF_INET6).expect("10 fits"),
            sin6_port: v6.port().to_be(),
            sin6_flowinfo: v6.flowinfo(),
            sin6_addr: libc::in6_addr { s6_addr: v6.ip().octets() },
            sin6_scope_id: v6.scope_id(),
        }),
    }
}

/// The new connection out of an accept's result.
pub(super) fn accepted(raw: i32) -> io::Result<Value> {
    // SAFETY: the kernel made this descriptor for us with the completion that is being read; nobody else has it.
    let socket = unsafe { OwnedFd::from_raw_fd(raw) };
    sockets::connected(socket)
}

pub(super) fn connected(pinned: Option<Box<Pinned>>) -> io::Result<Value> {
    let socket = pinned.and_then(|p| p.socket).expect("connect prepared a socket");
    sockets::connected(socket)
}

fn vectors(data: &[Slice]) -> io::Result<Vec<libc::iovec>> {
    assert!(data.len() <= VECTORS_MAX);
    let total: usize = data.iter().map(|s| s.len()).sum();
    length(total)?;
    Ok(data
        .iter()
        .map(|s| libc::iovec { iov_base: s.as_ptr().cast_mut().cast(), iov_len: s.len() })
        .collect())
}

/// The kernel moves at most 2 GiB - 4 KiB at a time; what fits its counter may come back short.
fn length(bytes: usize) -> io::Result<u32> {
    u32::try_from(bytes)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "over 4 GiB in one operation"))
}

fn fd(handle: &Handle) -> types::Fd {
    types::Fd(handle.fd().as_raw_fd())
}
