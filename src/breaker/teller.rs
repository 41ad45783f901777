//! Tells changes in the order of their numbers, whoever hands them in.

use std::collections::BTreeMap;

use super::Change;
use crate::sync::{Mutex, lock};

/// A line of changes that wait for the ones before them. They are told outside of its lock, by one thread at a time: one that
/// comes while another tells leaves its change to that one.
#[derive(Debug, Default)]
pub(super) struct Teller(Mutex<Line>);

#[derive(Debug, Default)]
struct Line {
    next: u64,
    waiting: BTreeMap<u64, Change>,
    telling: bool,
}

impl Teller {
    /// Hands in `change`, and tells what can be told.
    pub(super) fn hand_in(&self, change: Change, mut tell: impl FnMut(Change)) {
        lock(&self.0).waiting.insert(change.number, change);
        while let Some(turn) = self.turn() {
            tell(turn.change);
        }
    }

    /// The change that is next, if it is there and nobody is telling.
    fn turn(&self) -> Option<Turn<'_>> {
        let mut line = lock(&self.0);
        if line.telling {
            return None;
        }
        let next = line.next;
        let change = line.waiting.remove(&next)?;
        line.next += 1;
        line.telling = true;
        Some(Turn { teller: self, change })
    }
}

/// The right to tell one change. It is over when this is dropped, by a panic of who is told too.
struct Turn<'a> {
    teller: &'a Teller,
    change: Change,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        lock(&self.teller.0).telling = false;
    }
}
