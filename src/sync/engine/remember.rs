//! Learning how far prefixes are committed where this agent does not commit them itself, and writing it down.

use std::time::Duration;

use crate::{
    lifecycle::Stop,
    sync::{
        endpoint::Raw,
        engine::Engine,
        peer::Peers,
        store::{Store, StoreError, within},
    },
};

/// How old what is on disk may be, but for grants of locks, which wait for it.
const EVERY: Duration = Duration::from_secs(1);

/// What another agent commits is looked at in Consul only every so many times.
const LOOKS: usize = 2;

/// One look at one record.
const LOOK: Duration = Duration::from_secs(5);

impl<S: Store + Raw, P: Peers> Engine<S, P> {
    /// Runs until the stop, and writes once more then.
    pub(super) async fn remember(self, stop: Stop) {
        let positions = &self.0.settings.positions;
        for turn in (0..LOOKS).cycle() {
            tokio::select! { biased;
                () = stop.wait() => break,
                () = tokio::time::sleep(EVERY) => {}
            }
            for part in self.0.parts.values() {
                let known = match part.known() {
                    None if turn == 0 => {
                        let looked = within(LOOK, async { Ok::<_, StoreError>(self.known(part).await) });
                        looked.await.ok().flatten()
                    }
                    known => known,
                };
                known.iter().for_each(|known| positions.learn(known));
            }
            positions.flush().await;
        }
        positions.flush().await;
    }
}
