//! Why a request is refused before a handler sees it, and the response that the client receives.

use std::time::SystemTime;

use http::StatusCode;

/// What was wrong with request headers, or with the time at which they arrived.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Refusal {
    HeadersLate,
    HeadersCrowded,
    HeadersTooLarge,
    HeadersTooMany,
    HeadersCut,
    LineFeedBare,
    CarriageReturnBare,
    RequestLineMalformed,
    TargetMalformed,
    HeaderMalformed,
    ValuePadded,
    HostMissing,
    HostDoubled,
    HostMalformed,
    LengthMalformed,
    LengthDoubled,
    LengthWithEncoding,
    EncodingUnknown,
    EncodingTooNew,
    VersionUnknown,
    MethodConnect,
    NotEncrypted,
}

impl Refusal {
    pub(crate) fn status(self) -> StatusCode {
        match self {
            Self::HeadersLate | Self::HeadersCrowded => StatusCode::REQUEST_TIMEOUT,
            Self::HeadersTooLarge | Self::HeadersTooMany => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::VersionUnknown => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            Self::MethodConnect => StatusCode::NOT_IMPLEMENTED,
            _ => StatusCode::BAD_REQUEST,
        }
    }

    /// The whole response. It is always the last one on its connection.
    pub(crate) fn response(self, now: SystemTime) -> Vec<u8> {
        let status = self.status();
        let title = self.title();
        let body = self.document();
        format!(
            "HTTP/1.1 {} {title}\r\nContent-Type: application/problem+json\r\nContent-Length: {}\r\n\
             Cache-Control: no-store\r\nConnection: close\r\nDate: {}\r\n\r\n{body}",
            status.as_u16(),
            body.len(),
            httpdate::fmt_http_date(now),
        )
        .into_bytes()
    }

    /// The problem details of the response.
    pub(crate) fn document(self) -> String {
        format!(
            r#"{{"type":"about:blank","title":"{}","status":{},"detail":"{}"}}"#,
            self.title(),
            self.status().as_u16(),
            self.detail()
        )
    }

    fn title(self) -> &'static str {
        self.status().canonical_reason().expect("the statuses above are registered")
    }

    /// One sentence for the person who reads the response. It quotes nothing of the request and needs
    /// no JSON escape.
    fn detail(self) -> &'static str {
        match self {
            Self::HeadersLate => "The request headers did not arrive in time.",
            Self::HeadersCrowded => {
                "The request headers were still incomplete when the hub ran out of capacity. Try again."
            }
            Self::HeadersTooLarge => "The request headers are larger than this server accepts.",
            Self::HeadersTooMany => "There are more header lines than this server accepts.",
            Self::HeadersCut => "The connection was closed before the request headers were complete.",
            Self::LineFeedBare => {
                "A line of the request headers ends with a bare line feed; lines end with CR LF."
            }
            Self::CarriageReturnBare => "The request headers contain a carriage return without a line feed.",
            Self::RequestLineMalformed => {
                "This is not an HTTP request line. (This port serves plain HTTP, without TLS.)"
            }
            Self::TargetMalformed => {
                "The request target is malformed; characters that a URL cannot contain are percent-encoded, # as %23."
            }
            Self::HeaderMalformed => {
                "A header line is malformed: a name, a colon directly after it, a value without control characters, on one line."
            }
            Self::ValuePadded => "The value of a header begins or ends with a space, which HTTP/2 forbids.",
            Self::HostMissing => "There is no Host header (in HTTP/2: no authority).",
            Self::HostDoubled => "There is more than one Host header.",
            Self::HostMalformed => "The host is not a name or an address with an optional port.",
            Self::LengthMalformed => "Content-Length is not a number.",
            Self::LengthDoubled => "There is more than one Content-Length header.",
            Self::LengthWithEncoding => "Content-Length and Transfer-Encoding exclude each other.",
            Self::EncodingUnknown => "The only Transfer-Encoding is chunked, once.",
            Self::EncodingTooNew => "HTTP/1.0 has no Transfer-Encoding.",
            Self::VersionUnknown => {
                "This port serves HTTP/1.1 and HTTP/1.0, and HTTP/2 to clients that begin with its preface, unless that is disabled."
            }
            Self::MethodConnect => "This server is not a proxy.",
            Self::NotEncrypted => {
                "This port serves HTTPS, and the request was not encrypted: use https:// in the URL."
            }
        }
    }
}
