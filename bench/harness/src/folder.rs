//! The resources of a run: the built programs, and a folder that is removed with it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, ensure};
use tempfile::TempDir;

/// Subscribers of the scenario `private` hold this many different grants.
const GRANTS: usize = 100;
/// Signs the tokens of a hub that runs for seconds on loopback.
const SECRET: &str = "a secret of the benchmark, 32 bytes or more";
const AUDIENCE: &str = "https://hub.example/";

/// Programs, and a folder that is removed with this value.
pub(crate) struct Folder {
    programs: PathBuf,
    baseline: Option<PathBuf>,
    temporary: TempDir,
}

/// The credentials for the hub of the scenario `private`.
pub(crate) struct Tokens {
    pub(crate) publish: String,
    /// A file, one token per line.
    pub(crate) subscribe: PathBuf,
}

impl Folder {
    /// `programs` is the folder of the built programs, `baseline` another build of `tidings`.
    pub(crate) fn new(programs: &Path, baseline: Option<&Path>) -> anyhow::Result<Self> {
        // A restart command is run by the program that kills the server: it must not depend on the
        // current directory.
        let absolute =
            |path: &Path| path.canonicalize().with_context(|| format!("there is no {}", path.display()));
        let programs = absolute(programs)?;
        let baseline = baseline.map(absolute).transpose()?;
        // Next to the programs, which are on a disk: the temporary folder may be in memory, where
        // syncs cannot be measured.
        let temporary = tempfile::tempdir_in(&programs)?;
        Ok(Self { programs, baseline, temporary })
    }

    pub(crate) fn program(&self, name: &str) -> anyhow::Result<PathBuf> {
        let path = self.programs.join(name);
        ensure!(path.is_file(), "{} is not built: run `make bench`", path.display());
        Ok(path)
    }

    pub(crate) fn baseline(&self) -> anyhow::Result<&Path> {
        self.baseline.as_deref().context("--baseline is missing: the path of another build of tidings")
    }

    /// A path in the temporary folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.temporary.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> anyhow::Result<PathBuf> {
        let path = self.path(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    pub(crate) fn issuer(&self) -> anyhow::Result<PathBuf> {
        let text = format!("[[issuer]]\niss = \"bench\"\naudience = \"{AUDIENCE}\"\nsecret = \"{SECRET}\"\n");
        self.write("tidings.toml", &text)
    }

    pub(crate) fn tokens(&self) -> anyhow::Result<Tokens> {
        let config = self.issuer()?;
        let new = |rights: &[&str]| {
            let mut command = Command::new(self.program("tidings")?);
            command.args(["token", "new", "--config"]).arg(&config).args(rights);
            let output = command.output().context("cannot create tokens")?;
            ensure!(
                output.status.success(),
                "cannot create tokens: {}",
                String::from_utf8_lossy(&output.stderr)
            );
            Ok(String::from_utf8(output.stdout)?.trim().to_owned())
        };
        let mut lines = String::new();
        for grant in 0..GRANTS {
            // Each may receive the benchmark's topics and something of its own.
            let own = format!("user-{grant}");
            lines += &(new(&["--subscribe", "bench-*", "--subscribe", &own])? + "\n");
        }
        Ok(Tokens { publish: new(&["--publish", "*"])?, subscribe: self.write("tokens", &lines)? })
    }
}

/// A path for a command line.
pub(crate) fn text_of(path: &Path) -> anyhow::Result<String> {
    path.to_str().map(str::to_owned).context("a path that is no text")
}
