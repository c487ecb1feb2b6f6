//! What the broker acknowledged, written down while a run goes on, so that it can be held to it after a crash.
//!
//! A text file: one line for the run, then one for each acknowledged batch, in the order of the answers.
//! ```text
//! corelog-ledger 1 run=0badcafe topic=bench
//! <partition> <writer> <sequence of the first record> <records> <offset of the first record>
//! ...
//! end
//! ```
//! The last line says that the writer ended in order; its absence is no fault (the writer may have been killed), half a line
//! at the end is ignored.

use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::Path;

use crate::link::about;

const FIRST_WORDS: &str = "corelog-ledger 1";

/// One acknowledged batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Acked {
    pub partition: i32,
    pub writer: u16,
    pub first_sequence: u64,
    pub count: u32,
    pub base_offset: i64,
}

impl fmt::Display for Acked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Acked { partition, writer, first_sequence, count, base_offset } = self;
        let (end_sequence, end_offset) =
            (first_sequence + u64::from(*count), base_offset + i64::from(*count));
        write!(
            f,
            "sequences {first_sequence} to {end_sequence} of writer {writer} at offsets {base_offset} to {end_offset} "
        )?;
        write!(f, "of partition {partition}")
    }
}

pub struct Writer {
    out: BufWriter<File>,
}

impl Writer {
    pub fn create(path: &Path, run: u32, topic: &str) -> io::Result<Writer> {
        let mut out =
            BufWriter::with_capacity(1 << 16, File::create(path).map_err(|error| of(path, &error))?);
        writeln!(out, "{FIRST_WORDS} run={run:08x} topic={topic}")?;
        out.flush()?;
        Ok(Writer { out })
    }

    pub fn acked(&mut self, a: Acked) -> io::Result<()> {
        writeln!(self.out, "{} {} {} {} {}", a.partition, a.writer, a.first_sequence, a.count, a.base_offset)
    }

    /// Hands everything so far to the system, so that it outlives this process.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    pub fn end(mut self) -> io::Result<()> {
        writeln!(self.out, "end")?;
        self.out.flush()?;
        self.out.get_ref().sync_all()
    }
}

#[derive(Debug, PartialEq, Eq)]
pub struct Ledger {
    pub run: u32,
    pub topic: String,
    pub acked: Vec<Acked>,
    pub ended_in_order: bool,
}

impl Ledger {
    pub fn read(path: &Path) -> io::Result<Ledger> {
        File::open(path).and_then(|file| parse(BufReader::new(file))).map_err(|error| of(path, &error))
    }

    pub fn records(&self) -> u64 {
        self.acked.iter().map(|acked| u64::from(acked.count)).sum()
    }
}

fn parse(mut input: impl BufRead) -> io::Result<Ledger> {
    let mut line = String::new();
    input.read_line(&mut line)?;
    let (run, topic) = parse_first(line.trim_end()).ok_or_else(|| bad("this is not a ledger of bench", 1))?;
    let mut ledger = Ledger { run, topic, acked: Vec::new(), ended_in_order: false };
    for number in 2.. {
        line.clear();
        input.read_line(&mut line)?;
        let Some(whole) = line.strip_suffix('\n') else { break };
        if whole == "end" {
            ledger.ended_in_order = true;
        } else {
            ledger.acked.push(parse_acked(whole).ok_or_else(|| bad("five numbers were expected", number))?);
        }
    }
    Ok(ledger)
}

fn parse_first(line: &str) -> Option<(u32, String)> {
    let rest = line.strip_prefix(FIRST_WORDS)?.trim_start();
    let (run, topic) = rest.split_once(' ')?;
    let run = u32::from_str_radix(run.strip_prefix("run=")?, 16).ok()?;
    Some((run, topic.strip_prefix("topic=")?.to_owned()))
}

fn parse_acked(line: &str) -> Option<Acked> {
    let mut words = line.split(' ');
    let acked = Acked {
        partition: words.next()?.parse().ok()?,
        writer: words.next()?.parse().ok()?,
        first_sequence: words.next()?.parse().ok()?,
        count: words.next()?.parse().ok()?,
        base_offset: words.next()?.parse().ok()?,
    };
    words.next().is_none().then_some(acked)
}

fn of(path: &Path, error: &io::Error) -> io::Error {
    about(format!("the ledger {}", path.display()), error)
}

fn bad(what: &str, line: u64) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("line {line}: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("ledger");
        let acked = Acked { partition: 3, writer: 1, first_sequence: 70, count: 64, base_offset: 1_000 };
        let mut writer = Writer::create(&path, 0xbad_cafe, "bench").expect("created");
        writer.acked(acked).expect("written");
        writer.end().expect("ended");
        let ledger = Ledger::read(&path).expect("read");
        assert_eq!((ledger.run, ledger.topic.as_str()), (0xbad_cafe, "bench"));
        assert_eq!(ledger.acked, [acked]);
        assert_eq!(ledger.records(), 64);
        assert!(ledger.ended_in_order);
    }

    #[test]
    fn half_a_line_at_the_end_is_ignored_and_nonsense_is_an_error() {
        let cut = parse(&b"corelog-ledger 1 run=01 topic=t\n0 0 0 5 0\n0 0 5 5"[..]).expect("readable");
        assert_eq!(cut.acked.len(), 1);
        assert!(!cut.ended_in_order);
        assert!(parse(&b"corelog-ledger 1 run=01 topic=t\n0 0 zero 5 0\n"[..]).is_err());
        assert!(parse(&b"something else\n"[..]).is_err());
    }
}
