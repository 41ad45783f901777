//! Requests, answers and events, as bytes.

use std::fmt;

use super::{
    Acl,
    jute::{Reader, Writer},
};

/// The numbers of messages that are not answers to a request.
pub(super) const EVENT: i32 = -1;
pub(super) const PING: i32 = -2;
pub(super) const AUTH: i32 = -4;
/// The number of a goodbye.
pub(super) const CLOSE: i32 = 0;

const PING_OP: i32 = 11;
const AUTH_OP: i32 = 100;
const CLOSE_OP: i32 = -11;
const MULTI_OP: i32 = 14;

/// What the first message of a connection says.
pub(super) fn connect(last_zxid: i64, timeout_ms: i32, session: i64, password: &[u8]) -> Vec<u8> {
    let mut frame = Writer::new();
    frame.int(0).long(last_zxid).int(timeout_ms).long(session).bytes(password).bool(false);
    frame.frame()
}

/// What the first answer says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Connected {
    /// 0 where the session has expired.
    pub(super) timeout_ms: i32,
    pub(super) session: i64,
    pub(super) password: Vec<u8>,
}

pub(super) fn connected(frame: &[u8]) -> Option<Connected> {
    let mut reader = Reader(frame);
    let _version = reader.int()?;
    let (timeout_ms, session) = (reader.int()?, reader.long()?);
    Some(Connected { timeout_ms, session, password: reader.bytes()?.to_vec() })
}

pub(super) fn ping() -> Vec<u8> {
    let mut frame = Writer::new();
    frame.int(PING).int(PING_OP);
    frame.frame()
}

pub(super) fn auth(scheme: &str, word: &[u8]) -> Vec<u8> {
    let mut frame = Writer::new();
    frame.int(AUTH).int(AUTH_OP).int(0).text(scheme).bytes(word);
    frame.frame()
}

/// Ends the session.
pub(super) fn close() -> Vec<u8> {
    let mut frame = Writer::new();
    frame.int(CLOSE).int(CLOSE_OP);
    frame.frame()
}

/// What lasts, and is numbered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flags {
    Persistent = 0,
    EphemeralSequential = 3,
}

/// A question or a change. Paths are whole.
#[derive(Clone, Debug)]
pub(crate) enum Request<'a> {
    /// The names of the children. A watch tells the next change of them.
    Children {
        path: &'a str,
        watch: bool,
    },
    /// The data. A watch tells when it changes, or the node goes.
    Data {
        path: &'a str,
        watch: bool,
    },
    /// Whether the node is there. A watch tells when that changes.
    Exists {
        path: &'a str,
        watch: bool,
    },
    Change(Op<'a>),
    /// All of it, or nothing.
    Multi(&'a [Op<'a>]),
}

/// A change.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Op<'a> {
    Create { path: &'a str, data: &'a [u8], acl: Acl, flags: Flags },
    Delete { path: &'a str },
}

impl Op<'_> {
    fn number(&self) -> i32 {
        match self {
            Self::Create { .. } => 1,
            Self::Delete { .. } => 2,
        }
    }

    fn write(&self, frame: &mut Writer) {
        match self {
            Self::Create { path, data, acl, flags } => {
                frame.text(path).bytes(data);
                acl.write(frame);
                frame.int(*flags as i32);
            }
            // Whatever its version.
            Self::Delete { path } => _ = frame.text(path).int(-1),
        }
    }
}

impl Request<'_> {
    pub(super) fn frame(&self, xid: i32) -> Vec<u8> {
        let mut frame = Writer::new();
        frame.int(xid);
        match self {
            Self::Children { path, watch } => _ = frame.int(12).text(path).bool(*watch),
            Self::Data { path, watch } => _ = frame.int(4).text(path).bool(*watch),
            Self::Exists { path, watch } => _ = frame.int(3).text(path).bool(*watch),
            Self::Change(op) => {
                frame.int(op.number());
                op.write(&mut frame);
            }
            Self::Multi(ops) => {
                frame.int(MULTI_OP);
                for op in *ops {
                    frame.int(op.number()).bool(false).int(-1);
                    op.write(&mut frame);
                }
                frame.int(-1).bool(true).int(-1);
            }
        }
        frame.frame()
    }
}

/// What stands before every answer and event.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) xid: i32,
    pub(super) zxid: i64,
    pub(super) code: Code,
}

/// The header of `frame`, and what follows it.
pub(super) fn header(frame: &[u8]) -> Option<(Header, &[u8])> {
    let mut reader = Reader(frame);
    let header = Header { xid: reader.int()?, zxid: reader.long()?, code: Code(reader.int()?) };
    Some((header, reader.0))
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Code(pub(crate) i32);

impl Code {
    pub(crate) const OK: Self = Self(0);
    pub(crate) const NO_NODE: Self = Self(-101);
    pub(crate) const NODE_EXISTS: Self = Self(-110);
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.0 {
            0 => "ok",
            -4 => "connection loss",
            -6 => "not implemented",
            -7 => "operation timeout",
            -8 => "bad arguments",
            -101 => "no node",
            -102 => "not permitted",
            -103 => "bad version",
            -108 => "no children for ephemeral nodes",
            -110 => "node exists",
            -111 => "not empty",
            -112 => "session expired",
            -113 => "invalid callback",
            -114 => "invalid ACL",
            -115 => "authentication failed",
            -118 => "session moved",
            -119 => "not read-only",
            -125 => "quota exceeded",
            -127 => "throttled",
            other => return write!(f, "error {other}"),
        };
        f.write_str(name)
    }
}

/// The names of children.
pub(super) fn children(body: &[u8]) -> Option<Vec<String>> {
    Reader(body).texts()
}

/// Which session an ephemeral node belongs to: the only word of a node's status that is asked for.
pub(super) fn owner(status: &[u8]) -> Option<i64> {
    let mut reader = Reader(status);
    for _ in 0..4 {
        reader.long()?;
    }
    for _ in 0..3 {
        reader.int()?;
    }
    reader.long()
}

/// The data of a node, and the session it belongs to.
pub(super) fn data_and_owner(body: &[u8]) -> Option<(Vec<u8>, i64)> {
    let mut reader = Reader(body);
    let data = reader.bytes()?.to_vec();
    Some((data, owner(reader.0)?))
}

/// The path of a node that was created.
pub(super) fn created(body: &[u8]) -> Option<String> {
    Reader(body).text().map(str::to_owned)
}

/// The path of the last node that a multi created, or why it did nothing.
pub(super) fn created_last(body: &[u8]) -> Option<Result<String, Code>> {
    /// What is said of those around the one that failed.
    const INNOCENT: [i32; 2] = [0, -2];
    let mut reader = Reader(body);
    let (mut path, mut failed) = (String::new(), None);
    loop {
        let (kind, done, _code) = (reader.int()?, reader.bool()?, reader.int()?);
        match kind {
            _ if done => return Some(failed.map_or(Ok(path), Err)),
            1 => path = reader.text()?.to_owned(),
            2 => {}
            -1 => {
                let code = reader.int()?;
                if failed.is_none() && !INNOCENT.contains(&code) {
                    failed = Some(Code(code));
                }
            }
            _ => return None,
        }
    }
}

/// Something that a watch tells, once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) kind: EventKind,
    pub(crate) path: String,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EventKind {
    Created,
    Deleted,
    DataChanged,
    ChildrenChanged,
    /// The session is not what it was.
    Session,
}

pub(super) fn event(body: &[u8]) -> Option<Event> {
    let mut reader = Reader(body);
    let (kind, _state) = (reader.int()?, reader.int()?);
    let kind = match kind {
        1 => EventKind::Created,
        2 => EventKind::Deleted,
        3 => EventKind::DataChanged,
        4 => EventKind::ChildrenChanged,
        -1 => EventKind::Session,
        _ => return None,
    };
    Some(Event { kind, path: reader.text()?.to_owned() })
}

/// Reads whatever it is given as every answer there is.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz(input: &[u8]) {
    let _ = (connected(input), event(input), created(input), created_last(input));
    let _ = (children(input), data_and_owner(input), owner(input));
    if let Some((header, rest)) = header(input) {
        assert_eq!(rest.len() + 16, input.len());
        let _ = header.code.to_string();
    }
}

#[cfg(all(test, not(mainstay_loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_answer_panics(bytes: Vec<u8>, count in -2_i32..100) {
            fuzz(&bytes);
            fuzz(&[&count.to_be_bytes(), &bytes[..]].concat());
        }
    }

    #[test]
    fn a_request_is_written_as_zookeeper_reads_it() {
        let frame = Request::Data { path: "/a", watch: true }.frame(7);
        assert_eq!(frame, [0, 0, 0, 15, 0, 0, 0, 7, 0, 0, 0, 4, 0, 0, 0, 2, b'/', b'a', 1]);
        assert_eq!(ping(), [0, 0, 0, 8, 255, 255, 255, 254, 0, 0, 0, 11]);
    }

    #[test]
    fn what_a_multi_created_is_found_behind_what_it_deleted() {
        let mut body = Writer::new();
        body.int(2).bool(false).int(0);
        body.int(1).bool(false).int(0).text("/a_1");
        body.int(-1).bool(true).int(-1);
        assert_eq!(created_last(&body.frame()[4..]), Some(Ok("/a_1".to_owned())));
        let mut body = Writer::new();
        for code in [0, -101, -2] {
            body.int(-1).bool(false).int(code).int(code);
        }
        body.int(-1).bool(true).int(-1);
        assert_eq!(created_last(&body.frame()[4..]), Some(Err(Code::NO_NODE)));
    }
}
