//! The lines of a log in JSON.

use serde_json::Value;
use tidings_testkit::{Hub, patiently};

/// The target of the access log.
pub(crate) const ACCESS: &str = "tidings::access";

/// The fields of a line of the access log.
pub(crate) fn fields(line: &str) -> Option<Value> {
    let line: Value = serde_json::from_str(line).ok()?;
    (line["target"] == ACCESS).then(|| line["fields"].clone())
}

/// Waits for a line of the access log with this message that fits, and returns its fields.
pub(crate) async fn logged(hub: &Hub, message: &str, fits: impl Fn(&Value) -> bool) -> Value {
    let find = |lines: &Vec<String>| {
        let mut lines = lines.iter().filter_map(|line| fields(line));
        lines.find(|fields| fields["message"] == message && fits(fields))
    };
    let mut output = hub.watch_output().unwrap();
    let seen = patiently(message, output.wait_for(|lines| find(lines).is_some())).await;
    find(&seen.unwrap_or_else(|_| panic!("no such {message} in {:?}", hub.output())).unwrap()).unwrap()
}

/// Stops a hub, and returns everything that it has printed.
pub(crate) async fn printed_to_the_end(mut hub: Hub) -> Vec<String> {
    let mut output = hub.watch_output().unwrap();
    hub.stop().await.unwrap();
    while output.changed().await.is_ok() {}
    output.borrow().clone()
}
