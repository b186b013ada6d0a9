//! An axum application around the snippet of the README: each `POST /orders` publishes through it.
//!
//!     tidings-readme-axum http://127.0.0.1:8080
//!
//! It prints `listening ADDR:PORT` and ends when its standard input does, so that it does not
//! outlive a test.

use std::env;

use axum::{Router, extract::State, http::StatusCode, routing::post};
use tidings_client::{Client, Publish};
use tokio::{io::AsyncReadExt, net::TcpListener};

include!(concat!(env!("OUT_DIR"), "/readme_axum.rs"));

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let hub = env::args().nth(1).ok_or_else(|| anyhow::anyhow!("which hub? give its URL"))?;
    let application = Router::new().route("/orders", post(order)).with_state(Client::new(&hub, None)?);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("listening {}", listener.local_addr()?);
    let (mut input, mut ignored) = (tokio::io::stdin(), Vec::new());
    tokio::select! {
        served = axum::serve(listener, application) => served?,
        read = input.read_to_end(&mut ignored) => drop(read?),
    }
    Ok(())
}
