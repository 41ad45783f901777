//! Why a registry did not say what it was asked.

use std::{fmt, io, time::Duration};

use ::hyper::StatusCode;

/// How much of what a registry said is told, in characters.
pub(super) const SAID: usize = 300;

/// Why a registry did not say what it was asked. It holds no secret.
#[derive(Debug, thiserror::Error)]
pub(in crate::resolve) enum WebError {
    #[error("cannot connect")]
    Connect(#[source] io::Error),
    #[error("no TLS")]
    Tls(#[source] io::Error),
    #[error("no answer within {0:?}")]
    Slow(Duration),
    #[error("nothing was heard for {0:?}")]
    Silent(Duration),
    /// With the beginning of what it said.
    #[error("{0}{1}")]
    Status(StatusCode, String),
    /// A watch was ended by this word of the registry.
    #[cfg(feature = "kubernetes")]
    #[error("{0}{1}")]
    Ended(StatusCode, String),
    #[error("the connection broke")]
    Broken(#[source] ::hyper::Error),
    #[error("an answer of more than {0} bytes")]
    TooLarge(usize),
    #[error("what it says is not understood: {0}")]
    Document(String),
    #[error("{0}: {1}")]
    Credential(String, String),
}

impl WebError {
    pub(in crate::resolve) fn credential(place: impl fmt::Display, reason: impl fmt::Display) -> Self {
        Self::Credential(place.to_string(), reason.to_string())
    }

    pub(in crate::resolve) fn document(reason: impl fmt::Display) -> Self {
        Self::Document(reason.to_string().chars().take(SAID).collect())
    }

    /// The status that it answered with, if that was the trouble.
    #[cfg(feature = "kubernetes")]
    pub(in crate::resolve) fn status(&self) -> Option<u16> {
        match self {
            Self::Status(status, _) | Self::Ended(status, _) => Some(status.as_u16()),
            _ => None,
        }
    }
}

/// What is told as [`Resolution::Failed`](crate::resolve::Resolution::Failed): the registry, its address, the reason.
#[derive(Debug, thiserror::Error)]
#[error("{registry}: {error}")]
pub(in crate::resolve) struct Trouble {
    pub(in crate::resolve) registry: String,
    pub(in crate::resolve) error: Told,
}

/// An error with its sources in one line, since a status has one line.
#[derive(Debug)]
pub(in crate::resolve) struct Told(String);

impl From<WebError> for Told {
    fn from(error: WebError) -> Self {
        let mut line = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(error) = source {
            line = format!("{line}: {error}");
            source = error.source();
        }
        Self(line)
    }
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Trouble {
    pub(in crate::resolve) fn new(registry: impl fmt::Display, error: WebError) -> Self {
        Self { registry: registry.to_string(), error: error.into() }
    }
}

#[cfg(all(test, not(mainstay_loom)))]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_understood_is_told_with_its_beginning_alone() {
        let told = WebError::document("x".repeat(1 << 20)).to_string();
        assert!(told.starts_with("what it says is not understood: xxx") && told.len() < 1_000);
    }
}
