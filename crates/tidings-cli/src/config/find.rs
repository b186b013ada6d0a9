//! Where the configuration file is if nobody names one.

use std::{
    io,
    path::{Path, PathBuf},
};

/// The files that a hub looks for, in this order.
const DEFAULT_FILES: [&str; 2] = ["tidings.toml", "/etc/tidings/tidings.toml"];

/// The configuration file: the named one, or the first that exists.
pub(crate) fn find_file(named: Option<PathBuf>) -> Option<PathBuf> {
    named.or_else(|| first_of(&DEFAULT_FILES.map(Path::new)))
}

/// A file that exists and cannot be read counts: to ignore it would silently start another hub than
/// the operator configured.
fn first_of(paths: &[&Path]) -> Option<PathBuf> {
    let is_there = |path: &&&Path| match path.metadata() {
        Ok(metadata) => !metadata.is_dir(),
        Err(error) => !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory),
    };
    paths.iter().find(is_there).map(|path| path.to_path_buf())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_file_that_exists_is_the_configuration() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let [missing, directory, first, second] = ["missing", "directory", "first", "second"].map(path);
        std::fs::create_dir(&directory).unwrap();
        assert_eq!(first_of(&[&missing, &directory, &first, &second]), None);
        std::fs::write(&second, "").unwrap();
        assert_eq!(first_of(&[&missing, &directory, &first, &second]), Some(second.clone()));
        std::fs::write(&first, "").unwrap();
        assert_eq!(first_of(&[&missing, &directory, &first, &second]), Some(first.clone()));
        assert_eq!(first_of(&[&first.join("below a file"), &second]), Some(second));
    }
}
