//! The authority: its account of this hub, and orders of certificates (RFC 8555).

use std::{
    pin::Pin,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http_body_util::BodyExt;
use instant_acme::{
    Account, AccountCredentials, AuthorizationStatus, BodyWrapper, BytesResponse, ChallengeType, Error,
    HttpClient, Identifier, NewAccount, NewOrder, Order, OrderStatus, Problem, RetryPolicy,
};
use reqwest::{Certificate, Client, Url};

use super::{
    folder::Folder,
    issued::{Issued, time},
};
use crate::{
    checked_client::{checked_client, reason, refuse_private},
    config::{AcmeSettings, Challenge},
};

/// How long one request may take.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(30);
/// How long the authority may take to validate, and to issue.
const STEP_TIME_MAX: Duration = Duration::from_secs(120);
/// The largest response that is read.
const RESPONSE_BYTES_MAX: usize = 1 << 20;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Authority {
    settings: AcmeSettings,
    http: Http,
}

/// What proves one name.
#[derive(Debug)]
pub(super) struct Proof {
    pub(super) name: String,
    pub(super) token: String,
    pub(super) key_authorization: String,
    /// SHA-256 of the key authorization.
    pub(super) digest: Vec<u8>,
}

/// When an authority suggests that a certificate be renewed (RFC 9773).
#[derive(Clone, Copy, Debug)]
pub(super) struct Suggestion {
    pub(super) window: [SystemTime; 2],
    /// When to ask again.
    pub(super) ask_again: Duration,
}

impl Authority {
    pub(super) fn new(settings: AcmeSettings) -> Result<Self, String> {
        let mut client =
            checked_client(&settings.directory, settings.allow_private).timeout(REQUEST_TIME_MAX);
        if let Some(trusted) = &settings.trusted {
            let trusted = Certificate::from_pem_bundle(trusted.as_bytes());
            client =
                client.tls_certs_only(trusted.map_err(|error| format!("directory_ca: {}", reason(error)))?);
        }
        let client = client.build().map_err(|error| format!("directory_ca: {}", reason(error)))?;
        let http = Http { client, allow_private: settings.allow_private };
        Ok(Self { settings, http })
    }

    /// What the authority suggests for this certificate, if it does.
    pub(super) async fn suggestion(&self, folder: &Folder, issued: &Issued) -> Option<Suggestion> {
        let account = self.stored_account(folder).await.ok()??;
        let (info, ask_again) = account.renewal_info(issued.id()?).await.ok()?;
        let window = [info.suggested_window.start, info.suggested_window.end];
        Some(Suggestion { window: window.map(|at| time(at.unix_timestamp())), ask_again })
    }

    /// Obtains a certificate: its key and its chain, in PEM. `answer` has the hub answer what proves
    /// its names. `replaced` is the certificate that this one is to replace.
    pub(super) async fn obtain(
        &self,
        folder: &Folder,
        replaced: Option<&Issued>,
        answer: impl FnOnce(&[Proof]) -> Result<(), String>,
    ) -> Result<String, String> {
        let mut order = self.order(folder, replaced).await?;
        let proofs = self.proofs(&mut order).await?;
        answer(&proofs)?;
        let policy = RetryPolicy::new().timeout(STEP_TIME_MAX);
        match self.validate(&mut order, &policy).await {
            Ok(OrderStatus::Ready) => {}
            failed => return Err(self.refusal(&mut order, failed.err()).await),
        }
        let key = order.finalize().await.map_err(described)?;
        let chain = order.poll_certificate(&policy).await.map_err(described)?;
        Ok(key + &chain)
    }

    async fn order(&self, folder: &Folder, replaced: Option<&Issued>) -> Result<Order, String> {
        let identifiers: Vec<_> = self.settings.domains.iter().cloned().map(Identifier::Dns).collect();
        let new_order = || match &self.settings.profile {
            Some(profile) => NewOrder::new(&identifiers).profile(profile),
            None => NewOrder::new(&identifiers),
        };
        let mut account = match self.stored_account(folder).await? {
            Some(account) => account,
            None => self.new_account(folder).await?,
        };
        let mut ordered = match replaced.and_then(Issued::id) {
            Some(id) => account.new_order(&new_order().replaces(id.clone())).await,
            None => account.new_order(&new_order()).await,
        };
        // An authority for tests may have forgotten all accounts.
        if is(&ordered, "accountDoesNotExist") {
            account = self.new_account(folder).await?;
        }
        // RFC 9773, 5: a certificate is replaced once, and not every authority knows replacements.
        if replaced.is_some() && ordered.is_err() || is(&ordered, "accountDoesNotExist") {
            ordered = account.new_order(&new_order()).await;
        }
        ordered.map_err(described)
    }

    async fn stored_account(&self, folder: &Folder) -> Result<Option<Account>, String> {
        let Some(text) = folder.account()? else { return Ok(None) };
        let credentials: AccountCredentials = serde_json::from_str(&text).map_err(|error| {
            format!("the stored account cannot be read ({error}): delete account.json, and a new one is made")
        })?;
        let account =
            Account::builder_with_http(Box::new(self.http.clone())).from_credentials(credentials).await;
        account.map(Some).map_err(described)
    }

    async fn new_account(&self, folder: &Folder) -> Result<Account, String> {
        let contact = self.settings.email.as_ref().map(|email| format!("mailto:{email}"));
        let contact: Vec<_> = contact.iter().map(String::as_str).collect();
        let new =
            NewAccount { contact: &contact, terms_of_service_agreed: true, only_return_existing: false };
        let directory = self.settings.directory.to_string();
        let builder = Account::builder_with_http(Box::new(self.http.clone()));
        let (account, credentials) = builder.create(&new, directory, None).await.map_err(described)?;
        folder.store_account(&serde_json::to_string(&credentials).map_err(|error| error.to_string())?)?;
        Ok(account)
    }

    /// What proves the names that are not proven already.
    async fn proofs(&self, order: &mut Order) -> Result<Vec<Proof>, String> {
        let mut proofs = Vec::new();
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization.map_err(described)?;
            if authorization.status == AuthorizationStatus::Valid {
                continue;
            }
            let Some(challenge) = authorization.challenge(self.kind()) else {
                return Err(format!("the authority does not offer the challenge {}", self.kind_name()));
            };
            let key_authorization = challenge.key_authorization();
            proofs.push(Proof {
                name: challenge.identifier().to_string(),
                token: challenge.token.clone(),
                key_authorization: key_authorization.as_str().to_owned(),
                digest: key_authorization.digest().as_ref().to_vec(),
            });
        }
        Ok(proofs)
    }

    /// Has the authority validate the names, and waits until it has. An authority that is quick answers
    /// with the failure as soon as it is asked.
    async fn validate(&self, order: &mut Order, policy: &RetryPolicy) -> Result<OrderStatus, Error> {
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization?;
            if authorization.status == AuthorizationStatus::Pending
                && let Some(mut challenge) = authorization.challenge(self.kind())
            {
                challenge.set_ready().await?;
            }
        }
        match order.state().status {
            OrderStatus::Pending => order.poll_ready(policy).await,
            status => Ok(status),
        }
    }

    /// Why an order was not validated: what the authority has against a name, or else the error.
    async fn refusal(&self, order: &mut Order, error: Option<Error>) -> String {
        let mut authorizations = order.authorizations();
        while let Some(Ok(mut authorization)) = authorizations.next().await {
            if authorization.refresh().await.is_err() {
                break;
            }
            let name = authorization.identifier().to_string();
            if let Some(problem) =
                authorization.challenges.iter().find_map(|challenge| challenge.error.clone())
            {
                return format!(
                    "the authority could not validate {name} by {}: {}",
                    self.kind_name(),
                    described_problem(&problem)
                );
            }
        }
        error.map_or_else(|| "the authority refused the order".to_owned(), described)
    }

    fn kind(&self) -> ChallengeType {
        match self.settings.challenge {
            Challenge::TlsAlpn01 => ChallengeType::TlsAlpn01,
            Challenge::Http01 => ChallengeType::Http01,
        }
    }

    fn kind_name(&self) -> &'static str {
        match self.settings.challenge {
            Challenge::TlsAlpn01 => "tls-alpn-01",
            Challenge::Http01 => "http-01",
        }
    }
}

/// Whether the authority answered with this error (RFC 8555, 6.7).
fn is<T>(answer: &Result<T, Error>, kind: &str) -> bool {
    let Err(Error::Api(problem)) = answer else { return false };
    problem.r#type.as_deref().and_then(|name| name.strip_prefix("urn:ietf:params:acme:error:")) == Some(kind)
}

fn described(error: Error) -> String {
    match error {
        Error::Api(problem) => format!("the authority refused: {}", described_problem(&problem)),
        Error::Other(error) => error.to_string(),
        Error::Timeout(_) => format!("the authority took longer than {} seconds", STEP_TIME_MAX.as_secs()),
        error => format!("the authority answered something else than ACME: {error}"),
    }
}

fn described_problem(problem: &Problem) -> String {
    let kind = problem.r#type.as_deref().unwrap_or("no type");
    let mut text = format!("{} ({kind})", problem.detail.as_deref().unwrap_or("no detail"));
    for subproblem in &problem.subproblems {
        text = format!("{text}; {subproblem}");
    }
    text
}

/// The client of the hub, as the library needs it.
#[derive(Clone, Debug)]
struct Http {
    client: Client,
    allow_private: bool,
}

impl HttpClient for Http {
    fn request(
        &self,
        request: http::Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let http = self.clone();
        Box::pin(async move {
            let url = request.uri().to_string();
            http.send(request).await.map_err(|reason| Error::Other(format!("{url}: {reason}").into()))
        })
    }
}

impl Http {
    async fn send(&self, request: http::Request<BodyWrapper<Bytes>>) -> Result<BytesResponse, String> {
        let url: Url =
            request.uri().to_string().parse().map_err(|error| format!("this is not a URL: {error}"))?;
        refuse_private(&url, self.allow_private)?;
        let (parts, body) = request.into_parts();
        let body = body.collect().await.unwrap_or_else(|never| match never {}).to_bytes();
        let request = reqwest::Request::try_from(http::Request::from_parts(parts, body)).map_err(reason)?;
        let mut response = self.client.execute(request).await.map_err(reason)?;
        let (mut parts, ()) = http::Response::new(()).into_parts();
        parts.status = response.status();
        parts.headers = response.headers().clone();
        let mut body = Vec::new();
        while let Some(bytes) = response.chunk().await.map_err(reason)? {
            body.extend_from_slice(&bytes);
            if body.len() > RESPONSE_BYTES_MAX {
                return Err(format!("the response has more than {RESPONSE_BYTES_MAX} bytes"));
            }
        }
        Ok(BytesResponse { parts, body: Box::new(Bytes::from(body)) })
    }
}
