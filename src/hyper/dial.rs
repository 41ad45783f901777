//! A TCP connection to one of the addresses of an endpoint.

use std::{io, net::SocketAddr, time::Duration};

use futures::{StreamExt as _, stream::FuturesUnordered};
use tokio::net::TcpStream;

use crate::endpoint::Address;

/// How long an address is tried before the next one is tried beside it (RFC 8305, section 5: 250 ms).
const HEAD_START: Duration = Duration::from_millis(250);

/// Dials `address`.
pub(super) async fn dial(address: &Address) -> io::Result<TcpStream> {
    match address {
        Address::Authority(authority) => {
            let sockets: Vec<_> = tokio::net::lookup_host(&**authority).await?.collect();
            first_of(&sockets).await
        }
        address => first_of(address.sockets()).await,
    }
}

/// The first connection that stands. The addresses are tried in their order, the next one when the one before fails or
/// has had its head start.
async fn first_of(sockets: &[SocketAddr]) -> io::Result<TcpStream> {
    let mut untried = sockets.iter();
    let mut dials = FuturesUnordered::new();
    let mut last = None;
    loop {
        let next = untried.next();
        dials.extend(next.map(|socket| TcpStream::connect(*socket)));
        let dialled = if untried.len() == 0 {
            dials.next().await
        } else {
            match tokio::time::timeout(HEAD_START, dials.next()).await {
                Ok(dialled) => dialled,
                Err(_) => continue,
            }
        };
        match dialled {
            Some(Ok(stream)) => return Ok(stream),
            Some(Err(error)) => last = Some(error),
            None if next.is_none() => {
                let none = || io::Error::new(io::ErrorKind::AddrNotAvailable, "the endpoint has no address");
                return Err(last.unwrap_or_else(none));
            }
            None => {}
        }
    }
}

#[cfg(all(test, not(mainstay_loom)))]
mod tests {
    use std::{net::Ipv4Addr, sync::Arc};

    use tokio::net::TcpListener;

    use super::*;

    async fn listener() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let socket = listener.local_addr().unwrap();
        (listener, socket)
    }

    /// A port that nobody listens on.
    async fn closed() -> SocketAddr {
        listener().await.1
    }

    #[tokio::test]
    async fn an_address_that_refuses_gives_way_to_the_next_at_once() {
        let (_listener, open) = listener().await;
        let address = Address::Sockets(Arc::from([closed().await, closed().await, open]));
        assert_eq!(dial(&address).await.unwrap().peer_addr().unwrap(), open);
    }

    #[tokio::test]
    async fn all_addresses_refusing_is_an_error_with_the_last_cause() {
        let address = Address::Sockets(Arc::from([closed().await, closed().await]));
        assert_eq!(dial(&address).await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }

    #[tokio::test]
    async fn an_endpoint_without_an_address_is_an_error() {
        let error = dial(&Address::Sockets(Arc::from([]))).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrNotAvailable);
    }

    #[tokio::test]
    async fn an_authority_is_looked_up() {
        let (_listener, open) = listener().await;
        let address = Address::Authority(format!("localhost:{}", open.port()).into());
        assert_eq!(dial(&address).await.unwrap().peer_addr().unwrap().port(), open.port());
    }
}
