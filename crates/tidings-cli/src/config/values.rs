//! What the words of settings mean. Every refusal reads on after the word itself: "`7 parsecs` is not a time: …".

use std::{net::SocketAddr, str::FromStr, time::Duration};

use tidings_net::InvalidUrl;
use tidings_redis::bridge::BridgeSettings;
use url::Url;

/// The word for "no limit".
pub(crate) const UNLIMITED: &str = "unlimited";

/// Where the Mercure protocol expects a hub.
pub(crate) const HUB_PATH: &str = "/.well-known/mercure";

/// `127.0.0.1:8080`, `[::1]:8080` or `localhost:8080`.
pub(crate) fn address(word: &str) -> Result<SocketAddr, String> {
    let numeric = word.replacen("localhost:", "127.0.0.1:", 1);
    numeric.parse().map_err(|_| {
        "is not an address with a port: write 127.0.0.1:8080 for this machine alone or 0.0.0.0:8080 for all"
            .to_owned()
    })
}

/// A number of bytes: `1048576`, `1024KiB`, `1MiB`.
pub(crate) fn bytes(word: &str) -> Result<u64, String> {
    const UNITS: [(&str, u64); 7] = [
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("KB", 1_000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
        ("B", 1),
    ];
    let (digits, unit) = UNITS
        .into_iter()
        .find_map(|(unit, size)| Some((word.strip_suffix(unit)?.trim_end(), size)))
        .unwrap_or((word, 1));
    plain_number(digits)
        .and_then(|number| number.checked_mul(unit))
        .filter(|size| *size > 0)
        .ok_or_else(|| "is not a size: write it as 65536, 64KiB or 1MiB".to_owned())
}

/// A number of bytes that has to fit into memory.
pub(crate) fn memory_bytes(word: &str) -> Result<usize, String> {
    usize::try_from(bytes(word)?).map_err(|_| "is more than this machine can address".to_owned())
}

/// A time: `30s`, `10m`, `1h`, `7d`.
pub(crate) fn time(word: &str) -> Result<Duration, String> {
    let unit_secs = match word.chars().last() {
        Some('s') => 1,
        Some('m') => 60,
        Some('h') => 60 * 60,
        Some('d') => 24 * 60 * 60,
        _ => 0,
    };
    word.get(..word.len().saturating_sub(1))
        .and_then(plain_number)
        .and_then(|number| number.checked_mul(unit_secs))
        .filter(|secs| *secs > 0)
        .map(Duration::from_secs)
        .ok_or_else(|| "is not a time: write it as 30s, 10m, 1h or 7d".to_owned())
}

/// A whole number from 1 on.
pub(crate) fn count<T: TryFrom<u64>>(word: &str) -> Result<T, String> {
    plain_number(word)
        .filter(|number| *number > 0)
        .and_then(|number| T::try_from(number).ok())
        .ok_or_else(|| "is not a whole number from 1 on".to_owned())
}

/// A whole number, zero included.
pub(crate) fn number(word: &str) -> Result<u64, String> {
    plain_number(word).ok_or_else(|| "is not a whole number".to_owned())
}

/// Something, or [`UNLIMITED`].
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

/// The URL under which browsers reach the hub, with the path of the Mercure protocol unless it has one.
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

/// A bridge to what applications publish on a Redis.
pub(crate) fn bridge(word: &str) -> Result<BridgeSettings, String> {
    word.parse().map_err(|error: InvalidUrl| format!("is no bridge: {error}"))
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
    fn an_address_has_a_port() {
        for good in ["127.0.0.1:8080", "[::1]:0", "0.0.0.0:80"] {
            assert_eq!(address(good).unwrap().to_string(), good);
        }
        assert_eq!(address("localhost:80").unwrap().to_string(), "127.0.0.1:80");
        for bad in
            ["", "8080", ":8080", "127.0.0.1", "example.com:80", "127.0.0.1:99999", "http://127.0.0.1:80"]
        {
            assert!(address(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_size_is_a_number_with_a_unit_or_without() {
        for (word, size) in [
            ("1", 1),
            ("64KiB", 65_536),
            ("64 KiB", 65_536),
            ("64MiB", 67_108_864),
            ("2GiB", 2_147_483_648),
            ("1KB", 1000),
            ("7B", 7),
        ] {
            assert_eq!(bytes(word), Ok(size), "{word}");
        }
        for bad in ["", "0", "-1", "MiB", "1.5MiB", "1TiB", "1mib", "99999999999GiB"] {
            assert!(bytes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_time_has_a_unit() {
        for (word, secs) in [("1s", 1), ("10m", 600), ("1h", 3600), ("7d", 604_800)] {
            assert_eq!(time(word), Ok(Duration::from_secs(secs)), "{word}");
        }
        for bad in ["", "0s", "1", "h", "-1h", "1.5h", "1 h", "1w", "1é", "99999999999999999999d"] {
            assert!(time(bad).is_err(), "{bad}");
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
