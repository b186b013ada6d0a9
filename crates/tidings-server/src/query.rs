//! Parameters of a query or a form, and the topic in a path: percent-decoding that refuses
//! malformed input.
//!
//! With a lenient decoder, which inserts replacement characters or keeps a malformed `%zz`,
//! different requests would name the same topic, and an error would be published instead of
//! reported.

use http::request::Parts;

use crate::problem::{Problem, excerpt};

/// Names and values in the order in which they were sent.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Parameters(Vec<(String, String)>);

impl FromIterator<(String, String)> for Parameters {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(pairs: I) -> Self {
        Self(pairs.into_iter().collect())
    }
}

impl Parameters {
    /// Reads `a=b&c=d` as the WHATWG URL standard does, "application/x-www-form-urlencoded
    /// parsing", except that malformed percent-encodings and invalid UTF-8 are refused.
    pub(crate) fn parse(encoded: &[u8]) -> Result<Self, Problem> {
        let pairs = encoded.split(|&byte| byte == b'&').filter(|pair| !pair.is_empty());
        let decoded = pairs.map(|pair| {
            let (name, value) = match pair.iter().position(|&byte| byte == b'=') {
                Some(equals) => (&pair[..equals], &pair[equals + 1..]),
                None => (pair, &b""[..]),
            };
            let name = percent_decode(name, Plus::IsSpace)
                .map_err(|error| error.problem("parameter", "a parameter's name"))?;
            let value = percent_decode(value, Plus::IsSpace).map_err(|error| {
                error.problem("parameter", &format!("the value of the parameter {}", excerpt(&name)))
            })?;
            Ok((name, value))
        });
        decoded.collect::<Result<_, Problem>>().map(Self)
    }

    /// Those of the URL of a request.
    pub(crate) fn of_query(parts: &Parts) -> Result<Self, Problem> {
        Self::parse(parts.uri.query().unwrap_or_default().as_bytes())
    }

    /// These and then the others.
    pub(crate) fn and(mut self, others: Self) -> Self {
        self.0.extend(others.0);
        self
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str)> + Clone {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    pub(crate) fn contains(&self, name: &str) -> bool {
        self.iter().any(|(found, _)| found == name)
    }

    /// All values of these names.
    pub(crate) fn values(&self, names: &[&str]) -> Vec<&str> {
        self.iter().filter_map(|(name, value)| names.contains(&name).then_some(value)).collect()
    }

    /// The value of this name, which may be present at most once.
    pub(crate) fn single(&self, name: &'static str) -> Result<Option<&str>, Problem> {
        match self.values(&[name])[..] {
            [] => Ok(None),
            [value] => Ok(Some(value)),
            _ => Err(Problem::bad_request(
                name,
                format!("The parameter `{name}` is given more than once: give it once."),
            )),
        }
    }

    /// The value of this name, a number from 1 to `max`. `what` is one of these: "a number".
    pub(crate) fn number(
        &self,
        name: &'static str,
        what: &str,
        max: usize,
    ) -> Result<Option<usize>, Problem> {
        let Some(text) = self.single(name)? else { return Ok(None) };
        let number = text.parse().ok().filter(|number| (1..=max).contains(number));
        number.map(Some).ok_or_else(|| {
            let value = excerpt(text);
            Problem::bad_request(
                name,
                format!("The value {value} of `{name}` is not {what} from 1 to {max}."),
            )
        })
    }

    /// Refuses every parameter. `instead` completes the sentence: what counts in their place.
    pub(crate) fn refuse_any(&self, instead: &str) -> Result<(), Problem> {
        let Some((name, _)) = self.iter().next() else { return Ok(()) };
        let detail = format!("The parameter {} has no effect here: {instead}.", excerpt(name));
        Err(Problem::bad_request("parameter", detail))
    }

    /// Refuses a parameter that is neither documented nor harmless, with the documented name that
    /// is nearest to it.
    pub(crate) fn refuse_unknown(&self, documented: &[&str], harmless: &[&str]) -> Result<(), Problem> {
        let is_known = |name: &str| documented.contains(&name) || harmless.contains(&name);
        let Some((name, _)) = self.iter().find(|(name, _)| !is_known(name)) else { return Ok(()) };
        let nearest = nearest(name, documented.iter().chain(harmless).copied());
        let hint = nearest.map(|nearest| format!(" Did you mean `{nearest}`?")).unwrap_or_default();
        let list = documented.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        Err(Problem::bad_request(
            "parameter",
            format!("The parameter {} is unknown.{hint} Known parameters: {list}.", excerpt(name)),
        ))
    }

    /// A switch: on when it is present, unless its value means off.
    pub(crate) fn switch(&self, name: &'static str) -> Result<bool, Problem> {
        match self.single(name)? {
            None | Some("0" | "false" | "off") => Ok(false),
            Some("" | "1" | "true" | "on") => Ok(true),
            Some(other) => Err(Problem::bad_request(
                name,
                format!(
                    "The parameter `{name}` is {}: write `{name}=true`, or leave it out.",
                    excerpt(other)
                ),
            )),
        }
    }
}

/// Longest name that is compared with the known ones, in bytes: the comparison takes time
/// proportional to it.
const COMPARED_BYTES_MAX: usize = 64;

/// The known name that was probably meant: one that differs in at most a third of its characters.
fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    if name.len() > COMPARED_BYTES_MAX {
        return None;
    }
    let name = name.to_lowercase();
    let distance = |known: &str| strsim::osa_distance(&name, &known.to_lowercase());
    let (distance, nearest) =
        known.map(|known| (distance(known), known)).min_by_key(|(distance, _)| *distance)?;
    (distance <= nearest.len().div_ceil(3)).then_some(nearest)
}

/// What a `+` means.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Plus {
    /// A space, in queries and forms.
    IsSpace,
    /// Itself, in paths.
    IsPlus,
}

/// Why an encoded text cannot be decoded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum DecodeError {
    Percent,
    Utf8,
}

impl DecodeError {
    pub(crate) fn problem(self, reason: &'static str, place: &str) -> Problem {
        Problem::bad_request(
            reason,
            match self {
                Self::Percent => format!(
                    "There is a `%` without two hexadecimal digits after it in {place}: a percent sign itself is written `%25`."
                ),
                Self::Utf8 => format!("The bytes of {place} are not valid UTF-8."),
            },
        )
    }
}

/// Decodes once: the result is not decoded again.
pub(crate) fn percent_decode(encoded: &[u8], plus: Plus) -> Result<String, DecodeError> {
    let mut decoded = Vec::with_capacity(encoded.len());
    let mut bytes = encoded.iter().copied();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let mut digit = || bytes.next().and_then(hex_digit).ok_or(DecodeError::Percent);
                digit()? << 4 | digit()?
            }
            b'+' if plus == Plus::IsSpace => b' ',
            _ => byte,
        });
    }
    String::from_utf8(decoded).map_err(|_| DecodeError::Utf8)
}

fn hex_digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn parse(encoded: &str) -> Vec<(String, String)> {
        Parameters::parse(encoded.as_bytes()).expect("valid").0
    }

    proptest! {
        #[test]
        fn parameters_that_a_browser_encodes_round_trip(pairs in vec((".{0,8}", ".{0,8}"), 0..4)) {
            let encoded = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(&pairs).finish();
            prop_assert_eq!(parse(&encoded), pairs);
        }

        #[test]
        fn accepted_input_is_parsed_as_the_url_standard_says(encoded in "([a-c=&+éß]|%[0-7][0-9a-fA-F]|%C3%A9){0,40}") {
            let standard: Vec<_> = url::form_urlencoded::parse(encoded.as_bytes()).into_owned().collect();
            prop_assert_eq!(parse(&encoded), standard);
        }

        #[test]
        fn arbitrary_bytes_never_panic(encoded in vec(any::<u8>(), 0..32)) {
            let _ = Parameters::parse(&encoded);
        }

        #[test]
        fn a_path_is_decoded_exactly_once(text in ".{0,16}") {
            let encoded = percent_encoding::utf8_percent_encode(&text, percent_encoding::NON_ALPHANUMERIC).to_string();
            prop_assert_eq!(percent_decode(encoded.as_bytes(), Plus::IsPlus), Ok(text));
        }
    }

    #[test]
    fn an_unknown_parameter_is_refused_with_the_nearest_name() {
        let known = ["topic", "since", "format"];
        for (given, meant) in [
            ("sinc", Some("since")),
            ("sicne", Some("since")),
            ("Topic", Some("topic")),
            ("topics", Some("topic")),
            ("lasteventid", Some("lastEventId")),
            ("colour", None),
            ("", None),
            (&"s".repeat(100_000), None),
        ] {
            let parameters =
                Parameters(vec![("topic".to_owned(), String::new()), (given.to_owned(), String::new())]);
            let problem =
                parameters.refuse_unknown(&known, &["lastEventId"]).expect_err(given).detail().to_owned();
            assert!(problem.contains("`topic`, `since`, `format`"), "{problem}");
            assert_eq!(problem.contains("Did you mean"), meant.is_some(), "{problem}");
            assert!(meant.is_none_or(|meant| problem.contains(&format!("`{meant}`?"))), "{problem}");
        }
        assert!(
            Parameters(vec![("lastEventId".to_owned(), String::new())])
                .refuse_unknown(&known, &["lastEventId"])
                .is_ok()
        );
    }

    #[test]
    fn a_malformed_percent_encoding_is_refused() {
        for encoded in ["a=%", "a=%2", "a=%zz", "%g0=a", "a=%+1", "a=%25%"] {
            assert!(Parameters::parse(encoded.as_bytes()).is_err(), "{encoded}");
        }
        assert_eq!(percent_decode(b"%2525", Plus::IsPlus), Ok("%25".to_owned()));
        assert_eq!(percent_decode(b"a+b", Plus::IsPlus), Ok("a+b".to_owned()));
    }

    #[test]
    fn bytes_that_are_not_utf8_are_refused() {
        for encoded in [&b"a=%ff"[..], b"a=\xff", b"%c3=a", b"a=%ed%a0%80"] {
            assert!(Parameters::parse(encoded).is_err(), "{encoded:?}");
        }
    }
}
