//! Processor time and memory of the measured process and its children, from `/proc`.

use std::{fs, time::Duration};

use rustix::{
    param::clock_ticks_per_second,
    process::{Pid, Signal, kill_process},
};

use crate::BenchError;

/// The server under test: a process and whatever it started.
#[derive(Clone, Copy, Debug)]
pub struct Server {
    pid: u32,
}

impl Server {
    /// The process with this ID, which must be running.
    pub fn new(pid: u32) -> Result<Self, BenchError> {
        let server = Self { pid };
        server.pss_bytes()?;
        Ok(server)
    }

    /// Processor time so far, user and system together.
    pub fn cpu(self) -> Duration {
        self.tree().into_iter().map(cpu_of).sum()
    }

    /// Private memory and a share of what is shared.
    pub(crate) fn pss_bytes(self) -> Result<u64, BenchError> {
        self.memory_bytes("Pss:")
    }

    /// Memory that the process has written. Unlike [`pss_bytes`](Self::pss_bytes) it does not grow
    /// when another process ends that ran the same program and shared its pages.
    pub(crate) fn written_bytes(self) -> Result<u64, BenchError> {
        self.memory_bytes("Pss_Anon:")
    }

    fn memory_bytes(self, field: &str) -> Result<u64, BenchError> {
        let of = |pid: u32| {
            let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
            let amount = rollup.lines().find_map(|line| line.strip_prefix(field))?;
            amount.trim().trim_end_matches(" kB").parse::<u64>().ok()
        };
        let kib: Vec<u64> = self.tree().into_iter().filter_map(of).collect();
        if kib.is_empty() {
            return Err(self.gone());
        }
        Ok(kib.iter().sum::<u64>() * 1024)
    }

    /// Open file descriptors, including sockets.
    pub(crate) fn descriptors(self) -> Result<u64, BenchError> {
        let of = |pid: u32| Some(fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count() as u64);
        let counts: Vec<u64> = self.tree().into_iter().filter_map(of).collect();
        if counts.is_empty() {
            return Err(self.gone());
        }
        Ok(counts.iter().sum())
    }

    /// Kills the process and its children, and waits until they are gone.
    pub(crate) fn kill(self) -> Result<(), BenchError> {
        let tree = self.tree();
        for pid in &tree {
            let pid = i32::try_from(*pid).ok().and_then(Pid::from_raw).expect("the kernel named it");
            // A child may have exited with its parent.
            match kill_process(pid, Signal::KILL) {
                Ok(()) | Err(rustix::io::Errno::SRCH) => {}
                Err(error) => return Err(BenchError::machine("cannot kill the server", error)),
            }
        }
        while tree.iter().any(|pid| state(*pid).is_some_and(|state| state != 'Z')) {
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    fn gone(self) -> BenchError {
        BenchError::plan(format!(
            "--server-pid {}: there is no such process, or it belongs to another user",
            self.pid
        ))
    }

    fn tree(self) -> Vec<u32> {
        let Ok(entries) = fs::read_dir("/proc") else { return vec![self.pid] };
        let processes: Vec<(u32, u32)> = entries
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .filter_map(|pid| Some((pid, stat(pid)?.get(1)?.parse().ok()?)))
            .collect();
        let mut tree = vec![self.pid];
        let mut next = 0;
        while let Some(parent) = tree.get(next).copied() {
            tree.extend(processes.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid));
            next += 1;
        }
        tree
    }
}

/// The kernel's table of threads is exact; where it was built without, there are ticks of 10 ms.
fn cpu_of(pid: u32) -> Duration {
    exact_cpu_of(pid).unwrap_or_else(|| {
        let ticks: u64 = stat(pid)
            .and_then(|fields| {
                Some(fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?)
            })
            .unwrap_or_default();
        Duration::from_millis(ticks * 1000 / clock_ticks_per_second().max(1))
    })
}

fn exact_cpu_of(pid: u32) -> Option<Duration> {
    let mut sum = Duration::ZERO;
    for thread in fs::read_dir(format!("/proc/{pid}/task")).ok()? {
        let Ok(table) = fs::read_to_string(thread.ok()?.path().join("sched")) else { return None };
        let line = table.lines().find(|line| line.starts_with("se.sum_exec_runtime"))?;
        let millis: f64 = line.split_once(':')?.1.trim().parse().ok()?;
        sum += Duration::try_from_secs_f64(millis / 1000.0).ok()?;
    }
    Some(sum)
}

/// The fields of `/proc/PID/stat` behind the name: state, parent, …
fn stat(pid: u32) -> Option<Vec<String>> {
    let line = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = line.rsplit_once(')')?;
    Some(fields.split_whitespace().map(str::to_owned).collect())
}

fn state(pid: u32) -> Option<char> {
    stat(pid)?.first()?.chars().next()
}

/// Kernel memory of sockets, their files and their poll entries, of all processes. Readable by root
/// only.
pub(crate) fn kernel_bytes() -> Option<u64> {
    const CACHES: [&str; 6] = ["TCP", "sock_inode_cache", "dentry", "filp", "eventpoll_epi", "ep_head"];
    let table = fs::read_to_string("/proc/slabinfo").ok()?;
    let bytes = table.lines().filter_map(|line| {
        let mut columns = line.split_whitespace();
        CACHES.contains(&columns.next()?).then_some(())?;
        let active: u64 = columns.next()?.parse().ok()?;
        let size: u64 = columns.nth(1)?.parse().ok()?;
        Some(active * size)
    });
    Some(bytes.sum())
}
