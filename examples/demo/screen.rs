//! The live view: a progress bar and two tables on a terminal, one line a second elsewhere.

use std::{
    fmt::Write as _,
    io::{self, IsTerminal as _, Write as _},
    time::{Duration, Instant},
};

use mainstay::clock;
use tokio::time::sleep_until;

use crate::{
    client::Who,
    script,
    server::Mode,
    stage::{Shares, Stage},
    tally::{Figures, Recent},
};

const RED: &str = "\x1b[31m";
const YELLOW: &str = "\x1b[33m";
const BOLD: &str = "\x1b[1m";

/// Shows the stage until the script has ended.
pub(crate) async fn show(stage: &Stage) {
    let live = io::stdout().is_terminal();
    let period = if live { Duration::from_millis(250) } else { Duration::from_secs(1) };
    let mut screen = Screen {
        stage,
        shares: Shares::default(),
        told: 0,
        height: 0,
        colours: std::env::var_os("NO_COLOR").is_none(),
    };
    let mut at = Duration::ZERO;
    while at <= script::END {
        sleep_until((stage.start + at).into()).await;
        let now = clock::now();
        let text = if live { screen.frame(now) } else { screen.line(now) };
        // Nobody looking is no reason to stop.
        let _ = io::stdout().write_all(text.as_bytes()).and_then(|()| io::stdout().flush());
        at += period;
    }
}

struct Screen<'a> {
    stage: &'a Stage,
    shares: Shares,
    /// Steps of the script that have been told.
    told: usize,
    /// Lines of the frame that stands on the terminal.
    height: usize,
    colours: bool,
}

impl Screen<'_> {
    /// The text that puts the current frame in the place of the last one.
    fn frame(&mut self, now: Instant) -> String {
        let elapsed = now.saturating_duration_since(self.stage.start);
        self.shares.sample(elapsed, &self.stage.servers);
        let mut lines = vec![progress(elapsed), String::new()];
        self.servers(now, &mut lines);
        lines.push(String::new());
        self.clients(now, &mut lines);

        // Without line wrap a narrow terminal cuts the lines and the frame keeps its height.
        let mut text = String::from("\x1b[?7l");
        if self.height > 0 {
            let _ = write!(text, "\x1b[{}A", self.height);
        }
        for line in self.news(elapsed) {
            let _ = writeln!(text, "\x1b[2K{}", self.paint(BOLD, &line));
        }
        for line in &lines {
            let _ = writeln!(text, "\x1b[2K{line}");
        }
        text.push_str("\x1b[?7h");
        self.height = lines.len();
        text
    }

    /// What has happened since the last line, and where the clients stand.
    fn line(&mut self, now: Instant) -> String {
        let elapsed = now.saturating_duration_since(self.stage.start);
        let mut text = String::new();
        for line in self.news(elapsed) {
            let _ = writeln!(text, "{line}");
        }
        let _ = write!(text, "{:4.0} s ", elapsed.as_secs_f64());
        for who in Who::BOTH {
            let figures = self.stage.tally(who).recent(now);
            let (success, p99) = (success(figures), time(figures.map(|figures| figures.p99)));
            let _ = write!(text, "  {}: success {success:>8}, p99 {p99:>8}", who.name());
        }
        text.push('\n');
        text
    }

    /// The steps of the script that are new since the last call.
    fn news(&mut self, elapsed: Duration) -> Vec<String> {
        let due = script::STEPS.iter().take_while(|step| step.at <= elapsed).count();
        let new = script::STEPS.get(self.told..due).unwrap_or_default();
        self.told = due;
        new.iter().map(|step| format!("{:4.1} s  {}", step.at.as_secs_f64(), step.text)).collect()
    }

    fn servers(&self, now: Instant, lines: &mut Vec<String>) {
        let head = format!(
            "{:20}{:15}{:18}{:>8}{:>10}{:>9}",
            "server", "is", "mainstay sees", "plain", "mainstay", "p99"
        );
        lines.push(self.paint(BOLD, &head));
        let states = self.stage.mainstay.states();
        for (index, server) in self.stage.servers.iter().enumerate() {
            let state = states.get(&server.address()).map_or("-", String::as_str);
            let joined = index < script::AT_FIRST || state != "-" || server.mode() != Mode::Down;
            let (colour, condition) = match server.mode() {
                Mode::Normal => ("", "healthy"),
                Mode::Slow => (RED, "100x slower"),
                Mode::Failing => (RED, "answering 500"),
                Mode::Hanging => (RED, "hanging"),
                Mode::Down if joined => (RED, "killed"),
                Mode::Down => ("", "not yet here"),
            };
            let condition = self.paint(colour, &format!("{condition:15}"));
            let colour = if matches!(state, "available" | "-") { "" } else { YELLOW };
            let state = self.paint(colour, &format!("{state:<18.17}"));
            let [plain, mainstay] =
                Who::BOTH.map(|who| percent(self.shares.of(index, who).filter(|_| joined), 1));
            let p99 = time(server.answers(now).map(|figures| figures.p99));
            let who = format!("{}  {}", script::name(index), server.address());
            lines.push(format!("{who:20}{condition}{state}{plain:>8}{mainstay:>10}{p99:>9}"));
        }
    }

    fn clients(&self, now: Instant, lines: &mut Vec<String>) {
        let trouble = format!("since {} s", script::TROUBLE.as_secs());
        let recent = format!("last {} s", Recent::SPAN.as_secs());
        let head =
            format!("{:13}{:15}{:>11}{:>11}{:>11}{:>11}", "client", "", "success", "p50", "p99", "p99.9");
        lines.push(self.paint(BOLD, &head));
        for who in Who::BOTH {
            let tally = self.stage.tally(who);
            for (span, figures) in [(&recent, tally.recent(now)), (&trouble, tally.trouble().figures())] {
                let poor = figures.is_some_and(|figures| figures.success_rate() < 0.999);
                let success = self.paint(if poor { RED } else { "" }, &format!("{:>11}", success(figures)));
                let [p50, p99, p999] = [
                    time(figures.map(|figures| figures.p50)),
                    time(figures.map(|figures| figures.p99)),
                    time(figures.map(|figures| figures.p999)),
                ];
                lines.push(format!("{:13}{span:15}{success}{p50:>11}{p99:>11}{p999:>11}", who.name()));
            }
        }
    }

    fn paint(&self, colour: &str, text: &str) -> String {
        if self.colours && !colour.is_empty() { format!("{colour}{text}\x1b[0m") } else { text.to_owned() }
    }
}

fn progress(elapsed: Duration) -> String {
    const WIDTH: usize = 50;
    let elapsed = elapsed.min(script::END).as_secs_f64();
    let full = ((elapsed / script::END.as_secs_f64()) * WIDTH as f64) as usize;
    let bar = "█".repeat(full) + &"░".repeat(WIDTH - full);
    format!("{bar}  {elapsed:4.1} of {:.0} s", script::END.as_secs_f64())
}

fn success(figures: Option<Figures>) -> String {
    percent(figures.map(|figures| figures.success_rate()), 2)
}

/// Cut, not rounded: 99.99 % is not 100 %.
pub(crate) fn percent(share: Option<f64>, places: i32) -> String {
    let unit = 10_f64.powi(places);
    let cut = |share: f64| (share * 100.0 * unit + 1e-6).floor() / unit;
    share.map_or("-".to_owned(), |share| format!("{:.*} %", places as usize, cut(share)))
}

/// Milliseconds, with a decimal where it says something.
pub(crate) fn time(time: Option<Duration>) -> String {
    let Some(time) = time else { return "-".to_owned() };
    let milliseconds = time.as_secs_f64() * 1e3;
    if milliseconds < 100.0 { format!("{milliseconds:.1} ms") } else { format!("{milliseconds:.0} ms") }
}
