//! What the document says of a method.

use std::time::Duration;

use serde_json::Value;

use super::{codes::Codes, read::Fields};
use crate::{hedge::HedgeOptions, retry::RetryPolicy};

/// What a document says of a method.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct MethodPolicy {
    /// How long a call may take in all its attempts, if its caller does not allow less.
    pub timeout: Option<Duration>,
    /// Whether a call waits while no endpoint is connected. A mainstay client always does, within its bounds.
    pub wait_for_ready: Option<bool>,
    /// How often a call is made.
    pub attempts: Attempts,
}

/// How often a call of a method is made.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum Attempts {
    /// The document says nothing.
    #[default]
    Unsaid,
    /// Again, after a wait, when it has ended with one of these codes.
    Retry {
        /// Attempts and waits.
        policy: RetryPolicy,
        /// `retryableStatusCodes`.
        on: Codes,
    },
    /// Several at a time.
    Hedge {
        /// Attempts and delay.
        options: HedgeOptions,
        /// `nonFatalStatusCodes`: what ends with one of them has the next attempt sent at once, what ends otherwise is the answer.
        on: Codes,
    },
}

impl MethodPolicy {
    pub(super) fn read(fields: &mut Fields<'_, '_>) -> Self {
        let retry = fields.object("retryPolicy", |fields| {
            let most = attempts(fields);
            let initial = fields.positive("initialBackoff");
            let max = fields.positive("maxBackoff");
            let multiplier = fields.needed_number("backoffMultiplier");
            let on = codes(fields, "retryableStatusCodes");
            fields.rule(!on.is_some_and(Codes::is_empty), "retryableStatusCodes", "at least one code");
            if let (Some(most), Some(initial), Some(max), Some(multiplier)) = (most, initial, max, multiplier)
            {
                // gRPC takes what exceeds the cap for the cap, the first wait too.
                let policy = RetryPolicy::grpc(most, initial.min(max), max, multiplier);
                return Some(Attempts::Retry { policy, on: on? });
            }
            None
        });
        let hedge = fields.object("hedgingPolicy", |fields| {
            let most = attempts(fields);
            let delay = fields.duration("hedgingDelay").unwrap_or_default();
            let on = codes(fields, "nonFatalStatusCodes").unwrap_or_default();
            Some(Attempts::Hedge { options: HedgeOptions::grpc(most?, delay), on })
        });
        fields.rule(
            !(fields.has("retryPolicy") && fields.has("hedgingPolicy")),
            "hedgingPolicy",
            "not beside a retryPolicy: a method has one of them",
        );
        Self {
            timeout: fields.duration("timeout"),
            wait_for_ready: fields.boolean("waitForReady"),
            attempts: retry.flatten().or(hedge.flatten()).unwrap_or_default(),
        }
    }
}

/// `maxAttempts`, of which RFC A6 has at least 2, and takes more than 5 for 5.
fn attempts(fields: &mut Fields<'_, '_>) -> Option<u32> {
    let most = fields.whole("maxAttempts");
    fields.rule(most.is_some_and(|most| most >= 2), "maxAttempts", "a whole number, at least 2");
    most.map(|most| u32::try_from(most).unwrap_or(u32::MAX))
}

fn codes(fields: &mut Fields<'_, '_>, name: &str) -> Option<Codes> {
    let mut codes = Codes::default();
    let list = fields.list(name)?;
    for (index, value) in list.iter().enumerate() {
        let code = match value {
            Value::String(name) => super::codes::by_name(name),
            value => value.as_u64().and_then(super::codes::by_number),
        };
        match code {
            Some(code) => codes.insert(code),
            None => {
                fields.wrong(&format!("{name}[{index}]"), value, "a status code of gRPC, by name or number")
            }
        }
    }
    Some(codes)
}
