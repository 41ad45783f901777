//! The server: a process of its own, that answers on two ports what a small service would.

use std::{
    convert::Infallible,
    io::{BufRead as _, BufReader, Read as _, stdin},
    net::SocketAddr,
    process::{Child, Stdio},
};

use bytes::Bytes;
use http::{HeaderValue, Response, header::CONTENT_TYPE};
use http_body_util::Full;
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpListener, runtime::Builder};

use crate::cores::this_program;

const BODY: &[u8] = br#"{"id":1,"name":"Grace Hopper","mail":"grace@users.internal"}"#;

/// Serves until standard input ends, so that it outlives nobody who started it.
pub(crate) fn serve() -> Result<(), String> {
    std::thread::spawn(|| {
        let _ = stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let bind = async || TcpListener::bind("127.0.0.1:0").await.map_err(|error| error.to_string());
        let (one, other) = (bind().await?, bind().await?);
        for listener in [&one, &other] {
            println!("{}", listener.local_addr().map_err(|error| error.to_string())?);
        }
        tokio::join!(accept(one), accept(other));
        Ok(())
    })
}

async fn accept(listener: TcpListener) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let _ = stream.set_nodelay(true);
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(answer)));
    }
}

async fn answer(_: http::Request<hyper::body::Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let mut response = Response::new(Full::new(Bytes::from_static(BODY)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

/// A server that has been started. It ends with this.
#[derive(Debug)]
pub(crate) struct Running {
    process: Child,
    pub(crate) addresses: [SocketAddr; 2],
}

impl Running {
    /// A server on `core`, or on any.
    pub(crate) fn start(core: Option<usize>) -> Result<Self, String> {
        let process =
            this_program(core)?.arg("--serve").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().map_err(
                |error| format!("cannot start the server (taskset keeps it on its core): {error}"),
            )?;
        let mut running = Self { process, addresses: [SocketAddr::from(([127, 0, 0, 1], 0)); 2] };
        let mut said = BufReader::new(running.process.stdout.take().expect("piped")).lines();
        for address in &mut running.addresses {
            let line = said.next().and_then(Result::ok).and_then(|line| line.parse().ok());
            *address = line.ok_or("the server does not say where it listens")?;
        }
        Ok(running)
    }

    /// Its process: `taskset` becomes what it starts.
    pub(crate) fn process(&self) -> u32 {
        self.process.id()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
