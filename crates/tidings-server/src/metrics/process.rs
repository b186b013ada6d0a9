//! What the system says of this process, as every Prometheus client reports it.

/// The process at one moment.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Process {
    pub(super) cpu_secs: f64,
    pub(super) start_secs: f64,
    pub(super) resident_bytes: u64,
    pub(super) virtual_bytes: u64,
    pub(super) threads: u64,
    pub(super) open_fds: u64,
    pub(super) max_fds: Option<u64>,
}

#[cfg(target_os = "linux")]
impl Process {
    /// Reads it from `/proc`, which may take milliseconds with very many file descriptors. None where
    /// it is not mounted.
    pub(crate) fn read() -> Option<Self> {
        use std::fs;

        use rustix::{
            param::{clock_ticks_per_second, page_size},
            process::{Resource, getrlimit},
        };

        let stat = Stat::parse(&fs::read_to_string("/proc/self/stat").ok()?)?;
        let boot_secs = fs::read_to_string("/proc/stat").ok()?;
        let boot_secs: u64 = boot_secs.lines().find_map(|line| line.strip_prefix("btime "))?.parse().ok()?;
        #[expect(clippy::cast_precision_loss, reason = "these are small numbers")]
        let secs = |ticks: u64| ticks as f64 / clock_ticks_per_second() as f64;
        // Newer kernels tell the number; with older ones it is counted, this look itself included.
        let counted = fs::metadata("/proc/self/fd").ok()?.len();
        let open_fds = if counted > 0 {
            counted
        } else {
            (fs::read_dir("/proc/self/fd").ok()?.count() as u64).saturating_sub(1)
        };
        #[expect(clippy::cast_precision_loss, reason = "seconds since 1970 are far below 2^52")]
        let start_secs = boot_secs as f64 + secs(stat.start_ticks);
        Some(Self {
            cpu_secs: secs(stat.cpu_ticks),
            start_secs,
            resident_bytes: stat.resident_pages * page_size() as u64,
            virtual_bytes: stat.virtual_bytes,
            threads: stat.threads,
            open_fds,
            max_fds: getrlimit(Resource::Nofile).current,
        })
    }
}

#[cfg(not(target_os = "linux"))]
impl Process {
    /// Other systems have no `/proc` to read.
    pub(crate) fn read() -> Option<Self> {
        None
    }
}

/// The fields of `/proc/self/stat` that are used (proc_pid_stat(5)).
#[cfg(target_os = "linux")]
#[derive(PartialEq, Debug)]
struct Stat {
    cpu_ticks: u64,
    threads: u64,
    start_ticks: u64,
    virtual_bytes: u64,
    resident_pages: u64,
}

#[cfg(target_os = "linux")]
impl Stat {
    fn parse(line: &str) -> Option<Self> {
        // The name of the program, in brackets, may contain anything. The state behind it is field 3.
        let (_, fields) = line.rsplit_once(')')?;
        let fields: Vec<_> = fields.split_ascii_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        Some(Self {
            cpu_ticks: field(14)? + field(15)?,
            threads: field(20)?,
            start_ticks: field(22)?,
            virtual_bytes: field(23)?,
            resident_pages: field(24)?,
        })
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_program_may_have_any_name() {
        let line =
            "7 (a) S 1 (b) S 1 2 3 4 -5 6 7 8 9 10 40 2 13 14 20 0 3 0 5000 8192 11 18446744073709551615\n";
        let expected =
            Stat { cpu_ticks: 42, threads: 3, start_ticks: 5000, virtual_bytes: 8192, resident_pages: 11 };
        assert_eq!(Stat::parse(line), Some(expected));
        assert_eq!(Stat::parse("7 (a) S 1 2"), None);
    }

    #[test]
    fn this_process_uses_memory_files_and_threads() {
        let process = Process::read().expect("Linux has /proc");
        assert!(
            process.resident_bytes > 100_000 && process.virtual_bytes > process.resident_bytes,
            "{process:?}"
        );
        assert!(process.open_fds > 2 && process.threads > 0 && process.start_secs > 1e9, "{process:?}");
    }
}
