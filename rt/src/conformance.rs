//! One suite that every driver passes. A case gets a core and an empty folder; what a driver cannot be made to do (a
//! device error on demand) is tested where it can be.

use crate::*;
use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

type Case = fn(Core, PathBuf) -> Pin<Box<dyn Future<Output = ()>>>;

macro_rules! suite {
    ($($name:ident),* $(,)?) => {
        const CASES: &[(&str, Case)] = &[$((stringify!($name), |core, dir| Box::pin($name(core, dir)))),*];

        mod ring {
            $(#[test]
            fn $name() {
                super::on_real(super::DriverKind::Ring, super::ASLEEP, stringify!($name));
            })*
        }

        /// As `ring`, on a core that looks around before it sleeps.
        mod ring_spinning {
            $(#[test]
            fn $name() {
                super::on_real(super::DriverKind::Ring, super::SPINNING, stringify!($name));
            })*
        }

        /// As kernels before 5.19 have it.
        mod plain_ring {
            $(#[test]
            fn $name() {
                super::on_real(super::DriverKind::PlainRing, super::ASLEEP, stringify!($name));
            })*
        }

        mod posix {
            $(#[test]
            fn $name() {
                super::on_real(super::DriverKind::Posix, super::ASLEEP, stringify!($name));
            })*
        }

        mod sim {
            $(#[test]
            fn $name() {
                super::on_sim(stringify!($name));
            })*
        }
    };
}

suite![
    writes_are_read_back,
    vectored_writes_keep_their_order,
    direct_writes_survive_reopening,
    names_come_and_go,
    space_is_allocated_zeroed_and_cut,
    a_lock_excludes,
    a_missing_file_is_an_error,
    streams_carry_bytes_both_ways,
    a_large_send_arrives_whole,
    shutdown_ends_a_pending_receive,
    dropping_a_stream_ends_the_other_side,
    closing_with_unread_bytes_resets,
    nobody_listening_refuses,
    sleeps_end_in_order,
    a_dropped_receive_keeps_its_buffer_until_done,
    a_dropped_accept_takes_no_connection,
    more_operations_than_the_queue_has_room_for,
    a_panic_ends_its_task_only,
    an_aborted_task_says_so,
    a_future_goes_with_its_end_however_long_its_result_waits,
    tasks_start_in_the_order_they_were_spawned,
    offloaded_work_comes_back,
    memory_is_waited_for_in_order,
    mail_to_oneself_arrives,
    classes_share_by_weight,
    permits_go_in_order,
    events_wake_one_or_all,
    a_oneshot_brings_a_value_or_its_end,
];

fn case(name: &str) -> Case {
    CASES.iter().find(|(n, _)| *n == name).expect("named by the suite").1
}

const ASLEEP: CoreConfig = CoreConfig { pin: None, spin: Duration::ZERO };
const SPINNING: CoreConfig = CoreConfig { pin: None, spin: Duration::from_micros(500) };

fn on_real(driver: DriverKind, of_core: CoreConfig, name: &str) {
    let dir = tempfile::tempdir().unwrap();
    let config =
        Config { driver, cores: vec![of_core], ring_entries: 8, memory_bytes: 8 << 20, ..Config::default() };
    let path = dir.path().to_path_buf();
    block_on_one(config, |core| case(name)(core, path)).unwrap();
}

fn on_sim(name: &str) {
    for seed in 0..20 {
        let sim =
            crate::sim::Sim::new(seed, crate::sim::SimConfig { memory_bytes: 8 << 20, ..Default::default() });
        sim.run(|core| case(name)(core, PathBuf::from("/data"))).unwrap();
    }
}

fn localhost() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

fn buffer(core: &Core, bytes: usize) -> BufMut {
    core.buffers().try_take(bytes, Reservation::Produce).unwrap()
}

fn filled(core: &Core, bytes: usize, with: u8) -> Slice {
    let mut buf = buffer(core, bytes);
    buf.fill(with);
    buf.freeze(0..bytes)
}

async fn read(core: &Core, file: &File, pos: u64, bytes: usize) -> Vec<u8> {
    let (count, buf) = file.read_at(buffer(core, bytes), pos).await;
    buf[..count.unwrap()].to_vec()
}

async fn writes_are_read_back(core: Core, dir: PathBuf) {
    let file = core.open(dir.join("a"), Open::write().create()).await.unwrap();
    file.write_at(vec![Slice::from_static(b"hello")], 3, Sync::Data).await.unwrap();
    assert_eq!(read(&core, &file, 0, 100).await, b"\0\0\0hello");
    assert_eq!(read(&core, &file, 6, 100).await, b"lo");
    assert_eq!(read(&core, &file, 8, 100).await, b"");
    assert_eq!(file.len().await.unwrap(), 8);
    file.sync_data().await.unwrap();
    file.sync_all().await.unwrap();
}

async fn vectored_writes_keep_their_order(core: Core, dir: PathBuf) {
    let file = core.open(dir.join("a"), Open::write().create()).await.unwrap();
    let parts: Vec<Slice> = (0..2500_u32).map(|i| Slice::from(i.to_be_bytes().to_vec())).collect();
    file.write_at(parts, 0, Sync::None).await.unwrap();
    let bytes = read(&core, &file, 0, 10_000).await;
    let expect: Vec<u8> = (0..2500_u32).flat_map(u32::to_be_bytes).collect();
    assert!(bytes == expect);
}

async fn direct_writes_survive_reopening(core: Core, dir: PathBuf) {
    let file = core.open(dir.join("a"), Open::write().create_new().direct()).await.unwrap();
    let pages = vec![filled(&core, 4096, 1), filled(&core, 8192, 2)];
    file.write_at(pages, 4096, Sync::Data).await.unwrap();
    file.close().await.unwrap();
    let file = core.open(dir.join("a"), Open::read().direct()).await.unwrap();
    let bytes = read(&core, &file, 0, 16384).await;
    assert_eq!(bytes.len(), 16384);
    assert_eq!((bytes[0], bytes[4096], bytes[8192], bytes[16383]), (0, 1, 2, 2));
}

async fn names_come_and_go(core: Core, dir: PathBuf) {
    let sub = dir.join("x/y");
    core.create_dir_all(&sub).await.unwrap();
    for name in ["b", "a", "c"] {
        core.open(sub.join(name), Open::write().create_new()).await.unwrap();
    }
    core.rename(sub.join("c"), sub.join("d")).await.unwrap();
    core.unlink(sub.join("a")).await.unwrap();
    core.sync_dir(&sub).await.unwrap();
    let names: Vec<String> =
        core.list_dir(&sub).await.unwrap().iter().map(|e| e.name.to_string_lossy().into_owned()).collect();
    assert_eq!(names, ["b", "d"]);
    let entries = core.list_dir(&dir).await.unwrap();
    assert!(entries.len() == 1 && entries[0].is_dir);
    let again = core.open(sub.join("b"), Open::write().create_new()).await;
    assert_eq!(again.err().map(|e| e.kind()), Some(io::ErrorKind::AlreadyExists));
    core.remove_dir_all(dir.join("x")).await.unwrap();
    assert!(core.list_dir(&dir).await.unwrap().is_empty());
    assert!(core.free_bytes(&dir).await.unwrap() > 0);
}

async fn space_is_allocated_zeroed_and_cut(core: Core, dir: PathBuf) {
    let file = core.open(dir.join("a"), Open::write().create()).await.unwrap();
    file.allocate(0..65536).await.unwrap();
    assert_eq!(file.len().await.unwrap(), 65536);
    file.write_at(vec![filled(&core, 8192, 9)], 0, Sync::None).await.unwrap();
    file.zero_range(4096..8192).await.unwrap();
    let bytes = read(&core, &file, 0, 8192).await;
    assert!(bytes[..4096].iter().all(|b| *b == 9));
    assert!(bytes[4096..].iter().all(|b| *b == 0));
    file.truncate(4096).await.unwrap();
    assert_eq!(file.len().await.unwrap(), 4096);
    file.truncate(8192).await.unwrap();
    assert!(read(&core, &file, 4096, 4096).await.iter().all(|b| *b == 0));
}

async fn a_lock_excludes(core: Core, dir: PathBuf) {
    let lock = core.lock_file(dir.join("lock")).await.unwrap();
    let second = core.lock_file(dir.join("lock")).await;
    assert_eq!(second.err().map(|e| e.kind()), Some(io::ErrorKind::WouldBlock));
    drop(lock);
    core.lock_file(dir.join("lock")).await.unwrap();
}

async fn a_missing_file_is_an_error(core: Core, dir: PathBuf) {
    let missing = |r: io::Result<()>| assert_eq!(r.unwrap_err().kind(), io::ErrorKind::NotFound);
    missing(core.open(dir.join("a"), Open::read()).await.map(drop));
    missing(core.unlink(dir.join("a")).await);
    missing(core.rename(dir.join("a"), dir.join("b")).await);
    missing(core.list_dir(dir.join("a")).await.map(drop));
}

async fn pair(core: &Core) -> (Stream, Stream) {
    let listener = core.listen(localhost()).await.unwrap();
    let addr = listener.local_addr();
    let accepting = core.spawn(Class::Produce, async move { listener.accept().await.unwrap() });
    let client = core.connect(addr).await.unwrap();
    let (server, from) = accepting.await.unwrap();
    assert_eq!(from, client.local_addr());
    assert_eq!(client.peer_addr(), addr);
    (client, server)
}

async fn receive(core: &Core, stream: &Stream, bytes: usize) -> Vec<u8> {
    let mut got = Vec::new();
    while got.len() < bytes {
        let want = (bytes - got.len()).min(65536);
        let (count, buf) = stream.recv(buffer(core, want), 0..want).await;
        let count = count.unwrap();
        assert!(count > 0, "the stream ended after {} of {bytes}", got.len());
        got.extend_from_slice(&buf[..count]);
    }
    got
}

async fn streams_carry_bytes_both_ways(core: Core, _dir: PathBuf) {
    let (client, server) = pair(&core).await;
    let request = vec![Slice::from_static(b"ping"), Slice::empty(), Slice::from_static(b"pong")];
    assert_eq!(client.send(request).await.unwrap(), 8);
    assert_eq!(receive(&core, &server, 8).await, b"pingpong");
    server.send(vec![Slice::from_static(b"x")]).await.unwrap();
    let (count, buf) = client.recv(buffer(&core, 16), 5..16).await;
    assert_eq!(count.unwrap(), 1);
    assert_eq!(buf[5], b'x');
}

async fn a_large_send_arrives_whole(core: Core, _dir: PathBuf) {
    let (client, server) = pair(&core).await;
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|i| i.to_le_bytes()[1] ^ i.to_le_bytes()[0]).collect();
    let whole = Slice::from(bytes.clone());
    let parts = vec![whole.slice(0..10), whole.slice(10..2_000_000), whole.slice(2_000_000..3_000_000)];
    let sending = core.spawn(Class::Produce, async move { client.send(parts).await.unwrap() });
    assert!(receive(&core, &server, bytes.len()).await == bytes);
    assert_eq!(sending.await.unwrap(), bytes.len());
}

async fn shutdown_ends_a_pending_receive(core: Core, _dir: PathBuf) {
    let (client, server) = pair(&core).await;
    let (reader, here) = (server.clone(), core.clone());
    let waiting = core.spawn(Class::Produce, async move { reader.recv(buffer(&here, 10), 0..10).await.0 });
    core.yield_now().await;
    server.shutdown();
    assert_eq!(waiting.await.unwrap().unwrap(), 0);
    assert_eq!(client.recv(buffer(&core, 10), 0..10).await.0.unwrap(), 0);
}

async fn dropping_a_stream_ends_the_other_side(core: Core, _dir: PathBuf) {
    let (client, server) = pair(&core).await;
    drop(client);
    assert_eq!(server.recv(buffer(&core, 10), 0..10).await.0.unwrap(), 0);
    // The first send may still be taken; once the other side has answered with a reset, none is.
    let mut refused = None;
    for _ in 0..100 {
        if let Err(e) = server.send(vec![Slice::from_static(b"late")]).await {
            refused = Some(e.kind());
            break;
        }
        core.sleep(Duration::from_millis(1)).await;
    }
    let refused = refused.expect("a send to nobody fails in the end");
    assert!(matches!(refused, io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset), "{refused}");
}

async fn nobody_listening_refuses(core: Core, _dir: PathBuf) {
    let listener = core.listen(localhost()).await.unwrap();
    let addr = listener.local_addr();
    drop(listener);
    let refused = core.connect(addr).await.err().map(|e| e.kind());
    assert_eq!(refused, Some(io::ErrorKind::ConnectionRefused));
}

async fn sleeps_end_in_order(core: Core, _dir: PathBuf) {
    let order = Rc::new(std::cell::RefCell::new(Vec::new()));
    let begin = core.now();
    let tasks: Vec<_> = [3_u64, 1, 2]
        .into_iter()
        .map(|ms| {
            let (here, order) = (core.clone(), order.clone());
            core.spawn(Class::Produce, async move {
                here.sleep(Duration::from_millis(ms)).await;
                order.borrow_mut().push(ms);
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(*order.borrow(), [1, 2, 3]);
    assert!(core.now() - begin >= Duration::from_millis(3));
}

/// Polls once.
async fn start_and_drop<F: Future>(future: F) {
    let mut future = pin!(future);
    poll_fn(|cx| {
        assert!(future.as_mut().poll(cx).is_pending());
        Poll::Ready(())
    })
    .await;
}

async fn a_dropped_receive_keeps_its_buffer_until_done(core: Core, _dir: PathBuf) {
    let (client, server) = pair(&core).await;
    let buf = buffer(&core, 4096);
    start_and_drop(server.recv(buf, 0..4096)).await;
    assert_eq!(core.buffers().used(), 4096, "the operation still owns it");
    while core.buffers().used() > 0 {
        core.yield_now().await;
    }
    assert_eq!(core.stats().cancelled, 1);
    // It may have taken bytes off the stream: the next receive must not pretend otherwise.
    client.send(vec![Slice::from_static(b"after")]).await.unwrap();
    let refused = server.recv(buffer(&core, 10), 0..10).await.0.unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionAborted);
}

async fn closing_with_unread_bytes_resets(core: Core, _dir: PathBuf) {
    let (client, server) = pair(&core).await;
    client.send(vec![Slice::from_static(b"unread")]).await.unwrap();
    drop(server);
    let reset = client.recv(buffer(&core, 10), 0..10).await.0.unwrap_err();
    assert_eq!(reset.kind(), io::ErrorKind::ConnectionReset);
}

async fn a_dropped_accept_takes_no_connection(core: Core, _dir: PathBuf) {
    let listener = core.listen(localhost()).await.unwrap();
    start_and_drop(listener.accept()).await;
    while core.stats().operations_in_flight > 0 {
        core.yield_now().await;
    }
    let addr = listener.local_addr();
    let accepting = core.spawn(Class::Produce, async move { listener.accept().await.is_ok() });
    let _client = core.connect(addr).await.unwrap();
    assert!(accepting.await.unwrap());
}

async fn more_operations_than_the_queue_has_room_for(core: Core, dir: PathBuf) {
    let file = core.open(dir.join("a"), Open::write().create()).await.unwrap();
    let tasks: Vec<_> = (0..200_u8)
        .map(|i| {
            let file = file.clone();
            core.spawn(Class::Produce, async move {
                file.write_at(vec![Slice::from(vec![i; 10])], u64::from(i) * 10, Sync::None).await.unwrap();
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let bytes = read(&core, &file, 0, 3000).await;
    let expect: Vec<u8> = (0..200_u8).flat_map(|i| [i; 10]).collect();
    assert!(bytes == expect);
}

async fn a_panic_ends_its_task_only(core: Core, _dir: PathBuf) {
    let other = core.spawn(Class::Produce, async { 7 });
    let bad: Task<()> = core.spawn(Class::Produce, async { panic!("as planned") });
    assert_eq!(bad.await.unwrap_err().message, "as planned");
    assert_eq!(other.await.unwrap(), 7);
    assert_eq!(core.stats().panics, 1);
}

async fn an_aborted_task_says_so(core: Core, _dir: PathBuf) {
    let dropped = Rc::new(Cell::new(false));
    struct Guard(Rc<Cell<bool>>);
    impl Drop for Guard {
        fn drop(&mut self) {
            self.0.set(true);
        }
    }
    let guard = Guard(dropped.clone());
    let here = core.clone();
    let task = core.spawn(Class::Background, async move {
        let _guard = guard;
        here.sleep(Duration::from_secs(1000)).await;
    });
    core.yield_now().await;
    task.abort();
    assert!(dropped.get());
    assert!(task.await.is_err());
}

async fn a_future_goes_with_its_end_however_long_its_result_waits(core: Core, _dir: PathBuf) {
    let held = Rc::new(());
    for panics in [false, true] {
        let holds = held.clone();
        let task = core.spawn(Class::Produce, async move {
            assert!(!panics, "as planned");
            drop(holds);
        });
        while !task.is_finished() {
            core.yield_now().await;
        }
        assert_eq!(Rc::strong_count(&held), 1);
        assert_eq!(task.await.is_err(), panics);
    }
}

async fn tasks_start_in_the_order_they_were_spawned(core: Core, _dir: PathBuf) {
    let order = Rc::new(std::cell::RefCell::new(Vec::new()));
    let tasks: Vec<_> = (0..300)
        .map(|i| {
            let order = order.clone();
            core.spawn(Class::Produce, async move { order.borrow_mut().push(i) })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert!(order.borrow().iter().copied().eq(0..300));
}

async fn offloaded_work_comes_back(core: Core, _dir: PathBuf) {
    assert_eq!(core.offload(|| 6 * 7).await, Ok(42));
    let panicked: Result<(), Panicked> = core.offload(|| panic!("over there")).await;
    assert_eq!(panicked.unwrap_err().message, "over there");
}

async fn memory_is_waited_for_in_order(core: Core, _dir: PathBuf) {
    let arena = core.buffers().clone();
    let all = arena.try_take(arena.largest(Reservation::Produce), Reservation::Produce).unwrap();
    let order = Rc::new(std::cell::RefCell::new(Vec::new()));
    let tasks: Vec<_> = [2 << 20, 4096]
        .into_iter()
        .map(|bytes: usize| {
            let (arena, order) = (arena.clone(), order.clone());
            core.spawn(Class::Produce, async move {
                let buf = arena.take(bytes, Reservation::Produce).await;
                order.borrow_mut().push(buf.len());
            })
        })
        .collect();
    while arena.waiting(Reservation::Produce) < 2 {
        core.yield_now().await;
    }
    assert!(arena.try_take(4096, Reservation::Produce).is_none());
    drop(all);
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(*order.borrow(), [2 << 20, 4096]);
    assert_eq!(arena.used(), 0);
}

async fn classes_share_by_weight(core: Core, _dir: PathBuf) {
    let counts = Rc::new([Cell::new(0_u32), Cell::new(0)]);
    let tasks: Vec<_> = [Class::Produce, Class::Background]
        .into_iter()
        .enumerate()
        .map(|(i, class)| {
            let (here, counts) = (core.clone(), counts.clone());
            core.spawn(class, async move {
                while counts[0].get() < 2000 {
                    counts[i].set(counts[i].get() + 1);
                    here.yield_now().await;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let background = counts[1].get();
    assert!(background > 0, "nobody starves");
    assert!(background < 1000, "the smaller share got {background} of 2000");
}

async fn permits_go_in_order(core: Core, _dir: PathBuf) {
    let semaphore = sync::Semaphore::new(2);
    let held = semaphore.try_acquire(1).unwrap();
    let order = Rc::new(std::cell::RefCell::new(Vec::new()));
    let tasks: Vec<_> = [2_usize, 1]
        .into_iter()
        .map(|count| {
            let (semaphore, order) = (semaphore.clone(), order.clone());
            core.spawn(Class::Produce, async move {
                let permit = semaphore.acquire(count).await;
                order.borrow_mut().push(permit.count());
            })
        })
        .collect();
    while semaphore.waiting() < 2 {
        core.yield_now().await;
    }
    assert!(semaphore.try_acquire(1).is_none(), "the large one is not overtaken");
    drop(held);
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(*order.borrow(), [2, 1]);
    assert_eq!(semaphore.available(), 2);
}

async fn events_wake_one_or_all(core: Core, _dir: PathBuf) {
    let event = sync::Event::new();
    let woken = Rc::new(Cell::new(0));
    let tasks: Vec<_> = (0..3)
        .map(|_| {
            let (listening, woken) = (event.listen(), woken.clone());
            core.spawn(Class::Control, async move {
                listening.await;
                woken.set(woken.get() + 1);
            })
        })
        .collect();
    core.yield_now().await;
    event.notify_one();
    core.yield_now().await;
    assert_eq!(woken.get(), 1);
    drop(event.listen());
    assert_eq!(event.listeners(), 2);
    event.notify_all();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(woken.get(), 3);
    let (first, second) = (event.listen(), event.listen());
    event.notify_one();
    drop(first);
    second.await;
}

async fn a_oneshot_brings_a_value_or_its_end(core: Core, _dir: PathBuf) {
    let (sender, receiver) = sync::oneshot::channel();
    let waiting = core.spawn(Class::Produce, receiver);
    core.yield_now().await;
    sender.send(5).unwrap();
    assert_eq!(waiting.await.unwrap(), Ok(5));
    let (sender, receiver) = sync::oneshot::channel::<u8>();
    drop(sender);
    assert!(receiver.await.is_err());
    let (sender, receiver) = sync::oneshot::channel();
    drop(receiver);
    assert_eq!(sender.send(1), Err(1));
}

async fn mail_to_oneself_arrives(core: Core, _dir: PathBuf) {
    let mut ports = Mesh::new::<u32>(1, 2);
    let mut port = ports.remove(0);
    port.attach(&core);
    let port = Rc::new(port);
    let sender = port.clone();
    let sending = core.spawn(Class::Produce, async move {
        for i in 0..50 {
            sender.send(CoreId(0), i).await;
        }
    });
    for i in 0..50 {
        assert_eq!(port.recv().await, (CoreId(0), i));
    }
    sending.await.unwrap();
}

#[test]
fn mail_crosses_cores_and_wakes_sleepers() {
    mail_crosses_cores(DriverKind::Ring, ASLEEP, "ring");
    mail_crosses_cores(DriverKind::Ring, SPINNING, "ring");
    mail_crosses_cores(DriverKind::Posix, ASLEEP, "posix");
}

fn mail_crosses_cores(driver: DriverKind, of_core: CoreConfig, name: &str) {
    let ports: Vec<_> = Mesh::new::<u64>(2, 4).into_iter().map(|p| std::sync::Mutex::new(Some(p))).collect();
    let ports = std::sync::Arc::new(ports);
    let runtime = start(Config { driver, cores: vec![of_core; 2], ..Config::default() }, move |core| {
        let mut port = ports[usize::from(core.id().0)].lock().unwrap().take().unwrap();
        async move {
            port.attach(&core);
            let other = CoreId(1 - core.id().0);
            for round in 0..2000 {
                if core.id().0 == 0 {
                    port.send(other, round).await;
                    assert_eq!(port.recv().await, (other, round + 1));
                } else {
                    assert_eq!(port.recv().await, (other, round));
                    port.send(other, round + 1).await;
                }
            }
        }
    });
    let runtime = runtime.unwrap();
    assert!(runtime.describe().contains(name));
    runtime.join().unwrap();
}

#[test]
fn an_idle_core_sleeps() {
    let all = [(DriverKind::Ring, ASLEEP), (DriverKind::Ring, SPINNING), (DriverKind::Posix, ASLEEP)];
    for (driver, of_core) in all {
        let config = Config { driver, cores: vec![of_core], ..Config::default() };
        let enters = block_on_one(config, |core| async move {
            let before = core.stats().enters;
            core.sleep(Duration::from_millis(50)).await;
            core.stats().enters - before
        });
        assert!(enters.unwrap() <= 3);
    }
}

#[test]
fn a_panic_of_main_is_reported() {
    let runtime = start(Config::new(1), |_core| async { panic!("main fell") }).unwrap();
    assert_eq!(runtime.join().unwrap_err().message, "main fell");
}

#[test]
fn auto_says_what_it_took() {
    let config = Config { driver: DriverKind::Auto, ..Config::default() };
    let described = block_on_one(config, |core| async move { core.describe() }).unwrap();
    assert!(described.starts_with("ring") || described.contains("because"), "{described}");
}

#[test]
fn a_full_device_says_so() {
    for driver in [DriverKind::Ring, DriverKind::Posix] {
        let config = Config { driver, ..Config::default() };
        let written = block_on_one(config, |core| async move {
            let full = core.open("/dev/full", Open::write()).await.unwrap();
            full.write_at(vec![Slice::from_static(b"x")], 0, Sync::None).await
        });
        assert_eq!(written.unwrap().unwrap_err().kind(), io::ErrorKind::StorageFull);
    }
}
