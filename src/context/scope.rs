//! Carrying the inherited part along a future.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use pin_project::pin_project;
use tokio::task::JoinHandle;

use super::{EnterInherited, Inherited};

/// Runs `future` with `inherited` as what every client inside of it inherits.
pub fn scope<F: Future>(inherited: Inherited, future: F) -> Scope<F> {
    Scope { inherited, future }
}

/// Spawns `future` on tokio with what the current task inherited. A plain `tokio::spawn` starts with nothing.
///
/// # Panics
/// Outside of a tokio runtime, as `tokio::spawn` does.
pub fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    tokio::spawn(scope(super::inherited(), future))
}

/// The future of [`scope`].
#[pin_project]
#[derive(Debug)]
pub struct Scope<F> {
    inherited: Inherited,
    #[pin]
    future: F,
}

impl<F: Future> Future for Scope<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let _inherited = EnterInherited::new(*this.inherited);
        this.future.poll(cx)
    }
}

#[cfg(all(test, not(mainstay_loom)))]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{clock, context};

    #[tokio::test(start_paused = true)]
    async fn a_spawned_task_inherits_and_a_plain_spawn_does_not() {
        let deadline = clock::now() + Duration::from_secs(1);
        scope(Inherited::default().with_deadline(deadline), async {
            let carried = spawn(async { context::inherited().deadline() }).await;
            assert_eq!(carried.ok().flatten(), Some(deadline));
            let bare = tokio::spawn(async { context::inherited().deadline() }).await;
            assert_eq!(bare.ok().flatten(), None);
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn an_inner_scope_may_only_shorten_the_deadline() {
        let (soon, late) = (clock::now() + Duration::from_secs(1), clock::now() + Duration::from_secs(5));
        assert_eq!(Inherited::default().with_deadline(soon).with_deadline(late).deadline(), Some(soon));
    }

    #[test]
    fn a_panic_inside_leaves_nothing_behind() {
        let inherited = Inherited::default().with_retry(true);
        let mut future = Box::pin(scope(inherited, async { panic!("inside") }));
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _: Poll<()> = future.as_mut().poll(&mut Context::from_waker(std::task::Waker::noop()));
        }));
        assert!(caught.is_err());
        assert!(!context::inherited().is_retry());
    }
}
