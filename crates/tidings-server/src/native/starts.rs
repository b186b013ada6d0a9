//! Topics that start at different places: `topic=feed&since=-50&topic=typing&since=now`.
//!
//! One `since` is for all topics of a request, wherever it stands. Of several, each is for the
//! topics and patterns in front of it, back to the one before. What could be read in two ways is
//! refused.

use tidings::{ParseSinceError, Since};

use crate::{
    problem::{Problem, excerpt},
    query::Parameters,
};

/// Where each topic starts, and after them each pattern; empty where all start at one place.
pub(crate) fn starts(parameters: &Parameters) -> Result<Vec<Since>, Problem> {
    if parameters.values(&["since"]).len() < 2 {
        return Ok(Vec::new());
    }
    let (mut topics, mut patterns) = (Vec::new(), Vec::new());
    let mut without_start: Vec<(&str, &str)> = Vec::new();
    for (name, value) in parameters.iter() {
        if matches!(name, "topic" | "channel" | "pattern") {
            without_start.push((name, value));
        } else if name == "since" {
            let since: Since = value.parse().map_err(|error: ParseSinceError| Problem::from(error))?;
            if matches!(since, Since::Id(_)) {
                return Err(refused(
                    "an id is where a whole stream starts, so it needs to be the only `since`",
                ));
            }
            if without_start.is_empty() {
                return Err(refused("each needs the topics in front of it that it is for"));
            }
            for (name, text) in without_start.drain(..) {
                let starts = if name == "pattern" { &mut patterns } else { &mut topics };
                if starts.iter().any(|(known, _)| *known == text) {
                    return Err(refused(&format!("{} has two of them", excerpt(text))));
                }
                starts.push((text, since.clone()));
            }
        }
    }
    if let Some((_, text)) = without_start.first() {
        return Err(refused(&format!("{} has none behind it", excerpt(text))));
    }
    Ok(topics.into_iter().chain(patterns).map(|(_, since)| since).collect())
}

fn refused(why: &str) -> Problem {
    Problem::bad_request(
        "since",
        format!(
            "The parameter `since` is given more than once, and {why}: use one for all topics, or one behind each topic, as in \
             `topic=chat&since=-50&topic=typing&since=now`."
        ),
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn read(query: &str) -> Result<Vec<Since>, Problem> {
        starts(&Parameters::parse(query.as_bytes()).expect("parameters"))
    }

    #[test]
    fn each_of_several_starts_is_for_the_topics_in_front_of_it() {
        let hour = Since::Ago(Duration::from_secs(3_600));
        for (query, expected) in [
            ("topic=a&since=-5&topic=b&since=now", vec![Since::Last(5), Since::Now]),
            (
                "topic=a&channel=b&since=-5&topic=c&since=now",
                vec![Since::Last(5), Since::Last(5), Since::Now],
            ),
            ("pattern=/:x&since=1h&format=json&topic=a&since=now", vec![Since::Now, hour]),
            ("topic=a&topic=b&since=-5", Vec::new()),
            ("since=-5&topic=a&topic=b", Vec::new()),
        ] {
            assert_eq!(read(query).expect(query), expected, "{query}");
        }
    }

    #[test]
    fn starts_that_can_be_read_in_two_ways_are_refused() {
        for query in [
            "topic=a&topic=b&since=-5&since=now",
            "since=-5&topic=a&since=now&topic=b",
            "topic=a&since=-5&topic=b&since=now&topic=c",
            "topic=a&since=-5&topic=a&since=now",
            "topic=a&since=id:x&topic=b&since=now",
            "topic=a&since=10min&topic=b&since=now",
        ] {
            assert!(read(query).is_err(), "{query}");
        }
    }
}
