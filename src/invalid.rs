//! Options that do not hold together, told all at once.

use std::{borrow::Cow, fmt, time::Duration};

/// Everything that is wrong with a set of options.
///
/// Building a client or a policy checks every option and every rule between options before anything is made, so one
/// try shows all the mistakes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", Listed(.problems))]
pub struct Invalid {
    problems: Vec<Problem>,
}

impl Invalid {
    /// The mistakes, in the order of the options.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

/// One option, or pair of options, that breaks a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Problem {
    /// The path of the option, for example `retry.backoff.base`.
    pub field: String,
    /// What it was set to.
    pub value: String,
    /// The rule that it breaks, with the range.
    pub rule: Cow<'static, str>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = {}: {}", self.field, self.value, self.rule)
    }
}

struct Listed<'a>(&'a [Problem]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invalid options: ")?;
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                write!(f, "; ")?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

/// Collects problems while options are checked.
#[derive(Debug, Default)]
pub(crate) struct Check {
    prefix: Vec<&'static str>,
    problems: Vec<Problem>,
}

impl Check {
    /// All that `check` finds.
    pub(crate) fn of(check: impl FnOnce(&mut Self)) -> Result<(), Invalid> {
        let mut found = Self::default();
        check(&mut found);
        found.finish()
    }

    /// Notes a problem with `field` unless `holds`.
    pub(crate) fn rule(
        &mut self,
        holds: bool,
        field: &str,
        value: impl fmt::Debug,
        rule: impl Into<Cow<'static, str>>,
    ) -> &mut Self {
        if !holds {
            let mut path = self.prefix.join(".");
            if !path.is_empty() && !field.is_empty() {
                path.push('.');
            }
            path.push_str(field);
            self.problems.push(Problem { field: path, value: format!("{value:?}"), rule: rule.into() });
        }
        self
    }

    /// Checks a duration that must be more than nothing and at most ten years (so that adding it to a time is safe).
    pub(crate) fn duration(&mut self, field: &str, value: Duration) -> &mut Self {
        self.rule(!value.is_zero() && value <= FOREVER, field, value, "more than 0 and at most 10 years")
    }

    /// Checks the options of a part under the part's name.
    pub(crate) fn part(&mut self, name: &'static str, check: impl FnOnce(&mut Self)) -> &mut Self {
        self.prefix.push(name);
        check(self);
        self.prefix.pop();
        self
    }

    /// Takes over what is wrong with a part, under the part's name.
    pub(crate) fn absorb(&mut self, part: &str, checked: Result<(), Invalid>) -> &mut Self {
        if let Err(invalid) = checked {
            self.problems.extend(invalid.problems.into_iter().map(|mut problem| {
                if !part.is_empty() {
                    problem.field = format!("{part}.{}", problem.field);
                }
                problem
            }));
        }
        self
    }

    /// The one problem that something necessary was not said.
    pub(crate) fn missing(field: &str) -> Invalid {
        Invalid {
            problems: vec![Problem {
                field: field.to_owned(),
                value: "nothing".to_owned(),
                rule: "is needed".into(),
            }],
        }
    }

    /// The one problem that `field` breaks a rule.
    pub(crate) fn problem(
        field: &str,
        value: impl fmt::Debug,
        rule: impl Into<Cow<'static, str>>,
    ) -> Invalid {
        Invalid {
            problems: vec![Problem {
                field: field.to_owned(),
                value: format!("{value:?}"),
                rule: rule.into(),
            }],
        }
    }

    /// Ok when no rule was broken.
    pub(crate) fn finish(self) -> Result<(), Invalid> {
        if self.problems.is_empty() { Ok(()) } else { Err(Invalid { problems: self.problems }) }
    }
}

/// The longest duration an option may have.
pub(crate) const FOREVER: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// A share of a whole, from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Ratio(f64);

impl Ratio {
    /// Nothing.
    pub const ZERO: Self = Self(0.0);
    /// The whole.
    pub const ONE: Self = Self(1.0);

    /// `value` as a ratio.
    ///
    /// # Errors
    /// [`Invalid`] if `value` is not a number from 0 to 1.
    pub fn new(value: f64) -> Result<Self, Invalid> {
        let mut check = Check::default();
        check.rule((0.0..=1.0).contains(&value), "ratio", value, "a number from 0 to 1");
        check.finish().map(|()| Self(value))
    }

    /// `PERCENT` hundredths; more than 100 does not compile.
    pub const fn percent<const PERCENT: u32>() -> Self {
        const { assert!(PERCENT <= 100, "a ratio is at most 100 %") }
        Self(PERCENT as f64 / 100.0)
    }

    /// The ratio as a number from 0 to 1.
    pub const fn get(self) -> f64 {
        self.0
    }
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} %", self.0 * 100.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_problems_are_told_at_once_with_field_value_and_rule() {
        let mut check = Check::default();
        check.duration("deadline", Duration::ZERO).part("retry", |check| {
            check.rule(false, "attempts", 0, "at least 1");
        });
        let invalid = check.finish().unwrap_err();
        assert_eq!(invalid.problems().len(), 2);
        assert_eq!(
            invalid.to_string(),
            "invalid options: deadline = 0ns: more than 0 and at most 10 years; retry.attempts = 0: at least 1"
        );
    }

    #[test]
    fn a_ratio_is_never_outside_its_range() {
        for bad in [1.3, -0.1, f64::NAN, f64::INFINITY] {
            assert!(Ratio::new(bad).is_err(), "{bad}");
        }
        assert_eq!(Ratio::percent::<20>().get(), 0.2);
    }
}
