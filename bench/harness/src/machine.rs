//! The machine: what it is, and what its disk can do.

use std::{
    env, fs,
    io::Write,
    path::Path,
    time::{Duration, Instant},
};

/// How long syncs are counted.
const SYNC_TIME: Duration = Duration::from_secs(2);

/// Syncs per second of this disk, each of an appended group of 64 events of 128 bytes: with 64
/// publishers that all wait, no log that syncs before it answers can accept more than 64 times as
/// many events.
pub(crate) fn syncs_per_second(folder: &Path) -> anyhow::Result<f64> {
    const GROUP_BYTES: usize = 64 * 256;
    let mut file = tempfile::tempfile_in(folder)?;
    let group = vec![0x5a; GROUP_BYTES];
    let began = Instant::now();
    let mut syncs = 0.0;
    while began.elapsed() < SYNC_TIME {
        file.write_all(&group)?;
        file.sync_data()?;
        syncs += 1.0;
    }
    Ok(syncs / began.elapsed().as_secs_f64())
}

/// The machine, in a line.
pub(crate) fn machine() -> String {
    // Virtual machines often hide the name of the processor; family and model tell which it is.
    let field = |path: &str, name: &str| {
        let text = fs::read_to_string(path).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(name)).map(str::to_owned);
        line.and_then(|line| Some(line.split_once(':')?.1.trim().to_owned())).unwrap_or_default()
    };
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let memory = field("/proc/meminfo", "MemTotal");
    let mebibytes =
        memory.split(' ').next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or_default() / 1024;
    let system = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let system = system.lines().find_map(|line| line.strip_prefix("PRETTY_NAME=")).unwrap_or("Linux");
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!(
        "{}, {cores} cores ({}, family {}, model {}), {mebibytes} MiB, kernel {}, {}",
        system.trim_matches('"'),
        field("/proc/cpuinfo", "model name"),
        field("/proc/cpuinfo", "cpu family"),
        field("/proc/cpuinfo", "model\t"),
        release.trim().split('-').next().unwrap_or_default(),
        env::consts::ARCH
    )
}
