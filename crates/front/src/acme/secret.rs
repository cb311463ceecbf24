//! A private key in PEM that no log and no `{:?}` ever shows.

use std::fmt;

use serde::{Deserialize, Serialize};

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Secret(String);

impl Secret {
    pub(super) fn new(pem: String) -> Self {
        Self(pem)
    }

    /// For signing and for the disk.
    pub(super) fn pem(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("(secret)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_stored_and_not_shown() {
        let secret = Secret::new("key".to_owned());
        assert_eq!(format!("{secret:?}"), "(secret)");
        assert_eq!(serde_json::json!(secret).to_string(), "\"key\"");
    }
}
