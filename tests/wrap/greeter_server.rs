//! A tonic server on a loopback socket that can be killed.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    pin::Pin,
};

use futures::Stream;
use tokio::runtime::{Builder, Runtime};
use tonic::{
    Code, Request, Response, Status,
    metadata::MetadataMap,
    transport::{self, server::TcpIncoming},
};

use crate::greeter::{
    HelloReply, HelloRequest,
    greeter_server::{Greeter, GreeterServer},
};

/// Whoever greets by this name is never answered.
pub(crate) const HANG: &str = "hang";

/// A server on a runtime of its own, so that its connections die with it.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    runtime: Option<Runtime>,
}

impl Server {
    pub(crate) fn start(number: u32) -> io::Result<Self> {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let incoming = {
            let _entered = runtime.enter();
            TcpIncoming::bind((Ipv4Addr::LOCALHOST, 0).into())?
        };
        let address = incoming.local_addr()?;
        let service = GreeterServer::new(Numbered(number));
        runtime.spawn(transport::Server::builder().serve_with_incoming(service, incoming));
        Ok(Self { address, runtime: Some(runtime) })
    }

    /// Servers 0, 1 and 2.
    pub(crate) fn three() -> io::Result<[Self; 3]> {
        Ok([Self::start(0)?, Self::start(1)?, Self::start(2)?])
    }

    /// Ends it in the middle of whatever it does.
    pub(crate) fn kill(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

struct Numbered(u32);

#[tonic::async_trait]
impl Greeter for Numbered {
    async fn say_hello(&self, request: Request<HelloRequest>) -> Result<Response<HelloReply>, Status> {
        let name = request.into_inner().name;
        if name == HANG {
            std::future::pending::<()>().await;
        }
        Ok(Response::new(HelloReply { text: format!("hello {name}"), server: self.0 }))
    }

    type SayHellosStream = Pin<Box<dyn Stream<Item = Result<HelloReply, Status>> + Send>>;

    /// As many replies as asked for, then trailers that count them.
    async fn say_hellos(
        &self,
        request: Request<HelloRequest>,
    ) -> Result<Response<Self::SayHellosStream>, Status> {
        let (HelloRequest { name, times }, server) = (request.into_inner(), self.0);
        let replies = (1..=times).map(move |n| Ok(HelloReply { text: format!("hello {name} {n}"), server }));
        let mut trailers = MetadataMap::new();
        trailers.insert("said", times.into());
        let end = Err(Status::with_metadata(Code::Ok, "", trailers));
        Ok(Response::new(Box::pin(futures::stream::iter(replies.chain([end])))))
    }
}
