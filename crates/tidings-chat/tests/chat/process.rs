//! The binary of the chat.

use std::process::Stdio;

use anyhow::Context;
use tidings_testkit::Connection;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

#[tokio::test]
async fn each_message_is_printed_and_none_can_command_the_terminal() -> anyhow::Result<()> {
    let mut process = Command::new(env!("CARGO_BIN_EXE_tidings-chat"))
        .arg("127.0.0.1:0")
        .env("TZ", "UTC")
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut printed = BufReader::new(process.stdout.take().context("its output")?).lines();
    let hello = printed.next_line().await?.context("where it listens")?;
    let address = hello.trim_start_matches("The chat is at http://").trim_end_matches('/').parse()?;

    let mut connection = Connection::open(address).await?;
    let head = "POST /post\nContent-Type: application/x-www-form-urlencoded";
    connection.request(head, b"message=hello%1B[2Jthere%0A%F0%9F%8E%89").await?;
    assert_eq!(connection.response().await?.status, 204);
    let line = printed.next_line().await?.context("the message")?;
    assert_eq!(line.split_once("] ").context("a time")?.1, "anonymous: hello [2Jthere 🎉");
    process.kill().await?;
    Ok(())
}
