//! An application behind the hub, which answers by the path.

use std::sync::{Arc, Mutex};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// Dropping it does not stop it; the runtime of the test does.
pub(crate) struct Application {
    pub(crate) url: String,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Application {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::<Mutex<Vec<String>>>::default();
        let seen = Arc::clone(&requests);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, Arc::clone(&seen)));
            }
        });
        Self { url, requests }
    }

    /// The headers of the requests that it has received, in lower case.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

async fn answer(mut stream: TcpStream, requests: Arc<Mutex<Vec<String>>>) {
    let mut headers = String::new();
    while !headers.ends_with("\r\n\r\n") {
        let Ok(byte) = stream.read_u8().await else { return };
        headers.push(char::from(byte));
    }
    requests.lock().unwrap().push(headers.to_ascii_lowercase());
    let (response, is_last) = match headers.split(' ').nth(1).unwrap() {
        // It breaks off.
        "/unfinished" => ("200 OK\r\nContent-Length: 100\r\n\r\nhello", true),
        "/socket" => ("101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", false),
        "/named" => (
            "200 OK\r\nConnection: close\r\nX-Request-Id: of-the-application\r\nContent-Length: 0\r\n\r\n",
            true,
        ),
        "/granted" => (
            "200 OK\r\nConnection: close\r\nTidings-Subscribe: topic=private-topic\r\nContent-Length: 0\r\n\r\n",
            true,
        ),
        _ => ("201 Created\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello", true),
    };
    stream.write_all(format!("HTTP/1.1 {response}").as_bytes()).await.unwrap();
    if is_last {
        // The next request comes over a connection of its own.
        stream.shutdown().await.unwrap();
    }
    // Until the hub ends the connection.
    let _ = stream.read_to_end(&mut Vec::new()).await;
}
