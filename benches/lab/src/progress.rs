//! How far the runs are: a bar on a terminal, a line every tenth elsewhere.

use std::{
    collections::BTreeMap,
    io::{IsTerminal, stderr},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

/// Shown on standard error, so that tables can go elsewhere.
#[derive(Debug)]
pub struct Progress {
    shown: Shown,
    total: AtomicUsize,
    state: Mutex<State>,
}

#[derive(Debug)]
enum Shown {
    Bar(ProgressBar),
    Lines { since: Instant },
    Nothing,
}

#[derive(Debug, Default)]
struct State {
    done: usize,
    /// How many runs of a scenario are at work, by its name.
    running: BTreeMap<&'static str, usize>,
}

impl Progress {
    /// A bar, or lines if standard error is no terminal.
    #[allow(clippy::disallowed_methods, reason = "a person waits for it in real time")]
    pub fn shown() -> Self {
        if !stderr().is_terminal() {
            return Self::of(Shown::Lines { since: Instant::now() });
        }
        let style = "{bar:20} {pos}/{len} runs, {elapsed} gone, {eta} to go  {wide_msg}";
        let style = ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar());
        Self::of(Shown::Bar(ProgressBar::no_length().with_style(style)))
    }

    /// Nothing at all.
    pub fn hidden() -> Self {
        Self::of(Shown::Nothing)
    }

    fn of(shown: Shown) -> Self {
        Self { shown, total: AtomicUsize::new(0), state: Mutex::default() }
    }

    pub(crate) fn start(&self, total: usize) {
        self.total.store(total, Ordering::Relaxed);
        if let Shown::Bar(bar) = &self.shown {
            bar.set_length(total as u64);
            bar.enable_steady_tick(Duration::from_millis(250));
        }
    }

    pub(crate) fn begins(&self, scenario: &'static str) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        *state.running.entry(scenario).or_default() += 1;
        self.show(&state);
    }

    pub(crate) fn ends(&self, scenario: &'static str) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.done += 1;
        if let Some(running) = state.running.get_mut(scenario) {
            *running -= 1;
        }
        state.running.retain(|_, running| *running > 0);
        if let Shown::Lines { since } = &self.shown {
            let total = self.total.load(Ordering::Relaxed);
            let tenth = |done: usize| done * 10 / total.max(1);
            if tenth(state.done) > tenth(state.done - 1) {
                eprintln!("{}", line(state.done, total, *since, scenario));
            }
        }
        self.show(&state);
    }

    fn show(&self, state: &State) {
        if let Shown::Bar(bar) = &self.shown {
            bar.set_position(state.done as u64);
            bar.set_message(state.running.keys().copied().collect::<Vec<_>>().join(", "));
        }
    }

    pub(crate) fn finish(&self) {
        if let Shown::Bar(bar) = &self.shown {
            bar.finish_and_clear();
        }
    }
}

#[allow(clippy::disallowed_methods, reason = "a person waits for it in real time")]
fn line(done: usize, total: usize, since: Instant, scenario: &str) -> String {
    let gone = Instant::now().saturating_duration_since(since).as_secs();
    format!("{:>3} %  {done}/{total} runs, {gone} s gone, last of {scenario}", done * 100 / total.max(1))
}
