//! The meaning of the patterns of a bridge.

use proptest::{
    strategy::{Strategy, ValueTree},
    test_runner::TestRunner,
};
use tidings_testkit::RedisServer;
use tidings_topic::Glob;

#[tokio::test]
async fn redis_matches_every_pattern_as_the_bridge_does() {
    let server = RedisServer::start().await.unwrap();
    let names = ["a", "b", "ab", "ba", "a-b", "]", "^", "\\", "a]", "-", "[a]", "aab", "*", "?b"];
    let mut set = vec!["MSET"];
    set.extend(names.iter().flat_map(|name| [*name, "1"]));
    server.command(&set).await.unwrap();
    let mut runner = TestRunner::deterministic();
    for _ in 0..200 {
        let tree = "[ab*?\\[\\]\\\\^-]{1,6}".new_tree(&mut runner).unwrap();
        let pattern = tree.current();
        let mut theirs: Vec<_> =
            server.command(&["KEYS", &pattern]).await.unwrap().lines().map(str::to_owned).collect();
        theirs.retain(|line| !line.is_empty());
        theirs.sort();
        let glob = Glob::of_redis(&pattern);
        let mut ours: Vec<_> =
            names.iter().filter(|name| glob.matches(name)).map(|name| (*name).to_owned()).collect();
        ours.sort();
        assert_eq!(ours, theirs, "{pattern}");
    }
}
