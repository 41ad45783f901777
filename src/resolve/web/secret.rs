//! What must not be shown, and where it is read from.

use std::{fmt, fs, io::Read as _, path::PathBuf, sync::Arc};

use super::WebError;

/// The largest file with a secret, in bytes.
const LARGEST: u64 = 1 << 20;

/// A token or password: itself, or where it is read each time it is needed, so that a new one is used once it is there.
///
/// It is never shown: not by `Debug`, in errors, logs or a status. Where it is read from is.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Kind);

#[derive(Clone, PartialEq, Eq)]
enum Kind {
    Value(Arc<str>),
    File(PathBuf),
    Variable(String),
}

impl Secret {
    /// The secret itself.
    pub fn value(secret: impl Into<Arc<str>>) -> Self {
        Self(Kind::Value(secret.into()))
    }

    /// What the file at `path` holds, without white space around it.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self(Kind::File(path.into()))
    }

    /// What the environment variable `name` holds.
    pub fn variable(name: impl Into<String>) -> Self {
        Self(Kind::Variable(name.into()))
    }

    pub(super) fn read(&self) -> Result<Arc<str>, WebError> {
        let text: Arc<str> = match &self.0 {
            Kind::Value(secret) => secret.clone(),
            Kind::File(path) => {
                let bytes = bytes_of(path)?;
                let text = String::from_utf8(bytes)
                    .map_err(|_| WebError::credential(path.display(), "it is not UTF-8"))?;
                text.trim().into()
            }
            Kind::Variable(name) => std::env::var(name)
                .map_err(|_| {
                    WebError::credential(format_args!("variable {name}"), "it is not set, or not UTF-8")
                })?
                .trim()
                .into(),
        };
        if text.is_empty() {
            return Err(WebError::credential(format_args!("{self:?}"), "it is empty"));
        }
        Ok(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Value(_) => f.write_str("Secret(***)"),
            Kind::File(path) => write!(f, "Secret(file {})", path.display()),
            Kind::Variable(name) => write!(f, "Secret(variable {name})"),
        }
    }
}

/// Certificates or a key as PEM: itself, or a file that is read at each connection.
#[derive(Clone, PartialEq, Eq)]
pub struct Pem(Place);

#[derive(Clone, PartialEq, Eq)]
enum Place {
    Text(Arc<[u8]>),
    File(PathBuf),
}

impl Pem {
    /// PEM itself.
    pub fn text(text: impl AsRef<[u8]>) -> Self {
        Self(Place::Text(text.as_ref().into()))
    }

    /// What the file at `path` holds.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self(Place::File(path.into()))
    }

    pub(super) fn read(&self) -> Result<Arc<[u8]>, WebError> {
        match &self.0 {
            Place::Text(text) => Ok(text.clone()),
            Place::File(path) => bytes_of(path).map(Into::into),
        }
    }
}

/// A key is a secret, and it is not told from a certificate here.
impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Place::Text(_) => f.write_str("Pem(***)"),
            Place::File(path) => write!(f, "Pem(file {})", path.display()),
        }
    }
}

fn bytes_of(path: &PathBuf) -> Result<Vec<u8>, WebError> {
    let mut bytes = Vec::new();
    fs::File::open(path)
        .and_then(|file| file.take(LARGEST).read_to_end(&mut bytes))
        .map_err(|error| WebError::credential(path.display(), error))?;
    Ok(bytes)
}
