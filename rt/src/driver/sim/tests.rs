//! What the simulated disk loses and keeps, what it can be made to do, and that one seed gives one trace.

use super::*;
use crate::{BufMut, File, Open, Reservation, Slice, Sync};

fn sim(disk: &SimDisk) -> Sim {
    Sim::with_disk(7, SimConfig::default(), disk.clone())
}

fn page(with: u8) -> Slice {
    Slice::from(vec![with; 4096])
}

async fn create(core: &Core, path: &str) -> File {
    core.open(path, Open::write().create()).await.unwrap()
}

fn buffer(core: &Core) -> BufMut {
    core.buffers().try_take(4096, Reservation::Fetch).unwrap()
}

#[test]
fn only_what_was_synced_survives_a_strict_cut() {
    let disk = SimDisk::new();
    let first = sim(&disk);
    let ran = first.run(|core| async move {
        let file = create(&core, "/data/a").await;
        core.sync_dir("/data").await.unwrap();
        file.write_at(vec![page(1)], 0, Sync::Data).await.unwrap();
        file.write_at(vec![page(2)], 4096, Sync::None).await.unwrap();
        let other = create(&core, "/data/never-synced").await;
        other.write_at(vec![page(3)], 0, Sync::Data).await.unwrap();
    });
    assert_eq!(ran, Ok(vec![()]));
    let disk = first.crash(CrashPlan::STRICT);
    assert_eq!(disk.paths().len(), 1);
    assert_eq!(disk.contents("/data/a").unwrap(), [1; 4096]);
}

#[test]
fn a_rename_is_lost_without_a_sync_of_the_folder() {
    let check = |synced: bool, expect: &str| {
        let run = sim(&SimDisk::new());
        run.run(move |core| async move {
            create(&core, "/data/old").await;
            core.sync_dir("/data").await.unwrap();
            core.rename("/data/old", "/data/new").await.unwrap();
            if synced {
                core.sync_dir("/data").await.unwrap();
            }
        })
        .unwrap();
        let disk = run.crash(CrashPlan::STRICT);
        assert_eq!(disk.paths(), [std::path::PathBuf::from(expect)]);
    };
    check(false, "/data/old");
    check(true, "/data/new");
}

#[test]
fn a_random_cut_leaves_every_mixture_of_sectors() {
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..40 {
        let run = Sim::new(seed, SimConfig::default());
        run.run(|core| async move {
            let file = create(&core, "/data/a").await;
            file.write_at(vec![page(1)], 0, Sync::Data).await.unwrap();
            core.sync_dir("/data").await.unwrap();
            file.write_at(vec![page(2)], 0, Sync::None).await.unwrap();
        })
        .unwrap();
        let bytes = run.crash(CrashPlan::RANDOM).contents("/data/a").unwrap();
        assert!(bytes.chunks(512).all(|s| s == [1; 512] || s == [2; 512]), "a sector is whole");
        seen.insert(bytes);
    }
    assert!(seen.len() > 20);
}

#[test]
fn a_cut_at_each_operation_keeps_what_was_acknowledged() {
    let work = |acknowledged: Rc<Cell<u8>>| {
        move |core: Core| {
            let acknowledged = acknowledged.clone();
            async move {
                let file = create(&core, "/data/a").await;
                core.sync_dir("/data").await.unwrap();
                for i in 1..=10_u8 {
                    let pos = u64::from(i - 1) * 4096;
                    file.write_at(vec![page(i)], pos, Sync::Data).await.unwrap();
                    acknowledged.set(i);
                }
            }
        }
    };
    let whole = sim(&SimDisk::new());
    whole.run(work(Rc::default())).unwrap();
    let ops = whole.disk().op_count();
    assert_eq!(ops, 12);
    for n in 1..=ops {
        let run = sim(&SimDisk::new());
        run.disk().crash_at_op(n);
        let acknowledged = Rc::new(Cell::new(0));
        assert_eq!(run.run(work(acknowledged.clone())), Err(Stopped::Crashed));
        let disk = run.crash(CrashPlan::RANDOM);
        let bytes = disk.contents("/data/a").unwrap_or_default();
        for i in 1..=acknowledged.get() {
            let at = usize::from(i - 1) * 4096;
            assert!(bytes[at..at + 4096].iter().all(|b| *b == i), "page {i} after a cut at {n}");
        }
    }
}

#[test]
fn faults_come_when_asked_for() {
    let run = sim(&SimDisk::new());
    let disk = run.disk();
    run.run(move |core| {
        let disk = disk.clone();
        async move {
            let file = create(&core, "/data/a").await;
            disk.fail_next(OpKind::Write, Fault::Error(libc::EIO));
            let failed = file.write_at(vec![page(1)], 0, Sync::Data).await;
            assert_eq!(failed.unwrap_err().raw_os_error(), Some(libc::EIO));
            disk.fail_next(OpKind::Sync, Fault::Error(libc::EIO));
            assert!(file.sync_data().await.is_err());
            disk.fail_next(OpKind::Write, Fault::ShortWrite(512));
            file.write_at(vec![page(2)], 0, Sync::Data).await.unwrap();
            assert_eq!(disk.contents("/data/a").unwrap(), [2; 4096], "the rest was written");
            disk.fail_next(OpKind::Write, Fault::ShortWrite(100));
            let odd = file.write_at(vec![page(3)], 0, Sync::Data).await;
            assert_eq!(odd.unwrap_err().kind(), io::ErrorKind::WriteZero);
            disk.fail_next(OpKind::Write, Fault::LostWrite);
            file.write_at(vec![page(4)], 4096, Sync::Data).await.unwrap();
            assert_eq!(file.len().await.unwrap(), 4096);
            disk.fail_next(OpKind::Write, Fault::MisdirectedWrite(4096));
            file.write_at(vec![page(5)], 0, Sync::Data).await.unwrap();
            let (count, buf) = file.read_at(buffer(&core), 4096).await;
            assert_eq!((count.unwrap(), buf[0]), (4096, 5));
            disk.flip_bit("/data/a", 4096 * 8 + 1);
            let (_, buf) = file.read_at(buf, 4096).await;
            assert_eq!(buf[0], 5 ^ 2);
        }
    })
    .unwrap();
}

#[test]
fn a_full_disk_refuses_and_recovers() {
    let run = sim(&SimDisk::new());
    let disk = run.disk();
    disk.set_free_bytes(8192);
    run.run(move |core| {
        let disk = disk.clone();
        async move {
            let file = create(&core, "/data/a").await;
            let full = file.allocate(0..65536).await.unwrap_err();
            assert_eq!(full.raw_os_error(), Some(libc::ENOSPC));
            assert_eq!(file.len().await.unwrap(), 0);
            file.write_at(vec![page(1), page(2)], 0, Sync::Data).await.unwrap();
            assert!(file.write_at(vec![page(3)], 8192, Sync::Data).await.is_err());
            disk.set_free_bytes(1 << 20);
            file.write_at(vec![page(3)], 8192, Sync::Data).await.unwrap();
        }
    })
    .unwrap();
}

#[test]
fn unaligned_direct_io_is_refused() {
    let run = sim(&SimDisk::new());
    run.run(|core| async move {
        let file = core.open("/data/a", Open::write().create().direct()).await.unwrap();
        let refused = file.write_at(vec![Slice::from(vec![0; 100])], 0, Sync::None).await;
        assert_eq!(refused.unwrap_err().raw_os_error(), Some(libc::EINVAL));
    })
    .unwrap();
}

#[test]
fn a_reset_reaches_both_ends() {
    let run = Sim::new(3, SimConfig { reset_per_million: 1_000_000, ..SimConfig::default() });
    run.run(|core| async move {
        let listener = core.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let client = core.connect(listener.local_addr()).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        let reset = client.send(vec![Slice::from_static(b"x")]).await.unwrap_err();
        assert_eq!(reset.kind(), io::ErrorKind::ConnectionReset);
        assert!(server.recv(buffer(&core), 0..10).await.0.is_err());
    })
    .unwrap();
}

#[test]
fn nothing_left_to_happen_is_a_deadlock() {
    let run = sim(&SimDisk::new());
    let stuck = run.run(|core| async move {
        let listener = core.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        listener.accept().await.map(drop).unwrap();
    });
    assert_eq!(stuck, Err(Stopped::Deadlock));
}

#[test]
fn one_seed_gives_one_trace() {
    let trace = |seed| {
        let run = Sim::new(seed, SimConfig { cores: 3, ..SimConfig::default() });
        let ports = crate::Mesh::new::<u64>(3, 4);
        let ports: Rc<RefCell<Vec<_>>> = Rc::new(RefCell::new(ports.into_iter().map(Some).collect()));
        run.run(move |core| {
            let mut port = ports.borrow_mut()[usize::from(core.id().0)].take().unwrap();
            async move {
                port.attach(&core);
                let next = CoreId((core.id().0 + 1) % 3);
                let file = create(&core, &format!("/data/{}", core.id().0)).await;
                for round in 0..20_u64 {
                    let bytes = vec![core.random_u64().to_le_bytes()[0]; 700];
                    file.write_at(vec![Slice::from(bytes)], round * 100, Sync::Data).await.unwrap();
                    port.send(next, round).await;
                    assert_eq!(port.recv().await.1, round);
                    core.sleep(Duration::from_nanos(core.random_u64() % 1_000_000)).await;
                }
            }
        })
        .unwrap();
        (run.trace_hash(), run.now())
    };
    assert_eq!(trace(1), trace(1));
    assert_ne!(trace(1), trace(2));
}
