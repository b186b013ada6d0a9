//! How a hub proves to NATS who it is: by a login of the URL, or by a key whose seed is in a file.
//!
//! The server sends a nonce, and the hub its signature, so a seed never leaves this process. The
//! file is read for each connection: it can be replaced while the hub runs, before the user in it
//! expires. No error repeats what is in it.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use async_nats::{Auth, AuthError};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use nkeys::KeyPair;
use serde::Deserialize;
use tidings_net::{InvalidUrl, Login, Parameters};

/// Most bytes of a file with credentials.
const FILE_BYTES_MAX: u64 = 64 << 10;
/// A word of at least so many capital letters and digits is a key, and no name of a file.
const KEY_BYTES_MIN: usize = 50;

/// The credentials that an address names.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Credentials {
    /// None: the server accepts everybody, or knows the client by its certificate.
    None,
    /// A user and a password. A login without a password is a token.
    Login(Login),
    /// `creds=FILE`: the JWT of a user and the seed of its key, as nsc writes them.
    Creds(PathBuf),
    /// `nkey=FILE`: the seed of the key of a user.
    Nkey(PathBuf),
}

impl Credentials {
    /// The login of a URL, or the file that its parameters name.
    pub(crate) fn of_url(login: Option<Login>, parameters: &mut Parameters) -> Result<Self, InvalidUrl> {
        let creds = file(parameters, "creds")?.map(Self::Creds);
        let nkey = file(parameters, "nkey")?.map(Self::Nkey);
        let mut given = login.map(Self::Login).into_iter().chain(creds).chain(nkey);
        let credentials = given.next().unwrap_or(Self::None);
        if given.next().is_some() {
            return Err(InvalidUrl::new("it has two of a login, creds and nkey: write one of them"));
        }
        Ok(credentials)
    }

    /// The file that holds the secret, if one does.
    pub(crate) fn file(&self) -> Option<&Path> {
        match self {
            Self::None | Self::Login(_) => None,
            Self::Creds(file) | Self::Nkey(file) => Some(file),
        }
    }

    /// What a client needs to introduce itself.
    pub(crate) fn read(&self) -> Result<Identity, String> {
        let mut identity = Identity::default();
        let auth = &mut identity.auth;
        match self {
            Self::None => {}
            Self::Login(Login { user, password: Some(password) }) => {
                auth.username = Some(user.clone());
                auth.password = Some(password.clone());
            }
            Self::Login(Login { user: token, password: None }) => auth.token = Some(token.clone()),
            Self::Creds(file) => {
                let text = text_of(file)?;
                let wrong = |problem: &str| format!("{} {problem}", file.display());
                let jwt = text.lines().map(str::trim).find(|line| line.starts_with("eyJ"));
                let jwt =
                    jwt.ok_or_else(|| wrong("has no JWT: creds is the file of a user as nsc writes it"))?;
                let key = user_key(&text, file)?;
                let claims = claims(jwt).ok_or_else(|| wrong("has a JWT that cannot be read"))?;
                if claims.sub != key.public_key() {
                    return Err(wrong("has a JWT and a seed that do not belong to the same user"));
                }
                auth.jwt = Some(jwt.to_owned());
                (identity.key, identity.expires_at) = (Some(key), claims.exp);
            }
            Self::Nkey(file) => {
                let key = user_key(&text_of(file)?, file)?;
                auth.nkey = Some(key.public_key());
                identity.key = Some(key);
            }
        }
        Ok(identity)
    }
}

/// What a client presents to a server.
#[derive(Default)]
pub(crate) struct Identity {
    /// All but a signature.
    auth: Auth,
    /// Signs what the server asks to be signed.
    key: Option<KeyPair>,
    /// When the JWT expires, in seconds since 1970.
    expires_at: Option<u64>,
}

impl Identity {
    /// The answer to a server that has sent this nonce.
    pub(crate) fn introduction(&self, nonce: &[u8]) -> Result<Auth, AuthError> {
        let mut auth = self.auth.clone();
        let signed = self.key.as_ref().map(|key| key.sign(nonce)).transpose();
        auth.signature = signed.map_err(|_| AuthError::new("the nonce cannot be signed"))?;
        Ok(auth)
    }

    /// Whether it has a JWT that has expired by our clock.
    pub(crate) fn has_expired(&self) -> bool {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        self.expires_at.is_some_and(|end| end <= now)
    }
}

/// The claims of a JWT that matter here. The server verifies its signature.
#[derive(Deserialize)]
struct Claims {
    /// The public key of the user.
    sub: String,
    exp: Option<u64>,
}

fn claims(jwt: &str) -> Option<Claims> {
    let payload = BASE64_URL_SAFE_NO_PAD.decode(jwt.split('.').nth(1)?).ok()?;
    serde_json::from_slice(&payload).ok()
}

/// The file that a parameter names. A key in place of its file is not repeated.
fn file(parameters: &mut Parameters, name: &str) -> Result<Option<PathBuf>, InvalidUrl> {
    let Some(file) = parameters.take(name)? else { return Ok(None) };
    let is_of_keys = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit();
    let mut words = file.as_bytes().split(|byte| !is_of_keys(*byte));
    let is_content = file.starts_with("eyJ") || file.starts_with("-----");
    if file.is_empty() || is_content || words.any(|word| word.len() >= KEY_BYTES_MIN) {
        return Err(InvalidUrl::parameter(name, "should be the name of the file that holds the key"));
    }
    Ok(Some(file.into()))
}

fn text_of(file: &Path) -> Result<String, String> {
    let mut text = String::new();
    let read = File::open(file).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text));
    match read {
        Ok(bytes) if bytes as u64 > FILE_BYTES_MAX => Err(format!(
            "{} has more than {FILE_BYTES_MAX} bytes: it is no file of credentials",
            file.display()
        )),
        Ok(_) => Ok(text),
        Err(error) => Err(format!("{} cannot be read: {error}", file.display())),
    }
}

/// The key of the user whose seed is in a line of its own.
fn user_key(text: &str, file: &Path) -> Result<KeyPair, String> {
    let seed = text.lines().map(str::trim).find(|line| line.starts_with("SU"));
    seed.and_then(|seed| KeyPair::from_seed(seed).ok()).ok_or_else(|| {
        format!(
            "{} has no valid seed of a user: a line that begins with SU, as nsc and nk write it",
            file.display()
        )
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tidings_net::ServerUrl;

    use super::*;

    fn of_url(query: &str) -> Result<Credentials, InvalidUrl> {
        let ServerUrl { login, mut parameters, .. } = format!("nats://{query}").parse()?;
        Credentials::of_url(login, &mut parameters)
    }

    /// The credentials of a user with this key, as nsc writes them.
    fn creds(sub: &str, key: &KeyPair) -> String {
        let part = |json: &str| BASE64_URL_SAFE_NO_PAD.encode(json);
        let jwt = [part("{\"typ\":\"JWT\"}"), part(&format!("{{\"sub\":\"{sub}\",\"exp\":1}}")), part("x")]
            .join(".");
        let seed = key.seed().unwrap();
        format!(
            "-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n\
             *** IMPORTANT ***\nNKEY Seed printed below can be used to sign and prove identity.\n\n\
             -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
        )
    }

    #[test]
    fn an_address_has_one_kind_of_credentials() {
        assert!(of_url("host").unwrap() == Credentials::None);
        assert_eq!(of_url("host?creds=/a/b.creds").unwrap().file(), Some(Path::new("/a/b.creds")));
        assert_eq!(of_url("host?nkey=hub.nk").unwrap().file(), Some(Path::new("hub.nk")));
        for two in ["u:p@host?nkey=a", "token@host?creds=a", "host?creds=a&nkey=b"] {
            assert!(of_url(two).err().unwrap().to_string().contains("write one of them"), "{two}");
        }
    }

    #[test]
    fn a_key_in_place_of_its_file_is_refused_and_not_repeated() {
        let key = KeyPair::new_user();
        let seed = key.seed().unwrap();
        let creds = creds(&key.public_key(), &key);
        let encoded = creds.replace('\n', "%0A");
        for query in
            [format!("nkey={seed}"), format!("creds={seed}x"), format!("creds={encoded}"), "nkey=".to_owned()]
        {
            let refused = of_url(&format!("host?{query}")).err().unwrap().to_string();
            assert!(refused.contains("name of the file") && !refused.contains(&seed[4..20]), "{refused}");
        }
    }

    #[test]
    fn a_nonce_is_signed_by_the_key_of_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let key = KeyPair::new_user();
        let (nkey, with_jwt) = (folder.path().join("hub.nk"), folder.path().join("hub.creds"));
        fs::write(&nkey, format!("{}\r\n{}\n", key.seed().unwrap(), key.public_key())).unwrap();
        fs::write(&with_jwt, creds(&key.public_key(), &key)).unwrap();
        let introduced = |credentials: Credentials| {
            let identity = credentials.read().unwrap();
            let auth = identity.introduction(b"nonce").unwrap();
            key.verify(b"nonce", &auth.signature.unwrap()).unwrap();
            (auth.nkey, auth.jwt.is_some(), identity.has_expired())
        };
        assert_eq!(introduced(Credentials::Nkey(nkey)), (Some(key.public_key()), false, false));
        assert_eq!(introduced(Credentials::Creds(with_jwt)), (None, true, true));
    }

    #[test]
    fn a_wrong_file_is_named_and_its_content_is_not_repeated() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        let (user, account) = (KeyPair::new_user(), KeyPair::new_account());
        let (seed, mut damaged) = (user.seed().unwrap(), user.seed().unwrap());
        damaged.replace_range(20..22, if &seed[20..22] == "AA" { "BB" } else { "AA" });
        let refused = |credentials: Credentials| {
            let refused = credentials.read().err().expect("it is refused");
            assert!(refused.starts_with(&file.display().to_string()) && !refused.contains('\n'), "{refused}");
            assert!(!refused.contains(&seed[4..16]) && !refused.contains("eyJ"), "{refused}");
            refused
        };
        assert!(refused(Credentials::Nkey(file.clone())).contains("cannot be read"));
        for (content, as_nkey, as_creds) in [
            (String::new(), "no valid seed of a user", "has no JWT"),
            (damaged, "no valid seed of a user", "has no JWT"),
            (account.seed().unwrap(), "no valid seed of a user", "has no JWT"),
            (creds(&account.public_key(), &account), "no valid seed of a user", "no valid seed of a user"),
            (creds("x", &user).replace(&seed, ""), "no valid seed of a user", "no valid seed of a user"),
            ("x".repeat(1 << 17), "more than 65536 bytes", "more than 65536 bytes"),
        ] {
            fs::write(&file, &content).unwrap();
            assert!(refused(Credentials::Nkey(file.clone())).contains(as_nkey));
            assert!(refused(Credentials::Creds(file.clone())).contains(as_creds));
        }
        for (jwt, problem) in [
            (creds(&account.public_key(), &user), "do not belong to the same user"),
            (format!("eyJx.x.x\n{seed}"), "cannot be read"),
            (format!("eyJ\n{seed}"), "cannot be read"),
        ] {
            fs::write(&file, jwt).unwrap();
            assert!(refused(Credentials::Creds(file.clone())).contains(problem));
        }
        fs::write(&file, [0xff, 0xfe]).unwrap();
        assert!(refused(Credentials::Nkey(file.clone())).contains("cannot be read"));
    }
}
