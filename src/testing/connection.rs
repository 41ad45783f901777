//! The client's end of the network: tower services that reach a server of a fleet.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tower::Service;

use super::{Fault, FaultKind, Fleet, Request, Response, server::Job};
use crate::Endpoint;

/// A service that reaches one server of a [`Fleet`].
///
/// One that was dialled is of one life of its server: once word of a crash has come it is not ready any more, with an error,
/// and what is sent over it before is reset. Over a cut link no word comes. One that was not dialled finds whoever is there.
#[derive(Clone)]
pub struct Connection {
    fleet: Fleet,
    place: u32,
    server: usize,
    life: Option<u32>,
}

impl Connection {
    pub(super) fn new(fleet: Fleet, place: u32, server: usize, life: Option<u32>) -> Self {
        Self { fleet, place, server, life }
    }

    /// Which server it reaches.
    pub fn server(&self) -> usize {
        self.server
    }
}

impl Service<Request> for Connection {
    type Response = Response;
    type Error = Fault;
    type Future = Calling;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        let gone = self.life.is_some_and(|life| self.fleet.is_over(self.place, self.server, life));
        Poll::Ready(if gone { Err(Fault { server: self.server, kind: FaultKind::Closed }) } else { Ok(()) })
    }

    fn call(&mut self, request: Request) -> Calling {
        let job = self.fleet.send(self.place, self.server, self.life, Some(request));
        Calling { fleet: self.fleet.clone(), job: Some(job) }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("server", &self.server)
            .field("place", &self.place)
            .finish_non_exhaustive()
    }
}

/// A request on its way. Dropping it tells the server, which hears of it when a message would arrive.
#[derive(Debug)]
pub struct Calling {
    fleet: Fleet,
    job: Option<Job>,
}

impl Future for Calling {
    type Output = Result<Response, Fault>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(job) = self.job else { return Poll::Pending };
        match self.fleet.poll_answer(job, cx.waker()) {
            Some(answer) => {
                self.job = None;
                Poll::Ready(answer)
            }
            None => Poll::Pending,
        }
    }
}

impl Drop for Calling {
    fn drop(&mut self) {
        if let Some(job) = self.job.take() {
            self.fleet.give_up(job);
        }
    }
}

/// A service that connects to the server of an endpoint: a round trip, and the work of the handshake there.
#[derive(Clone)]
pub struct Dial {
    fleet: Fleet,
    place: u32,
}

impl Dial {
    pub(super) fn new(fleet: Fleet, place: u32) -> Self {
        Self { fleet, place }
    }
}

impl Service<Arc<Endpoint>> for Dial {
    type Response = Connection;
    type Error = Fault;
    type Future = Dialling;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, endpoint: Arc<Endpoint>) -> Dialling {
        let server = self.fleet.number(&endpoint);
        let job = self.fleet.send(self.place, server, None, None);
        Dialling { calling: Calling { fleet: self.fleet.clone(), job: Some(job) }, place: self.place, server }
    }
}

impl fmt::Debug for Dial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dial").field("place", &self.place).finish_non_exhaustive()
    }
}

/// A connection that is being made.
#[derive(Debug)]
pub struct Dialling {
    calling: Calling,
    place: u32,
    server: usize,
}

impl Future for Dialling {
    type Output = Result<Connection, Fault>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // Of the life that has accepted it, which may be over by now.
        Pin::new(&mut self.calling).poll(cx).map_ok(|accepted| {
            Connection::new(self.calling.fleet.clone(), self.place, self.server, Some(accepted.life))
        })
    }
}
