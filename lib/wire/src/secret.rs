//! Secrets that a process is told at its start: never empty, never in a log, compared in constant time.

use std::fmt;
use subtle::ConstantTimeEq;

/// A secret, such as the token of a purge.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// Takes a text for a secret.
    ///
    /// # Errors
    /// When it is empty: an absent field of a request must never be the secret.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("give a secret that is not empty".to_owned());
        }
        Ok(Self(text.to_owned()))
    }

    /// True when `given` is the secret. The time that this takes tells the secret's length at most.
    #[must_use]
    pub fn is(&self, given: &[u8]) -> bool {
        self.0.as_bytes().ct_eq(given).into()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_secret_is_the_secret() {
        let secret = Secret::parse("secret").unwrap();
        assert!(secret.is(b"secret"));
        for given in ["", "s", "secreT", "Secret", "secret1", "secre"] {
            assert!(!secret.is(given.as_bytes()), "{given:?}");
        }
        assert!(Secret::parse("").is_err());
        assert_eq!(format!("{secret:?}"), "Secret");
    }
}
