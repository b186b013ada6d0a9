//! `tidings store`: inspects, verifies, repairs and backs up a store in a directory.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use tidings_log::{
    Cursor, Timestamp,
    segment::tools::{self, Copied, Finding, Inspection, SegmentInspection, ToolError},
};

use crate::{
    failure::Failure,
    output::{print_foreign, print_line},
};

/// Inspect, verify, repair or back up a store in a directory
#[derive(Args, Debug)]
pub(super) struct Store {
    #[command(subcommand)]
    command: StoreCommand,
}

#[derive(Debug, Subcommand)]
enum StoreCommand {
    /// Print the contents of a store: epochs, segments, events, deletions, known damage. Works
    /// while a hub uses it
    Inspect {
        /// The directory of the store
        #[arg(value_name = "DIR")]
        directory: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Read all of a store and report each damaged record by file and offset; exit code 1 if there
    /// is any. Works while a hub uses it
    Verify {
        /// The directory of the store
        #[arg(value_name = "DIR")]
        directory: PathBuf,
        /// Print JSON, one object a line
        #[arg(long)]
        json: bool,
    },
    /// Copy every intact event of a store into a new directory, with its position, id and time, and
    /// report what is lost; exit code 1 if anything is. The hub must be stopped. DIR is never
    /// changed
    Repair {
        /// The directory of the store
        #[arg(value_name = "DIR")]
        directory: PathBuf,
        /// The new directory; it must be empty or not exist
        #[arg(value_name = "TO")]
        to: PathBuf,
    },
    /// Copy a store into a new directory, with everything that was acknowledged before the copy
    /// began. Works while a hub uses it. A hub that is started with the copy begins a new epoch, so
    /// readers that know newer events get a gap; exit code 1 if DIR is damaged
    Backup {
        /// The directory of the store
        #[arg(value_name = "DIR")]
        directory: PathBuf,
        /// The new directory; it must be empty or not exist
        #[arg(value_name = "TO")]
        to: PathBuf,
    },
}

impl Store {
    pub(super) fn run(self) -> Result<(), Failure> {
        match self.command {
            StoreCommand::Inspect { directory, json } => inspect(&directory, json),
            StoreCommand::Verify { directory, json } => verify(&directory, json),
            StoreCommand::Repair { directory, to } => {
                copy(&to, |report| tools::repair(&directory, &to, report))
            }
            StoreCommand::Backup { directory, to } => {
                copy(&to, |report| tools::backup(&directory, &to, report))
            }
        }
    }
}

fn inspect(directory: &Path, json: bool) -> Result<(), Failure> {
    let inspected = tools::inspect(directory).map_err(Failure::runtime)?;
    if json {
        return print_line(&as_json(&inspected).to_string());
    }
    let Inspection { epochs, segments, deletions, damage, .. } = &inspected;
    let state = match (inspected.is_in_use, inspected.is_closed) {
        (true, _) => "in use",
        (false, Some(true)) => "closed cleanly",
        (false, Some(false)) => "not closed cleanly: it is recovered when it is opened",
        (false, None) => "unknown",
    };
    let sum = |number: fn(&SegmentInspection) -> u64| segments.iter().map(number).sum::<u64>();
    let earliest = segments.iter().filter_map(|segment| segment.earliest).min();
    let latest = segments.iter().filter_map(|segment| segment.latest).max();
    let mut lines = vec![
        format!("state      {state}"),
        format!("events     {} in {} bytes", sum(|segment| segment.events), sum(|segment| segment.bytes)),
        format!("compacted  {} events removed by compaction", sum(|segment| segment.removed)),
        format!(
            "expired    up to number {}; their bytes are removed with their segments",
            inspected.hidden_through
        ),
        format!("oldest     {}", time(earliest)),
        format!("newest     {}", time(latest)),
        format!("epochs     {}", epochs.len()),
        format!("segments   {}", segments.len()),
    ];
    lines.extend(segments.iter().map(|segment| {
        let SegmentInspection { file, first, last, events, bytes, .. } = segment;
        format!("  {file}  {first} to {last}, {events} events, {bytes} bytes")
    }));
    lines.push(format!("deletions  {} not yet compacted", deletions.len()));
    lines.extend(deletions.iter().map(|(topic, through)| format!("  {topic}  up to number {through}")));
    lines.push(format!(
        "damage     {}",
        if damage.is_empty() { "none known; `tidings store verify` reads everything" } else { "" }
    ));
    lines.extend(damage.iter().map(|finding| format!("  {}", shown(finding))));
    print_foreign(lines.join("\n").trim_end())
}

fn as_json(inspected: &Inspection) -> Value {
    let millis = |time: Option<Timestamp>| time.map(Timestamp::to_millis);
    let segments = inspected.segments.iter().map(|segment| {
        json!({
            "file": segment.file,
            "first": segment.first,
            "last": segment.last,
            "events": segment.events,
            "removed": segment.removed,
            "bytes": segment.bytes,
            "earliest_millis": millis(segment.earliest),
            "latest_millis": millis(segment.latest),
        })
    });
    let epochs = inspected.epochs.iter().map(|start| {
        let cursor = Cursor { epoch: start.epoch, position: start.after };
        json!({ "begins_after": cursor.to_string() })
    });
    json!({
        "in_use": inspected.is_in_use,
        "closed": inspected.is_closed,
        "events": inspected.segments.iter().map(|segment| segment.events).sum::<u64>(),
        "bytes": inspected.segments.iter().map(|segment| segment.bytes).sum::<u64>(),
        "hidden_through": inspected.hidden_through,
        "oldest_millis": millis(inspected.segments.iter().filter_map(|segment| segment.earliest).min()),
        "newest_millis": millis(inspected.segments.iter().filter_map(|segment| segment.latest).max()),
        "epochs": epochs.collect::<Vec<_>>(),
        "segments": segments.collect::<Vec<_>>(),
        "deletions": inspected.deletions.iter().map(|(topic, through)| json!({ "topic": topic, "through": through })).collect::<Vec<_>>(),
        "damage": inspected.damage.iter().map(finding_as_json).collect::<Vec<_>>(),
    })
}

fn verify(directory: &Path, json: bool) -> Result<(), Failure> {
    let mut printed = Ok(());
    let verified = tools::verify(directory, |finding| {
        if printed.is_ok() {
            printed = if json {
                print_line(&finding_as_json(&finding).to_string())
            } else {
                print_foreign(&shown(&finding))
            };
        }
    })
    .map_err(Failure::runtime)?;
    printed?;
    if json {
        print_line(
            &json!({
                "segments": verified.segments,
                "events": verified.events,
                "bytes": verified.bytes,
                "lost": verified.lost,
                "damaged": verified.damaged,
                "unfinished_bytes": verified.unfinished_bytes,
            })
            .to_string(),
        )?;
    } else {
        let tail = match verified.unfinished_bytes {
            0 => String::new(),
            bytes => {
                format!("; {bytes} bytes at the end are an unfinished write, which is not damage")
            }
        };
        let (events, segments, bytes) = (verified.events, verified.segments, verified.bytes);
        print_line(&format!("{events} intact events in {segments} segments, {bytes} bytes{tail}"))?;
    }
    match verified.damaged {
        0 => Ok(()),
        damaged => Err(Failure::runtime(format!(
            "{} is damaged in {damaged} places, and {} events are lost; `tidings store repair` recovers the others",
            directory.display(),
            verified.lost
        ))),
    }
}

fn copy(
    to: &Path,
    copy: impl FnOnce(&mut dyn FnMut(Finding)) -> Result<Copied, ToolError>,
) -> Result<(), Failure> {
    let mut printed = Ok(());
    let mut found = 0;
    let copied = copy(&mut |finding| {
        found += 1;
        if printed.is_ok() {
            printed = print_foreign(&shown(&finding));
        }
    })
    .map_err(Failure::runtime)?;
    printed?;
    print_line(&format!("{} events copied to {}", copied.events, to.display()))?;
    if found == 0 {
        return Ok(());
    }
    Err(Failure::runtime(format!(
        "{} acknowledged events are lost; subscribers that miss them get a gap notice",
        copied.lost
    )))
}

fn shown(finding: &Finding) -> String {
    let Finding { file, offset, what } = finding;
    match offset {
        Some(offset) => format!("{file} at {offset}: {what}"),
        None => format!("{file}: {what}"),
    }
}

fn finding_as_json(finding: &Finding) -> Value {
    json!({ "file": finding.file, "offset": finding.offset, "what": finding.what })
}

fn time(time: Option<Timestamp>) -> String {
    let millis = time.and_then(|time| i64::try_from(time.to_millis()).ok());
    let shown = millis.and_then(|millis| jiff::Timestamp::from_millisecond(millis).ok());
    shown.map_or_else(|| "none".to_owned(), |time| time.to_string())
}
