//! Endpoints, by hand.

use tower::{BoxError, Service};

use super::Client;
use crate::{balance::EndpointHandle, endpoint::Identity};

impl<S, Req> Client<S, Req>
where
    S: Service<Req> + Clone + Send + Sync + 'static,
    S::Response: 'static,
    S::Error: Into<BoxError>,
    Req: 'static,
{
    /// The endpoint with this identity, to drain it, eject it or put it back by hand; `None` if it is not in the present
    /// resolution.
    ///
    /// ```
    /// # use mainstay::{Client, Endpoint, resolve};
    /// # use tower::service_fn;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    /// # let client = Client::builder("users")
    /// #     .resolve(resolve::fixed(["10.0.0.1:80", "10.0.0.2:80"]))
    /// #     .connect(|_: &Endpoint| service_fn(|n: u64| async move { Ok::<_, tower::BoxError>(n) }))
    /// #     .build()?;
    /// client.ready().await?;
    /// let first = Endpoint::new("10.0.0.1:80");
    /// let handle = client.endpoint(first.identity()).expect("it is in the list");
    /// handle.drain(); // no further request, until
    /// assert_eq!(client.status().balance.endpoints[0].word(), "drained");
    /// handle.restore();
    /// # Ok(())
    /// # }
    /// ```
    pub fn endpoint(&self, identity: &Identity) -> Option<EndpointHandle> {
        self.core().balance.endpoint(identity)
    }
}
