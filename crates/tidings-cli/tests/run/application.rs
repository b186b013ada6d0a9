//! The application that the tests of `tidings run` run: this test program itself, which does what
//! the variable `APPLICATION` says, one word after the other.

use std::{
    env,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    process::{Command, exit},
    thread,
};

use rustix::process::{Signal, set_parent_process_death_signal};
use tidings_testkit::Hub;
use tokio::signal::unix::{SignalKind, signal};

/// The status with which a child asks its parent to start it again, as that of Werkzeug does.
const RELOAD: i32 = 3;

/// A hub that is not started yet, with this application and further arguments.
pub(crate) fn hub(words: &str, args: &[&str]) -> Hub {
    let mut all = vec!["run", "--listen", "127.0.0.1:0"];
    all.extend_from_slice(args);
    all.push("--");
    let program = command();
    all.extend(program.iter().map(String::as_str));
    Hub::not_started(all).unwrap().on_its_own().with_environment("APPLICATION", words)
}

/// The command that runs the application.
pub(crate) fn command() -> Vec<String> {
    let program = env::current_exe().unwrap().to_str().unwrap().to_owned();
    let args = ["application::run", "--exact", "--ignored", "--nocapture", "--quiet"];
    [vec![program], args.map(str::to_owned).to_vec()].concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the application of the other tests"]
async fn run() {
    // A test that fails kills the hub, and this ends with it.
    set_parent_process_death_signal(Some(Signal::KILL)).unwrap();
    let words = env::var("APPLICATION").unwrap();
    for word in words.split_whitespace() {
        let (name, value) = word.split_once('=').unwrap_or((word, ""));
        match name {
            "print" => println!("{value}"),
            "error" => eprintln!("{value}"),
            "show" => println!("{value} is {}", env::var(value).unwrap_or_else(|_| "absent".to_owned())),
            "lines" => (0..value.parse::<u64>().unwrap()).for_each(|number| println!("line {number}")),
            "flood" => loop {
                println!("flood {}", "x".repeat(1_000));
            },
            "unfinished" => {
                print!("{value}");
                std::io::stdout().flush().unwrap();
            }
            "report" => report_signals(value),
            "serve" => serve(),
            "reloader" => reload(),
            "leave" => leave_a_child(),
            "exit" => exit(value.parse().unwrap()),
            "abort" => std::process::abort(),
            "wait" => std::future::pending().await,
            other => panic!("the application cannot {other}"),
        }
    }
}

/// Reports each of these signals, and ends with status 0 at those of which the name is in capitals.
fn report_signals(names: &str) {
    for name in names.split(',') {
        let kind = match name.to_ascii_uppercase().as_str() {
            "TERM" => SignalKind::terminate(),
            "INT" => SignalKind::interrupt(),
            "QUIT" => SignalKind::quit(),
            "HUP" => SignalKind::hangup(),
            "USR1" => SignalKind::user_defined1(),
            "USR2" => SignalKind::user_defined2(),
            other => panic!("no signal {other}"),
        };
        let mut arrived = signal(kind).unwrap();
        let name = name.to_owned();
        tokio::spawn(async move {
            let mut count = 0;
            while arrived.recv().await.is_some() {
                count += 1;
                println!("got {name} {count}");
                if name.chars().all(|letter| !letter.is_ascii_lowercase()) {
                    exit(0);
                }
            }
        });
    }
}

/// Answers on the port that it was given; see [`answer`].
fn serve() {
    let port: u16 = env::var("PORT").unwrap().parse().unwrap();
    let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            thread::spawn(|| answer(stream.unwrap()));
        }
    });
}

/// Answers every request with the ID of this process, and ends at `/exit` and `/abort`.
fn answer(mut stream: TcpStream) {
    let mut received = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let Some(end) = received.windows(4).position(|window| window == b"\r\n\r\n") else {
            match stream.read(&mut buffer) {
                Ok(count) if count > 0 => received.extend_from_slice(&buffer[..count]),
                _ => return,
            }
            continue;
        };
        let head = String::from_utf8(received.drain(..end + 4).collect()).unwrap();
        let path = head.split(' ').nth(1).unwrap();
        match path {
            "/exit" => exit(1),
            "/reload" => exit(RELOAD),
            "/abort" => std::process::abort(),
            _ => {}
        }
        let own = if path == "/stream" { "Tidings-Subscribe: topic=chat\r\n" } else { "" };
        let body = format!("{} {path}", std::process::id());
        let response = format!("HTTP/1.1 200 OK\r\n{own}Content-Length: {}\r\n\r\n{body}", body.len());
        if stream.write_all(response.as_bytes()).is_err() {
            return;
        }
    }
}

/// Runs the rest of the application in a child, and starts it again when it asks for that.
fn reload() -> ! {
    let words = env::var("APPLICATION").unwrap().replace("reloader", "");
    let command = command();
    loop {
        let mut child = Command::new(&command[0]);
        let status = child.args(&command[1..]).env("APPLICATION", &words).status().unwrap();
        if status.code() != Some(RELOAD) {
            exit(status.code().unwrap_or(1));
        }
    }
}

/// Leaves a process behind that runs until it is asked to end.
#[expect(clippy::zombie_processes, reason = "the test is about a process that nobody waits for")]
fn leave_a_child() {
    let script =
        "trap 'echo the child was ended; exit' TERM; echo the child is $$; while :; do sleep 0.01; done";
    Command::new("sh").args(["-c", script]).spawn().unwrap();
}
