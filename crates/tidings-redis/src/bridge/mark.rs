//! How events that came through the bridge are marked, so that they are not sent out again.
//!
//! The mark is in the log, so every hub of a cluster reads it, also one that takes over: such an
//! event excepts one connection, the bridge itself. If a message of Juggernaut excepts a connection
//! of its own, that field is taken, and the event gets an id that carries the mark.

use tidings_log::Event;
use tidings_topic::{ConnectionId, NewEvent};

#[derive(Debug)]
pub(super) struct BridgeMark {
    connection: ConnectionId,
    prefix: String,
}

impl BridgeMark {
    pub(super) fn new(connection: ConnectionId) -> Self {
        Self { connection, prefix: format!("bridge-{connection}-") }
    }

    pub(super) fn put_on(&self, event: &mut NewEvent) {
        if event.except.is_none() {
            event.except = Some(self.connection);
        } else {
            let random = getrandom::u64().expect("the system gives random numbers");
            event.id = Some(format!("{}{random:016x}", self.prefix));
        }
    }

    pub(super) fn is_on(&self, event: &Event) -> bool {
        event.except == Some(self.connection)
            || event.id.as_ref().is_some_and(|id| id.as_str().starts_with(&self.prefix))
    }
}

#[cfg(test)]
mod tests {
    use tidings_topic::Validator;

    use super::*;

    #[test]
    fn a_marked_event_is_recognised_whatever_it_excepts() {
        let mark = BridgeMark::new(ConnectionId::from_random([1; 16]));
        let other = BridgeMark::new(ConnectionId::from_random([2; 16]));
        let reader = ConnectionId::from_random([3; 16]);
        for mut new in [NewEvent::new("a", "x"), NewEvent::new("a", "x").except(reader)] {
            let except = new.except;
            assert!(!mark.is_on(&Validator::default().event(new.clone()).unwrap()));
            mark.put_on(&mut new);
            let event = Validator::default().event(new).unwrap();
            assert!(mark.is_on(&event) && !other.is_on(&event));
            assert!(except.is_none() || event.except == except, "an existing exception stays");
        }
    }
}
