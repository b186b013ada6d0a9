//! The hub's own certificate, from an authority that speaks ACME (RFC 8555): obtained at the start,
//! and renewed while the hub serves.
//!
//! | what | where |
//! |---|---|
//! | when a certificate is renewed, and what happens if that fails | here |
//! | account, orders, validations | `authority` |
//! | what is kept between two starts | `folder` |
//! | names and lifetime of a certificate | `issued` |
//!
//! Invariants: connections get a certificate only after it was stored. A failure changes nothing of
//! the certificate that is served. A challenge is answered only while the authority validates it.

mod authority;
mod folder;
mod issued;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rcgen::{CertificateParams, CustomExtension, KeyPair};
use tidings::log::parts::lock;
use tidings_net::{Backoff, Spread};
use tidings_server::{
    CertificateFiles, Certificates, ChallengeCertificate, Component, Figure, HttpChallenges, Settings, Tls,
};
use tokio::{
    sync::Notify,
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

use self::{
    authority::{Authority, Proof},
    folder::Folder,
    issued::Issued,
};
use crate::{
    config::{AcmeSettings, Challenge},
    failure::Failure,
};

/// The delay after a first failure, at most; it doubles with each one up to [`RETRY_LONGEST`]. Let's
/// Encrypt allows five failed validations of a name in an hour.
const RETRY: Duration = Duration::from_secs(3 * 60);
const RETRY_LONGEST: Duration = Duration::from_secs(6 * 60 * 60);
/// How long one attempt may take, waiting for another hub of the same folder included.
const ATTEMPT_TIME_MAX: Duration = Duration::from_secs(15 * 60);
/// How often the hub looks at the time and at its folder. A machine that sleeps stops the delay.
const LOOK: Duration = Duration::from_secs(60 * 60);
/// How often, at most, the authority is asked when it suggests a renewal.
const SUGGESTION_INTERVAL: Duration = Duration::from_secs(60 * 60);

/// Keeps the certificate of a hub valid until it is stopped, if there is an authority. Clones are the
/// same.
#[derive(Clone, Debug)]
pub(crate) struct Acme(Option<Arc<Keeper>>);

#[derive(Debug)]
struct Keeper {
    settings: AcmeSettings,
    authority: Authority,
    folder: Folder,
    tls: Tls,
    http_challenges: HttpChallenges,
    /// The certificate that is served.
    served: Mutex<Option<Served>>,
    wanted: Notify,
    task: Mutex<Option<JoinHandle<()>>>,
    obtained: AtomicU64,
    failed: AtomicU64,
}

/// A certificate, and its file as it was read.
#[derive(Clone, Debug)]
struct Served {
    issued: Issued,
    text: String,
}

/// When the authority suggests to renew a certificate. It is asked at the start, at a reload, and from
/// time to time, but not about a certificate that is new: one that always suggests a renewal must not
/// cause one order after the other.
struct Suggested {
    issued: Issued,
    at: Option<SystemTime>,
    ask_again: Instant,
}

impl Suggested {
    fn none(issued: Issued) -> Self {
        Self { issued, at: None, ask_again: Instant::now() + SUGGESTION_INTERVAL }
    }
}

impl Acme {
    /// Serves the stored certificate, if there is one. Nothing is asked of the authority yet.
    pub(crate) fn open(settings: Option<&AcmeSettings>, tls: Option<&Tls>) -> Result<Self, Failure> {
        let Some((settings, tls)) = settings.zip(tls) else { return Ok(Self(None)) };
        let refuse = |reason: String| Failure::runtime(format!("[acme]: {reason}"));
        let folder =
            Folder::open(&settings.cache, &settings.directory, &settings.domains[0]).map_err(refuse)?;
        let keeper = Keeper {
            settings: settings.clone(),
            authority: Authority::new(settings.clone()).map_err(refuse)?,
            folder,
            tls: tls.clone(),
            http_challenges: HttpChallenges::default(),
            served: Mutex::default(),
            wanted: Notify::new(),
            task: Mutex::default(),
            obtained: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        };
        if let Err(reason) = keeper.serve_stored() {
            tracing::warn!(reason, "the stored certificate cannot be used; a new one is obtained");
        }
        Ok(Self(Some(Arc::new(keeper))))
    }

    /// Has the hub answer the authority over HTTP, and show the state of the certificate.
    pub(crate) fn add_to(&self, settings: &mut Settings) {
        if let Some(keeper) = &self.0 {
            settings.components.push(Arc::clone(keeper) as Arc<dyn Component>);
            settings.http_challenges = keeper.http_challenges.clone();
        }
    }

    /// Begins to obtain what is missing or due. The hub has to be listening.
    pub(crate) fn start(&self) {
        if let Some(keeper) = &self.0 {
            let task = tokio::spawn(Arc::clone(keeper).keep_valid());
            *lock(&keeper.task) = Some(task);
        }
    }

    /// Looks now whether a renewal is due, whatever has failed before.
    pub(crate) fn look_now(&self) {
        if let Some(keeper) = &self.0 {
            keeper.wanted.notify_one();
        }
    }

    /// Obtains nothing any more.
    pub(crate) fn stop(&self) {
        let Some(keeper) = &self.0 else { return };
        if let Some(task) = lock(&keeper.task).take() {
            task.abort();
        }
        keeper.answer_none();
    }
}

impl Keeper {
    async fn keep_valid(self: Arc<Self>) {
        let mut backoff = Backoff::new(RETRY, RETRY_LONGEST).spread(Spread::QUARTER);
        let mut suggested = None;
        loop {
            let took_too_long = || format!("it took longer than {} minutes", ATTEMPT_TIME_MAX.as_secs() / 60);
            let attempt = timeout(ATTEMPT_TIME_MAX, self.look(&mut suggested)).await;
            self.answer_none();
            let wait = match attempt.unwrap_or_else(|_| Err(took_too_long())) {
                Ok(wait) => {
                    backoff.succeeded();
                    wait
                }
                Err(reason) => {
                    self.failed.fetch_add(1, Relaxed);
                    let wait = backoff.failed();
                    tracing::warn!(
                        domains = self.settings.domains.join(", "),
                        directory = %self.settings.directory,
                        reason,
                        retry_secs = wait.as_secs(),
                        "cannot obtain a certificate; {}",
                        self.consequence()
                    );
                    wait
                }
            };
            tokio::select! {
                () = sleep(wait) => {}
                () = self.wanted.notified() => suggested = None,
            }
        }
    }

    /// Obtains a certificate if one is missing or due. Returns how long to wait before the next look.
    async fn look(&self, suggested: &mut Option<Suggested>) -> Result<Duration, String> {
        if let Some(wait) = self.time_left(suggested).await {
            return Ok(wait);
        }
        let lock = self.folder.lock().await?;
        if self.serve_stored().is_ok_and(|changed| changed) {
            // Another hub of this folder was quicker.
            return Ok(Duration::ZERO);
        }
        let replaced = self.served().map(|served| served.issued);
        let text =
            self.authority.obtain(&self.folder, replaced.as_ref(), |proofs| self.answer(proofs)).await?;
        let issued = Issued::read(&text)?;
        if !issued.is_for(&self.settings.domains) || issued.renewal() <= SystemTime::now() {
            return Err("the authority issued a certificate that is not for all domains, or expires at once: check the clock".to_owned());
        }
        self.folder.store_certificate(&text)?;
        drop(lock);
        self.serve_stored()?;
        *suggested = Some(Suggested::none(issued.clone()));
        self.obtained.fetch_add(1, Relaxed);
        tracing::info!(
            domains = self.settings.domains.join(", "),
            directory = %self.settings.directory,
            valid_secs = issued.expiry.duration_since(SystemTime::now()).unwrap_or_default().as_secs(),
            "obtained a certificate"
        );
        Ok(Duration::ZERO)
    }

    /// How long the certificate needs no renewal, at most until the next look; none if it is due.
    async fn time_left(&self, suggested: &mut Option<Suggested>) -> Option<Duration> {
        if let Err(reason) = self.serve_stored() {
            tracing::warn!(reason, "the stored certificate cannot be used; a new one is obtained");
        }
        let issued = self.served()?.issued;
        if !issued.is_for(&self.settings.domains) {
            return None;
        }
        match suggested {
            Some(about) if about.issued != issued => *suggested = Some(Suggested::none(issued.clone())),
            Some(about) if about.ask_again > Instant::now() => {}
            _ => *suggested = Some(self.ask(&issued, suggested.as_ref()).await),
        }
        let suggested = suggested.as_ref().and_then(|suggested| suggested.at);
        let renewal = suggested.map_or(issued.renewal(), |at| at.min(issued.renewal()));
        let left = renewal.duration_since(SystemTime::now()).ok()?;
        (!left.is_zero()).then(|| left.min(LOOK))
    }

    /// Asks the authority when it suggests to renew a certificate. A point of its window is chosen
    /// once, unless the window has moved past it.
    async fn ask(&self, issued: &Issued, before: Option<&Suggested>) -> Suggested {
        let suggestion = self.authority.suggestion(&self.folder, issued).await;
        let ask_again = suggestion.map_or(SUGGESTION_INTERVAL, |it| it.ask_again.max(SUGGESTION_INTERVAL));
        let chosen = before.filter(|before| before.issued == *issued).and_then(|before| before.at);
        let at = suggestion.map(|suggestion| {
            let [start, end] = suggestion.window;
            let length = end.duration_since(start).unwrap_or_default();
            chosen.filter(|at| (start..=end).contains(at)).unwrap_or_else(|| start + Spread::FULL.of(length))
        });
        Suggested { issued: issued.clone(), at: at.or(chosen), ask_again: Instant::now() + ask_again }
    }

    /// Has connections get the stored certificate. Whether it was another one before.
    fn serve_stored(&self) -> Result<bool, String> {
        let Some(text) = self.folder.certificate()? else { return Ok(false) };
        if self.served().is_some_and(|served| served.text == text) {
            return Ok(false);
        }
        let file = self.folder.certificate_file();
        let issued = Issued::read(&text).map_err(|reason| format!("{}: {reason}", file.display()))?;
        let files = CertificateFiles { certificate: file.clone(), key: file };
        let certificates = Certificates::read(&[files]).map_err(|error| error.to_string())?;
        self.tls.replace_obtained(certificates);
        *lock(&self.served) = Some(Served { issued, text });
        Ok(true)
    }

    fn served(&self) -> Option<Served> {
        lock(&self.served).clone()
    }

    /// Answers the authority from now on.
    fn answer(&self, proofs: &[Proof]) -> Result<(), String> {
        match self.settings.challenge {
            Challenge::TlsAlpn01 => {
                let certificates = proofs.iter().map(challenge_certificate).collect::<Result<_, _>>()?;
                self.tls.answer_challenges(certificates);
            }
            Challenge::Http01 => {
                let pairs = proofs.iter().map(|proof| (proof.token.clone(), proof.key_authorization.clone()));
                self.http_challenges.replace(pairs);
            }
        }
        Ok(())
    }

    fn answer_none(&self) {
        self.tls.answer_challenges(Vec::new());
        self.http_challenges.replace([]);
    }

    /// What a failure means for clients.
    fn consequence(&self) -> &'static str {
        match self.trouble() {
            None => "the one before stays in use until it expires",
            Some(_) => "until one is there, clients cannot connect over TLS",
        }
    }
}

impl Component for Keeper {
    fn kind(&self) -> &'static str {
        "acme"
    }

    fn name(&self) -> String {
        self.settings.domains[0].clone()
    }

    fn trouble(&self) -> Option<String> {
        match self.served() {
            None => Some("there is no certificate yet".to_owned()),
            Some(served) if served.issued.has_expired(SystemTime::now()) => {
                Some("the certificate has expired".to_owned())
            }
            Some(_) => None,
        }
    }

    fn figures(&self) -> Vec<Figure> {
        let expiry = self.served().and_then(|served| served.issued.expiry.duration_since(UNIX_EPOCH).ok());
        vec![
            Figure::new(
                "tidings_acme_certificate_expiry_timestamp_seconds",
                expiry.map_or(0, |expiry| expiry.as_secs()),
            ),
            Figure::new("tidings_acme_obtained_total", self.obtained.load(Relaxed)),
            Figure::new("tidings_acme_failed_total", self.failed.load(Relaxed)),
        ]
    }
}

/// RFC 8737, 3: a certificate that is signed by itself, for one name, with the digest of the key
/// authorization.
fn challenge_certificate(proof: &Proof) -> Result<ChallengeCertificate, String> {
    let made = CertificateParams::new(vec![proof.name.clone()]).and_then(|mut params| {
        params.custom_extensions = vec![CustomExtension::new_acme_identifier(&proof.digest)];
        let key = KeyPair::generate()?;
        Ok((params.self_signed(&key)?, key))
    });
    let (certificate, key) = made.map_err(|error| format!("no certificate for the challenge: {error}"))?;
    ChallengeCertificate::new(&proof.name, certificate.der().to_vec(), key.serialize_der())
        .map_err(|error| error.to_string())
}
