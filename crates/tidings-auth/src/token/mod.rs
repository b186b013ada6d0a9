//! Access tokens of one trusted issuer: compact JWS in the form of RFC 9068.

mod claims;
mod details;
mod header;
mod key;

use std::sync::Arc;

use tidings_topic::Validator;
use url::Url;

use crate::{Access, Algorithm, AuthError, ConfigError, IssuerConfig, Subject};

pub(crate) use details::DETAIL_TYPE;
pub(crate) use key::signing_key;

use claims::Claims;
use header::Header;

/// Tolerated clock skew of an issuer: a token may be used this long before its `nbf`. There is no
/// tolerance after its `exp`, because a stream ends by then (the Mercure protocol,
/// "Authorization").
const NOT_BEFORE_LEEWAY_SECS: u64 = 60;

/// Whether a credential is a token: three parts, two dots. No key has this form.
pub(crate) fn has_token_shape(credential: &str) -> bool {
    credential.bytes().filter(|&byte| byte == b'.').count() == 2
}

/// The issuer whose tokens are accepted, with its key. Cloning is cheap.
#[derive(Clone, Debug)]
pub(crate) struct Issuer(Arc<Trusted>);

#[derive(Debug)]
struct Trusted {
    issuer: String,
    audiences: Vec<String>,
    algorithms: Vec<Algorithm>,
    key: jsonwebtoken::DecodingKey,
    validator: Validator,
}

impl Issuer {
    pub(crate) fn new(config: IssuerConfig, validator: &Validator) -> Result<Self, ConfigError> {
        let IssuerConfig { issuer, audiences, algorithms, key } = config;
        if issuer.is_empty() {
            return Err(ConfigError::new("issuer.issuer", "is empty: give the `iss` of the tokens"));
        }
        check_audiences(&audiences).map_err(|reason| ConfigError::new("issuer.audiences", reason))?;
        let (algorithms, key) = key::verification_key(&key, &algorithms)?;
        let validator = validator.clone();
        Ok(Self(Arc::new(Trusted { issuer, audiences, algorithms, key, validator })))
    }

    /// What this token allows at this time.
    pub(crate) fn verify(&self, token: &str, now_unix_secs: u64) -> Result<Access, AuthError> {
        let (message, signature) = token.rsplit_once('.').ok_or_else(malformed)?;
        let (header, claims) = message.split_once('.').ok_or_else(malformed)?;
        self.verify_parts(header, claims, message, signature, now_unix_secs).map_err(|error| {
            // The most helpful error, whichever was found first.
            if claims::is_of_older_revision(claims) { older_revision() } else { error }
        })
    }

    fn verify_parts(
        &self,
        header: &str,
        claims: &str,
        message: &str,
        signature: &str,
        now_unix_secs: u64,
    ) -> Result<Access, AuthError> {
        let header = Header::decode(header).ok_or_else(|| {
            AuthError::invalid_token("the header of the token does not conform to RFC 7515")
        })?;
        let algorithm = self.allowed_algorithm(&header)?;
        // The signature comes before everything that depends on what the token claims.
        let authentic = jsonwebtoken::crypto::verify(
            signature,
            message.as_bytes(),
            &self.0.key,
            algorithm.library_name(),
        );
        if !authentic.unwrap_or(false) {
            return Err(AuthError::invalid_token("the signature of the token is not that of the issuer"));
        }
        let encoded = claims;
        let claims = Claims::decode(encoded)
            .ok_or_else(|| AuthError::invalid_token("the claims of the token do not conform to RFC 9068"))?;
        self.check(&claims, now_unix_secs)?;
        if claims.authorization_details.is_none() && claims::is_of_older_revision(encoded) {
            return Err(older_revision());
        }
        let details = claims.authorization_details.unwrap_or_default();
        let permissions = details::permissions(&details, &self.0.validator)?;
        let subject = Subject::Token(claims.sub.as_deref().map(Into::into));
        let access = Access::new(subject, permissions.publish, permissions.subscribe);
        let mut access = access.with_id(claims.jti).until(claims.exp, permissions.details);
        access.issued_at = claims.iat;
        Ok(access)
    }

    // RFC 9068, section 4: the type distinguishes an access token from every other JWT of the same
    // issuer. RFC 8725, section 3.1: the algorithm is one that the operator allowed; the header
    // only selects among those. RFC 7515, section 4.1.11: a critical extension that is not
    // supported makes the token invalid; none is supported. Keys in or referenced by the header
    // (`jwk`, `jku`, `x5u`, `x5c`) are not read.
    fn allowed_algorithm(&self, header: &Header) -> Result<Algorithm, AuthError> {
        let access_token = header.typ.as_deref().is_some_and(|typ| {
            typ.eq_ignore_ascii_case("at+jwt") || typ.eq_ignore_ascii_case("application/at+jwt")
        });
        if !access_token {
            return Err(AuthError::invalid_token("the `typ` of the token is not `at+jwt`"));
        }
        if header.crit || header.b64 {
            return Err(AuthError::invalid_token("the token has critical extensions that are not supported"));
        }
        let mut allowed = self.0.algorithms.iter().copied();
        allowed.find(|algorithm| algorithm.name() == header.alg).ok_or_else(|| {
            AuthError::invalid_token("the `alg` of the token is not one that this hub accepts")
        })
    }

    // RFC 9068, section 4, and RFC 7519, section 4.1.
    fn check(&self, claims: &Claims, now_unix_secs: u64) -> Result<(), AuthError> {
        if claims.iss != self.0.issuer {
            return Err(AuthError::invalid_token(
                "the `iss` of the token is not the issuer that this hub trusts",
            ));
        }
        if !self.0.audiences.iter().any(|audience| claims.aud.contains(audience)) {
            return Err(AuthError::invalid_token("the `aud` of the token does not name this hub"));
        }
        if now_unix_secs >= claims.exp {
            return Err(AuthError::Expired("the token has expired".to_owned()));
        }
        if claims
            .nbf
            .is_some_and(|not_before| now_unix_secs.saturating_add(NOT_BEFORE_LEEWAY_SECS) < not_before)
        {
            return Err(AuthError::invalid_token("the token is not valid yet"));
        }
        Ok(())
    }
}

fn malformed() -> AuthError {
    AuthError::invalid_token("the token is not a JSON Web Token")
}

fn older_revision() -> AuthError {
    AuthError::invalid_token(
        "the token has no `authorization_details`: its claim `mercure` is that of an older revision of the Mercure protocol, \
         which this hub does not read",
    )
}

// RFC 8707, section 2: an absolute URI without a fragment. A name like `hub` would be the same for
// every hub.
fn check_audiences(audiences: &[String]) -> Result<(), String> {
    if audiences.is_empty() {
        return Err("is missing: give the public URL of the hub".to_owned());
    }
    audiences.iter().try_for_each(|audience| match Url::parse(audience) {
        Ok(url) if url.has_host() && url.fragment().is_none() => Ok(()),
        _ => Err(format!(
            "`{}` is not an absolute URL, such as `https://example.com/.well-known/mercure`",
            audience.escape_debug()
        )),
    })
}
