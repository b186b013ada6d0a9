//! Getting to a real Redis server, and in.

use tidings_redis::{Connector, RedisUrl};
use tidings_testkit::RedisServer;

fn connector(url: &str) -> Connector {
    Connector::new(url.parse::<RedisUrl>().expect("a URL"), "{tidings}")
}

#[tokio::test]
async fn a_server_is_reached_while_it_runs() {
    let mut server = RedisServer::start().await.unwrap();
    let connector = connector(&server.url());
    connector.check().await.unwrap();
    server.stop().await.unwrap();
    assert!(connector.check().await.unwrap_err().to_string().contains(&server.address().to_string()));
    server.start_again().await.unwrap();
    connector.check().await.unwrap();
}

#[tokio::test]
async fn whoever_has_no_password_is_not_let_in() {
    let server =
        RedisServer::start_with(&["requirepass secret", "user me on >mine ~* &* +@all"]).await.unwrap();
    let address = server.address();
    for (login, is_let_in) in [("", false), (":secret@", true), ("me:mine@", true), ("me:secret@", false)] {
        let checked = connector(&format!("redis://{login}{address}/1")).check().await;
        assert_eq!(checked.is_ok(), is_let_in, "{login}: {checked:?}");
    }
}

#[tokio::test]
async fn a_server_keeps_what_it_has_on_disk_and_nothing_else() {
    for (is_durable, left) in [(true, "1"), (false, "")] {
        let started =
            if is_durable { RedisServer::start_durable().await } else { RedisServer::start().await };
        let mut server = started.unwrap();
        server.command(&["SET", "a", "1"]).await.unwrap();
        server.kill().await.unwrap();
        server.start_again().await.unwrap();
        assert_eq!(server.command(&["GET", "a"]).await.unwrap(), left);
    }
}
