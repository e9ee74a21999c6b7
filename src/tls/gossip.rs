//! The key that encrypts Consul's gossip.

use base64::{Engine, prelude::BASE64_STANDARD};
use ring::rand::{SecureRandom, SystemRandom};

use crate::model::secret::SecretText;

/// AES-256, the longest that Consul's gossip takes.
const KEY_BYTES: usize = 32;

/// A new key, base64, as Consul's `encrypt` takes it.
///
/// Errors: the system gave no randomness.
pub fn key() -> Result<SecretText, ring::error::Unspecified> {
    let mut key = [0; KEY_BYTES];
    SystemRandom::new().fill(&mut key)?;
    Ok(SecretText::from(BASE64_STANDARD.encode(key)))
}

#[cfg(test)]
mod tests {
    #[test]
    fn keys_differ_and_have_32_bytes() {
        let (a, b) = (super::key().unwrap(), super::key().unwrap());
        assert_ne!(a, b);
        assert_eq!(a.expose().len(), 44);
    }
}
