//! Columns for people: as wide as they need, two spaces apart, numbers to the right.

use std::io::{self, Write};

/// Rows of cells under a head. A head that begins with `>` is a column of numbers.
#[derive(Debug)]
pub(crate) struct Table {
    head: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(head: &[&'static str]) -> Self {
        Self { head: head.to_vec(), rows: Vec::new() }
    }

    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    pub(crate) fn print(&self, out: &mut dyn Write) -> io::Result<()> {
        let titles: Vec<String> =
            self.head.iter().map(|title| title.trim_start_matches('>').to_owned()).collect();
        let widths: Vec<usize> = (0..titles.len()).map(|column| self.width(column, &titles)).collect();
        self.line(out, &titles, &widths)?;
        self.rows.iter().try_for_each(|row| self.line(out, row, &widths))
    }

    fn width(&self, column: usize, titles: &[String]) -> usize {
        let cells = self.rows.iter().filter_map(|row| row.get(column)).chain(titles.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    }

    fn line(&self, out: &mut dyn Write, cells: &[String], widths: &[usize]) -> io::Result<()> {
        let mut line = String::new();
        for ((cell, width), title) in cells.iter().zip(widths).zip(&self.head) {
            let gap = " ".repeat(width - cell.chars().count());
            let (before, after) =
                if title.starts_with('>') { (gap.as_str(), "") } else { ("", gap.as_str()) };
            line.extend([before, cell, after, "  "]);
        }
        writeln!(out, "{}", line.trim_end())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_stands_left_and_numbers_right() {
        let mut table = Table::new(&["SERVICE", ">MEMORY"]);
        table.row(["reports".to_owned(), "84 MiB".to_owned()]);
        table.row(["x".to_owned(), "1.5 GiB".to_owned()]);
        let mut out = Vec::new();
        table.print(&mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "SERVICE   MEMORY\nreports   84 MiB\nx        1.5 GiB\n");
    }
}
