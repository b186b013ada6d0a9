//! The process and the program.

use crate::metrics::{
    labels::Label,
    metric::{
        Metric,
        Reading::{Each, One},
        Sample, real, whole,
    },
    process::Process,
    sources::Sources,
};

/// What the system says of the process; nothing where it says nothing.
fn read(sources: &Sources, samples: fn(&Process) -> Vec<Sample>) -> Vec<Sample> {
    sources.process.as_ref().map_or_else(Vec::new, samples)
}

pub(super) static METRICS: &[Metric] = &[
    Metric {
        name: "tidings_build_info",
        help: "Always 1; its label is the version of the hub",
        action: "Join it with other metrics to see which version has changed them.",
        reading: Each(&[Label { name: "version", values: &[env!("CARGO_PKG_VERSION")] }], |_| whole(1_u64)),
    },
    Metric {
        name: "process_cpu_seconds_total",
        help: "Processor time of the process, in user and kernel mode, in seconds",
        action: "A rate near the number of processors means that the hub needs more of them, or another hub.",
        reading: One(|sources| read(sources, |process| real(process.cpu_secs))),
    },
    Metric {
        name: "process_resident_memory_bytes",
        help: "Memory of the process that is in RAM",
        action: "Alert before it reaches the memory limit of the machine or container.",
        reading: One(|sources| read(sources, |process| whole(process.resident_bytes))),
    },
    Metric {
        name: "process_virtual_memory_bytes",
        help: "Address space of the process",
        action: "Nothing needs to be done: most of it takes no memory.",
        reading: One(|sources| read(sources, |process| whole(process.virtual_bytes))),
    },
    Metric {
        name: "process_open_fds",
        help: "File descriptors that are open",
        action: "Compare it with `process_max_fds`.",
        reading: One(|sources| read(sources, |process| whole(process.open_fds))),
    },
    Metric {
        name: "process_max_fds",
        help: "The limit on file descriptors; absent without one",
        action: "Alert before `process_open_fds` reaches it.",
        reading: One(|sources| read(sources, |process| process.max_fds.map_or_else(Vec::new, whole))),
    },
    Metric {
        name: "process_start_time_seconds",
        help: "When the process was started, in seconds since 1970",
        action: "A change means a restart, after which all counters begin at 0.",
        reading: One(|sources| read(sources, |process| real(process.start_secs))),
    },
    Metric {
        name: "process_threads",
        help: "Threads of the process",
        action: "It is constant but for short work besides; steady growth is a defect to report.",
        reading: One(|sources| read(sources, |process| whole(process.threads))),
    },
];
