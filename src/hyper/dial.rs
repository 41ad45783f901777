//! A TCP connection to one of the addresses of an endpoint.

use std::{io, net::SocketAddr, time::Duration};

use futures::{StreamExt as _, stream::FuturesUnordered};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

use super::options::ConnectorOptions;
use crate::endpoint::Address;

/// How long an address is tried before the next one is tried beside it (RFC 8305, section 5: 250 ms).
const HEAD_START: Duration = Duration::from_millis(250);

/// How long a connection that a request may wait for can take to be made.
pub(super) const DIAL: Duration = Duration::from_secs(1);

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

/// Sets what `options` want of a connection.
pub(super) fn set_up(stream: &TcpStream, options: &ConnectorOptions) -> io::Result<()> {
    stream.set_nodelay(options.nodelay)?;
    let socket = SockRef::from(stream);
    if let Some(silence) = options.tcp_keepalive {
        socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(silence).with_interval(silence / 3))?;
    }
    #[cfg(any(target_os = "linux", target_os = "android"))]
    socket.set_tcp_user_timeout(options.tcp_user_timeout)?;
    Ok(())
}

/// The addresses in their order, but of one family and the other in turn, as long as there are both: where one of them does not
/// work here, it costs one head start and no more (RFC 8305, section 4).
fn interleaved(sockets: &[SocketAddr]) -> impl ExactSizeIterator<Item = SocketAddr> {
    let first_is_v6 = sockets.first().is_some_and(SocketAddr::is_ipv6);
    let (of_the_first, others): (Vec<_>, Vec<_>) =
        sockets.iter().copied().partition(|socket| socket.is_ipv6() == first_is_v6);
    let mut others = others.into_iter();
    let mut ordered = Vec::with_capacity(sockets.len());
    for socket in of_the_first {
        ordered.push(socket);
        ordered.extend(others.next());
    }
    ordered.extend(others);
    ordered.into_iter()
}

/// The first connection that stands. The next address is tried when the one before fails or has had its head start.
async fn first_of(sockets: &[SocketAddr]) -> io::Result<TcpStream> {
    let mut untried = interleaved(sockets);
    let mut dials = FuturesUnordered::new();
    let mut last = None;
    loop {
        let next = untried.next();
        dials.extend(next.map(TcpStream::connect));
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

    #[test]
    fn families_take_turns_and_keep_their_order() {
        let order = |sockets: &[&str]| {
            let sockets: Vec<SocketAddr> = sockets.iter().map(|socket| socket.parse().unwrap()).collect();
            interleaved(&sockets).map(|socket| socket.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(
            order(&["[::1]:1", "[::2]:1", "[::3]:1", "1.0.0.1:1", "1.0.0.2:1"]),
            ["[::1]:1", "1.0.0.1:1", "[::2]:1", "1.0.0.2:1", "[::3]:1"]
        );
        assert_eq!(
            order(&["1.0.0.1:1", "[::1]:1", "[::2]:1", "[::3]:1"]),
            ["1.0.0.1:1", "[::1]:1", "[::2]:1", "[::3]:1"]
        );
        assert!(order(&[]).is_empty());
    }

    #[tokio::test]
    async fn a_connection_gets_what_the_options_want() {
        let (_listener, open) = listener().await;
        let stream = dial(&Address::Socket(open)).await.unwrap();
        set_up(&stream, &ConnectorOptions::default()).unwrap();
        let socket = SockRef::from(&stream);
        assert!(stream.nodelay().unwrap() && socket.keepalive().unwrap());
        #[cfg(target_os = "linux")]
        {
            assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(10));
            assert_eq!(socket.tcp_keepalive_interval().unwrap(), Duration::from_secs(3));
            assert_eq!(socket.tcp_user_timeout().unwrap(), Some(Duration::from_secs(15)));
        }
    }

    #[tokio::test]
    async fn an_authority_is_looked_up() {
        let (_listener, open) = listener().await;
        let address = Address::Authority(format!("localhost:{}", open.port()).into());
        assert_eq!(dial(&address).await.unwrap().peer_addr().unwrap().port(), open.port());
    }
}
