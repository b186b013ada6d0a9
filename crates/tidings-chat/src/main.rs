//! Serves the chat: `cargo run -p tidings-chat -- 127.0.0.1:8080`.

use std::{
    io::{self, Write},
    net::SocketAddr,
};

use anyhow::Context;
use tidings::{Hub, web::HostNames};
use tokio::{net::TcpListener, signal::ctrl_c};

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    let listener = TcpListener::bind(&address).await.with_context(|| address)?;
    println!("The chat is at http://{}/", listener.local_addr()?);

    // A closed standard output is no error.
    let print = |line: &str| drop(writeln!(io::stdout(), "{line}"));
    let (hub, _presence, routes) =
        tidings_chat::app(Hub::builder(), HostNames::default(), jiff::Zoned::now, print).await?;
    let routes = routes.into_make_service_with_connect_info::<SocketAddr>();
    let interrupted = async move {
        let _ = ctrl_c().await;
        hub.close();
    };
    Ok(axum::serve(listener, routes).with_graceful_shutdown(interrupted).await?)
}
