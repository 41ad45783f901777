//! The stack in effect, told to people.

use std::{fmt, sync::Arc, time::Duration};

use tower::{BoxError, Service};

use super::{
    options::ClientOptions,
    service::{Core, View},
};
use crate::{
    balance::{Distribution, EndpointStatus, Panic},
    breaker::State,
};

/// Where the value of an option comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Origin {
    /// Nobody said otherwise.
    Default,
    /// The builder was told.
    Builder,
    /// It was replaced while the client ran.
    Update,
    /// This view wishes it.
    View,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Default => "default",
            Self::Builder => "builder",
            Self::Update => "update",
            Self::View => "view",
        })
    }
}

/// One option in effect.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Setting {
    /// The layer, outermost first.
    pub layer: &'static str,
    /// The path of the option within [`ClientOptions`].
    pub option: &'static str,
    /// Its value.
    pub value: String,
    /// Where it comes from.
    pub origin: Origin,
}

/// The worst that one request can meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WorstCase {
    /// Attempts that servers may process.
    pub attempts: u32,
    /// How long it may take: its deadline; `None` without any bound but the caller's own.
    pub time: Option<Duration>,
    /// Load on the servers with every retry that the budget allows, in hundredths of the load without. The reserve of the
    /// budget, and what is sent again because it was never processed, come on top.
    pub load_percent: u32,
}

/// The stack of a client, every option in it, and the worst case of a request.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Explanation {
    /// The label of the client.
    pub label: Arc<str>,
    /// What is being resolved.
    pub resolver: String,
    /// The options in effect, in the order in which a request meets them.
    pub settings: Vec<Setting>,
    /// The worst that one request can meet.
    pub worst_case: WorstCase,
    /// What is odd and should be known.
    pub remarks: Vec<String>,
}

impl Explanation {
    pub(super) fn of<S, Req>(core: &Core<S, Req>, view: &View) -> Self
    where
        S: Service<Req> + Clone + Send + Sync + 'static,
        S::Response: 'static,
        S::Error: Into<BoxError>,
        Req: 'static,
    {
        let options = core.options.load();
        let status = core.balance.status();
        let mut settings = settings(&options, &core.built);
        for setting in &mut settings {
            let wish = match setting.option {
                "deadline" => view.deadline.map(|deadline| told(&Some(deadline))),
                "retry.max_attempts" => view.max_attempts.map(|attempts| told(&attempts)),
                _ => None,
            };
            if let Some(value) = wish {
                (setting.value, setting.origin) = (value, Origin::View);
            }
        }
        if let Some(breaker) = &view.breaker {
            let options = breaker.options();
            settings.push(Setting {
                layer: "breaker",
                option: "breaker of the view",
                value: told(&options),
                origin: Origin::View,
            });
        }
        settings.sort_by_key(|setting| LAYERS.iter().position(|layer| *layer == setting.layer));
        let hedges = options.hedge.as_ref().map_or(0, |hedge| hedge.max_attempts - 1);
        let attempts = view.max_attempts.unwrap_or(options.retry.max_attempts).max(1) + hedges;
        // A throttle bounds no share: at worst each attempt comes on top.
        let share = core.parts.budget.share().unwrap_or(f64::from(attempts - 1));
        let mut remarks = Vec::new();
        if core.shares_budget {
            remarks
                .push("the budget is shared with other clients: options.budget is not in effect".to_owned());
        }
        if let [only] = status.endpoints.as_slice() {
            remarks.push(format!(
                "the name stands for a single address, {}: nothing to balance over",
                only.name
            ));
        }
        if status.endpoints.len() < status.known {
            remarks.push(format!(
                "a subset is used: {} of {} endpoints",
                status.endpoints.len(),
                status.known
            ));
        }
        if let Some(failure) = &status.resolution_failure {
            remarks.push(format!("the last look-up failed, the last set stays: {failure}"));
        }
        if let Some(breaker) = view
            .breaker
            .as_ref()
            .or_else(|| core.breaker())
            .filter(|breaker| breaker.state() != State::Closed)
        {
            remarks.push(format!("the breaker {} is {}", breaker.name(), breaker.state().name()));
        }
        for endpoint in &status.endpoints {
            for operation in &endpoint.operations {
                remarks.push(format!(
                    "{} is without {}",
                    endpoint.name,
                    operation.explain(crate::clock::now())
                ));
            }
        }
        if let Some(operations) = status.operations.filter(|operations| operations.overflowed) {
            remarks.push(format!(
                "there are more operations than the {} that have a health of their own: the others share that of the endpoints",
                operations.most
            ));
        }
        if status.endpoints.iter().any(|endpoint| endpoint.successes > 0) {
            let nobody = |says: fn(&EndpointStatus) -> bool| !status.endpoints.iter().any(says);
            if options.balance.reports && nobody(|endpoint| endpoint.others_in_flight.is_some()) {
                remarks.push("no server says what it has in flight: balance.reports does nothing".to_owned());
            }
            if matches!(options.balance.distribution, Distribution::ByReports(_))
                && nobody(|endpoint| endpoint.reported_weight.is_some())
            {
                remarks.push(
                    "no server has reported for long enough how busy it is: requests simply go in turn"
                        .to_owned(),
                );
            }
        }
        if status.panic {
            remarks.push(match options.balance.panic {
                Panic::FailOpen => "too few endpoints are available: ejections are set aside".to_owned(),
                Panic::FailClosed => "too few endpoints are available: ejections stand".to_owned(),
            });
        }
        Self {
            label: core.label.clone(),
            resolver: status.resolver,
            settings,
            worst_case: WorstCase {
                attempts,
                // Attempts are limited, but waits for an endpoint, and those that servers ask for, are not.
                time: view.deadline.or(options.deadline),
                load_percent: if attempts > 1 { 100 + (share * 100.0).round() as u32 } else { 100 },
            },
            remarks,
        }
    }
}

/// The layers, outermost first.
const LAYERS: [&str; 9] =
    ["deadline", "admission", "retry", "hedge", "limit", "breaker", "balance", "health", "attempt"];

/// The value of an option for people: without the wrappings of the language.
fn told(value: &impl fmt::Debug) -> String {
    let value = format!("{value:?}");
    let bare = value.strip_prefix("Some(").and_then(|value| value.strip_suffix(')'));
    match bare {
        Some(bare) => bare.to_owned(),
        None if value == "None" => "none".to_owned(),
        None => value,
    }
}

/// Every option with its value and where that comes from.
fn settings(now: &ClientOptions, built: &ClientOptions) -> Vec<Setting> {
    let default = ClientOptions::default();
    let mut settings = Vec::new();
    macro_rules! tell {
        ($layer:literal: $($path:ident).+) => {
            let origin = if now.$($path).+ != built.$($path).+ {
                Origin::Update
            } else if built.$($path).+ != default.$($path).+ {
                Origin::Builder
            } else {
                Origin::Default
            };
            settings.push(Setting {
                layer: $layer,
                option: concat!($(".", stringify!($path)),+).trim_start_matches('.'),
                value: told(&now.$($path).+),
                origin,
            });
        };
    }
    tell!("deadline": deadline);
    tell!("admission": rate);
    tell!("admission": throttle);
    tell!("retry": retry.max_attempts);
    tell!("retry": retry.backoff);
    tell!("retry": retry.max_utilisation);
    tell!("retry": budget.share);
    tell!("retry": budget.window);
    tell!("retry": budget.reserve);
    tell!("hedge": hedge);
    tell!("limit": limit);
    tell!("breaker": breaker);
    tell!("balance": balance.subset);
    tell!("balance": balance.distribution);
    tell!("balance": balance.sticky);
    tell!("balance": balance.load);
    tell!("balance": balance.reports);
    tell!("balance": balance.probes);
    tell!("balance": balance.candidates);
    tell!("balance": balance.choices);
    tell!("balance": balance.panic);
    tell!("balance": balance.panic_below);
    tell!("balance": balance.overprovisioning);
    tell!("balance": balance.localities);
    tell!("balance": balance.slow_start);
    tell!("balance": balance.max_in_flight);
    tell!("balance": balance.limit);
    tell!("balance": balance.max_waiting);
    tell!("balance": balance.statistics);
    tell!("balance": balance.first_resolution);
    tell!("balance": balance.grace);
    tell!("balance": balance.keep_removed);
    tell!("balance": balance.connect_timeout);
    tell!("balance": balance.redial);
    tell!("balance": balance.redial_spread);
    tell!("balance": balance.dials);
    tell!("health": balance.health.enabled);
    tell!("health": balance.health.consecutive);
    tell!("health": balance.health.failures);
    tell!("health": balance.health.of_last);
    tell!("health": balance.health.success_rate);
    tell!("health": balance.health.window);
    tell!("health": balance.health.window_failures);
    tell!("health": balance.health.outliers);
    tell!("health": balance.health.per_operation);
    tell!("health": balance.health.checks);
    tell!("health": balance.health.ejection);
    tell!("health": balance.health.max_ejected);
    tell!("health": balance.health.probe_limit);
    tell!("health": balance.health.probe_wait);
    tell!("health": balance.health.back_off);
    tell!("health": balance.health.back_off_cap);
    tell!("attempt": balance.attempt_limit);
    tell!("attempt": balance.attempt_fit);
    tell!("attempt": balance.body);
    settings
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}, over {}", self.label, self.resolver)?;
        let mut layer = "";
        for setting in &self.settings {
            if setting.layer != layer {
                layer = setting.layer;
                writeln!(f, "  {layer}")?;
            }
            writeln!(f, "    {:<34} {:<9} {}", setting.option, setting.origin, setting.value)?;
        }
        let worst = &self.worst_case;
        write!(f, "  at worst: {} attempts, ", worst.attempts)?;
        match worst.time {
            Some(time) => write!(f, "{time:?}")?,
            None => write!(f, "no bound on time")?,
        }
        write!(f, ", {}.{:02} times the load", worst.load_percent / 100, worst.load_percent % 100)?;
        for remark in &self.remarks {
            write!(f, "\n  note: {remark}")?;
        }
        Ok(())
    }
}
