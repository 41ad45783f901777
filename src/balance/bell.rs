//! How requests tell the background task what it must look at.

use std::{
    sync::Arc,
    task::{Context, Poll, Waker},
};

use super::member::Member;
use crate::{
    error::Cause,
    sync::{Mutex, lock},
};

/// Something the background task must look at.
#[derive(Debug)]
pub(crate) enum Message {
    /// The health of this endpoint has changed: it has a time to be looked at again, and the snapshot is out of date.
    Changed(Arc<Member>),
    /// This connection (by its number) of this endpoint is gone.
    Broken(Arc<Member>, u32, Cause),
    /// The options were replaced.
    Options,
    /// Nothing any more: the last handle is gone, or the balancer was closed.
    Over,
}

/// A mailbox with one reader. Nothing on the way of a successful request rings it.
#[derive(Debug)]
pub(crate) struct Bell(Mutex<Mailbox>);

#[derive(Debug, Default)]
struct Mailbox {
    messages: Vec<Message>,
    waker: Option<Waker>,
    /// Nobody reads any more. What came nevertheless would stay for ever, and keep its endpoint, and so this, alive.
    over: bool,
}

impl Bell {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(Mailbox::default()))
    }

    pub(crate) fn ring(&self, message: Message) {
        let mut mailbox = lock(&self.0);
        let unread = match message {
            Message::Over => {
                mailbox.over = true;
                std::mem::replace(&mut mailbox.messages, vec![message])
            }
            late if mailbox.over => vec![late],
            // Nobody may read for long, and what there is to know is where it always is.
            Message::Options if mailbox.messages.iter().any(|one| matches!(one, Message::Options)) => {
                Vec::new()
            }
            message => {
                mailbox.messages.push(message);
                Vec::new()
            }
        };
        let waker = mailbox.waker.take();
        drop(mailbox);
        drop(unread);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// All that was told since the last look.
    pub(crate) fn poll(&self, cx: &Context<'_>) -> Poll<Vec<Message>> {
        let mut mailbox = lock(&self.0);
        if mailbox.messages.is_empty() {
            mailbox.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(std::mem::take(&mut mailbox.messages))
    }
}

#[cfg(all(test, not(mainstay_loom)))]
mod tests {
    use super::*;

    #[test]
    fn that_options_were_replaced_is_told_once_however_long_nobody_reads() {
        let (bell, waker) = (Bell::new(), Waker::noop());
        let unread = |bell: &Bell| match bell.poll(&Context::from_waker(waker)) {
            Poll::Ready(messages) => messages.len(),
            Poll::Pending => 0,
        };
        (0..1_000).for_each(|_| bell.ring(Message::Options));
        assert_eq!(unread(&bell), 1);
        bell.ring(Message::Options);
        assert_eq!(unread(&bell), 1, "and anew once it was read");
    }
}
