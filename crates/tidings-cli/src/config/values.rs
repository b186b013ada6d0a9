//! Parsers for the values of settings. Every error continues after the word itself: "`7 parsecs` is
//! not a time: …".

use std::{str::FromStr, time::Duration};

use bytesize::ByteSize;
use jiff::{Span, SpanRelativeTo};
use tidings::HubSettings;
use url::Url;

/// The word for "no limit".
pub(crate) const UNLIMITED: &str = "unlimited";

/// How much is logged by default.
pub(crate) const LOG_LEVEL: &str = "info";

/// Where the Mercure protocol expects a hub.
pub(crate) const HUB_PATH: &str = "/.well-known/mercure";

/// A value of a type whose error says what is wrong.
pub(crate) fn parsed<T: FromStr<Err: ToString>>(word: &str) -> Result<T, String> {
    word.parse().map_err(|error: T::Err| error.to_string())
}

/// How much is logged: a level, or levels of parts of the program. (`RUST_LOG` takes more forms,
/// among them words that would turn on a part of that name.)
pub(crate) fn log_level(word: &str) -> Result<String, String> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let is_part = |part: &str| {
        !part.is_empty() && part.chars().all(|char| char.is_ascii_alphanumeric() || "_:-".contains(char))
    };
    let is_valid = word.split(',').all(|directive| match directive.split_once('=') {
        Some((part, level)) => is_part(part) && LEVELS.contains(&level),
        None => LEVELS.contains(&directive),
    });
    if is_valid {
        return Ok(word.to_owned());
    }
    Err(format!(
        "is not a log level: use one of {}, or a list as in info,tidings_server=debug",
        LEVELS.join(", ")
    ))
}

/// Seconds between two heartbeats.
pub(crate) fn heartbeat_secs(word: &str) -> Result<u64, String> {
    let secs = seconds(word)?;
    let secs_max = HubSettings::HEARTBEAT_MAX.as_secs();
    if secs > secs_max {
        return Err(format!(
            "is more than {secs_max}: clients, a common polyfill among them, close a stream after 45 seconds of silence and would reconnect forever"
        ));
    }
    Ok(secs)
}

/// A number of bytes: `1048576`, `1024KiB`, `1.5MiB`, `1TB`.
pub(crate) fn bytes(word: &str) -> Result<u64, String> {
    let size = word.parse::<ByteSize>().map(|size| size.as_u64());
    size.ok()
        // The parser returns larger numbers for everything that overflows.
        .filter(|size| (1..u64::MAX / 2).contains(size))
        .ok_or_else(|| "is not a size: write it as 65536, 64KiB or 1.5MiB".to_owned())
}

/// A number of bytes that has to fit into memory.
pub(crate) fn memory_bytes(word: &str) -> Result<usize, String> {
    usize::try_from(bytes(word)?).map_err(|_| "is more than this machine can address".to_owned())
}

/// A time with its units: `30s`, `10m`, `1h30m`, `7d`, `2w`. A day has 24 hours.
pub(crate) fn time(word: &str) -> Result<Duration, String> {
    let span = word.parse::<Span>().ok().filter(|span| span.get_months() == 0 && span.get_years() == 0);
    span.and_then(|span| span.to_duration(SpanRelativeTo::days_are_24_hours()).ok())
        .and_then(|duration| Duration::try_from(duration).ok())
        .filter(|duration| !duration.is_zero())
        .ok_or_else(|| "is not a time: write it as 30s, 10m, 1h30m, 7d or 2w".to_owned())
}

/// A time in whole seconds: `15` or, as everywhere else, `15s` or `2m`.
pub(crate) fn seconds(word: &str) -> Result<u64, String> {
    const YEARS_MAX: u64 = 10;
    let seconds = any_seconds(word)?;
    // A time beyond the range of the clock would panic.
    if seconds <= YEARS_MAX * 365 * 24 * 60 * 60 {
        Ok(seconds)
    } else {
        Err(format!("is longer than {YEARS_MAX} years"))
    }
}

fn any_seconds(word: &str) -> Result<u64, String> {
    if let Some(number) = plain_number(word) {
        return if number > 0 { Ok(number) } else { Err("must be at least 1 second".to_owned()) };
    }
    let time = time(word).map_err(|_| "is not a time: write it as 15 (seconds), 15s or 2m".to_owned())?;
    if time.subsec_nanos() == 0 {
        Ok(time.as_secs())
    } else {
        Err("is not a number of whole seconds".to_owned())
    }
}

/// The same, or 0.
pub(crate) fn seconds_or_none(word: &str) -> Result<u64, String> {
    if plain_number(word) == Some(0) { Ok(0) } else { seconds(word) }
}

/// The delay before browsers reconnect: `3000` (milliseconds) or `3s`. After a restart of the hub
/// all of them reconnect within that time: less than 100 ms would be a flood. JavaScript timers
/// hold no more than 24 days.
pub(crate) fn retry_millis(word: &str) -> Result<u64, String> {
    let of_time = || time(word).ok().and_then(|time| u64::try_from(time.as_millis()).ok());
    let millis = plain_number(word).or_else(of_time);
    let millis =
        millis.ok_or_else(|| "is not a time: write it as 3000 (milliseconds), 500ms or 3s".to_owned())?;
    if (100..=24 * 60 * 60 * 1000).contains(&millis) {
        Ok(millis)
    } else {
        Err("is not a time from 100ms to 24h".to_owned())
    }
}

/// An integer of at least 1.
pub(crate) fn count<T: TryFrom<u64>>(word: &str) -> Result<T, String> {
    plain_number(word)
        .filter(|number| *number > 0)
        .and_then(|number| T::try_from(number).ok())
        .ok_or_else(|| "is not an integer of at least 1".to_owned())
}

/// A value, or [`UNLIMITED`].
pub(crate) fn limit<T>(word: &str, parse: impl Fn(&str) -> Result<T, String>) -> Result<Option<T>, String> {
    if word == UNLIMITED {
        return Ok(None);
    }
    parse(word).map(Some).map_err(|reason| format!("{reason}, or {UNLIMITED}"))
}

/// True or false.
pub(crate) fn truth(word: &str) -> Result<bool, String> {
    match word {
        "true" | "yes" | "1" => Ok(true),
        "false" | "no" | "0" => Ok(false),
        _ => Err("is neither true nor false".to_owned()),
    }
}

/// The URL under which browsers reach the hub; without a path it gets that of the Mercure protocol.
pub(crate) fn public_url(word: &str) -> Result<Url, String> {
    let wrong = || "is not the URL of a hub: write it as https://hub.example.com".to_owned();
    let mut url = Url::parse(word).map_err(|_| wrong())?;
    let plain = matches!(url.scheme(), "http" | "https")
        && url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none();
    if !plain {
        return Err(wrong());
    }
    if url.path() == "/" {
        url.set_path(HUB_PATH);
    }
    Ok(url)
}

/// How the log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

impl FromStr for LogFormat {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        match word {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err("is neither text nor json".to_owned()),
        }
    }
}

/// Digits only: no sign, no space.
fn plain_number(digits: &str) -> Option<u64> {
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| digits.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_a_number_with_a_unit_or_without() {
        for (word, size) in [
            ("1", 1),
            ("64KiB", 65_536),
            ("64 KiB", 65_536),
            ("64MiB", 67_108_864),
            ("1.5MiB", 1_572_864),
            ("1mib", 1_048_576),
            ("2GiB", 2_147_483_648),
            ("1TiB", 1_099_511_627_776),
            ("1TB", 1_000_000_000_000),
            ("1KB", 1000),
            ("7B", 7),
        ] {
            assert_eq!(bytes(word), Ok(size), "{word}");
        }
        for bad in ["", "0", "-1", "MiB", "1 parsec", "99999999999GiB", "NaN", "inf"] {
            assert!(bytes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_time_has_a_unit() {
        for (word, secs) in [
            ("1s", 1),
            ("10m", 600),
            ("1h", 3600),
            ("1h30m", 5400),
            ("1 h", 3600),
            ("7d", 604_800),
            ("1w", 604_800),
        ] {
            assert_eq!(time(word), Ok(Duration::from_secs(secs)), "{word}");
        }
        assert_eq!(time("500ms"), Ok(Duration::from_millis(500)));
        for bad in ["", "0s", "1", "h", "-1h", "1mo", "1y", "PT", "1é", "1s ago", "99999999999999999999d"] {
            assert!(time(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn settings_in_seconds_take_a_number_or_a_time() {
        assert_eq!((seconds("15"), seconds("15s"), seconds("2m")), (Ok(15), Ok(15), Ok(120)));
        assert_eq!(
            (retry_millis("3000"), retry_millis("3s"), retry_millis("250ms"), retry_millis("100")),
            (Ok(3000), Ok(3000), Ok(250), Ok(100))
        );
        for bad in ["", "0", "0s", "-1", "1500ms", "x"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
        assert!(["soon", "0", "99ms", "25h"].iter().all(|word| retry_millis(word).is_err()));
        // Times beyond the range of the system clock.
        assert_eq!(seconds("315360000"), Ok(315_360_000));
        for far in ["315360001", "18446744073709551615", "3651d"] {
            assert_eq!(seconds(far), Err("is longer than 10 years".to_owned()), "{far}");
        }
    }

    #[test]
    fn a_limit_may_be_absent_only_by_its_word() {
        assert_eq!(limit("7", count::<usize>), Ok(Some(7)));
        assert_eq!(limit("unlimited", count::<usize>), Ok(None));
        assert!(limit("0", count::<usize>).unwrap_err().ends_with(", or unlimited"));
        assert!(limit("", count::<usize>).is_err());
        assert!(count::<u8>("256").is_err());
    }

    #[test]
    fn a_public_url_is_one_that_browsers_can_open() {
        let url = |word| public_url(word).unwrap().to_string();
        assert_eq!(url("https://hub.example.com"), "https://hub.example.com/.well-known/mercure");
        assert_eq!(url("https://hub.example.com/push"), "https://hub.example.com/push");
        for bad in ["", "hub.example.com", "ftp://a.example", "https://a.example/?x", "https://u:p@a.example"]
        {
            assert!(public_url(bad).is_err(), "{bad}");
        }
    }
}
