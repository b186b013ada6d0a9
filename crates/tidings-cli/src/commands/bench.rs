//! `tidings bench`: measures Tidings or another hub.

use std::{
    fs::{self, File},
    io::Write as _,
    path::PathBuf,
    time::Duration,
};

use clap::{Args, ValueEnum, builder::PossibleValue};
use jiff::Timestamp;
use serde_json::json;
use tidings_bench::{BenchError, Plan, Preset, Progress, Report, Resume, Scenario, Target};
use tidings_client::HubUrl;

use crate::{config::time, failure::Failure, output::print_line};

/// Measure Tidings or another hub, and fail if an event is lost, duplicated or reordered
///
/// Scenarios, with the sizes of the project's own comparison by default:
///
///   idle          15,000 idle subscribers: memory, connections per second
///   fanout        5,000 subscribers, 200 events back to back: deliveries per second
///   fanout-slow   the same at 10 events per second: latency, CPU per delivery
///   many          5,000 subscribers with a topic each, 50,000 events
///   burst         100 subscribers, 20,000 events back to back
///   publish       no subscribers, 100,000 events
///   replay        200 late subscribers request 1,000 events
///   storm         15,000 subscribers reconnect after the server was killed
///   slow-readers  1,000 subscribers, 100 of which read nothing while 8 MB are published
///   growth        idle and fanout-slow from 1,000 to 18,000 subscribers
///   private       private events to subscribers with different tokens, and public ones
///   delete        8 publishers and 100 subscribers, while one client publishes and deletes:
///                 how long the others wait, compared with no such client
///   soak          5,000 subscribers connect and disconnect for --minutes, 200 events per
///                 second on 50 topics: no event is lost, and the server does not grow.
///                 The hub must keep 2,000 events
///
/// Presets of --hub, and their URLs relative to --url (--dry-run prints complete requests):
///
///   tidings   GET /stream?topic={topic}                    POST /topics/{topic}
///   nchan     GET /sub/{topic}                             POST /pub/{topic}
///   mercure   GET /.well-known/mercure?topic={topic}       POST /.well-known/mercure
///   pushpin   GET /stream?topic={topic}                    POST to port 5561, /publish/
///   centrifugo  GET /connection/uni_sse?cf_connect=…       POST /api/publish
///   axum      GET /stream?topic={topic}                    POST /topics/{topic}
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Bench {
    /// Scenarios to run, in order
    #[arg(required = true, value_name = "SCENARIO", hide_possible_values = true)]
    scenarios: Vec<ScenarioName>,
    /// Preset for the hub: templates, headers, body and cursor
    #[arg(long, value_name = "HUB", default_value = "tidings")]
    hub: PresetName,
    /// Name of the hub in reports [default: that of --hub]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Print the requests without sending them
    #[arg(long)]
    dry_run: bool,
    /// URL of the hub
    #[arg(long, env = "TIDINGS_URL", default_value = "http://127.0.0.1:8080", hide_env_values = true)]
    url: String,
    /// URL template for subscribing, instead of the preset:
    /// http://127.0.0.1:8080/stream?topic={topic}
    #[arg(long, value_name = "TEMPLATE")]
    subscribe: Option<String>,
    /// URL template for publishing, instead of the preset: http://127.0.0.1:8080/topics/{topic}
    #[arg(long, value_name = "TEMPLATE")]
    publish: Option<String>,
    /// Body of a publish request, with {data} and optionally {topic}
    #[arg(long, value_name = "TEMPLATE")]
    body: Option<String>,
    /// Header of subscriptions, instead of those of the preset; repeatable
    #[arg(long, value_name = "NAME: VALUE")]
    subscribe_header: Vec<String>,
    /// Header of publish requests, instead of those of the preset; repeatable
    #[arg(long, value_name = "NAME: VALUE")]
    publish_header: Vec<String>,
    /// Query parameter for the id to resume from, instead of the header Last-Event-ID
    #[arg(long, value_name = "NAME")]
    resume_parameter: Option<String>,
    /// Token for publishing, and for subscribing unless --subscribe-tokens is given
    #[arg(long, env = "TIDINGS_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// File with one token per line, assigned to subscribers in rotation
    #[arg(long, value_name = "FILE")]
    subscribe_tokens: Option<PathBuf>,
    /// Number of subscribers
    #[arg(long, value_name = "N")]
    subscribers: Option<usize>,
    /// Number of events
    #[arg(long, value_name = "N")]
    events: Option<u64>,
    /// Number of keep-alive connections that publish, each with one outstanding request
    #[arg(long, value_name = "N")]
    publishers: Option<usize>,
    /// Events per second; latency is then measured from when an event was due
    #[arg(long, value_name = "N")]
    rate: Option<f64>,
    /// Length of each event's data
    #[arg(long, value_name = "N")]
    payload_bytes: Option<usize>,
    /// Process ID of the server, whose CPU and memory are measured, including its children
    #[arg(long, value_name = "PID")]
    server_pid: Option<u32>,
    /// storm: command that restarts the server in the foreground; it is stopped at the end
    #[arg(long, value_name = "COMMAND")]
    restart_command: Option<String>,
    /// storm: time before the memory of the server is measured
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = time)]
    settle: Duration,
    /// slow-readers: minimum time without reading, such as 60s
    #[arg(long, value_name = "TIME", value_parser = time)]
    frozen: Option<Duration>,
    /// soak: minutes for which events are published
    #[arg(long, value_name = "N", default_value = "30", value_parser = minutes)]
    minutes: Duration,
    /// soak: seed for the times that subscribers stay connected; the same number repeats a run
    #[arg(long, value_name = "N", default_value = "1")]
    seed: u64,
    /// Time without an event until missing events count as lost
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = time)]
    patience: Duration,
    /// Accept different orders on different streams of one topic, for events of different publishers
    #[arg(long)]
    no_common_order: bool,
    /// Print version, date, arguments and results as JSON instead of the table
    #[arg(long)]
    json: bool,
    /// Write the same JSON to this file
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

impl Bench {
    pub(super) fn run(self) -> Result<(), Failure> {
        let target = self.target()?;
        if self.dry_run {
            return print_line(&target.sample_requests().map_err(|error| Failure::usage(error.to_string()))?);
        }
        // Fail before the measurement if the file cannot be written.
        let output = self.open_output()?;
        let mut progress = Progress::on_terminal();
        let mut reports = Vec::new();
        for scenario in &self.scenarios {
            let plan = self.plan(scenario.0, target.clone());
            let report =
                tidings_bench::run(&plan, &mut progress).map_err(|error| explain(scenario.0, &error))?;
            if !self.json {
                print_line(report.to_string().trim_end())?;
            }
            reports.push(report);
        }
        write_json(&reports, self.json, output)?;
        let failed = reports.iter().find_map(|report| Some((report, report.failure()?)));
        failed.map_or(Ok(()), |(report, failure)| {
            Err(Failure::runtime(format!("{} of {}: {failure}", report.scenario, report.hub)))
        })
    }

    /// The URL of the hub, and the key that it contains, which then is the token. Any text is the
    /// base of a template.
    fn hub_url(&self) -> Result<(String, Option<String>), Failure> {
        if !self.url.contains('@') {
            return Ok((self.url.clone(), None));
        }
        let HubUrl { url, key } = HubUrl::parse(&self.url)
            .map_err(|error| Failure::usage(format!("--url (TIDINGS_URL): {error}")))?;
        if key.is_some() && self.token.as_ref().is_some_and(|token| !token.is_empty()) {
            return Err(Failure::usage(
                "--url (TIDINGS_URL): the URL contains a key, and --token (TIDINGS_TOKEN) is given as well: give one of the two",
            ));
        }
        Ok((url.to_string(), key))
    }

    fn target(&self) -> Result<Target, Failure> {
        let (base, key) = self.hub_url()?;
        let mut target = Target::preset(self.hub.0, &base);
        if let Some(name) = &self.name {
            target.name.clone_from(name);
        }
        let replace = |place: &mut String, value: &Option<String>| {
            if let Some(value) = value {
                place.clone_from(value);
            }
        };
        replace(&mut target.subscribe, &self.subscribe);
        replace(&mut target.publish, &self.publish);
        replace(&mut target.body, &self.body);
        if !self.subscribe_header.is_empty() {
            target.subscribe_headers.clone_from(&self.subscribe_header);
        }
        if !self.publish_header.is_empty() {
            target.publish_headers.clone_from(&self.publish_header);
        }
        if let Some(name) = &self.resume_parameter {
            target.resume = vec![Resume::Parameter(name.clone())];
        }
        target.token = key.or_else(|| self.token.clone()).filter(|token| !token.is_empty());
        if let Some(path) = &self.subscribe_tokens {
            let text = fs::read_to_string(path)
                .map_err(|error| Failure::usage(format!("--subscribe-tokens {}: {error}", path.display())))?;
            target.subscribe_tokens =
                text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect();
        }
        Ok(target)
    }

    fn plan(&self, scenario: Scenario, target: Target) -> Plan {
        Plan {
            subscribers: self.subscribers,
            events: self.events,
            publishers: self.publishers,
            rate: self.rate,
            payload_bytes: self.payload_bytes,
            server_pid: self.server_pid,
            restart_command: self.restart_command.clone(),
            settle: self.settle,
            frozen: self.frozen.unwrap_or_default(),
            length: self.minutes,
            seed: self.seed,
            patience: self.patience,
            one_order: !self.no_common_order,
            ..Plan::new(target, scenario)
        }
    }

    fn open_output(&self) -> Result<Option<File>, Failure> {
        let path = self.output.as_ref();
        path.map(|path| {
            File::create(path)
                .map_err(|error| Failure::usage(format!("--output {}: {error}", path.display())))
        })
        .transpose()
    }
}

/// Omits the token.
impl std::fmt::Debug for Bench {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bench")
            .field("scenarios", &self.scenarios)
            .field("url", &tidings_net::redacted(&self.url))
            .finish_non_exhaustive()
    }
}

fn write_json(reports: &[Report], to_stdout: bool, file: Option<File>) -> Result<(), Failure> {
    let document = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "date": Timestamp::now().to_string(),
        "arguments": arguments(),
        "results": reports,
    });
    let text = serde_json::to_string_pretty(&document).map_err(Failure::runtime)?;
    if let Some(mut file) = file {
        writeln!(file, "{text}").map_err(|error| Failure::runtime(format!("--output: {error}")))?;
    }
    if to_stdout { print_line(&text) } else { Ok(()) }
}

/// The command line of this run, without the value of `--token`.
fn arguments() -> Vec<String> {
    let mut hide_next = false;
    let shown = |argument: String| {
        let hide = std::mem::replace(&mut hide_next, argument == "--token");
        match argument.split_once('=') {
            Some(("--token", _)) => "--token=(hidden)".to_owned(),
            _ if hide => "(hidden)".to_owned(),
            _ => tidings_net::redacted(&argument).to_string(),
        }
    };
    std::env::args_os().skip(1).map(|argument| argument.to_string_lossy().into_owned()).map(shown).collect()
}

/// A number of minutes, which may be a fraction.
fn minutes(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().ok().map(|minutes| minutes * 60.0);
    seconds
        .filter(|seconds| *seconds > 0.0)
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or_else(|| "it must be a number of minutes, more than 0, such as 30 or 0.5".to_owned())
}

fn explain(scenario: Scenario, error: &BenchError) -> Failure {
    match error {
        BenchError::Plan(text) => Failure::usage(text),
        error => Failure::runtime(format!("{}: {error}", scenario.name())),
    }
}

#[derive(Clone, Copy, Debug)]
struct ScenarioName(Scenario);

impl ValueEnum for ScenarioName {
    fn value_variants<'a>() -> &'a [Self] {
        const NAMES: [ScenarioName; Scenario::ALL.len()] = {
            let mut names = [ScenarioName(Scenario::Idle); Scenario::ALL.len()];
            let mut place = 0;
            while place < names.len() {
                names[place] = ScenarioName(Scenario::ALL[place]);
                place += 1;
            }
            names
        };
        &NAMES
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.0.name()))
    }
}

#[derive(Clone, Copy, Debug)]
struct PresetName(Preset);

impl ValueEnum for PresetName {
    fn value_variants<'a>() -> &'a [Self] {
        const NAMES: [PresetName; Preset::ALL.len()] = {
            let mut names = [PresetName(Preset::Tidings); Preset::ALL.len()];
            let mut index = 0;
            while index < names.len() {
                names[index] = PresetName(Preset::ALL[index]);
                index += 1;
            }
            names
        };
        &NAMES
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.0.name()))
    }
}
