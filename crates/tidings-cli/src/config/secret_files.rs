//! Files with secrets that other users of the machine can read: the hub uses them, and warns once
//! at the start.

use std::path::{Path, PathBuf};

use crate::{bridges::BridgeSettings, store::Store};

/// The files with keys that a store and bridges use.
#[allow(clippy::match_same_arms, reason = "without their features, both stores have the same type")]
pub(super) fn of_connections(store: &Store, bridges: &[BridgeSettings]) -> Vec<PathBuf> {
    let of_store: Box<dyn Iterator<Item = &Path>> = match store {
        Store::Nats(address) => Box::new(address.secret_files()),
        Store::Redis(address) => Box::new(address.secret_files()),
        Store::Memory | Store::Directory(_) => Box::new(std::iter::empty()),
    };
    of_store.chain(bridges.iter().flat_map(BridgeSettings::secret_files)).map(Path::to_owned).collect()
}

/// Warns of each file that its group or all users can read.
#[cfg(unix)]
pub(crate) fn warn_of_readable(files: &[PathBuf]) {
    use std::os::unix::fs::PermissionsExt;

    /// The group or all users may read.
    const READABLE: u32 = 0o044;

    for file in files {
        // A missing file is reported by the code that reads it.
        if let Ok(metadata) = file.metadata()
            && metadata.permissions().mode() & READABLE != 0
        {
            tracing::warn!(
                file = %file.display(),
                "other users of this machine can read this file, which holds a secret: make it readable by its owner only (chmod 600)"
            );
        }
    }
}

#[cfg(not(unix))]
pub(crate) fn warn_of_readable(_files: &[PathBuf]) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keys_of_connections_are_files_with_secrets() {
        let tls = "?ca=/ca.pem&cert=/cert.pem&cert_key=";
        let bridge: BridgeSettings =
            format!("rediss://host{tls}/bridge.pem&channels=chat").parse().expect("a bridge");
        for (store, expected) in [
            (format!("rediss://host{tls}/redis.pem"), vec!["/redis.pem", "/bridge.pem"]),
            (format!("tls://host{tls}/nats.pem"), vec!["/nats.pem", "/bridge.pem"]),
            ("nats://host".to_owned(), vec!["/bridge.pem"]),
            ("nats://host?creds=/hub.creds".to_owned(), vec!["/hub.creds", "/bridge.pem"]),
            ("nats://host?nkey=/hub.nk".to_owned(), vec!["/hub.nk", "/bridge.pem"]),
            ("memory:".to_owned(), vec!["/bridge.pem"]),
        ] {
            let files = of_connections(&store.parse().expect("a store"), std::slice::from_ref(&bridge));
            assert_eq!(files, expected.iter().map(PathBuf::from).collect::<Vec<_>>(), "{store}");
        }
    }
}
