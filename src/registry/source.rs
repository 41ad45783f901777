//! Texts that are not for everybody's eyes, and where they come from.

use std::{fmt, io, path::PathBuf, sync::Arc};

/// A password, a key or a certificate: given, or in a file. It is never shown.
///
/// A file is read whenever a connection is made, so what is in it may change while the process runs.
///
/// ```
/// use mainstay::registry::Source;
///
/// let password = Source::file("/run/secrets/etcd");
/// assert_eq!(format!("{:?}", Source::from("hunter2")), "***");
/// # let _ = password;
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Source(Origin);

#[derive(Clone, PartialEq, Eq)]
enum Origin {
    Given(Arc<str>),
    File(Arc<PathBuf>),
}

impl Source {
    /// What is in the file at `path`.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self(Origin::File(Arc::new(path.into())))
    }

    /// The text as it stands.
    pub(crate) async fn text(&self) -> io::Result<Arc<str>> {
        match &self.0 {
            Origin::Given(text) => Ok(text.clone()),
            Origin::File(path) => {
                let file = path.clone();
                let read = tokio::task::spawn_blocking(move || std::fs::read_to_string(&*file)).await;
                let text = read.map_err(io::Error::from).and_then(|text| text);
                // `InvalidData` tells nothing of what is there.
                let named =
                    |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
                text.map(Into::into).map_err(named)
            }
        }
    }

    /// The text without the end of its last line, as passwords in files have one.
    pub(crate) async fn word(&self) -> io::Result<String> {
        Ok(self.text().await?.trim_end_matches(['\r', '\n']).to_owned())
    }
}

impl From<&str> for Source {
    fn from(text: &str) -> Self {
        Self(Origin::Given(text.into()))
    }
}

impl From<String> for Source {
    fn from(text: String) -> Self {
        Self(Origin::Given(text.into()))
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Origin::Given(_) => f.write_str("***"),
            Origin::File(path) => write!(f, "what is in {}", path.display()),
        }
    }
}
