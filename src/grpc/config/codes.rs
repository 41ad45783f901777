//! Sets of status codes.

use std::fmt;

/// The codes by name, in the order of their numbers.
const NAMES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// A set of gRPC's status codes.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Codes(u32);

impl Codes {
    /// Whether `code` is among them.
    pub fn contains(self, code: u8) -> bool {
        u32::from(code) < u32::BITS && self.0 & (1 << code) != 0
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(super) fn insert(&mut self, code: u8) {
        debug_assert!(usize::from(code) < NAMES.len());
        self.0 |= 1 << code;
    }
}

/// The number of the code of this name, in capitals or not.
pub(super) fn by_name(name: &str) -> Option<u8> {
    let found = NAMES.iter().position(|known| known.eq_ignore_ascii_case(name));
    found.and_then(|index| u8::try_from(index).ok())
}

/// The code of this number, if there is one.
pub(super) fn by_number(number: u64) -> Option<u8> {
    u8::try_from(number).ok().filter(|number| usize::from(*number) < NAMES.len())
}

impl fmt::Debug for Codes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = NAMES.iter().enumerate().filter(|(index, _)| self.0 & (1 << index) != 0);
        f.debug_set().entries(known.map(|(_, name)| name)).finish()
    }
}
