//! Which files a renewal writes: the certificate's, its copies' and its key's. A new key breaks whatever else uses the
//! old one, and a file is written whole: where anything would be lost by it, nothing is renewed.

use crate::tls::x509::{
    renewal::Obstacle,
    set::{FileFacts, FolderFacts, KeyBeside, Leaf},
};

/// The files of one certificate.
#[derive(Clone, Debug)]
pub(super) struct Places<'a> {
    /// Every file that begins with it, in the order of their names: at least one.
    pub(super) leaves: Vec<Leaf<'a>>,
    /// The one file of its key; it may be one of those above.
    pub(super) key_file: &'a FileFacts,
}

/// The places of a leaf, or what forbids to write there.
pub(super) fn places<'a>(folder: &'a FolderFacts, leaf: &Leaf<'a>) -> Result<Places<'a>, Obstacle> {
    let key_file = key_file(folder, leaf)?;
    let leaves: Vec<Leaf<'a>> =
        folder.leaves().into_iter().filter(|one| one.certificate == leaf.certificate).collect();
    let places = Places { leaves, key_file };
    key_is_for(&places, folder)?;
    for file in places.leaves.iter().map(|one| one.file).chain([key_file]) {
        is_all_known(file, &places)?;
    }
    Ok(places)
}

impl Places<'_> {
    fn public_key(&self) -> &[u8] {
        self.leaves.first().map_or(&[], |leaf| leaf.certificate.public_key.as_slice())
    }

    fn has_leaf(&self, file: &FileFacts) -> bool {
        self.leaves.iter().any(|leaf| leaf.file.real == file.real)
    }
}

/// The key's file, if there is just one. A link to it is no second one.
fn key_file<'a>(folder: &'a FolderFacts, leaf: &Leaf<'a>) -> Result<&'a FileFacts, Obstacle> {
    let first = match leaf.key {
        KeyBeside::Fits(file) => file,
        KeyBeside::Other(file) => {
            return Err((
                format!("the key in {} is another certificate's or unreadable", file.path.display()),
                "put the right key there, or remove both files and make the certificate anew with \
                 `causeway tls cert create`"
                    .into(),
            ));
        }
        KeyBeside::Missing => {
            return Err((
                "its key is not in the folder, so that a new key would have no place".into(),
                "renew it where its key is, or make it anew with `causeway tls cert create`".into(),
            ));
        }
    };
    let has_it =
        |file: &&FileFacts| file.keys().iter().any(|key| key.public() == leaf.certificate.public_key);
    match folder.files.iter().filter(has_it).find(|file| file.real != first.real) {
        None => Ok(first),
        Some(second) => Err((
            format!(
                "its key is in {} and in {}, of which only one would be replaced",
                first.path.display(),
                second.path.display()
            ),
            format!(
                "keep one of them, and make the other a link to it: ln -sf {} {}",
                first.real.display(),
                second.path.display()
            ),
        )),
    }
}

/// No other certificate may lose its key by this.
fn key_is_for(places: &Places<'_>, folder: &FolderFacts) -> Result<(), Obstacle> {
    let uses_it = |file: &&FileFacts| {
        let replaced = usize::from(places.has_leaf(file));
        let others = file.certificates().iter().skip(replaced);
        others.into_iter().any(|one| one.public_key == places.public_key())
    };
    match folder.files.iter().find(uses_it) {
        None => Ok(()),
        Some(file) => Err((
            format!("its key is also that of another certificate, in {}", file.path.display()),
            "make one of the two anew with `causeway tls cert create`, so that each has a key of its own, or remove \
             the one that nobody uses"
                .into(),
        )),
    }
}

/// The new file has what renewal knows of; so must the old one.
fn is_all_known(file: &FileFacts, places: &Places<'_>) -> Result<(), Obstacle> {
    let has_leaf = places.has_leaf(file);
    let rest = file.certificates().get(usize::from(has_leaf)..).unwrap_or_default();
    let has_more = match has_leaf {
        true => rest.iter().any(|one| !one.is_authority()),
        false => !rest.is_empty(),
    };
    let has_more_keys =
        file.keys().len() > 1 || file.keys().iter().any(|key| key.public() != places.public_key());
    let is_damaged = file.read().is_none_or(|read| !read.problems.is_empty());
    let what = match (has_more, has_more_keys, is_damaged) {
        (true, ..) => "another certificate",
        (_, true, _) => "another key",
        (.., true) => "something that cannot be read",
        _ => return Ok(()),
    };
    Err((
        format!("{} also holds {what}, which would be lost", file.path.display()),
        "move what is not this certificate's into a file of its own".into(),
    ))
}
