//! Where the metadata of a hub are, which is a path of the Mercure API.

/// RFC 9728, section 3: this is inserted between the host and the path of the resource identifier.
pub(crate) const METADATA_PREFIX: &str = "/.well-known/oauth-protected-resource";

/// The path of the metadata of a hub at this path.
pub(crate) fn metadata_path(hub_path: &str) -> String {
    format!("{METADATA_PREFIX}{hub_path}")
}

/// Whether this is that path.
pub(crate) fn is_metadata_path(hub_path: &str, path: &str) -> bool {
    path.strip_prefix(METADATA_PREFIX) == Some(hub_path)
}
