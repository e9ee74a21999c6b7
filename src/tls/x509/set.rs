//! A set of certificates as it lies in folders, as facts: which file holds what, which key belongs to which
//! certificate, which CA issued it.

use std::path::{Path, PathBuf};

use crate::tls::x509::{
    certificate::{Certificate, Usage},
    key::PrivateKey,
    pem::Contents,
    profile::{self, Place, Profile},
    trust::{self, Fault},
};

/// Permission bits by which others than owner and group read, write or run.
const OTHERS: u32 = 0o007;
/// Permission bits by which the group writes.
const GROUP_WRITES: u32 = 0o020;

/// A file, as it was found.
#[derive(Clone, Debug)]
pub struct FileFacts {
    /// Where it is, as it was named: what people are told.
    pub path: PathBuf,
    /// Where it really is, links resolved once, at reading: what is written. Files that share it are one file.
    pub real: PathBuf,
    /// Its permission bits.
    pub mode: u32,
    /// Its owner's number.
    pub uid: u32,
    /// Its owner, `user:group`.
    pub owner: String,
    /// What is in it, or why that is not known.
    pub contents: Result<Contents, String>,
}

/// A folder, as it was found: its files in the order of their names.
#[derive(Clone, Debug)]
pub struct FolderFacts {
    /// Where it is.
    pub path: PathBuf,
    /// Whether every user of the machine may replace its files.
    pub is_open: bool,
    /// Its files that hold certificates or keys, and those that cannot be read.
    pub files: Vec<FileFacts>,
}

/// A certificate that is no CA, with what belongs to it.
#[derive(Clone, Copy, Debug)]
pub struct Leaf<'a> {
    /// Its file.
    pub file: &'a FileFacts,
    /// The certificate.
    pub certificate: &'a Certificate,
    /// What follows it in its file: the way to its CA.
    pub intermediates: &'a [Certificate],
    /// Its key.
    pub key: KeyBeside<'a>,
}

/// The key that lies beside a certificate.
#[derive(Clone, Copy, Debug)]
pub enum KeyBeside<'a> {
    /// It is there and fits.
    Fits(&'a FileFacts),
    /// A file is named for it and holds another key.
    Other(&'a FileFacts),
    /// There is none.
    Missing,
}

/// A CA's certificate and the file it was found in.
pub type Trusted<'a> = (&'a FileFacts, &'a Certificate);

impl FileFacts {
    /// The file's name without its folder.
    pub fn name(&self) -> String {
        self.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    }

    /// What could be read.
    pub fn read(&self) -> Option<&Contents> {
        self.contents.as_ref().ok()
    }

    /// Its certificates in their order.
    pub fn certificates(&self) -> &[Certificate] {
        self.read().map_or(&[], |contents| &contents.certificates)
    }

    /// Its private keys.
    pub fn keys(&self) -> &[PrivateKey] {
        self.read().map_or(&[], |contents| &contents.keys)
    }

    /// Whether others than owner and group can do anything with it, or the group can write it.
    pub fn is_open(&self) -> bool {
        self.mode & (OTHERS | GROUP_WRITES) != 0
    }

    /// A file that begins with a CA holds CAs to trust; one that begins with a leaf holds the leaf's chain.
    fn leaf(&self) -> Option<(&Certificate, &[Certificate])> {
        let (first, rest) = self.certificates().split_first()?;
        (!first.is_authority()).then_some((first, rest))
    }
}

impl FolderFacts {
    /// The CAs to trust: those in files that begin with a CA.
    pub fn authorities(&self) -> Vec<Trusted<'_>> {
        let is_ca_file =
            |file: &&FileFacts| file.certificates().first().is_some_and(Certificate::is_authority);
        let each = |file| FileFacts::certificates(file).iter().map(move |one| (file, one));
        self.files.iter().filter(is_ca_file).flat_map(each).filter(|(_, one)| one.is_authority()).collect()
    }

    /// Everything that is no CA.
    pub fn leaves(&self) -> Vec<Leaf<'_>> {
        let leaf = |file| {
            let (certificate, intermediates) = FileFacts::leaf(file)?;
            Some(Leaf { file, certificate, intermediates, key: self.key_beside(file, certificate) })
        };
        self.files.iter().filter_map(leaf).collect()
    }

    /// The file and the key of this certificate, wherever in the folder they are: the first that has it.
    pub fn key_of(&self, certificate: &Certificate) -> Option<(&FileFacts, &PrivateKey)> {
        let each = |file| FileFacts::keys(file).iter().map(move |key| (file, key));
        self.files.iter().flat_map(each).find(|(_, key)| key.public() == certificate.public_key)
    }

    fn key_beside(&self, file: &FileFacts, certificate: &Certificate) -> KeyBeside<'_> {
        if let Some((file, _)) = self.key_of(certificate) {
            return KeyBeside::Fits(file);
        }
        let named = |other: &&FileFacts| {
            is_named_for(&other.path, &file.path)
                && (!other.keys().is_empty() || other.read().is_none_or(|read| !read.problems.is_empty()))
        };
        self.files.iter().find(named).map_or(KeyBeside::Missing, KeyBeside::Other)
    }
}

impl Leaf<'_> {
    /// What it is for.
    pub fn recognised(&self) -> Option<(&'static Profile, Place)> {
        profile::recognise(self.certificate, &self.file.name())
    }

    /// Which of these CAs issued it, whatever its dates.
    pub fn issued_by<'b>(&self, authorities: &[&'b Certificate]) -> Result<&'b Certificate, Fault> {
        let usage = if self.certificate.serves(Usage::Server) { Usage::Server } else { Usage::Client };
        let mut last = Fault::UnknownIssuer;
        for authority in authorities {
            let at = self.certificate.not_before;
            match trust::judge(self.certificate, self.intermediates, &[authority], usage, at) {
                Ok(()) => return Ok(authority),
                Err(Fault::UnknownIssuer) => {}
                Err(fault) => last = fault,
            }
        }
        Err(last)
    }
}

/// `a-key.pem` and `a.key` are named for `a.pem`; a file is named for itself.
pub fn is_named_for(key: &Path, certificate: &Path) -> bool {
    let stem = |path: &Path| path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
    let (Some(key_stem), Some(stem)) = (stem(key), stem(certificate)) else { return false };
    let is_same_place = key.parent() == certificate.parent();
    is_same_place && (key_stem == stem || key_stem == format!("{stem}-key"))
}
