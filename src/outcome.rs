//! How an attempt ended.

/// The end of an attempt, as far as the endpoint is to be blamed or praised for it: what the algorithms count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The endpoint did its work. That the caller asked for something impossible is a success of the endpoint.
    Success,
    /// The endpoint failed: an error, a timeout, a broken connection.
    Failure,
}
