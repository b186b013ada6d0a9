//! What is kept between two starts: the account at the authority, and the certificate with its key.
//!
//! Each authority has a folder of its own in the configured one, so that another authority, such as
//! one for tests, shares nothing. Files are for the user of the hub alone, and are replaced as a
//! whole. Hubs may share a folder: one at a time obtains a certificate, which the others then find.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::time::sleep;
use url::Url;

/// How often a hub looks whether the lock of another one is free.
const LOCK_INTERVAL: Duration = Duration::from_secs(1);

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    /// The name of the file of the certificate.
    certificate: String,
}

impl Folder {
    /// Opens the folder of an authority, and creates it if it is missing. The certificate is named
    /// by its first name.
    pub(super) fn open(cache: &Path, directory: &Url, domain: &str) -> Result<Self, String> {
        let path = cache.join(folder_name(directory));
        let folder = Self { path, certificate: format!("{domain}.pem") };
        create(&folder.path).and_then(|()| folder.lock_file()).map_err(|error| {
            format!(
                "cannot use the folder {}: {error}; the hub has to be able to write there",
                folder.path.display()
            )
        })?;
        Ok(folder)
    }

    /// The file with the certificate and its key.
    pub(super) fn certificate_file(&self) -> PathBuf {
        self.path.join(&self.certificate)
    }

    /// The stored certificate with its key, in PEM.
    pub(super) fn certificate(&self) -> Result<Option<String>, String> {
        self.read(&self.certificate)
    }

    pub(super) fn store_certificate(&self, text: &str) -> Result<(), String> {
        self.write(&self.certificate, text)
    }

    /// The stored account, in JSON.
    pub(super) fn account(&self) -> Result<Option<String>, String> {
        self.read("account.json")
    }

    pub(super) fn store_account(&self, text: &str) -> Result<(), String> {
        self.write("account.json", text)
    }

    /// Waits until no other process obtains a certificate for this folder. None does until the
    /// returned file is dropped.
    pub(super) async fn lock(&self) -> Result<File, String> {
        let locked = |error: &dyn std::fmt::Display| {
            format!("cannot lock the folder {}: {error}", self.path.display())
        };
        let file = self.lock_file().map_err(|error| locked(&error))?;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::WouldBlock) => sleep(LOCK_INTERVAL).await,
                Err(TryLockError::Error(error)) => return Err(locked(&error)),
            }
        }
    }

    fn lock_file(&self) -> io::Result<File> {
        private(OpenOptions::new().create(true).truncate(false).write(true)).open(self.path.join("lock"))
    }

    fn read(&self, name: &str) -> Result<Option<String>, String> {
        let path = self.path.join(name);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(format!("cannot read {}: {error}", path.display())),
        }
    }

    fn write(&self, name: &str, text: &str) -> Result<(), String> {
        let path = self.path.join(name);
        let new = self.path.join(format!("{name}.new"));
        let write = || {
            let mut file = private(OpenOptions::new().create(true).truncate(true).write(true)).open(&new)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&new, &path)
        };
        write().map_err(|error| format!("cannot write {}: {error}", path.display()))
    }
}

/// The name of an authority's folder: its host, port and path, with a hyphen for all other signs.
fn folder_name(directory: &Url) -> String {
    let rest = directory.as_str().split_once("://").map_or("", |(_, rest)| rest);
    let usual = |letter: char| if letter.is_ascii_alphanumeric() || letter == '.' { letter } else { '-' };
    rest.trim_end_matches('/').chars().map(usual).collect()
}

#[cfg(unix)]
fn create(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

#[cfg(not(unix))]
fn create(path: &Path) -> io::Result<()> {
    fs::create_dir_all(path)
}

/// For the user of the hub alone.
#[cfg(unix)]
fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    use std::os::unix::fs::OpenOptionsExt;
    options.mode(0o600)
}

#[cfg(not(unix))]
fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(cache: &Path, directory: &str) -> Folder {
        Folder::open(cache, &directory.parse().unwrap(), "a.test").unwrap()
    }

    #[test]
    fn each_authority_has_a_folder_of_its_own() {
        for (directory, name) in [
            ("https://acme-v02.api.letsencrypt.org/directory", "acme-v02.api.letsencrypt.org-directory"),
            ("https://127.0.0.1:14000/dir/", "127.0.0.1-14000-dir"),
            ("https://ca.test/a/../../b?c=/etc", "ca.test-b-c--etc"),
        ] {
            assert_eq!(folder_name(&directory.parse().unwrap()), name);
        }
    }

    #[cfg(unix)]
    #[test]
    fn what_is_stored_is_read_again_and_is_for_the_user_of_the_hub_alone() {
        use std::os::unix::fs::PermissionsExt;
        let cache = tempfile::tempdir().unwrap();
        let folder = open(cache.path(), "https://ca.test/");
        assert_eq!((folder.certificate(), folder.account()), (Ok(None), Ok(None)));
        for text in ["one", "two"] {
            folder.store_certificate(text).unwrap();
            folder.store_account(text).unwrap();
            let stored = Ok(Some(text.to_owned()));
            assert_eq!((folder.certificate(), folder.account()), (stored.clone(), stored));
        }
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&folder.path), 0o700);
        let files: Vec<_> = fs::read_dir(&folder.path).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(files.len(), 3, "{files:?}");
        for file in files {
            assert_eq!(mode(&file), 0o600, "{}", file.display());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_process_at_a_time_has_the_lock() {
        let cache = tempfile::tempdir().unwrap();
        let [one, other] = [(); 2].map(|()| open(cache.path(), "https://ca.test/"));
        let lock = one.lock().await.unwrap();
        let waiting = tokio::spawn(async move { other.lock().await.map(drop) });
        sleep(10 * LOCK_INTERVAL).await;
        assert!(!waiting.is_finished());
        drop(lock);
        waiting.await.unwrap().unwrap();
    }
}
