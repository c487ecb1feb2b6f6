//! What `corelog log` tells: a folder as text or JSON, and what a repair would do.

use std::process::ExitCode;

use engine::folder::{Folder, Identity};
use engine::names::{Partition, Unreadable};
use engine::raft_log::GenerationFacts;
use engine::repair::segment::{BatchFacts, Damaged};
use engine::repair::{IndexState, PartitionFacts, Report, SegmentFacts, SlotFacts};
use rt::Core;
use serde_json::{Value, json};

use super::{Which, look, print};
use crate::config::units::format_bytes;

pub(super) async fn dump(
    core: &Core,
    which: &Which,
    batches: bool,
    as_json: bool,
) -> Result<ExitCode, String> {
    let _held = Folder::hold(core, &which.data).await.map_err(|error| error.to_string())?;
    let (report, _) = look(core, which).await?;
    let told = if as_json { format!("{:#}\n", whole(&report)) } else { text(&report, batches) };
    let status = print(&told);
    Ok(if is_damaged(&report) { ExitCode::FAILURE } else { status })
}

fn is_damaged(report: &Report) -> bool {
    report.identity == Identity::Unknown
        || report.raft.iter().any(|generation| generation.damage.is_some())
        || report.partitions.iter().any(PartitionFacts::is_damaged)
}

fn text(report: &Report, batches: bool) -> String {
    let mut lines = vec![match report.identity {
        Identity::Known(uuid) => format!("storage {}, {}", hex(&uuid), stop(report.clean)),
        Identity::Newer(format) => format!("format {format} is a newer Corelog's"),
        Identity::Unknown => "DAMAGED: the folder's identity is missing or damaged".to_owned(),
    }];
    for slot in &report.checkpoints {
        let path = slot.path.display();
        lines.push(match &slot.content {
            Ok((sequence, logs)) => {
                format!("checkpoint {path}: sequence {sequence}, {logs} logs, {} bytes", slot.bytes)
            }
            Err(why) => format!("checkpoint {path}: unreadable ({why}); a start does without it"),
        });
    }
    report.raft.iter().for_each(|generation| text_of_metadata(generation, batches, &mut lines));
    lines.extend(report.notes.iter().cloned());
    report.partitions.iter().for_each(|one| text_of(one, batches, &mut lines));
    lines.push(String::new());
    lines.join("\n")
}

fn stop(clean: bool) -> &'static str {
    if clean { "stopped cleanly" } else { "no clean stop" }
}

fn text_of_metadata(generation: &GenerationFacts, batches: bool, lines: &mut Vec<String>) {
    let (groups, last) = (generation.groups.len(), generation.recovered.entries.last());
    let last = last.map_or(generation.recovered.snapshot.index, |entry| entry.index);
    lines.push(format!("metadata {}: {groups} writes, entries to {last}", generation.path.display()));
    for group in generation.groups.iter().filter(|_| batches) {
        lines.push(format!(
            "    at {} sequence {}: {}",
            group.position,
            group.sequence,
            group.records.join("; ")
        ));
    }
    if let Some((position, why)) = &generation.damage {
        lines.push(format!("  DAMAGED at byte {position}: {why}"));
    }
}

fn text_of(one: &PartitionFacts, batches: bool, lines: &mut Vec<String>) {
    lines.push(match &one.says {
        Ok(Partition { topic_name, log_start, .. }) => {
            format!("{topic_name}-{} (topic id {}), log start {log_start}", one.id.index, one.id.topic)
        }
        Err(_) => format!("{}", one.dir.display()),
    });
    if let Some(saved) = &one.saved {
        lines.push(format!(
            "  checkpoint: durable to offset {}, epoch {}, clean {}",
            saved.end, saved.epoch, saved.clean
        ));
    }
    for segment in &one.segments {
        lines.push(format!("  {}", line_of(segment)));
        let mut parts: Vec<(u64, String)> = Vec::new();
        if batches {
            parts.extend(segment.examined.batches.iter().map(|batch| (batch.position, line_of_batch(batch))));
        }
        parts.extend(
            segment.examined.damaged.iter().map(|damaged| (damaged.range.start, line_of_damage(damaged))),
        );
        parts.sort();
        lines.extend(parts.into_iter().map(|(_, line)| format!("    {line}")));
    }
    lines.extend(one.faults.iter().map(|fault| format!("  DAMAGED: {fault}")));
}

fn line_of(segment: &SegmentFacts) -> String {
    let examined = &segment.examined;
    let torn = examined.torn.as_ref().map_or(String::new(), |torn| {
        format!(", {} bytes of an unfinished write behind it", torn.end - torn.start)
    });
    let journaled = match journaled_bytes(segment) {
        0 => String::new(),
        bytes => format!(" and {} in the journal", format_bytes(bytes)),
    };
    format!(
        "{}: offsets {} up to {}, {} batches, {} in a file of {}{journaled}, index {}{torn}",
        segment.path.file_name().unwrap_or_default().display(),
        segment.base,
        examined.end,
        examined.batches.len(),
        format_bytes(examined.position),
        format_bytes(segment.file_bytes),
        name_of(segment.index),
    )
}

/// What the next start puts into the file.
fn journaled_bytes(segment: &SegmentFacts) -> u64 {
    segment.journaled.iter().map(|flush| flush.batches.len() as u64).sum()
}

fn name_of(index: IndexState) -> &'static str {
    match index {
        IndexState::Missing => "none",
        IndexState::Valid => "valid",
        IndexState::Damaged => "damaged (built anew at the next start)",
    }
}

fn line_of_batch(batch: &BatchFacts) -> String {
    let producer = match batch.producer {
        -1 => String::new(),
        id => format!(", producer {id} epoch {} sequence {}", batch.producer_epoch, batch.base_sequence),
    };
    format!(
        "at {}: offset {} up to {}, epoch {}, {} records, {} bytes, {}{producer}",
        batch.position, batch.base, batch.next, batch.epoch, batch.records, batch.bytes, batch.codec
    )
}

fn line_of_damage(damaged: &Damaged) -> String {
    let (start, end) = (damaged.range.start, damaged.range.end);
    format!("DAMAGED at byte {start} to {end}: {}; {}", damaged.why, lost(damaged))
}

/// What a repair does about one damaged place.
fn lost(damaged: &Damaged) -> String {
    let offsets = &damaged.offsets;
    if damaged.restored.is_some() {
        return format!(
            "its first bytes can be restored, nothing is lost (offset {} to {})",
            offsets.start, offsets.end
        );
    }
    if damaged.is_of_whole_batches() {
        return "its batches are good and stay".to_owned();
    }
    match offsets.is_empty() {
        true => format!(
            "lost: what came from offset {} on, {} bytes",
            offsets.start,
            damaged.range.end - damaged.range.start
        ),
        false => format!(
            "lost: offset {} to {}, {} offsets",
            offsets.start,
            offsets.end,
            offsets.end - offsets.start
        ),
    }
}

/// What a repair would do with a partition, as lines.
pub(super) fn plan_of(one: &PartitionFacts, plan: &mut Vec<String>) {
    plan.push(format!("{}:", one.dir.display()));
    if let Some(obstacle) = one.obstacle() {
        plan.push(format!("  NOT MENDED: {obstacle}"));
        return;
    }
    plan.extend(one.faults.iter().map(|fault| format!("  {fault}")));
    for segment in &one.segments {
        for damaged in &segment.examined.damaged {
            let name = segment.path.file_name().unwrap_or_default().display();
            plan.push(format!(
                "  {name}, byte {} to {}: {}; {}",
                damaged.range.start,
                damaged.range.end,
                damaged.why,
                lost(damaged)
            ));
        }
    }
}

pub(super) fn plan_of_metadata(generation: &GenerationFacts, plan: &mut Vec<String>) {
    let Some((position, why)) = &generation.damage else { return };
    plan.push(format!("{}:", generation.path.display()));
    plan.push(format!(
        "  byte {position}: {why}; what was decided from there on (topics, configs, epochs) is lost. The logs of topics it no longer knows stay where they are and are not served."
    ));
}

fn whole(report: &Report) -> Value {
    let uuid = match report.identity {
        Identity::Known(uuid) => Some(hex(&uuid)),
        Identity::Newer(_) | Identity::Unknown => None,
    };
    json!({
        "storage": uuid,
        "clean": report.clean,
        "checkpoints": report.checkpoints.iter().map(slot).collect::<Vec<_>>(),
        "metadata": report.raft.iter().map(generation).collect::<Vec<_>>(),
        "partitions": report.partitions.iter().map(partition).collect::<Vec<_>>(),
        "notes": report.notes,
    })
}

fn slot(slot: &SlotFacts) -> Value {
    let (sequence, logs) = slot.content.as_ref().ok().copied().unzip();
    json!({"path": slot.path, "bytes": slot.bytes, "sequence": sequence, "logs": logs, "damage": slot.content.as_ref().err()})
}

fn generation(one: &GenerationFacts) -> Value {
    let groups = one.groups.iter().map(|group| {
        json!({"position": group.position, "bytes": group.bytes, "sequence": group.sequence, "records": group.records})
    });
    let damage = one.damage.as_ref().map(|(position, why)| json!({"position": position, "why": why}));
    json!({"path": one.path, "bytes": one.bytes, "writes": groups.collect::<Vec<_>>(), "damage": damage})
}

fn partition(one: &PartitionFacts) -> Value {
    let says = one.says.as_ref();
    let format = match says {
        Ok(_) => Some(Partition::FORMAT),
        Err(Unreadable::Newer(version)) => Some(*version),
        Err(Unreadable::Damaged) => None,
    };
    json!({
        "dir": one.dir,
        "topic": says.ok().map(|says| says.topic_name.clone()),
        "topic_id": one.id.topic.to_string(),
        "partition": one.id.index,
        "format": format,
        "log_start": says.ok().map(|says| says.log_start.0),
        "checkpoint_end": one.saved.as_ref().map(|saved| saved.end.0),
        "faults": one.faults.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "segments": one.segments.iter().map(segment).collect::<Vec<_>>(),
    })
}

fn segment(one: &SegmentFacts) -> Value {
    let batches = one.examined.batches.iter().map(|batch| {
        json!({
            "position": batch.position, "bytes": batch.bytes, "base_offset": batch.base.0, "next_offset": batch.next.0,
            "epoch": batch.epoch.0, "records": batch.records, "codec": batch.codec, "producer_id": batch.producer,
            "producer_epoch": batch.producer_epoch, "base_sequence": batch.base_sequence,
            "max_timestamp": batch.max_timestamp, "crc_ok": true,
        })
    });
    let damaged = one.examined.damaged.iter().map(|damaged| {
        json!({
            "from": damaged.range.start, "to": damaged.range.end, "why": damaged.why, "restorable": damaged.restored.is_some(),
            "first_offset": damaged.offsets.start, "end_offset": damaged.offsets.end,
        })
    });
    json!({
        "path": one.path,
        "base_offset": one.base.0,
        "end_offset": one.examined.end,
        "bytes": one.examined.position,
        "file_bytes": one.file_bytes,
        "journal_bytes": journaled_bytes(one),
        "index": name_of(one.index),
        "torn_bytes": one.examined.torn.as_ref().map(|torn| torn.end - torn.start),
        "batches": batches.collect::<Vec<_>>(),
        "damage": damaged.collect::<Vec<_>>(),
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
