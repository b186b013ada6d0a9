//! `tidings run`: the hub and an application as one process, seen from outside.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    os::unix::process::ExitStatusExt,
    process::{Command, Output, Stdio},
};

use tidings_testkit::{Certificate, Connection, EventStream, Hub, PATIENCE, Port, Signal, TlsClient, binary};

use crate::application;

/// Runs `tidings run` to its end, without an application that serves.
fn run(args: &[&str]) -> Output {
    run_with(&[], args)
}

fn run_with(variables: &[(&str, &str)], args: &[&str]) -> Output {
    let mut command = Command::new(binary().unwrap());
    command.args(["run", "--listen", "127.0.0.1:0"]).args(args).stdin(Stdio::null());
    command.env_remove("TIDINGS_URL").env_remove("TIDINGS_TOKEN").env_remove("PORT").env_remove("RUST_LOG");
    command.envs(variables.iter().copied()).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// The words behind `name is ` in a line of the application.
async fn shown(hub: &mut Hub, name: &str) -> String {
    let line = hub.printed(&format!("app | {name} is ")).await.unwrap();
    line.rsplit_once(" is ").unwrap().1.to_owned()
}

/// The key and the address of the hub, from `http://:KEY@ADDRESS`.
fn key_and_address(url: &str) -> (&str, std::net::SocketAddr) {
    let (key, address) = url.strip_prefix("http://:").unwrap().split_once('@').unwrap();
    (key, address.parse().unwrap())
}

#[tokio::test]
async fn an_application_publishes_operates_and_subscribes_with_what_it_is_given() {
    let mut hub =
        application::hub("show=TIDINGS_URL show=PORT report=TERM serve wait", &["--anonymous", "false"]);
    hub.start_again().await.unwrap();
    let url = shown(&mut hub, "TIDINGS_URL").await;
    let (key, address) = key_and_address(&url);
    assert!(address.ip().is_loopback() && address != hub.address());
    assert!(shown(&mut hub, "PORT").await.parse::<u16>().unwrap() > 1_024);

    let bearer = format!("Authorization: Bearer {key}");
    let mut stream = EventStream::open_with(hub.address(), "/topics/user-42", &[&bearer]).await.unwrap();
    let mut connection = Connection::open(address).await.unwrap();
    for (head, body) in [
        ("POST /topics/user-42?private=true", "hello"),
        ("POST /tickets\nContent-Type: application/x-www-form-urlencoded", "topic=user-42"),
        ("GET /metrics", ""),
    ] {
        connection.request(&format!("{head}\n{bearer}"), body.as_bytes()).await.unwrap();
        let answer = connection.response().await.unwrap();
        assert_eq!(answer.status, 200, "{head}: {}", answer.text());
    }
    assert_eq!(stream.next().await.unwrap().data, "hello");
    let foreign = hub.request("POST /topics/user-42", b"no key").await.unwrap();
    assert_eq!(foreign.status, 401);
    assert!(hub.stop().await.unwrap().success());
}

#[test]
fn an_application_that_runs_tidings_gets_no_warning_and_needs_no_flag() {
    let tidings = binary().unwrap();
    let output = run(&["--", tidings.to_str().unwrap(), "publish", "chat", "hello"]);
    let (out, log) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{log}");
    assert!(out.lines().any(|line| line.starts_with("app | #")), "{out}");
    assert!(!log.contains("app | ") && !log.contains("WARN"), "{log}");
}

#[tokio::test]
async fn the_ticket_secret_of_the_environment_is_that_of_the_hub_and_its_application() {
    let secret = format!("web:{}", "s".repeat(40));
    let mut hub = application::hub("show=TIDINGS_TICKET_SECRET report=TERM serve wait", &[])
        .with_environment("TIDINGS_TICKET_SECRET", &secret);
    hub.start_again().await.unwrap();
    assert_eq!(shown(&mut hub, "TIDINGS_TICKET_SECRET").await, secret);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("secret");
    fs::write(&file, "s".repeat(40)).unwrap();
    let new = ["ticket", "new", "--topic", "user-42", "--secret-id", "web", "--secret-file"];
    let ticket = Command::new(binary().unwrap()).args(new).arg(&file).output().unwrap();
    let target = format!("/stream?ticket={}", text(&ticket.stdout).trim());
    EventStream::open(hub.address(), &target).await.unwrap();
    hub.stop().await.unwrap();
}

#[test]
fn what_is_for_the_hub_alone_is_not_passed_on() {
    let output = run_with(
        &[
            ("NOTIFY_SOCKET", "/nowhere"),
            ("TIDINGS_TOKEN", "a-token"),
            ("PORT", "1"),
            ("PYTHONUNBUFFERED", "x"),
        ],
        &[
            "--",
            "sh",
            "-c",
            "echo ${NOTIFY_SOCKET-none} ${TIDINGS_TOKEN-none} $PYTHONUNBUFFERED; test $PORT != 1",
        ],
    );
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), "app | none none x\n");
}

#[tokio::test]
async fn the_port_of_the_platform_is_that_of_the_hub_unless_a_flag_names_another() {
    let port = Port::reserve().unwrap();
    let number = port.number().to_string();
    let command = application::command();
    for (flag, expected) in [(None, port.number()), (Some("127.0.0.1:0"), 0)] {
        let listen = flag.map(|address| vec!["--listen", address]).unwrap_or_default();
        let args = [&["run"][..], &listen, &["--"]].concat();
        let args = args.into_iter().map(str::to_owned).chain(command.clone());
        let mut hub = Hub::not_started(args)
            .unwrap()
            .on_its_own()
            .with_environment("PORT", &number)
            .with_environment("APPLICATION", "report=TERM serve wait");
        hub.start_again().await.unwrap();
        let addresses = hub.addresses();
        assert_eq!(addresses[0] == format!("*:{number}"), expected != 0, "{addresses:?}");
        hub.stop().await.unwrap();
    }
    let refused =
        Command::new(binary().unwrap()).args(["run", "--", "true"]).env("PORT", "http").output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
    assert!(text(&refused.stderr).starts_with("error: PORT: `http` "), "{}", text(&refused.stderr));
}

#[test]
fn a_command_that_cannot_be_run_ends_the_program_with_the_status_of_shells() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("app");
    fs::write(&file, "not a program").unwrap();
    for (command, status, part) in [
        ("tidings-no-such-program", 127, "no such program"),
        (file.to_str().unwrap(), 126, "not an executable"),
    ] {
        let output = run(&["--", command]);
        assert_eq!(output.status.code(), Some(status));
        let last = text(&output.stderr).lines().last().unwrap();
        assert!(last.starts_with("error: cannot run `") && last.contains(part), "{last}");
    }
    assert_eq!(run(&[]).status.code(), Some(2));
    assert_eq!(run(&["--no-auth", "--", "true"]).status.code(), Some(2));
}

#[test]
fn the_status_of_an_application_that_ends_by_itself_is_that_of_the_program() {
    for (args, script, status) in [
        (&[][..], "exit 0", 0),
        // It has never served, so it is not started again.
        (&[], "exit 7", 7),
        (&["--restart", "never"], "exit 3", 3),
        (&["--restart", "never"], "kill -SEGV $$", 139),
        (&["--restart", "never"], "kill -KILL $$", 137),
    ] {
        let output = run(&[args, &["--", "sh", "-c", script]].concat());
        assert_eq!(output.status.code(), Some(status), "{script}: {}", text(&output.stderr));
    }
}

#[tokio::test]
async fn each_signal_reaches_the_application_once_and_stops_the_hub() {
    for (signal, name) in [(Signal::TERM, "TERM"), (Signal::INT, "INT"), (Signal::QUIT, "QUIT")] {
        let mut hub = application::hub(&format!("report={name} serve wait"), &[]);
        hub.start_again().await.unwrap();
        hub.printed("the application accepts connections").await.unwrap();
        let lines = hub.watch_output().unwrap();
        hub.signal(signal).unwrap();
        assert!(hub.stopped().await.unwrap().success());
        let lines = all(lines).await;
        let got: Vec<_> = lines.into_iter().filter(|line| line.contains("got ")).collect();
        assert_eq!(got, [format!("app | got {name} 1")]);
    }
}

#[tokio::test]
async fn hangup_and_user_signals_are_passed_on_and_an_upgrade_is_refused() {
    let mut hub = application::hub("report=hup,usr1,usr2,TERM serve wait", &[]);
    hub.start_again().await.unwrap();
    hub.printed("the application accepts connections").await.unwrap();
    hub.signal(Signal::HUP).unwrap();
    hub.printed("app | got hup 1").await.unwrap();
    hub.printed("the configuration was reloaded").await.unwrap();
    hub.signal(Signal::USR1).unwrap();
    hub.printed("app | got usr1 1").await.unwrap();
    hub.signal(Signal::USR2).unwrap();
    hub.printed("the upgrade is refused").await.unwrap();
    // The key of the application is still the same.
    let published = Command::new(binary().unwrap())
        .args(["publish", "chat", "hello", "--url"])
        .arg(own_url(&mut hub).await)
        .output();
    assert!(published.unwrap().status.success());
    assert!(hub.output().iter().all(|line| !line.contains("got usr2")));
    assert!(hub.stop().await.unwrap().success());
}

/// All lines of a hub that has ended.
async fn all(mut lines: tokio::sync::watch::Receiver<Vec<String>>) -> Vec<String> {
    let closed = async { while lines.changed().await.is_ok() {} };
    tokio::time::timeout(PATIENCE, closed).await.unwrap();
    lines.borrow().clone()
}

/// `TIDINGS_URL` of the application.
async fn own_url(hub: &mut Hub) -> String {
    let pid = application_pid(hub).await;
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap();
    let mut variables = environment.split(|byte| *byte == 0).map(text);
    variables.find_map(|variable| variable.strip_prefix("TIDINGS_URL=")).unwrap().to_owned()
}

async fn application_pid(hub: &mut Hub) -> u32 {
    let line = hub.printed("the application was started pid=").await.unwrap();
    line.rsplit_once('=').unwrap().1.trim().parse().unwrap()
}

#[tokio::test]
async fn an_application_that_does_not_end_is_killed_after_the_time_to_drain() {
    let mut hub = application::hub("report=term serve wait", &["--drain-secs", "1"]);
    hub.start_again().await.unwrap();
    hub.printed("the application accepts connections").await.unwrap();
    let lines = hub.watch_output().unwrap();
    let status = hub.stop().await.unwrap();
    assert_eq!(status.code(), Some(137));
    let lines = all(lines).await.join("\n");
    assert!(lines.contains("got term 1") && lines.contains("did not end within drain_secs"), "{lines}");
}

#[tokio::test]
async fn a_second_signal_ends_everything_at_once() {
    let mut hub = application::hub("report=term serve wait", &["--drain-secs", "3600"]);
    hub.start_again().await.unwrap();
    hub.printed("the application accepts connections").await.unwrap();
    hub.ask_to_stop().unwrap();
    hub.printed("got term 1").await.unwrap();
    hub.ask_to_stop().unwrap();
    let status = hub.stopped().await.unwrap();
    assert!(!status.success() && status.signal().is_none(), "{status}");
}

#[tokio::test]
async fn the_application_serves_until_the_drain_delay_is_over() {
    let mut hub = application::hub("report=TERM serve wait", &["--drain-delay-secs", "1h"]);
    hub.start_again().await.unwrap();
    hub.printed("the application accepts connections").await.unwrap();
    hub.ask_to_stop().unwrap();
    hub.printed("not ready any more").await.unwrap();
    assert_eq!(hub.request("GET /", b"").await.unwrap().status, 200);
    assert!(!hub.output().iter().any(|line| line.contains("got TERM")));
    hub.ask_to_stop().unwrap();
    hub.printed("got TERM 1").await.unwrap();
    assert!(hub.stopped().await.unwrap().success());
}

#[tokio::test]
async fn what_an_application_leaves_behind_ends_with_it() {
    let mut hub = application::hub("leave report=TERM serve wait", &[]);
    hub.start_again().await.unwrap();
    let line = hub.printed("the child is ").await.unwrap();
    let child = line.rsplit_once(' ').unwrap().1.to_owned();
    hub.printed("the application accepts connections").await.unwrap();
    let lines = hub.watch_output().unwrap();
    assert!(hub.stop().await.unwrap().success());
    assert!(all(lines).await.iter().any(|line| line.contains("the child was ended")));
    assert!(!fs::exists(format!("/proc/{child}")).unwrap());
}

#[tokio::test]
async fn a_crash_loop_has_growing_delays_and_can_be_stopped() {
    let mut hub = application::hub("print=begun exit=1", &["--restart", "always"]);
    hub.start_again().await.unwrap();
    for delay in ["100", "200", "400", "800"] {
        let line = hub.printed(&format!("delay_millis={delay}")).await.unwrap();
        assert!(line.contains("ended with status 1, and is started again"), "{line}");
    }
    let begun = |lines: &Vec<String>| lines.iter().filter(|line| line.contains("app | begun")).count() >= 4;
    let mut output = hub.watch_output().unwrap();
    tokio::time::timeout(PATIENCE, output.wait_for(begun)).await.unwrap().unwrap();
    assert!(hub.stop().await.unwrap().success());
}

#[tokio::test]
async fn streams_stay_open_while_the_application_is_started_again() {
    let mut hub = application::hub("report=TERM serve wait", &[]);
    hub.start_again().await.unwrap();
    hub.printed("the application accepts connections").await.unwrap();
    let url = own_url(&mut hub).await;
    let mut stream = EventStream::open(hub.address(), "/stream?topic=chat").await.unwrap();
    let port = target(&mut hub).await;
    let first = application_pid(&mut hub).await;
    for (path, serves) in [("/exit", 2), ("/abort", 3)] {
        let mut connection = Connection::open(port).await.unwrap();
        connection.request(&format!("GET {path}"), b"").await.unwrap();
        assert!(connection.response().await.is_err());
        let has_served = |lines: &Vec<String>| {
            lines.iter().filter(|line| line.contains("the application accepts connections")).count() >= serves
        };
        let mut output = hub.watch_output().unwrap();
        tokio::time::timeout(PATIENCE, output.wait_for(has_served)).await.unwrap().unwrap();
    }
    let mut connection = Connection::open(port).await.unwrap();
    connection.request("GET /", b"").await.unwrap();
    assert!(!connection.response().await.unwrap().text().starts_with(&format!("{first} ")));
    let published =
        Command::new(binary().unwrap()).args(["publish", "chat", "hello", "--url", &url]).output();
    assert!(published.unwrap().status.success());
    assert_eq!(stream.next().await.unwrap().data, "hello");
    assert!(hub.stop().await.unwrap().success());
}

/// Requests a page of the application from the hub.
async fn page(hub: &Hub, path: &str) -> tidings_testkit::Response {
    let mut connection = Connection::open(hub.address()).await.unwrap();
    connection.request(&format!("GET {path}"), b"").await.unwrap();
    connection.response().await.unwrap()
}

#[tokio::test]
async fn one_port_has_the_pages_of_the_application_and_the_streams_of_the_hub() {
    let mut hub = application::hub("report=TERM serve wait", &[]);
    hub.start_again().await.unwrap();
    let pid = application_pid(&mut hub).await;
    for path in ["/", "/page?a=b", "/healthz", "/readyz", "/metrics", "/tickets"] {
        let answer = page(&hub, path).await;
        assert_eq!((answer.status, answer.text()), (200, format!("{pid} {path}")), "{path}");
    }
    let mut streams = Vec::new();
    for target in ["/stream", "/stream?topic=chat", "/topics/chat", "/.well-known/mercure?match=chat"] {
        streams.push(EventStream::open(hub.address(), target).await.unwrap());
    }
    let url = own_url(&mut hub).await;
    let published =
        Command::new(binary().unwrap()).args(["publish", "chat", "hello", "--url", &url]).output();
    assert!(published.unwrap().status.success());
    for stream in &mut streams {
        assert_eq!(stream.next().await.unwrap().data, "hello");
    }
    assert!(hub.stop().await.unwrap().success());
}

#[tokio::test]
async fn requests_wait_while_a_reloader_restarts_the_application_inside_of_the_command() {
    let mut hub = application::hub("reloader report=TERM serve wait", &[]);
    hub.start_again().await.unwrap();
    let mut before = page(&hub, "/").await.text();
    for _ in 0..5 {
        // There is no response, also when the request is sent once more.
        let ended = page(&hub, "/reload").await;
        assert_eq!(ended.status, 502, "{}", ended.text());
        assert!(ended.header("retry-after").is_some());
        let answer = page(&hub, "/").await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_ne!(answer.text(), before);
        before = answer.text();
    }
    let restarts = hub.output().iter().filter(|line| line.contains("the application was started")).count();
    assert_eq!(restarts, 1);
    hub.stop().await.unwrap();
}

#[tokio::test]
async fn a_request_is_answered_502_when_the_application_stays_down() {
    let args = ["--restart", "always", "--upstream-wait-secs", "1"];
    let mut hub = application::hub("print=begun exit=1", &args);
    hub.start_again().await.unwrap();
    let answer = page(&hub, "/").await;
    assert_eq!(answer.status, 502, "{}", answer.text());
    assert!(answer.header("retry-after").is_some());
    EventStream::open(hub.address(), "/stream?topic=chat").await.unwrap();
    hub.stop().await.unwrap();
}

#[tokio::test]
async fn an_application_may_listen_where_it_always_has() {
    let folder = tempfile::tempdir().unwrap();
    let port = Port::reserve().unwrap();
    let url = format!("http://127.0.0.1:{}", port.number());
    let mut hub = application::hub("show=PORT report=TERM serve wait", &["--upstream", &url]);
    hub.start_again().await.unwrap();
    assert_eq!(shown(&mut hub, "PORT").await, port.number().to_string());
    assert_eq!(page(&hub, "/").await.status, 200);
    hub.stop().await.unwrap();

    let socket = format!("unix:{}", folder.path().join("app.sock").display());
    let mut hub = application::hub("show=PORT report=TERM wait", &["--upstream", &socket])
        .with_environment("PORT", &port.number().to_string());
    hub.start_again().await.unwrap();
    assert_eq!(shown(&mut hub, "PORT").await, "absent");
    hub.stop().await.unwrap();
}

/// Where the application listens.
async fn target(hub: &mut Hub) -> std::net::SocketAddr {
    let line = hub.printed("the application accepts connections address=http://").await.unwrap();
    line.rsplit_once('/').unwrap().1.trim().parse().unwrap()
}

#[tokio::test]
async fn readiness_is_that_of_hub_and_application() {
    let health = |address: String| {
        let mut command = Command::new(binary().unwrap());
        command.arg("health").env("TIDINGS_ADMIN_LISTEN", address).output().unwrap()
    };
    let admin = ["--admin-listen", "127.0.0.1:0", "--restart", "always"];
    let mut hub = application::hub("report=TERM,USR1 print=begun wait", &admin);
    hub.start_again().await.unwrap();
    let address = hub.admin_addresses()[0].clone();
    hub.printed("begun").await.unwrap();
    let output = health(address.clone());
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(4), ""));
    assert!(
        text(&output.stderr).contains("it accepts no connections on http://127.0.0.1:"),
        "{}",
        text(&output.stderr)
    );
    hub.stop().await.unwrap();
    let output = health(address);
    assert_eq!(output.status.code(), Some(4));
    assert!(text(&output.stderr).starts_with("error: no hub answers at http://127.0.0.1:"));

    let mut hub = application::hub("report=TERM serve wait", &admin);
    hub.start_again().await.unwrap();
    hub.printed("the application accepts connections").await.unwrap();
    let output = health(hub.admin_addresses()[0].clone());
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(text(&output.stdout).ends_with("is ready\n"));
    hub.stop().await.unwrap();
}

#[tokio::test]
async fn the_application_reaches_a_hub_with_tls_without_it() {
    let folder = tempfile::tempdir().unwrap();
    let certificate = Certificate::create(folder.path(), "hub", &["hub.example"]).unwrap();
    let [file, key] = [&certificate.certificate, &certificate.key].map(|file| file.to_str().unwrap());
    let mut hub = application::hub("report=TERM serve wait", &["--tls-certificate", file, "--tls-key", key]);
    hub.start_again().await.unwrap();
    let client = TlsClient::trusting(&certificate.certificate).unwrap();
    let connection = Connection::open_tls(hub.address(), &client, "hub.example").await.unwrap();
    let mut stream = EventStream::on(connection, "/stream?topic=chat", &[]).await.unwrap();
    let url = own_url(&mut hub).await;
    let published =
        Command::new(binary().unwrap()).args(["publish", "chat", "hello", "--url", &url]).output();
    assert!(published.unwrap().status.success());
    assert_eq!(stream.next().await.unwrap().data, "hello");
    hub.stop().await.unwrap();
}

#[test]
fn the_last_lines_of_a_crash_are_printed() {
    let output = run_with(
        &[("APPLICATION", "lines=20000 error=the-reason unfinished=last-words abort")],
        &[
            &["--restart", "never", "--"][..],
            &application::command().iter().map(String::as_str).collect::<Vec<_>>(),
        ]
        .concat(),
    );
    assert_eq!(output.status.code(), Some(134));
    let lines: Vec<_> = text(&output.stdout).lines().collect();
    assert_eq!(lines[lines.len() - 2..], ["app | line 19999", "app | last-words"]);
    assert!(text(&output.stderr).contains("app | the-reason\n"));
}

#[test]
fn output_is_a_field_of_a_json_log_and_harmless_in_a_text_log() {
    let script = r"printf 'a \033[31mred\033[0m \033[2J\001\377\n' >&2; printf '%020000d\n' 7";
    let output = run(&["--", "sh", "-c", script]);
    assert!(
        text(&output.stderr).contains("app | a red \\u{1b}[2J\\u{1}\u{fffd}\n"),
        "{}",
        text(&output.stderr)
    );
    let longest = text(&output.stdout).lines().map(str::len).max().unwrap();
    assert_eq!(longest, "app | ".len() + 16 * 1024);
    let output = run(&["--log", "json", "--", "sh", "-c", script]);
    let line = text(&output.stderr).lines().find(|line| line.contains("\"app\"")).unwrap().to_owned();
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(line["fields"]["message"], "a red \\u{1b}[2J\\u{1}\u{fffd}");
}

/// The hub serves while its output is not read, and the newest lines come when it is read again.
#[tokio::test]
async fn a_flood_that_is_not_read_stops_neither_hub_nor_application() {
    let port = Port::reserve().unwrap();
    let address = format!("127.0.0.1:{}", port.number());
    let mut child = Command::new(binary().unwrap())
        .args(["run", "--listen", &address, "--restart", "never", "--"])
        .args(application::command())
        .env("APPLICATION", "lines=200000 report=USR1 serve print=served wait")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let ended = KillOnDrop(child.id());
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("the application accepts connections") {
        line.clear();
        assert_ne!(log.read_line(&mut line).unwrap(), 0, "the hub has ended");
    }
    EventStream::open(address.parse().unwrap(), "/stream?topic=chat").await.unwrap();
    rustix::process::kill_process(ended.pid(), Signal::USR1).unwrap();
    let mut printed = String::new();
    child.stdout.take().unwrap().read_to_string(&mut printed).unwrap();
    let lines: Vec<_> = printed.lines().collect();
    assert_eq!(lines[lines.len() - 3..], ["app | line 199999", "app | served", "app | got USR1 1"]);
    assert!(lines.len() < 200_000, "the output was read");
    log.read_to_string(&mut line).unwrap();
    assert!(line.contains("lines for standard output were dropped"), "{line}");
    assert!(child.wait().unwrap().success());
}

/// Ends a process also when the test fails.
struct KillOnDrop(u32);

impl KillOnDrop {
    fn pid(&self) -> rustix::process::Pid {
        rustix::process::Pid::from_raw(self.0.try_into().unwrap()).unwrap()
    }
}

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        let _ = rustix::process::kill_process(self.pid(), Signal::KILL);
    }
}

/// In a process namespace of its own, as in a container.
#[tokio::test]
async fn process_1_reaps_orphans_and_passes_signals_on() {
    let may = Command::new("unshare").args(["--pid", "--fork", "true"]).output();
    if !may.is_ok_and(|output| output.status.success()) {
        return eprintln!("skipped: the system permits no process namespaces");
    }
    // Each child of a child ends after its parent has.
    let script = "i=0; while [ $i -lt 20 ]; do (sleep 0.05 & ); i=$((i+1)); done; \
        trap 'echo got TERM; exit 0' TERM; echo $$ begun; while :; do sleep 0.01; done";
    let mut hub = tokio::process::Command::new("unshare")
        .args(["--pid", "--fork", "--kill-child"])
        .arg(binary().unwrap())
        .args(["run", "--listen", "127.0.0.1:0", "--", "sh", "-c", script])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = tokio::io::BufReader::new(hub.stdout.take().unwrap());
    let mut line = String::new();
    let first = tokio::io::AsyncBufReadExt::read_line(&mut lines, &mut line);
    tokio::time::timeout(PATIENCE, first).await.unwrap().unwrap();
    assert!(line.starts_with("app | ") && line.ends_with(" begun\n"), "{line}");
    let process_1 = children(hub.id().unwrap())[0];
    // The shell, and the last `sleep` of its loop is a child of the shell.
    let only_the_shell = async {
        while children(process_1).len() > 1 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, only_the_shell).await.unwrap();
    let pid = rustix::process::Pid::from_raw(process_1.try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, Signal::TERM).unwrap();
    let status = tokio::time::timeout(PATIENCE, hub.wait()).await.unwrap().unwrap();
    assert!(status.success(), "{status}");
    let mut rest = String::new();
    tokio::io::AsyncReadExt::read_to_string(&mut lines, &mut rest).await.unwrap();
    assert_eq!(rest, "app | got TERM\n");
}

/// The children of a process, zombies included.
fn children(pid: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let lists =
        tasks.map(|task| fs::read_to_string(task.unwrap().path().join("children")).unwrap_or_default());
    lists.collect::<Vec<_>>().join(" ").split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}
