//! The tenants of one hub, each with a credential and what it grants.

use tidings::Validator;
use tidings_auth::{
    AuthConfig, Authenticator, IssuerConfig, IssuerKeyConfig, KeyConfig, NewTicket, NewToken, Secret,
    SigningKey, TicketSecret, TicketSecretConfig, mint,
};
use tidings_replay_to_live::Random;

use crate::{
    requests::Asking,
    support::{ADMIN_KEY, ISSUER, KEY, PUBLIC_URL, SIGNING_SECRET, TICKET_SECRET, unix_secs},
    topics::{Match, PATTERNS, TOPICS, covers},
};

pub(crate) const COOKIE: &str = "__Secure-mercure_access_token";

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Key,
    Token,
    Ticket,
    Anonymous,
}

#[derive(Clone, Debug)]
pub(crate) struct Tenant {
    pub(crate) kind: Kind,
    pub(crate) credential: String,
    pub(crate) publish: Vec<Match>,
    pub(crate) subscribe: Vec<Match>,
    /// The label of its ticket.
    pub(crate) label: Option<String>,
    /// The id of its ticket or token.
    pub(crate) id: Option<String>,
    pub(crate) revoked: bool,
}

impl Tenant {
    pub(crate) fn writes(&self) -> bool {
        matches!(self.kind, Kind::Key | Kind::Token) && !self.revoked
    }

    /// Whether a subscription stays within the tenant's ticket, if it has one.
    pub(crate) fn holds(&self, matcher: &Match) -> bool {
        if self.kind != Kind::Ticket {
            return true;
        }
        match matcher {
            Match::Exact(topic) => covers(&self.subscribe, topic),
            other => self.subscribe.contains(other) || self.subscribe.contains(&Match::Any),
        }
    }

    /// Whether a ticket for this topic or pattern may be made with its key.
    pub(crate) fn may_grant(&self, matcher: &Match) -> bool {
        self.kind == Kind::Key
            && match matcher {
                Match::Exact(topic) => covers(&self.subscribe, topic),
                other => self.subscribe.contains(other) || self.subscribe.contains(&Match::Any),
            }
    }

    /// Presents the credential, now and then with a weaker one of somebody else, which is ignored.
    pub(crate) fn sign(&self, asking: &mut Asking, random: &mut Random, other: &Tenant) {
        let reads = asking.method == http::Method::GET;
        match self.kind {
            Kind::Anonymous => return,
            Kind::Ticket if random.percent(50) => return asking.parameter("ticket", &*self.credential),
            Kind::Ticket | Kind::Token if reads && random.percent(30) => {
                return asking.header("cookie", format!("{COOKIE}={}", self.credential));
            }
            _ => asking.header("authorization", format!("Bearer {}", self.credential)),
        }
        if reads && random.percent(20) {
            match other.kind {
                Kind::Ticket => asking.parameter("ticket", &*other.credential),
                Kind::Token => asking.header("cookie", format!("{COOKIE}={}", other.credential)),
                Kind::Key | Kind::Anonymous => {}
            }
        }
    }
}

fn grants(random: &mut Random, any_percent: usize) -> Vec<Match> {
    if random.percent(any_percent) {
        return vec![Match::Any];
    }
    (0..random.between(0, 4)).map(|_| one_match(random)).collect()
}

/// An exact topic or a pattern.
pub(crate) fn one_match(random: &mut Random) -> Match {
    if random.percent(25) {
        Match::Pattern(PATTERNS[random.between(0, PATTERNS.len())])
    } else {
        Match::Exact((*random.pick(&TOPICS)).to_owned())
    }
}

/// Some tenants of every kind, and the authenticator that knows them.
pub(crate) fn tenants(random: &mut Random, validator: &Validator) -> (Vec<Tenant>, Authenticator) {
    let mut tenants = vec![Tenant {
        kind: Kind::Anonymous,
        credential: String::new(),
        publish: Vec::new(),
        subscribe: Vec::new(),
        label: None,
        id: None,
        revoked: false,
    }];
    let mut keys = vec![key("god", KEY, &[Match::Any], &[Match::Any], false)];
    keys.push(key("operator", ADMIN_KEY, &[], &[], true));
    for number in 0..2 {
        let (publish, subscribe) = (grants(random, 15), grants(random, 10));
        let credential = format!("tk_the-key-of-tenant-{number}");
        keys.push(key(&format!("tenant-{number}"), &credential, &publish, &subscribe, false));
        tenants.push(Tenant { kind: Kind::Key, credential, publish, subscribe, ..tenants[0].clone() });
    }
    for number in 0..2 {
        let (publish, subscribe) = (grants(random, 15), grants(random, 10));
        let credential = token(number, &publish, &subscribe);
        let claims = tidings_auth::inspect(&credential).expect("a token").claims;
        let id = claims["jti"].as_str().map(str::to_owned);
        tenants.push(Tenant { kind: Kind::Token, credential, publish, subscribe, id, ..tenants[0].clone() });
    }
    for _ in 0..2 {
        let subscribe = (0..random.between(1, 4)).map(|_| one_match(random)).collect();
        // Two tickets may share a label, as those of one user do.
        let label = random.percent(70).then(|| format!("label-{}", random.between(0, 2)));
        tenants.push(ticket(subscribe, label));
    }
    let config = AuthConfig {
        keys,
        issuers: vec![IssuerConfig {
            issuer: ISSUER.to_owned(),
            audiences: vec![PUBLIC_URL.to_owned()],
            keys: vec![IssuerKeyConfig { kid: None, key: Secret::new(SIGNING_SECRET) }],
            ..IssuerConfig::default()
        }],
        ticket_secrets: vec![ticket_secret()],
        ..AuthConfig::default()
    };
    (tenants, Authenticator::new(config, validator).expect("a valid configuration"))
}

fn key(name: &str, secret: &str, publish: &[Match], subscribe: &[Match], admin: bool) -> KeyConfig {
    KeyConfig {
        name: name.to_owned(),
        secret: Secret::new(secret),
        publish: publish.iter().map(Match::text).collect(),
        subscribe: subscribe.iter().map(Match::text).collect(),
        admin,
        streams_max: None,
    }
}

fn token(number: usize, publish: &[Match], subscribe: &[Match]) -> String {
    let token = NewToken {
        issuer: ISSUER.to_owned(),
        audience: PUBLIC_URL.to_owned(),
        subject: format!("tenant-{number}"),
        issued_at: unix_secs(),
        expires_at: unix_secs() + 3_600,
        publish: publish.iter().map(Match::text).collect(),
        subscribe: subscribe.iter().map(Match::text).collect(),
        payload: None,
    };
    mint(&token, &SigningKey::new(&Secret::new(SIGNING_SECRET), None).expect("a key")).expect("a small token")
}

fn ticket_secret() -> TicketSecretConfig {
    TicketSecretConfig { id: "1".to_owned(), secret: Secret::new(TICKET_SECRET) }
}

fn ticket(subscribe: Vec<Match>, label: Option<String>) -> Tenant {
    let (mut topics, mut patterns) = (Vec::new(), Vec::new());
    for matcher in &subscribe {
        match matcher.exact_or_pattern() {
            Ok(topic) => topics.push(topic.to_owned()),
            Err(pattern) => patterns.push(pattern.to_owned()),
        }
    }
    let new = NewTicket {
        topics,
        patterns,
        label: label.clone(),
        issued_at: unix_secs(),
        expires_at: unix_secs() + 3_600,
        ..NewTicket::default()
    };
    let secret = TicketSecret::new(&ticket_secret()).expect("a valid secret");
    let minted = new.mint(&secret, &Validator::default()).expect("a valid ticket");
    Tenant {
        kind: Kind::Ticket,
        credential: minted.ticket,
        publish: Vec::new(),
        subscribe,
        label,
        id: Some(minted.id),
        revoked: false,
    }
}
