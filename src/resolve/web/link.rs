//! One connection to a registry's server, kept while it is used.

use std::{
    future::{Future, poll_fn},
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use ::hyper::{
    Request, Response, StatusCode,
    body::{Body as _, Bytes, Incoming},
    client::conn::http1::{self, SendRequest},
    header::{ACCEPT, AUTHORIZATION, HOST, HeaderValue, USER_AGENT},
};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, lookup_host},
    time::timeout,
};

use super::{Access, Base, Secret, WebError, access::Credential, error::SAID, tls};

/// How much of a refusal is read, in bytes.
const READ: usize = 4096;

/// How long one of several addresses is tried before the next.
const HEAD_START: Duration = Duration::from_secs(1);

/// Asks one server, over one connection at a time that is a part of it: it spawns nothing, connects when it is first asked,
/// and dropping it closes the connection. HTTP/1.1, because a watch occupies a connection either way.
pub(in crate::resolve) struct Link {
    base: Base,
    access: Access,
    credential: Credential,
    open: Option<Open>,
}

struct Open {
    send: SendRequest<String>,
    driver: Driver,
}

/// The connection, until it ended. Whoever waits for something on it must poll it.
struct Driver(Option<Pin<Box<dyn Future<Output = ()> + Send>>>);

impl Driver {
    async fn drive<T>(&mut self, future: impl Future<Output = T>) -> T {
        let mut future = pin!(future);
        poll_fn(|cx| {
            if let Some(connection) = &mut self.0
                && connection.as_mut().poll(cx).is_ready()
            {
                self.0 = None;
            }
            future.as_mut().poll(cx)
        })
        .await
    }
}

impl Link {
    pub(in crate::resolve) fn new(base: Base, access: Access, credential: Credential) -> Self {
        Self { base, access, credential, open: None }
    }

    #[cfg(any(feature = "kubernetes", feature = "eureka"))]
    pub(in crate::resolve) fn base(&self) -> &Base {
        &self.base
    }

    /// The largest answer, in bytes.
    #[cfg(feature = "kubernetes")]
    pub(in crate::resolve) fn largest(&self) -> usize {
        self.access.largest
    }

    /// Asks for `path` and waits at most `limit` for the head of the answer, whatever its status is.
    pub(in crate::resolve) async fn get(
        &mut self,
        path: &str,
        headers: &[(&'static str, &str)],
        limit: Duration,
    ) -> Result<Reply<'_>, WebError> {
        let answered = timeout(limit, self.answer(path, headers)).await;
        let (response, open, secrets) = answered.map_err(|_| WebError::Slow(limit))??;
        let (head, body) = response.into_parts();
        Ok(Reply {
            status: head.status,
            #[cfg(feature = "consul")]
            headers: head.headers,
            body,
            open: Some(open),
            secrets,
            link: self,
        })
    }

    async fn answer(
        &mut self,
        path: &str,
        headers: &[(&'static str, &str)],
    ) -> Result<(Response<Incoming>, Open, Vec<Arc<str>>), WebError> {
        let (shown, secrets) =
            credentials(self.access.token.clone(), self.base.basic.clone(), self.credential).await?;
        let request = || -> Result<Request<String>, WebError> {
            let mut request = Request::get(self.base.path(path))
                .header(HOST, self.base.authority())
                .header(ACCEPT, "application/json")
                .header(USER_AGENT, concat!("mainstay/", env!("CARGO_PKG_VERSION")));
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            for (name, value) in &shown {
                request = request.header(name, value.clone());
            }
            request
                .body(String::new())
                .map_err(|_| WebError::document("the name has what no address may have"))
        };
        // A server may close a connection at the moment that it is used again, which says nothing of the server.
        if let Some(mut open) = self.open.take()
            && open.is_ready().await
            && let Ok(response) = open.ask(request()?).await
        {
            return Ok((response, open, secrets));
        }
        let mut open = connect(&self.base, &self.access).await?;
        let response = open.ask(request()?).await.map_err(WebError::Broken)?;
        Ok((response, open, secrets))
    }
}

/// What the server is shown, and the secrets therein.
async fn credentials(
    token: Option<Secret>,
    basic: Option<(String, Secret)>,
    credential: Credential,
) -> Result<(Vec<(String, HeaderValue)>, Vec<Arc<str>>), WebError> {
    if token.is_none() && basic.is_none() {
        return Ok((Vec::new(), Vec::new()));
    }
    off(move || {
        let (mut shown, mut secrets) = (Vec::new(), Vec::new());
        if let Some((user, password)) = basic {
            // Only a part of an address, which may be empty.
            let password = password.read().unwrap_or_else(|_| "".into());
            let login = BASE64_STANDARD.encode(format!("{user}:{password}"));
            shown.push((AUTHORIZATION.to_string(), sensitive(&format!("Basic {login}"))?));
            secrets.extend([password, login.into()]);
        }
        if let Some(token) = token {
            let token = token.read()?;
            let value = match credential {
                Credential::Bearer => sensitive(&format!("Bearer {token}"))?,
                Credential::Header(_) => sensitive(&token)?,
            };
            shown.push((credential.to_string(), value));
            secrets.push(token);
        }
        Ok((shown, secrets))
    })
    .await
}

impl Open {
    async fn is_ready(&mut self) -> bool {
        let send = &mut self.send;
        self.driver.drive(async { send.ready().await.is_ok() }).await
    }

    async fn ask(&mut self, request: Request<String>) -> ::hyper::Result<Response<Incoming>> {
        let response = self.send.send_request(request);
        self.driver.drive(response).await
    }
}

fn sensitive(text: &str) -> Result<HeaderValue, WebError> {
    let mut value = HeaderValue::from_str(text)
        .map_err(|_| WebError::credential("the token", "it has what no header may have"))?;
    value.set_sensitive(true);
    Ok(value)
}

async fn connect(base: &Base, access: &Access) -> Result<Open, WebError> {
    let found = lookup_host((base.host.as_str(), base.port)).await.map_err(WebError::Connect)?;
    let stream = first_of(&found.collect::<Vec<_>>()).await.map_err(WebError::Connect)?;
    stream.set_nodelay(true).map_err(WebError::Connect)?;
    if !base.is_tls {
        return handshake(stream).await;
    }
    let access = access.clone();
    let name = access.name.clone().unwrap_or_else(|| base.host.clone());
    let name = ServerName::try_from(name)
        .map_err(|_| WebError::credential("the server's name", "it is not that of a host"))?;
    let connector = off(move || tls::connector(&access)).await?;
    handshake(connector.connect(name, stream).await.map_err(WebError::Tls)?).await
}

/// A connection to the first of `sockets` that answers.
async fn first_of(sockets: &[SocketAddr]) -> io::Result<TcpStream> {
    let none = || io::Error::new(io::ErrorKind::AddrNotAvailable, "it has no address");
    let (last, others) = sockets.split_last().ok_or_else(none)?;
    for socket in others {
        // One that never answers must not take all the time that there is, each time.
        if let Ok(Ok(stream)) = timeout(HEAD_START, TcpStream::connect(socket)).await {
            return Ok(stream);
        }
    }
    TcpStream::connect(last).await
}

async fn handshake(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Result<Open, WebError> {
    let (send, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(WebError::Broken)?;
    let connection = Box::pin(async move {
        // Who waits for an answer is told why there is none.
        let _ = connection.await;
    });
    Ok(Open { send, driver: Driver(Some(connection)) })
}

/// Runs `read`, which reads files, where that may take its time.
pub(super) async fn off<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, WebError> + Send + 'static,
) -> Result<T, WebError> {
    let done = tokio::task::spawn_blocking(read).await;
    done.unwrap_or_else(|error| Err(WebError::credential("reading credentials", error)))
}

/// An answer: its head, and its body as it comes.
pub(in crate::resolve) struct Reply<'a> {
    pub(in crate::resolve) status: StatusCode,
    #[cfg(feature = "consul")]
    pub(in crate::resolve) headers: ::hyper::HeaderMap,
    body: Incoming,
    open: Option<Open>,
    secrets: Vec<Arc<str>>,
    link: &'a mut Link,
}

impl Reply<'_> {
    /// The next piece of the body, `None` after its end. More than `silence` without one is an error.
    pub(in crate::resolve) async fn piece(&mut self, silence: Duration) -> Result<Option<Bytes>, WebError> {
        let Some(open) = &mut self.open else { return Ok(None) };
        let body = &mut self.body;
        let frame = open.driver.drive(poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)));
        match timeout(silence, frame).await {
            Err(_) => Err(WebError::Silent(silence)),
            Ok(Some(Err(error))) => Err(WebError::Broken(error)),
            Ok(Some(Ok(frame))) => Ok(Some(frame.into_data().unwrap_or_default())),
            Ok(None) => {
                self.link.open = self.open.take();
                Ok(None)
            }
        }
    }

    /// The whole body, within `limit` from now.
    pub(in crate::resolve) async fn body(mut self, limit: Duration) -> Result<Vec<u8>, WebError> {
        let largest = self.link.access.largest;
        let whole = async {
            let mut whole = Vec::new();
            while let Some(piece) = self.piece(limit).await? {
                whole.extend_from_slice(&piece);
                if whole.len() > largest {
                    return Err(WebError::TooLarge(largest));
                }
            }
            Ok(whole)
        };
        timeout(limit, whole).await.map_err(|_| WebError::Slow(limit))?
    }

    /// [`body`](Self::body) of a success; anything else is an error with the beginning of what was said.
    pub(in crate::resolve) async fn success(self, limit: Duration) -> Result<Vec<u8>, WebError> {
        if self.status.is_success() { self.body(limit).await } else { Err(self.refusal(limit).await) }
    }

    /// The beginning of what was said in it, as it may be shown.
    #[cfg(feature = "kubernetes")]
    pub(in crate::resolve) fn told(&self, said: &str) -> String {
        told(said.as_bytes(), &self.secrets)
    }

    /// The status as an error, with the beginning of what was said.
    pub(in crate::resolve) async fn refusal(mut self, limit: Duration) -> WebError {
        let mut said = Vec::new();
        let reading = async {
            while said.len() < READ
                && let Ok(Some(piece)) = self.piece(limit).await
            {
                said.extend_from_slice(&piece);
            }
        };
        let _ = timeout(limit.min(Duration::from_secs(1)), reading).await;
        WebError::Status(self.status, told(&said, &self.secrets))
    }
}

/// The beginning of what was said, in one line and without `secrets`, which a server may repeat.
fn told(said: &[u8], secrets: &[Arc<str>]) -> String {
    let mut text = String::from_utf8_lossy(said).into_owned();
    if said.len() >= READ {
        // What was cut off may be the end of a secret whose beginning is here.
        let longest = secrets.iter().map(|secret| secret.len()).max().unwrap_or(0);
        let kept = text.chars().count().saturating_sub(longest);
        text = text.chars().take(kept).collect();
    }
    for secret in secrets.iter().filter(|secret| !secret.is_empty()) {
        text = text.replace(&**secret, "***");
    }
    let line: String = text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(SAID).collect();
    if line.is_empty() { line } else { format!(": {line}") }
}

#[cfg(all(test, not(mainstay_loom)))]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_address_that_is_a_black_hole_gives_way_to_the_next() {
        // One whose queue is full and never emptied answers nobody any more.
        let full = tokio::net::TcpSocket::new_v4().unwrap();
        full.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let full = full.listen(1).unwrap();
        let hole = full.local_addr().unwrap();
        let mut queued = Vec::new();
        while let Ok(stream) = timeout(Duration::from_secs(1), TcpStream::connect(hole)).await {
            queued.push(stream.unwrap());
        }
        let open = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let open = open.local_addr().map(|at| (at, open)).unwrap();
        let stream = timeout(Duration::from_secs(5), first_of(&[hole, hole, open.0])).await;
        assert_eq!(stream.unwrap().unwrap().peer_addr().unwrap(), open.0);
        let refused = timeout(Duration::from_secs(5), first_of(&[])).await;
        assert_eq!(refused.unwrap().unwrap_err().kind(), io::ErrorKind::AddrNotAvailable);
    }

    #[test]
    fn what_a_refusal_says_is_one_line_without_secrets() {
        let secrets: Vec<Arc<str>> = vec!["s3cret".into(), "".into()];
        assert_eq!(told(b"token s3cret\n is  bad \xff", &secrets), ": token *** is bad \u{fffd}");
        assert_eq!(told(b"  ", &secrets), "");
        assert_eq!(told(&[b'x'; READ], &[]).len(), SAID + 2);
        let long: Arc<str> = "s".repeat(READ).into();
        assert_eq!(told(long.as_bytes(), &[format!("{long}s").into()]), "", "the beginning of a secret");
    }
}
