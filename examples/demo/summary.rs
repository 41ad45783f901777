//! The end of the demo: what each client has made of the same trouble, and what was owed.

use std::{collections::BTreeMap, fmt, time::Duration};

use serde_json::{Value, json};

use crate::{
    client::Who,
    screen::{percent, time},
    script,
    stage::Stage,
    tally::Figures,
};

/// What mainstay owes in this demo.
const SUCCESS_RATE: f64 = 0.999;
const P99_TO_HEALTHY: f64 = 3.0;
const ATTEMPTS_PER_REQUEST: f64 = 1.1;
/// The plain client suffers visibly below this.
const SUFFERING: f64 = 0.99;

/// How one client fared from the first fault to the end.
#[derive(Debug)]
struct Fared {
    figures: Figures,
    attempts_per_request: f64,
}

#[derive(Debug)]
pub(crate) struct Summary {
    plain: Fared,
    mainstay: Fared,
    /// Of both clients together, before the first fault: what the healthy servers give.
    healthy_p99: Duration,
    events: BTreeMap<String, u64>,
    took: Duration,
}

/// One owed figure.
struct Owed {
    key: &'static str,
    text: String,
    found: String,
    met: bool,
}

impl Summary {
    /// `before` are the attempts of each client before the first fault. `None` if there was no load to speak of.
    pub(crate) fn of(stage: &Stage, before: [u64; 2], took: Duration) -> Option<Self> {
        let fared = |who: Who| {
            let figures = stage.tally(who).trouble().figures()?;
            let attempts = stage.attempts(who) - before[who as usize];
            Some(Fared { figures, attempts_per_request: attempts as f64 / figures.requests as f64 })
        };
        let mut healthy = stage.tally(Who::Plain).healthy();
        healthy.add(&stage.tally(Who::Mainstay).healthy());
        Some(Self {
            plain: fared(Who::Plain)?,
            mainstay: fared(Who::Mainstay)?,
            healthy_p99: healthy.figures()?.p99,
            events: stage.mainstay.events(),
            took,
        })
    }

    pub(crate) fn json(&self) -> Value {
        let client = |fared: &Fared| {
            json!({
                "requests": fared.figures.requests,
                "failures": fared.figures.failures,
                "success_rate": fared.figures.success_rate(),
                "p50_ms": milliseconds(fared.figures.p50),
                "p99_ms": milliseconds(fared.figures.p99),
                "p999_ms": milliseconds(fared.figures.p999),
                "attempts_per_request": fared.attempts_per_request,
            })
        };
        let met: serde_json::Map<_, _> =
            self.owed().into_iter().map(|owed| (owed.key.to_owned(), owed.met.into())).collect();
        json!({
            "plain": client(&self.plain),
            "mainstay": client(&self.mainstay),
            "events": self.events,
            "healthy_p99_ms": milliseconds(self.healthy_p99),
            "met": met,
            "seconds": self.took.as_secs_f64(),
        })
    }

    fn owed(&self) -> [Owed; 4] {
        let Self { plain, mainstay, .. } = self;
        let most = self.healthy_p99.mul_f64(P99_TO_HEALTHY);
        let rate = mainstay.figures.success_rate();
        [
            Owed {
                key: "success_rate",
                text: format!("mainstay succeeds, at least {}", percent(Some(SUCCESS_RATE), 1)),
                found: percent(Some(rate), 2),
                met: rate >= SUCCESS_RATE,
            },
            Owed {
                key: "plain_suffers",
                text: format!("the plain client suffers, below {}", percent(Some(SUFFERING), 1)),
                found: percent(Some(plain.figures.success_rate()), 2),
                met: plain.figures.success_rate() < SUFFERING,
            },
            Owed {
                key: "p99",
                text: format!(
                    "mainstay's p99, at most {P99_TO_HEALTHY} times the healthy one: {}",
                    time(Some(most))
                ),
                found: time(Some(mainstay.figures.p99)),
                met: mainstay.figures.p99 <= most,
            },
            Owed {
                key: "attempts_per_request",
                text: format!("mainstay's attempts per request, at most {ATTEMPTS_PER_REQUEST:.2}"),
                found: format!("{:.3}", mainstay.attempts_per_request),
                met: mainstay.attempts_per_request <= ATTEMPTS_PER_REQUEST,
            },
        ]
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { plain, mainstay, healthy_p99, events, took } = self;
        writeln!(
            f,
            "In the {} s from the first fault on, each client was given the same {}\n\
             requests. The plain client lost {} of them, mainstay {}. Latency counts from\n\
             the moment a request was due, for failed requests too.\n",
            (script::END - script::TROUBLE).as_secs(),
            mainstay.figures.requests,
            plain.figures.failures,
            mainstay.figures.failures,
        )?;
        writeln!(
            f,
            "{:11}{:>10}{:>10}{:>10}{:>10}{:>24}",
            "client", "success", "p50", "p99", "p99.9", "attempts per request"
        )?;
        for (who, fared) in [(Who::Plain, plain), (Who::Mainstay, mainstay)] {
            let Figures { p50, p99, p999, .. } = fared.figures;
            writeln!(
                f,
                "{:11}{:>10}{:>10}{:>10}{:>10}{:>24.3}",
                who.name(),
                percent(Some(fared.figures.success_rate()), 2),
                time(Some(p50)),
                time(Some(p99)),
                time(Some(p999)),
                fared.attempts_per_request,
            )?;
        }
        writeln!(
            f,
            "\nThe healthy p99, of both clients before the first fault: {}.\n",
            time(Some(*healthy_p99))
        )?;
        for Owed { text, found, met, .. } in self.owed() {
            writeln!(f, "{text:57}{found:>10}   {}", if met { "met" } else { "MISSED" })?;
        }
        let events: Vec<_> = events.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
        let events = if events.is_empty() { "none".to_owned() } else { events.join(", ") };
        writeln!(f, "\nmainstay's events: {events}.")?;
        writeln!(f, "It took {:.1} s.", took.as_secs_f64())
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
