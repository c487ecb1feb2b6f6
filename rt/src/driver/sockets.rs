//! Socket calls that end at once, for the real drivers: making, binding, naming and shutting down.

use crate::op::{Handle, Value};
use rustix::net::{AddressFamily, Shutdown, SocketFlags, SocketType, sockopt};
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

/// Connections the kernel holds for us before they are accepted.
const BACKLOG: i32 = 1024;

/// `extra`: NONBLOCK for the driver that waits by epoll; the ring waits by itself.
pub(crate) fn stream_for(addr: &SocketAddr, extra: SocketFlags) -> io::Result<OwnedFd> {
    let family = match addr {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    Ok(rustix::net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC | extra, None)?)
}

pub(crate) fn listen(addr: SocketAddr, shared: bool, extra: SocketFlags) -> io::Result<Value> {
    let socket = stream_for(&addr, extra)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if shared {
        sockopt::set_socket_reuseport(&socket, true)?;
    }
    rustix::net::bind(&socket, &addr)?;
    rustix::net::listen(&socket, BACKLOG)?;
    let local = address(rustix::net::getsockname(&socket)?)?;
    Ok(Value::Listening(Handle::of_fd(socket), local))
}

/// A fresh connection, named and without Nagle's delay: answers leave in whole sends.
pub(crate) fn connected(socket: OwnedFd) -> io::Result<Value> {
    sockopt::set_tcp_nodelay(&socket, true)?;
    let local = address(rustix::net::getsockname(&socket)?)?;
    let peer = rustix::net::getpeername(&socket)?.ok_or(io::ErrorKind::NotConnected)?;
    Ok(Value::Connected(Handle::of_fd(socket), local, address(peer)?))
}

pub(crate) fn shutdown(socket: &OwnedFd) {
    // Fails only on a connection that has ended already.
    let _ = rustix::net::shutdown(socket, Shutdown::Both);
}

fn address(any: rustix::net::SocketAddrAny) -> io::Result<SocketAddr> {
    SocketAddr::try_from(any).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
}
