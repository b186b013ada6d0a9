//! Which matchers are valid and what they match. The numbers are those of the checks derived from
//! the Mercure protocol, "Topic matchers".

use proptest::prelude::*;
use tidings_topic::{Event, Filter, Grants, Matcher, NewEvent, PatternSyntax, Topic, Validator};

fn validator() -> Validator {
    Validator::new("https://hub.example/.well-known/mercure".parse().expect("a valid URL"))
}

fn topic(text: &str) -> Topic {
    validator().topic(text).expect(text)
}

fn pattern(text: &str) -> Matcher {
    validator().pattern(text).expect(text)
}

#[track_caller]
fn matches(pattern_text: &str, topics: &[&str]) {
    for text in topics {
        assert!(pattern(pattern_text).matches(&topic(text)), "`{pattern_text}` should match `{text}`");
    }
}

#[track_caller]
fn misses(pattern_text: &str, topics: &[&str]) {
    for text in topics {
        assert!(!pattern(pattern_text).matches(&topic(text)), "`{pattern_text}` should not match `{text}`");
    }
}

#[test]
fn the_star_matches_every_topic_whatever_its_type_mercure_10() {
    for star in [validator().exact("*").unwrap(), validator().pattern("*").unwrap()] {
        assert_eq!(star, Matcher::Any);
        for text in ["chat", "https://a.example/b", "http://[no-url", "urn:a:b"] {
            assert!(star.matches(&topic(text)));
        }
    }
}

#[test]
fn an_exact_matcher_compares_bytes_mercure_11() {
    let exact = validator().exact("https://Example.com/%7Ea").unwrap();
    assert!(exact.matches(&topic("https://Example.com/%7Ea")));
    for other in ["https://example.com/%7Ea", "https://Example.com/~a", "https://Example.com/%7ea", "/%7Ea"] {
        assert!(!exact.matches(&topic(other)), "{other}");
    }
    assert!(!validator().exact("é").unwrap().matches(&topic("e\u{301}")));
    assert!(!validator().exact("chat").unwrap().matches(&topic("Chat")));
}

#[test]
fn an_exact_matcher_has_no_wildcards_mercure_11() {
    assert!(!validator().exact("a*").unwrap().matches(&topic("ab")));
    assert!(validator().exact("a*").unwrap().matches(&topic("a*")));
    assert!(validator().exact(":id").unwrap().matches(&topic(":id")));
}

#[test]
fn a_reserved_topic_can_be_subscribed_to() {
    assert!(validator().exact("/.well-known/mercure/subscriptions/exact/a/b").is_ok());
    assert!(validator().pattern("/.well-known/mercure/subscriptions/*").is_ok());
}

#[test]
fn a_relative_pattern_is_based_on_the_hub_mercure_12() {
    matches(
        "/users/:id",
        &["/users/1", "https://hub.example/users/2", "//hub.example/users/3", "../users/4"],
    );
    misses(
        "/users/:id",
        &["https://a.example/users/1", "http://hub.example/users/1", "/users/1/2", "/users/", "users/1"],
    );
    matches("user-*", &["user-1", "user-", "/.well-known/user-1", "user-1/a"]);
    misses("user-*", &["/user-1", "xuser-1"]);
}

#[test]
fn an_absolute_pattern_ignores_the_hub_mercure_12() {
    matches("https://a.example/books/:id", &["https://a.example/books/1", "HTTPS://A.EXAMPLE:443/books/./1"]);
    misses(
        "https://a.example/books/:id",
        &["/books/1", "https://b.example/books/1", "https://a.example:8443/books/1"],
    );
    matches("http{s}?://*.example/*", &["http://a.example/", "https://a.b.example/c"]);
}

#[test]
fn groups_wildcards_and_expressions_work_as_in_a_browser_mercure_12() {
    matches("/books/:id(\\d+)", &["/books/42"]);
    misses("/books/:id(\\d+)", &["/books/a", "/books/", "/books/4a", "/books/٤"]);
    matches("/a/(b|c)", &["/a/b", "/a/c"]);
    misses("/a/(b|c)", &["/a/d", "/a/bc"]);
    matches("/a{/b}?/:rest*", &["/a", "/a/b", "/a/b/c/d"]);
    matches("/files/*.txt", &["/files/a.txt", "/files/a/b.txt"]);
    misses("/files/*.txt", &["/files/a.txtx"]);
    matches("/(\\w+)@(\\w+)", &["/a_1@b"]);
    misses("/(\\w+)@(\\w+)", &["/é@b"]);
}

#[test]
fn query_and_fragment_are_compared_if_the_pattern_has_them_mercure_12() {
    matches("/a", &["/a", "/a?b", "/a#c"]);
    matches("/a?b=:value", &["/a?b=1", "/a?b=1#c"]);
    misses("/a?b=:value", &["/a", "/a?c=1"]);
    matches("/a#:part", &["/a#b"]);
    misses("/a#:part", &["/a"]);
}

#[test]
fn a_pattern_is_case_sensitive_mercure_12() {
    misses("/Users/:id", &["/users/1"]);
    misses("/users/a", &["/users/A"]);
    misses("/users/(a|b)", &["/users/A"]);
    matches("https://EXAMPLE.com/a", &["https://example.com/a"]);
}

#[test]
fn a_pattern_matches_non_ascii_topics() {
    matches("/städte/:name", &["/städte/köln", "/st%C3%A4dte/x"]);
    matches("https://müller.example/*", &["https://xn--mller-kva.example/a"]);
}

#[test]
fn a_topic_that_is_not_a_url_matches_no_pattern_mercure_12() {
    for text in ["*://*/*", "/*", "*:*", "https://*/*", "http{s}?://*"] {
        misses(text, &["http://[no-url", "http://a b/", "https://exa%mple/"]);
    }
}

#[test]
fn an_unusable_pattern_is_refused_mercure_3() {
    for text in
        ["/(", "/{a", "/:", "/a(", "/(?a)", "/((a))", "/(\\", "/:a/:a", "/([)", "(é)", "https://]/", "", "{"]
    {
        let refusal = validator().pattern(text);
        assert!(refusal.is_err(), "{text} is refused");
        assert_eq!(refusal.unwrap_err().field(), "matcher");
    }
}

#[test]
fn a_refused_pattern_reveals_nothing_about_the_parser() {
    assert_eq!(
        validator().pattern("/(?a)").unwrap_err().to_string(),
        "the matcher `/(?a)` is not a URL Pattern that can be used"
    );
}

#[test]
fn an_expression_that_compiles_too_large_is_refused() {
    for text in
        ["/((?:a{1000}){1000})", "/(a{100000})", "/((?:(?:(?:[a-z]{50}){50}){50}){50})", "/(.{60000})"]
    {
        assert!(validator().pattern(text).is_err(), "{text} is refused");
    }
}

#[test]
fn common_expressions_are_small_enough() {
    matches(
        "/users/:id([0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12})/:rest(.*)",
        &["/users/0195f1a0-7d3e-7b1c-9a57-0242ac120002/a/b"],
    );
    matches("/:year(\\d{4})/:month(0[1-9]|1[0-2])/:name([\\w.+-]{1,64})", &["/2012/03/a.b"]);
}

#[test]
fn an_expression_matches_in_linear_time_mercure_12() {
    // Backtracking engines take exponential time for this.
    let trap = pattern("/((?:a+)+b)");
    // Longer than a topic that can be published today, but an older log may contain it.
    let long = Topic::from_stored(&format!("/{}", "a".repeat(100_000))).expect("a topic");
    assert!(!trap.matches(&long));
}

#[test]
fn matchers_are_bounded_in_length_and_number_mercure_4() {
    let mut validator = validator();
    let longest = format!("/{}", "a".repeat(Validator::TOPIC_BYTES_MAX - 1));
    assert!(validator.exact(&longest).is_ok() && validator.pattern(&longest).is_ok());
    let longer = format!("{longest}a");
    assert!(validator.exact(&longer).is_err() && validator.pattern(&longer).is_err());
    validator.matchers_max = 3;
    assert!(validator.matchers_count(3).is_ok());
    assert!(validator.matchers_count(4).unwrap_err().is_excess());
}

#[test]
fn an_empty_matcher_is_refused() {
    assert!(validator().exact("").is_err() && validator().pattern("").is_err());
}

#[test]
fn matchers_are_equal_by_kind_text_and_hub() {
    assert_eq!(pattern("/a/*"), pattern("/a/*"));
    assert_ne!(pattern("/a/b"), validator().exact("/a/b").unwrap());
    assert_ne!(pattern("/a/b"), pattern("/a/c"));
    let elsewhere = Validator::new("https://b.example/hub".parse().unwrap());
    assert_ne!(pattern("/a/*"), elsewhere.pattern("/a/*").unwrap());
}

#[test]
fn a_matcher_has_its_type_and_text() {
    assert_eq!((pattern("/a/*").type_name(), pattern("/a/*").as_str()), ("urlpattern", "/a/*"));
    let exact = validator().exact("a").unwrap();
    assert_eq!((exact.type_name(), exact.as_str()), ("exact", "a"));
    assert_eq!(Matcher::Any.as_str(), "*");
}

fn event(topics: &[&str], private: bool) -> Event {
    let new =
        NewEvent { topics: topics.iter().map(ToString::to_string).collect(), private, ..NewEvent::default() };
    validator().event(new).expect("a valid event")
}

#[test]
fn one_matcher_and_one_topic_suffice_for_an_event_mercure_5_13() {
    let filter =
        Filter { matchers: vec![pattern("/x/*"), validator().exact("b").unwrap()], grants: Grants::NONE };
    assert!(filter.accepts(&event(&["a", "b"], false)));
    assert!(filter.accepts(&event(&["a", "/x/1"], false)));
    assert!(!filter.accepts(&event(&["a", "c"], false)));
}

#[test]
fn a_private_event_needs_a_match_and_a_grant_mercure_7_30() {
    let on = |text: &str| validator().exact(text).unwrap();
    let filter = |matcher: &str, grant: &str| Filter {
        matchers: vec![on(matcher)],
        grants: [on(grant)].into_iter().collect(),
    };
    let private = event(&["a", "b"], true);
    assert!(filter("a", "a").accepts(&private));
    assert!(filter("a", "b").accepts(&private), "the grant may be on another of its topics");
    assert!(!filter("a", "c").accepts(&private), "a match alone is not enough");
    assert!(!filter("c", "a").accepts(&private), "a grant alone is not enough");
    assert!(!Filter::everything_public().accepts(&private));
    assert!(Filter::everything_public().accepts(&event(&["a"], false)));
}

#[test]
fn publishing_needs_a_grant_on_every_topic_mercure_29() {
    let grants: Grants = [validator().exact("a").unwrap(), pattern("/x/*")].into_iter().collect();
    assert!(grants.cover_all(&event(&["a", "/x/1"], false).topics));
    assert!(!grants.cover_all(&event(&["a", "b"], false).topics));
    assert!(Grants::all().cover_all(&event(&["a", "b"], false).topics));
    assert!(!Grants::NONE.cover_all(&event(&["a"], false).topics));
}

#[test]
fn without_grants_there_is_no_permission() {
    assert!(Grants::default().is_empty() && !Grants::default().is_all());
    assert_eq!(std::iter::empty().collect::<Grants>(), Grants::NONE);
    assert!(Grants::all().is_all());
    assert!(
        !pattern("/*").matches(&topic("urn:a")) && ![pattern("/*")].into_iter().collect::<Grants>().is_all()
    );
}

proptest! {
    #[test]
    fn an_exact_matcher_matches_its_own_text_and_no_other(a in "\\PC{1,20}", b in "\\PC{1,20}") {
        let validator = validator();
        if let (Ok(matcher), Ok(own), Ok(other)) = (validator.exact(&a), validator.topic(&a), validator.topic(&b)) {
            prop_assert!(matcher.matches(&own));
            prop_assert_eq!(matcher.matches(&other), a == b || matcher == Matcher::Any);
        }
    }

    #[test]
    fn a_pattern_without_special_characters_matches_itself(path in "(/[a-z0-9._~!$&',;=@-]{1,8}){1,4}") {
        prop_assume!(!path.contains("/."));
        matches(&path, &[&path]);
    }
}

/// The older revision of the Mercure protocol: `*`, one topic, or a URI Template.
#[test]
fn a_selector_of_the_older_revision_is_every_topic_one_topic_or_a_template() {
    let validator = Validator::default();
    let selector = |text: &str| validator.matcher(PatternSyntax::UriTemplate, text);
    assert_eq!(selector("*"), Ok(Matcher::Any));
    for text in ["chat", "https://example.com/a?b=*", "{\"not\": \"a template\"}", "a{"] {
        assert_eq!(selector(text), validator.exact(text), "{text}");
    }
    let books = selector("https://example.com/books/{id}").unwrap();
    assert_eq!((books.type_name(), books.as_str()), ("uritemplate", "https://example.com/books/{id}"));
    let is_matched = |text: &str| books.matches(&validator.topic(text).unwrap());
    assert!(is_matched("https://example.com/books/1") && is_matched("https://example.com/books/{id}"));
    for other in ["https://example.com/books/1/2", "https://example.com:443/books/1", "/books/1"] {
        assert!(!is_matched(other), "{other}");
    }
    for refused in ["", "a\n{b}", "{a:9999}", &format!("{{a}}{}", "b".repeat(5_000))] {
        assert!(selector(refused).is_err(), "{refused}");
    }
    assert_ne!(validator.pattern("/a{b}"), selector("/a{b}"), "cached apart");
}
