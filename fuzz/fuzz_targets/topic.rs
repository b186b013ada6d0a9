//! Any names and matchers are refused, or accepted and then satisfy the invariants.

#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use tidings_topic::{Since, Validator};

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    hub_at_root: bool,
    topic: &'a str,
    pattern: &'a str,
    id: &'a str,
}

fuzz_target!(|input: Input<'_>| {
    let Input { hub_at_root, topic, pattern, id } = input;
    let path = if hub_at_root { "" } else { ".well-known/mercure" };
    let validator = Validator::new(format!("https://hub.example/{path}").parse().expect("a valid URL"));
    let pattern = validator.pattern(pattern);
    if let Ok(topic) = validator.topic(topic) {
        assert!(!topic.as_str().contains(char::is_control));
        assert!(topic.as_str() != "*");
        // Longer topics can be published but not subscribed to by name.
        if let Ok(exact) = validator.exact(topic.as_str()) {
            assert!(exact.matches(&topic));
        }
        if let Ok(pattern) = &pattern {
            pattern.matches(&topic);
        }
    }
    if let Ok(id) = validator.event_id(id) {
        assert!(!id.is_generated() && id.as_str().len() <= Validator::EVENT_ID_BYTES_MAX);
        assert_eq!(format!("id:{id}").parse(), Ok(Since::Id(id.as_str().to_owned())));
    }
    let _ = id.parse::<Since>();
    let _ = validator.event_type(id);
    let _ = validator.retry_millis(id);
});
