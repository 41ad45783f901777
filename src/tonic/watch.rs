//! Whether endpoints are listened to, which may change while they are.

use std::{
    pin::{Pin, pin},
    sync::Arc,
};

use ::tonic::{body::Body, transport::Endpoint};
use futures::{
    Stream, StreamExt as _,
    future::{Either, select},
    stream,
};
use tokio::sync::watch::{Receiver, Sender};

use super::Transport;
use crate::{
    grpc::{HealthWatch, ServiceConfig},
    health::ServingStatus,
    http::Replay,
    invalid::Invalid,
};

type Words = Pin<Box<dyn Stream<Item = ServingStatus> + Send>>;

/// What is listened to at each endpoint: what the service config names, or else what the builder was told.
#[derive(Debug)]
pub(super) struct Watching {
    own: Option<HealthWatch>,
    /// Where the services of configs are found.
    under: Result<HealthWatch, Invalid>,
    wanted: Sender<Option<HealthWatch>>,
}

impl Watching {
    /// Nothing of a config is known yet.
    pub(super) fn new(own: Option<HealthWatch>, endpoint: &Endpoint) -> Self {
        let under = match &own {
            Some(own) => Ok(own.clone()),
            None => HealthWatch::of(&endpoint.uri().to_string()),
        };
        let wanted = Sender::new(own.clone());
        Self { own, under, wanted }
    }

    /// What `config` wants.
    ///
    /// # Errors
    /// If it names a service, and the name of the endpoint has no authority to ask under.
    pub(super) fn wanted(&self, config: &ServiceConfig) -> Result<Option<HealthWatch>, Invalid> {
        match config.health_service() {
            None => Ok(self.own.clone()),
            Some(service) => self.under.clone().map(|watch| Some(watch.service(service))),
        }
    }

    /// Listens to that from now on. What is listened to already goes on.
    pub(super) fn go_by(&self, wanted: Option<HealthWatch>) {
        self.wanted.send_if_modified(|now| {
            let differs = match (&*now, &wanted) {
                (None, None) => false,
                (Some(now), Some(next)) => !now.is_same(next),
                _ => true,
            };
            if differs {
                *now = wanted;
            }
            differs
        });
    }

    /// What each endpoint is listened to with.
    pub(super) fn listener(
        &self,
    ) -> impl Fn(Transport, Arc<crate::Endpoint>) -> Words + Send + Sync + 'static + use<> {
        let wanted = self.wanted.subscribe();
        move |transport, _| {
            let mut wanted = wanted.clone();
            wanted.mark_changed();
            let listener = Listener { transport, wanted, words: None };
            Box::pin(stream::unfold(listener, |mut listener| async move {
                let word = listener.next().await?;
                Some((word, listener))
            }))
        }
    }
}

/// Listens to one endpoint over its channel.
struct Listener {
    transport: Transport,
    wanted: Receiver<Option<HealthWatch>>,
    words: Option<Words>,
}

impl Listener {
    async fn next(&mut self) -> Option<ServingStatus> {
        loop {
            let said = {
                let changed = pin!(self.wanted.changed());
                match &mut self.words {
                    None => Either::Left(changed.await),
                    Some(words) => match select(changed, words.next()).await {
                        Either::Left((changed, _)) => Either::Left(changed),
                        Either::Right((word, _)) => Either::Right(word),
                    },
                }
            };
            match said {
                // The client is gone.
                Either::Left(Err(_)) => return None,
                Either::Left(Ok(())) => {
                    let wanted = self.wanted.borrow_and_update().clone();
                    let transport = self.transport.clone();
                    let words = wanted.map(|watch| -> Words {
                        Box::pin(watch.listen(transport, |question| Replay::new(Body::new(question))))
                    });
                    if std::mem::replace(&mut self.words, words).is_some() {
                        return Some(ServingStatus::NotKnown);
                    }
                }
                Either::Right(Some(word)) => return Some(word),
                // There is no way to say more, unless something else is wanted.
                Either::Right(None) => self.words = None,
            }
        }
    }
}
