//! Tables that can be read in plain text and as Markdown.

/// Rows of cells under a header.
#[derive(Clone, Debug)]
pub struct Table {
    header: Vec<String>,
    rows: Vec<Vec<String>>,
    /// Columns from here on are numbers, which line up at the right.
    numbers_from: usize,
}

impl Table {
    /// A table of text.
    pub fn new<T: Into<String>>(header: impl IntoIterator<Item = T>) -> Self {
        Self {
            header: header.into_iter().map(Into::into).collect(),
            rows: Vec::new(),
            numbers_from: usize::MAX,
        }
    }

    /// With numbers from a column on.
    #[must_use]
    pub fn numbers_from(mut self, column: usize) -> Self {
        self.numbers_from = column;
        self
    }

    /// Adds a row, which is filled up with empty cells.
    pub fn row<T: Into<String>>(&mut self, cells: impl IntoIterator<Item = T>) {
        let mut cells: Vec<String> = cells.into_iter().map(Into::into).collect();
        cells.resize(self.header.len(), String::new());
        self.rows.push(cells);
    }

    /// Whether it has no rows.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// As Markdown, in columns that line up.
    pub fn markdown(&self) -> String {
        let escaped = Self {
            header: self.header.iter().map(|cell| escaped(cell)).collect(),
            rows: self.rows.iter().map(|row| row.iter().map(|cell| escaped(cell)).collect()).collect(),
            numbers_from: self.numbers_from,
        };
        // A rule takes three characters at least.
        let widths: Vec<usize> = escaped.widths().into_iter().map(|width| width.max(3)).collect();
        let line = |cells: &[String]| {
            let cells =
                cells.iter().enumerate().map(|(index, cell)| escaped.padded(index, cell, widths[index]));
            format!("| {} |\n", cells.collect::<Vec<_>>().join(" | "))
        };
        let rule = widths.iter().enumerate().map(|(index, width)| {
            if index >= self.numbers_from { "-".repeat(width - 1) + ":" } else { "-".repeat(*width) }
        });
        let rule = format!("| {} |\n", rule.collect::<Vec<_>>().join(" | "));
        let rows: String = escaped.rows.iter().map(|row| line(row)).collect();
        line(&escaped.header) + &rule + &rows
    }

    /// For a terminal of so many columns: what does not fit goes on below, under the first column again.
    pub fn plain(&self, columns: usize) -> String {
        let widths = self.widths();
        let mut text = String::new();
        let mut next = 1;
        loop {
            let mut shown = vec![0];
            let mut width = widths.first().copied().unwrap_or_default();
            while next < widths.len() && (shown.len() == 1 || width + 2 + widths[next] <= columns) {
                shown.push(next);
                width += 2 + widths[next];
                next += 1;
            }
            for row in std::iter::once(&self.header).chain(&self.rows) {
                let cells = shown.iter().map(|&index| self.padded(index, &row[index], widths[index]));
                text += cells.collect::<Vec<_>>().join("  ").trim_end();
                text.push('\n');
            }
            if next >= widths.len() {
                return text;
            }
            text.push('\n');
        }
    }

    fn widths(&self) -> Vec<usize> {
        let width = |(index, own): (usize, &String)| {
            let cells = self.rows.iter().map(|row| row[index].chars().count());
            cells.max().unwrap_or_default().max(own.chars().count())
        };
        self.header.iter().enumerate().map(width).collect()
    }

    fn padded(&self, index: usize, cell: &str, width: usize) -> String {
        if index >= self.numbers_from { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
    }
}

/// Text that stays in its cell.
fn escaped(cell: &str) -> String {
    cell.replace('|', "\\|").replace(['\n', '\r'], " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pipes_and_line_breaks_stay_in_their_cell() {
        let mut table = Table::new(["owed"]);
        table.row(["a | b\nc"]);
        assert_eq!(table.markdown(), "| owed     |\n| -------- |\n| a \\| b c |\n");
    }

    #[test]
    fn columns_line_up_with_text_left_and_numbers_right() {
        let mut table = Table::new(["contender", "p99_ms"]).numbers_from(1);
        table.row(["mainstay", "71.0"]);
        table.row(["tower", "1234 (900 to 2000)"]);
        let lines = [
            "| contender |             p99_ms |",
            "| --------- | -----------------: |",
            "| mainstay  |               71.0 |",
            "| tower     | 1234 (900 to 2000) |",
        ];
        assert_eq!(table.markdown().lines().collect::<Vec<_>>(), lines);
    }

    #[test]
    fn what_a_terminal_has_no_room_for_goes_on_below_under_the_first_column() {
        let mut table = Table::new(["contender", "p50_ms", "p99_ms"]).numbers_from(1);
        table.row(["tower", "40", "400"]);
        assert_eq!(
            table.plain(18),
            "contender  p50_ms\ntower          40\n\ncontender  p99_ms\ntower         400\n"
        );
    }
}
