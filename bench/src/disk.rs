//! `bench disk`: what the disk below a folder gives, for scale beside what a broker makes of it.
//!
//! Direct I/O through the same runtime as the broker's, one core, a fixed number of operations in flight. "Written" blocks
//! hold data already; "allocated" ones were only reserved, and a write converts them, which costs more.

use std::cell::Cell;
use std::fmt::Write;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use rt::{Class, Core, File, Open, Reservation, Slice, Sync};
use serde::Serialize;

use crate::cli::Disk;
use crate::histogram::{Latencies, Quantiles};
use crate::link::Error;
use crate::run_on_core;

/// The file that is written and read; allocated blocks are taken from a new one for each shape.
const FILE_BYTES: u64 = 512 << 20;
const FILL_BYTES: usize = 1 << 20;
const MB: f64 = 1e6;

#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    Read,
    WriteWritten,
    WriteAllocated,
}

#[derive(Clone, Copy)]
struct Shape {
    what: What,
    bytes: usize,
    depth: u64,
    sync: Sync,
}

const fn shape(what: What, bytes: usize, depth: u64, sync: Sync) -> Shape {
    Shape { what, bytes, depth, sync }
}

const SHAPES: [Shape; 9] = [
    shape(What::WriteWritten, 4 << 10, 1, Sync::Data),
    shape(What::WriteWritten, 4 << 10, 12, Sync::Data),
    shape(What::WriteWritten, 64 << 10, 5, Sync::Data),
    shape(What::WriteAllocated, 64 << 10, 5, Sync::Data),
    shape(What::WriteWritten, 64 << 10, 5, Sync::None),
    shape(What::WriteAllocated, 64 << 10, 5, Sync::None),
    shape(What::WriteAllocated, 1 << 20, 4, Sync::None),
    shape(What::WriteWritten, 1 << 20, 4, Sync::None),
    shape(What::Read, 1 << 20, 4, Sync::None),
];

#[derive(Serialize)]
struct Row {
    what: String,
    per_s: f64,
    mb_per_s: f64,
    latency: Quantiles,
}

pub fn run(options: &Disk) -> Result<(), Error> {
    let dir = options.data.clone();
    std::fs::create_dir_all(&dir).map_err(|error| in_folder(&dir, &error))?;
    let seconds = options.duration;
    let rows = run_on_core(move |core| async move {
        let path = dir.join(format!("bench-disk-{}", std::process::id()));
        let rows = measure(&core, &path, FILE_BYTES, seconds).await;
        let removed = core.unlink(path).await;
        let rows = rows.map_err(|error| in_folder(&dir, &error))?;
        removed.map_err(|error| in_folder(&dir, &error))?;
        Ok(rows)
    })?;
    if options.json {
        println!("{}", serde_json::to_string(&rows).expect("plain structs"));
    } else {
        print!("{}", table(&rows));
    }
    Ok(())
}

fn in_folder(dir: &Path, error: &std::io::Error) -> Error {
    Error::Io(std::io::Error::new(error.kind(), format!("{}: {error}", dir.display())))
}

async fn measure(core: &Core, path: &Path, file_bytes: u64, seconds: Duration) -> std::io::Result<Vec<Row>> {
    let mut rows = Vec::new();
    let mut filled = false;
    for shape in SHAPES {
        if shape.what == What::WriteAllocated {
            filled = false;
        } else if !filled {
            fill(core, &open(core, path).await?, file_bytes).await?;
            filled = true;
        }
        let file = open(core, path).await?;
        if shape.what == What::WriteAllocated {
            file.truncate(0).await?;
            file.allocate(0..file_bytes).await?;
        }
        file.sync_all().await?;
        rows.push(one(core, file, file_bytes, &shape, seconds).await?);
    }
    Ok(rows)
}

async fn open(core: &Core, path: &Path) -> std::io::Result<File> {
    core.open(path.to_path_buf(), Open::write().create().direct()).await
}

async fn fill(core: &Core, file: &File, file_bytes: u64) -> std::io::Result<()> {
    let data = data(core, FILL_BYTES).await;
    for at in (0..file_bytes).step_by(FILL_BYTES) {
        file.write_at(vec![data.clone()], at, Sync::None).await?;
    }
    file.sync_all().await
}

async fn data(core: &Core, bytes: usize) -> Slice {
    let mut buf = core.buffers().take(bytes, Reservation::Produce).await;
    buf.fill(0x5a);
    buf.freeze(0..bytes)
}

/// One shape, for so long or until every block was used once where that is all there is.
async fn one(
    core: &Core,
    file: File,
    file_bytes: u64,
    shape: &Shape,
    seconds: Duration,
) -> std::io::Result<Row> {
    let next = Rc::new(Cell::new(0));
    let began = core.now();
    let lane = Lane { core: core.clone(), file, file_bytes, shape: *shape, next, until: began + seconds };
    let lanes: Vec<_> = (0..shape.depth).map(|_| core.spawn(Class::Produce, lane.clone().work())).collect();
    let mut latencies = Latencies::default();
    for lane in lanes {
        let nanos = lane.await.map_err(|_| std::io::Error::other("a lane panicked"))??;
        nanos.into_iter().for_each(|nanos| latencies.record(nanos));
    }
    let elapsed = (core.now() - began).as_secs_f64();
    let latency = latencies.quantiles();
    let per_s = latency.count as f64 / elapsed;
    let mb_per_s = per_s * shape.bytes as f64 / MB;
    Ok(Row { what: name(shape), per_s, mb_per_s, latency })
}

/// One of the operations in flight.
#[derive(Clone)]
struct Lane {
    core: Core,
    file: File,
    file_bytes: u64,
    shape: Shape,
    /// Where the next operation of any lane goes.
    next: Rc<Cell<u64>>,
    until: rt::Instant,
}

impl Lane {
    /// How long each operation took, in nanoseconds.
    async fn work(self) -> std::io::Result<Vec<u64>> {
        let Lane { core, file, shape, .. } = &self;
        let data = data(core, shape.bytes).await;
        let mut nanos = Vec::new();
        while core.now() < self.until || nanos.is_empty() {
            let at = self.next.get();
            self.next.set(at + shape.bytes as u64);
            if shape.what == What::WriteAllocated && at + shape.bytes as u64 > self.file_bytes {
                break;
            }
            let (pos, began) = (at % self.file_bytes, core.now());
            if shape.what == What::Read {
                let buf = core.buffers().take(shape.bytes, Reservation::Produce).await;
                let (read, _) = file.read_at(buf, pos).await;
                read?;
            } else {
                file.write_at(vec![data.clone()], pos, shape.sync).await?;
            }
            nanos.push(u64::try_from((core.now() - began).as_nanos()).unwrap_or(u64::MAX));
        }
        Ok(nanos)
    }
}

fn name(shape: &Shape) -> String {
    let what = match shape.what {
        What::Read => "read",
        What::WriteWritten => "write to written blocks",
        What::WriteAllocated => "write to allocated blocks",
    };
    let sync = if shape.sync == Sync::Data { ", synced" } else { "" };
    let size = match shape.bytes >> 10 {
        kib if kib >= 1024 => format!("{} MiB", kib >> 10),
        kib => format!("{kib} KiB"),
    };
    format!("{what}, {size}, {} in flight{sync}", shape.depth)
}

fn table(rows: &[Row]) -> String {
    let mut out = format!(
        "{:<58}{:>10}{:>10}{:>10}{:>10}{:>10}\n",
        "bench disk", "per s", "MB/s", "p50 ms", "p99 ms", "p99.9 ms"
    );
    for Row { what, per_s, mb_per_s, latency: l } in rows {
        writeln!(
            out,
            "  {what:<56}{per_s:>10.0}{mb_per_s:>10.0}{:>10.3}{:>10.3}{:>10.3}",
            l.p50_ms, l.p99_ms, l.p99_9_ms
        )
        .expect("writing to a String cannot fail");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shape_is_measured_and_the_file_goes() {
        let folder = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).expect("a folder");
        let path = folder.path().join("file");
        let measured = path.clone();
        let rows = run_on_core(move |core| async move {
            measure(&core, &measured, 8 << 20, Duration::from_millis(1)).await.map_err(Error::Io)
        })
        .expect("measured");
        assert_eq!(rows.len(), SHAPES.len());
        assert!(rows.iter().all(|row| row.latency.count > 0 && row.mb_per_s > 0.0));
        assert_eq!(table(&rows).lines().count(), SHAPES.len() + 1);
    }
}
