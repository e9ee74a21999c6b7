//! Writing new files and saying so: where, with which mode, for whom.

use std::path::Path;

use anyhow::Context;

use crate::{
    cli::{print, tls::Placement},
    tls::{
        authority::Issued,
        folder,
        store::{self, CERTIFICATE_MODE, KEY_MODE, StoreError},
    },
};

/// Writes a key and its certificate as new files; when one is there already, neither is written.
pub(crate) fn save(
    placement: &Placement,
    certificate: &Path,
    key: &Path,
    issued: &Issued,
) -> Result<(), StoreError> {
    store::create(key, issued.key.expose(), KEY_MODE, placement.owner)?;
    store::create(certificate, &issued.pem(), CERTIFICATE_MODE, placement.owner).inspect_err(|_| {
        let _ = std::fs::remove_file(key);
    })
}

/// One line for each file on standard output.
pub(crate) fn tell(files: &[&Path]) -> anyhow::Result<()> {
    for file in files {
        let facts = folder::file(file)?;
        print(&format!("saved {} (mode {:04o}, owner {})\n", file.display(), facts.mode, facts.owner))
            .context("write to standard output")?;
    }
    Ok(())
}
