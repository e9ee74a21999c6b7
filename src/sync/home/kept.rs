//! What was committed and never answered, and must be known again after a restart all the same.

use crate::sync::{
    home::{Home, journal},
    peer::Known,
    record::Head,
    refusal::Refusal,
    store::Store,
};

impl<S: Store> Home<S> {
    /// Waits until the disk knows of the journal's present end: before a grant is told whose commit had no answer.
    ///
    /// # Errors
    /// The journal cannot be read now.
    pub async fn kept(&self) -> Result<(), Refusal> {
        let shared = &*self.0;
        let head = journal::record::<S, Head>(&shared.store, &shared.layout.head()).await;
        let head = head.map_err(|error| Refusal::NotServing(format!("read the journal's end: {error}")))?;
        if let Some(Head { position, hash, .. }) = head.map(|head| head.record) {
            let (positions, prefix) = (&shared.settings.positions, shared.settings.prefix.text.clone());
            positions.learn(&Known { prefix: prefix.clone(), position, hash });
            positions.kept(&prefix, position).await;
        }
        Ok(())
    }
}
