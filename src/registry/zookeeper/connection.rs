//! A session, and the connection it is held by.

use std::{
    collections::VecDeque,
    io::{self, ErrorKind},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{timeout, timeout_at},
};

use super::{
    Code, Event, EventKind, Op, Request, Session,
    protocol::{self, AUTH, CLOSE, EVENT, PING},
};
use crate::{clock, registry::Trouble};

/// The largest message that is believed in.
const LARGEST: usize = 64 << 20;
/// How many questions are under way at once.
const WINDOW: usize = 64;

/// A connection to one server. Whoever holds it must ask for [events](Self::event), or ask anything, before the session
/// ends. Dropping it while it is well ends the session.
#[derive(Debug)]
pub(crate) struct Connection<'a> {
    session: &'a mut Session,
    at: String,
    stream: TcpStream,
    input: Vec<u8>,
    /// How much of the input was taken.
    taken: usize,
    /// What was said and has not gone out: a message that was begun must be ended, whoever loses interest in it.
    output: Vec<u8>,
    xid: i32,
    events: VecDeque<Event>,
    heard: Instant,
    said: Instant,
    /// Whether nothing can be told by it any more.
    broken: bool,
}

impl<'a> Connection<'a> {
    /// Connects to the server of the number `turn`, with `session` if that can still stand.
    pub(crate) async fn open(session: &'a mut Session, turn: usize) -> Result<Self, Trouble> {
        let ensemble = session.ensemble.clone();
        let at = ensemble.servers[turn % ensemble.servers.len()].clone();
        let trouble = |reason| Trouble { registry: "zookeeper", at: at.clone(), doing: "connecting", reason };
        let now = clock::now();
        if session.heard.is_some_and(|heard| now.saturating_duration_since(heard) > session.limit) {
            // Whether it has ended is the servers' to say: those that were started anew give it its time again. But an ensemble
            // that was made anew knows less than we do, and would turn us away for ever.
            session.zxid = 0;
        }
        let mut connection = Self {
            session,
            at: at.clone(),
            stream: dial(&at, ensemble.timeout).await.map_err(trouble)?,
            input: Vec::new(),
            taken: 0,
            output: Vec::new(),
            xid: 0,
            events: VecDeque::new(),
            heard: now,
            said: now,
            broken: true,
        };
        if !connection.greet().await.map_err(trouble)? {
            // The server has hung up on a session that has ended.
            connection.stream = dial(&at, ensemble.timeout).await.map_err(trouble)?;
            (connection.input, connection.taken) = (Vec::new(), 0);
            if !connection.greet().await.map_err(trouble)? {
                return Err(trouble("the session has expired".to_owned()));
            }
        }
        connection.broken = false;
        Ok(connection)
    }

    /// Whether the session stands; one that has ended is forgotten.
    async fn greet(&mut self) -> Result<bool, String> {
        let limit = self.session.ensemble.timeout;
        timeout(limit, self.greeted()).await.unwrap_or_else(|_| Err(late(limit)))
    }

    async fn greeted(&mut self) -> Result<bool, String> {
        let ensemble = self.session.ensemble.clone();
        let asked = i32::try_from(ensemble.session_timeout.as_millis()).unwrap_or(i32::MAX);
        let session = &self.session;
        let hello = protocol::connect(session.zxid, asked, session.id, &session.password);
        self.send(&hello).await?;
        let answer = self.frame().await?;
        let answer = protocol::connected(&answer).ok_or("an answer that makes no sense")?;
        if answer.timeout_ms <= 0 {
            self.session.forget();
            return Ok(false);
        }
        self.session.id = answer.session;
        self.session.password = answer.password;
        self.session.limit = Duration::from_millis(answer.timeout_ms.unsigned_abs().into());
        self.session.heard = Some(self.heard);
        if let Some((user, password)) = &ensemble.digest {
            let password = password.word().await.map_err(|error| error.to_string())?;
            self.send(&protocol::auth("digest", format!("{user}:{password}").as_bytes())).await?;
            let (_, code, _) = self.answer(AUTH).await?;
            if code != Code::OK {
                return Err(code.to_string());
            }
        }
        Ok(true)
    }

    /// The next thing that a watch tells. It may be given up at any time, and nothing is lost.
    pub(crate) async fn event(&mut self) -> Result<Event, Trouble> {
        let told = self.next_event().await;
        self.told("watching", told)
    }

    async fn next_event(&mut self) -> Result<Event, String> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return match event.kind {
                    EventKind::Session => Err("the session is not what it was".to_owned()),
                    _ => Ok(event),
                };
            }
            let limit = self.session.limit;
            let (ping, silent) = (self.said + limit / 3, self.heard + limit * 2 / 3);
            match timeout_at(ping.min(silent).into(), self.frame()).await {
                Ok(frame) => _ = self.take(&frame?)?,
                Err(_) if clock::now() >= silent => return Err(format!("silent for {:?}", limit * 2 / 3)),
                Err(_) => self.send(&protocol::ping()).await?,
            }
        }
    }

    /// Whether an event came before the last answer did.
    pub(crate) fn was_told(&self) -> bool {
        !self.events.is_empty()
    }

    /// Whether the next event is here already.
    pub(crate) fn has_event(&mut self) -> bool {
        use futures::FutureExt as _;
        while self.events.is_empty() {
            match self.frame().now_or_never() {
                Some(Ok(frame)) => {
                    if self.take(&frame).is_err() {
                        // Something may have been told that was not understood: whoever asks for the next event starts anew.
                        self.events.push_back(Event { kind: EventKind::Session, path: String::new() });
                    }
                }
                // What is wrong with the connection will be found again.
                _ => return false,
            }
        }
        true
    }

    /// The names of the children of `path`, and a watch of them; `None` if it is not there.
    pub(crate) async fn children(&mut self, path: &str) -> Result<Option<Vec<String>>, Trouble> {
        let asked = self.ask(&Request::Children { path, watch: true }).await;
        let read = asked.and_then(|(code, body)| optional(code, || protocol::children(&body)));
        self.told("listing", read)
    }

    /// Whether `path` is there, and a watch of that.
    pub(crate) async fn exists(&mut self, path: &str) -> Result<bool, Trouble> {
        let asked = self.ask(&Request::Exists { path, watch: true }).await;
        let read = asked.and_then(|(code, _)| optional(code, || Some(())));
        self.told("looking", read).map(|found| found.is_some())
    }

    /// Which session the node at `path` belongs to; `None` if it is not there. A watch tells when that changes.
    pub(crate) async fn owner(&mut self, path: &str) -> Result<Option<i64>, Trouble> {
        let asked = self.ask(&Request::Exists { path, watch: true }).await;
        let read = asked.and_then(|(code, body)| optional(code, || protocol::owner(&body)));
        self.told("looking", read)
    }

    /// The data of each of `paths`, told to `take` in their order, with the session it belongs to.
    pub(crate) async fn data(
        &mut self,
        paths: &[String],
        watch: bool,
        mut take: impl FnMut(usize, Code, Vec<u8>, i64),
    ) -> Result<(), Trouble> {
        let mut asked = VecDeque::new();
        let fetched = async {
            let mut next = 0;
            while next < paths.len() || !asked.is_empty() {
                // The answer of the first makes room for the next, but what fits into a window goes as one.
                let mut frames = Vec::new();
                while asked.len() < WINDOW && next < paths.len() {
                    let xid = self.xid();
                    frames.extend(Request::Data { path: &paths[next], watch }.frame(xid));
                    asked.push_back((xid, next));
                    next += 1;
                }
                if !frames.is_empty() {
                    self.send(&frames).await?;
                }
                let Some((xid, index)) = asked.pop_front() else { return Ok(()) };
                let (_, code, body) = self.answer(xid).await?;
                let (data, owner) = match code {
                    Code::OK => protocol::data_and_owner(&body).ok_or("data that makes no sense")?,
                    _ => Default::default(),
                };
                take(index, code, data, owner);
            }
            Ok(())
        };
        let fetched = fetched.await;
        self.told("reading", fetched)
    }

    /// Makes a node; the path that it got, or why not.
    pub(crate) async fn create(&mut self, op: Op<'_>) -> Result<Result<String, Code>, Trouble> {
        let asked = self.ask(&Request::Change(op)).await;
        let read = asked.and_then(|(code, body)| match code {
            Code::OK => {
                protocol::created(&body).map(Ok).ok_or_else(|| "a path that makes no sense".to_owned())
            }
            code => Ok(Err(code)),
        });
        self.told("writing", read)
    }

    /// Does all of `ops`, or none; the path of the last node that was made, or why not.
    pub(crate) async fn multi(&mut self, ops: &[Op<'_>]) -> Result<Result<String, Code>, Trouble> {
        let asked = self.ask(&Request::Multi(ops)).await;
        let read = asked.and_then(|(code, body)| match code {
            Code::OK => {
                protocol::created_last(&body).ok_or_else(|| "an answer that makes no sense".to_owned())
            }
            code => Ok(Err(code)),
        });
        self.told("writing", read)
    }

    /// Ends the session, and with it all of its nodes. Until the server has said so, the session may stand.
    pub(crate) async fn close(mut self) -> Result<(), Trouble> {
        let limit = self.session.limit;
        let closed = async {
            self.send(&protocol::close()).await?;
            loop {
                let frame = self.frame().await?;
                match self.take(&frame)? {
                    Some((header, _)) if header.xid != CLOSE => {}
                    Some((header, _)) if header.code != Code::OK => return Err(header.code.to_string()),
                    Some(_) => return Ok(()),
                    None => {}
                }
            }
        };
        let closed = timeout(limit, closed).await.unwrap_or_else(|_| Err(late(limit)));
        self.told("closing", closed)?;
        self.broken = true;
        self.session.forget();
        Ok(())
    }

    pub(crate) fn session(&self) -> &Session {
        self.session
    }

    /// What goes wrong while the connection is well in itself.
    pub(crate) fn trouble(&self, doing: &'static str, reason: String) -> Trouble {
        Trouble { registry: "zookeeper", at: self.at.clone(), doing, reason }
    }

    fn told<T>(&mut self, doing: &'static str, told: Result<T, String>) -> Result<T, Trouble> {
        told.map_err(|reason| {
            self.broken = true;
            self.trouble(doing, reason)
        })
    }

    async fn ask(&mut self, request: &Request<'_>) -> Result<(Code, Vec<u8>), String> {
        let xid = self.xid();
        self.send(&request.frame(xid)).await?;
        let (_, code, body) = self.answer(xid).await?;
        Ok((code, body))
    }

    fn xid(&mut self) -> i32 {
        // 0 and what is below it is taken.
        self.xid = self.xid.checked_add(1).unwrap_or(1);
        self.xid
    }

    /// The answer to `xid`, which comes in its turn.
    async fn answer(&mut self, xid: i32) -> Result<(i32, Code, Vec<u8>), String> {
        let limit = self.session.limit * 2 / 3;
        let answered = async {
            loop {
                let frame = self.frame().await?;
                if let Some((header, body)) = self.take(&frame)? {
                    return Ok((header.xid, header.code, body.to_vec()));
                }
            }
        };
        let answer = timeout(limit, answered).await;
        let answer = answer.unwrap_or_else(|_| Err(late(limit)))?;
        if answer.0 == xid { Ok(answer) } else { Err("an answer to something else".to_owned()) }
    }

    /// Takes what is no answer for itself.
    fn take<'f>(&mut self, frame: &'f [u8]) -> Result<Option<(protocol::Header, &'f [u8])>, String> {
        let (header, body) = protocol::header(frame).ok_or("a message that makes no sense")?;
        self.session.heard = Some(self.heard);
        if header.zxid > 0 {
            self.session.zxid = header.zxid;
        }
        match header.xid {
            PING => Ok(None),
            EVENT => {
                // An event of a kind that we do not know is none that we have asked for.
                self.events.extend(protocol::event(body));
                Ok(None)
            }
            _ => Ok(Some((header, body))),
        }
    }

    async fn send(&mut self, frame: &[u8]) -> Result<(), String> {
        let limit = self.session.limit;
        self.said = clock::now();
        self.output.extend_from_slice(frame);
        let sent = async {
            while !self.output.is_empty() {
                let count = self.stream.write(&self.output).await?;
                if count == 0 {
                    return Err(ErrorKind::WriteZero.into());
                }
                self.output.drain(..count);
            }
            Ok(())
        };
        match timeout(limit, sent).await {
            Ok(sent) => sent.map_err(|error: io::Error| error.to_string()),
            Err(_) => Err(format!("nothing could be sent within {limit:?}")),
        }
    }

    /// The next message. It may be given up at any time, and nothing is lost.
    async fn frame(&mut self) -> Result<Vec<u8>, String> {
        loop {
            let rest = &self.input[self.taken..];
            if let Some(length) = rest.first_chunk::<4>() {
                let length = usize::try_from(i32::from_be_bytes(*length)).unwrap_or(usize::MAX);
                if length > LARGEST {
                    return Err("a message of a length that makes no sense".to_owned());
                }
                if let Some(frame) = rest.get(4..4 + length) {
                    let frame = frame.to_vec();
                    self.taken += 4 + length;
                    return Ok(frame);
                }
            }
            // Many messages may have come at once: what is left of them is moved once.
            self.input.drain(..self.taken);
            self.taken = 0;
            match self.stream.read_buf(&mut self.input).await {
                Ok(0) => return Err("the server has closed the connection".to_owned()),
                Ok(_) => self.heard = clock::now(),
                Err(error) => return Err(error.to_string()),
            }
        }
    }
}

impl Drop for Connection<'_> {
    fn drop(&mut self) {
        if !self.broken && self.output.is_empty() {
            // Without a goodbye the session would last, with its nodes, until its time is over.
            let _ = self.stream.try_write(&protocol::close());
        }
    }
}

async fn dial(at: &str, limit: Duration) -> Result<TcpStream, String> {
    let connected = timeout(limit, TcpStream::connect(at)).await.map_err(|_| late(limit))?;
    let stream = connected.map_err(|error| error.to_string())?;
    let _ = stream.set_nodelay(true);
    Ok(stream)
}

fn late(limit: Duration) -> String {
    format!("no answer within {limit:?}")
}

/// What was read, or `None` for a node that is not there.
fn optional<T>(code: Code, read: impl FnOnce() -> Option<T>) -> Result<Option<T>, String> {
    match code {
        Code::OK => read().map(Some).ok_or_else(|| "an answer that makes no sense".to_owned()),
        Code::NO_NODE => Ok(None),
        code => Err(code.to_string()),
    }
}
