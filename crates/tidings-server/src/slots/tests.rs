use std::{sync::Barrier, thread};

use tidings::Validator;
use tidings_auth::Subject;

use super::*;

fn slots(total_max: usize, per_address_max: usize) -> Slots {
    slots_of_subjects(total_max, per_address_max, None)
}

fn slots_of_subjects(total_max: usize, per_address_max: usize, per_subject_max: Option<u32>) -> Slots {
    Slots::new(SlotLimits {
        total_max,
        per_address_max,
        per_subject_max: per_subject_max.map(max),
        patterns: PatternLimits { count_max: 3, weight_max: 100 },
        authorizing_max: 2,
        upstream_max: 3,
    })
}

fn max(count: u32) -> NonZeroU32 {
    NonZeroU32::new(count).expect("not zero")
}

fn access(subject: Subject, change: impl FnOnce(&mut Access)) -> Access {
    let mut access = Access::anonymous();
    access.subject = subject;
    change(&mut access);
    access
}

/// A ticket with a limit of its own.
fn ticket(id: &str, label: Option<&str>, streams_max: Option<u32>) -> Access {
    access(Subject::Ticket(label.map(Into::into)), |access| {
        access.id = Some(id.into());
        access.label = label.map(Into::into);
        access.limits.streams_max = streams_max.map(max);
    })
}

fn token(issuer: &str, subject: Option<&str>) -> Access {
    access(Subject::Token(subject.map(Into::into)), |access| access.issuer = Some(issuer.into()))
}

fn patterns(texts: &[&str]) -> Vec<Matcher> {
    texts.iter().map(|text| Validator::default().pattern(text).expect("a pattern")).collect()
}

fn take(slots: &Slots, address: &str) -> Result<Slot, NoSlot> {
    slots.take(client(address))
}

fn client(address: &str) -> ClientAddress {
    ClientAddress::of(address.parse().expect("an address"))
}

#[test]
fn a_slot_that_is_dropped_can_be_taken_again() {
    let slots = slots(2, 1);
    let first = take(&slots, "192.0.2.1").expect("free");
    assert_eq!(take(&slots, "192.0.2.1").err(), Some(NoSlot::Address));
    let _second = take(&slots, "192.0.2.2").expect("free");
    assert_eq!(take(&slots, "192.0.2.3").err(), Some(NoSlot::Total));
    drop(first);
    assert!(take(&slots, "192.0.2.1").is_ok());
}

#[test]
fn a_credential_limits_its_own_streams_wherever_they_are_from() {
    let slots = slots(10, 10);
    let (one, two) = (ticket("one", None, Some(2)), ticket("two", None, Some(1)));
    let mut held: Vec<_> = ["192.0.2.1", "192.0.2.2", "127.0.0.1", "192.0.2.1"]
        .map(|address| take(&slots, address).expect("free"))
        .into();
    assert_eq!(held[0].take_holders(&one), Ok(()));
    assert_eq!(held[1].take_holders(&one), Ok(()));
    assert_eq!(held[2].take_holders(&one), Err(NoSlot::Ticket(max(2))));
    assert_eq!(held[3].take_holders(&two), Ok(()));
    held.swap_remove(0);
    assert_eq!(take(&slots, "127.0.0.1").expect("free").take_holders(&one), Ok(()));
    drop(held);
    assert!(slots.0.taken.lock().expect("unpoisoned").by_holder.is_empty());
}

#[test]
fn a_key_limits_its_own_streams_by_its_name() {
    let slots = slots(10, 10);
    let key = |name: &str, streams_max: Option<u32>| {
        access(Subject::Key(name.into()), |access| access.limits.streams_max = streams_max.map(max))
    };
    let mut held: Vec<_> = (0..4).map(|_| take(&slots, "192.0.2.1").expect("free")).collect();
    assert_eq!(held[0].take_holders(&key("a", Some(1))), Ok(()));
    assert_eq!(held[1].take_holders(&key("a", Some(1))), Err(NoSlot::Key(max(1))));
    assert_eq!(held[2].take_holders(&key("b", Some(1))), Ok(()));
    assert_eq!(held[3].take_holders(&key("a", None)), Ok(()), "it has no limit");
}

/// Whichever credential it came with, except that an issuer and an application do not know each
/// other's users.
#[test]
fn a_subject_limits_its_streams_over_all_credentials() {
    let slots = slots_of_subjects(100, 100, Some(2));
    let of_application =
        |label: Option<&str>| Access::of_application(tidings::Grants::NONE, None, label.map(Into::into));
    let mut held = Vec::new();
    let mut open = |access: &Access| {
        let mut slot = take(&slots, "192.0.2.1").expect("free");
        slot.take_holders(access).inspect(|()| held.push(slot))
    };
    let full = Err(NoSlot::Subject(max(2)));
    assert_eq!(open(&ticket("one", Some("user-42"), None)), Ok(()));
    assert_eq!(open(&of_application(Some("user-42"))), Ok(()));
    for refused in [ticket("two", Some("user-42"), None), of_application(Some("user-42"))] {
        assert_eq!(open(&refused), full);
    }
    for issuer in ["https://a.example", "https://b.example"] {
        for expected in [Ok(()), Ok(()), full] {
            assert_eq!(open(&token(issuer, Some("user-42"))), expected, "{issuer}");
        }
    }
    // These have no subject, or are no user.
    let key = access(Subject::Key("app".into()), |_| {});
    for access in [token("https://a.example", None), of_application(None), ticket("one", None, None), key] {
        for _ in 0..5 {
            assert_eq!(open(&access), Ok(()), "{access:?}");
        }
    }
    drop(held);
    assert!(slots.0.taken.lock().expect("unpoisoned").by_holder.is_empty());
}

/// A stream that its subject may not have takes nothing of its ticket either.
#[test]
fn a_refused_stream_counts_for_nobody() {
    let slots = slots_of_subjects(10, 10, Some(1));
    let mut first = take(&slots, "192.0.2.1").expect("free");
    assert_eq!(first.take_holders(&ticket("one", Some("a"), Some(1))), Ok(()));
    let refused = take(&slots, "192.0.2.1").expect("free").take_holders(&ticket("two", Some("a"), Some(1)));
    assert_eq!(refused, Err(NoSlot::Subject(max(1))));
    let other = take(&slots, "192.0.2.1").expect("free").take_holders(&ticket("two", Some("b"), Some(1)));
    assert_eq!(other, Ok(()));
}

#[test]
fn threads_that_open_and_close_streams_never_exceed_the_limit_of_a_subject() {
    const THREADS: usize = 8;
    const LIMIT: u32 = 3;
    let slots = slots_of_subjects(100, 100, Some(LIMIT));
    let access = token("https://a.example", Some("user-42"));
    let barrier = Barrier::new(THREADS);
    let opened: usize = thread::scope(|scope| {
        let work = || {
            barrier.wait();
            let mut opened = 0;
            for _ in 0..2_000 {
                let mut slot = slots.take(ClientAddress::Unix).expect("free");
                let taken = slot.take_holders(&access).is_ok();
                opened += usize::from(taken);
                let streams = slots.0.taken().by_holder.values().sum::<u32>();
                assert!(streams <= LIMIT && (!taken || streams > 0), "{streams}");
            }
            opened
        };
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(work)).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).sum()
    });
    assert!(opened >= 2_000, "one thread alone is never refused for ever: {opened}");
    let taken = slots.0.taken();
    assert!(taken.total == 0 && taken.by_holder.is_empty());
}

#[test]
fn an_ipv6_network_counts_as_one_address() {
    let slots = slots(10, 1);
    let _first = take(&slots, "2001:db8::1").expect("free");
    assert_eq!(take(&slots, "2001:db8::ffff:1").err(), Some(NoSlot::Address));
    assert!(take(&slots, "2001:db8:0:1::1").is_ok());
}

#[test]
fn programs_on_this_machine_have_no_limit_of_their_own() {
    let slots = slots(5, 1);
    let mut held: Vec<_> = ["127.0.0.1", "::1", "::ffff:127.0.0.1"].map(|text| take(&slots, text)).into();
    held.extend([ClientAddress::Unix, ClientAddress::Unix].map(|client| slots.take(client)));
    assert!(held.iter().all(Result::is_ok));
    assert_eq!(slots.take(ClientAddress::Unknown).err(), Some(NoSlot::Total));
}

#[test]
fn clients_of_unknown_address_share_the_limit_of_one() {
    let slots = slots(10, 1);
    let _first = slots.take(ClientAddress::Unknown).expect("free");
    assert_eq!(slots.take(ClientAddress::Unknown).err(), Some(NoSlot::Address));
    assert!(take(&slots, "192.0.2.1").is_ok());
}

#[test]
fn an_address_without_streams_is_forgotten() {
    let slots = slots(10, 5);
    drop(slots.compiling(client("192.0.2.1"), "/a/:id"));
    drop(slots.authorizing(client("192.0.2.1")));
    let mut slot = take(&slots, "192.0.2.1").expect("free");
    slot.take_patterns(&patterns(&["/a/:id"])).expect("free");
    drop(slot);
    assert!(slots.0.taken.lock().expect("unpoisoned").by_address.is_empty());
}

#[test]
fn an_address_has_a_limit_of_distinct_patterns_over_all_streams() {
    let slots = slots(10, 10);
    let mut held: Vec<_> = (0..5).map(|_| take(&slots, "192.0.2.1").expect("free")).collect();
    for slot in &mut held[..3] {
        assert_eq!(slot.take_patterns(&patterns(&["/a/:id", "/b/:id"])), Ok(()));
    }
    let full = Err(NoSlot::Patterns(PatternsFull::Count));
    assert_eq!(held[3].take_patterns(&patterns(&["/c/:id", "/d/:id"])), full);
    assert_eq!(held[3].take_patterns(&patterns(&["/d/:id"])), Ok(()), "a refused subscription holds no slot");
    assert_eq!(held[4].take_patterns(&patterns(&["/c/:id"])), full);
    assert_eq!(take(&slots, "192.0.2.2").expect("free").take_patterns(&patterns(&["/d/:id"])), Ok(()));
    assert_eq!(
        take(&slots, "127.0.0.1").expect("free").take_patterns(&patterns(&["/1", "/2", "/3", "/4"])),
        Ok(())
    );
    held.drain(..3);
    assert_eq!(held[1].take_patterns(&patterns(&["/c/:id"])), Ok(()));
}

#[test]
fn the_patterns_of_an_address_have_a_limit_of_work_per_topic() {
    let slots = slots(10, 10);
    let mut slot = take(&slots, "192.0.2.1").expect("free");
    let matchers = patterns(&["/:a(\\d+)x", "/:b(\\d+)x"]);
    assert_eq!(slot.take_patterns(&matchers), Err(NoSlot::Patterns(PatternsFull::Weight)));
    assert_eq!(slot.take_patterns(&matchers[..1]), Ok(()));
}

#[test]
fn an_address_has_a_limit_of_streams_that_wait_for_a_decision() {
    let slots = slots(10, 10);
    let address = client("192.0.2.1");
    let waiting = [slots.authorizing(address), slots.authorizing(address)];
    assert!(waiting.iter().all(Option::is_some));
    assert!(slots.authorizing(address).is_none());
    assert!(slots.authorizing(client("192.0.2.2")).is_some());
    assert!(slots.authorizing(client("127.0.0.1")).is_some());
    drop(waiting);
    assert!(slots.authorizing(address).is_some());
    // Each kind of question has a limit of its own.
    let _asking = [(); 3].map(|()| slots.upstream(address).expect("within the limit"));
    assert!(slots.upstream(address).is_none());
    assert!(slots.authorizing(address).is_some());
}

#[test]
fn an_address_has_a_limit_of_patterns_being_compiled() {
    let slots = slots(10, 10);
    let address = client("192.0.2.1");
    let texts: Vec<_> = (0..COMPILING_PER_ADDRESS_MAX).map(|number| format!("/{number}/:id")).collect();
    let mut waiting: Vec<_> =
        texts.iter().map(|text| slots.compiling(address, text).expect("free")).collect();
    assert_eq!(slots.compiling(address, "/a/:id").err(), Some(NoSlot::Compiling));
    assert!(slots.compiling(address, "/0/:id").is_ok(), "it is waited for already");
    assert!(slots.compiling(client("127.0.0.1"), "/a/:id").is_ok());
    waiting.pop();
    assert!(slots.compiling(address, "/a/:id").is_ok());
}
