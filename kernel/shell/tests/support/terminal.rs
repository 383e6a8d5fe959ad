//! The terminal.

/// A screen that does what a VT100 does with the few things that the editor sends. It
/// panics on anything else. A line break gets its CR here, as from a terminal's driver.
pub(crate) struct Terminal {
    rows: Vec<Vec<char>>,
    columns: usize,
    row: usize,
    column: usize,
    /// The last column was written: the next character goes to the next row.
    wraps: bool,
    sequence: Option<String>,
    pub(crate) bells: usize,
    /// Characters received.
    pub(crate) received: usize,
}

impl Terminal {
    pub(crate) fn new(columns: usize, rows: usize) -> Self {
        Self {
            rows: vec![vec![' '; columns]; rows],
            columns,
            row: 0,
            column: 0,
            wraps: false,
            sequence: None,
            bells: 0,
            received: 0,
        }
    }

    /// What is in the row of the cursor, without blanks at its end.
    pub(crate) fn line(&self) -> String {
        let text: String = self.rows[self.row].iter().collect();
        text.trim_end().into()
    }

    /// Rows from the top, without blanks at their ends and empty rows at the end.
    pub(crate) fn text(&self) -> String {
        let rows = self.rows.iter().map(|row| {
            let text: String = row.iter().collect();
            text.trim_end().to_owned() + "\n"
        });
        rows.collect::<String>().trim_end_matches('\n').into()
    }

    pub(crate) fn column(&self) -> usize {
        self.column
    }

    pub(crate) fn put(&mut self, text: &str) {
        text.chars().for_each(|c| self.take(c));
    }

    fn take(&mut self, c: char) {
        self.received += 1;
        if let Some(sequence) = &mut self.sequence {
            sequence.push(c);
            if sequence.len() > 1 && c.is_ascii_alphabetic() {
                let sequence = self.sequence.take().unwrap();
                self.control(&sequence);
            }
            return;
        }
        match c {
            '\x1b' => self.sequence = Some(String::new()),
            '\x07' => self.bells += 1,
            '\x08' => {
                assert!(self.column > 0, "BS in the first column");
                self.column -= 1;
                self.wraps = false;
            }
            '\r' => (self.column, self.wraps) = (0, false),
            '\n' => {
                (self.column, self.wraps) = (0, false);
                self.down();
            }
            ' '..='~' | '\u{a0}'.. => {
                if self.wraps {
                    self.column = 0;
                    self.down();
                }
                self.rows[self.row][self.column] = c;
                self.wraps = self.column + 1 == self.columns;
                if !self.wraps {
                    self.column += 1;
                }
            }
            other => panic!("{other:?} is not for a terminal"),
        }
    }

    fn down(&mut self) {
        if self.row + 1 == self.rows.len() {
            self.rows.remove(0);
            self.rows.push(vec![' '; self.columns]);
        } else {
            self.row += 1;
        }
    }

    fn control(&mut self, sequence: &str) {
        let body = sequence.strip_prefix('[').expect("a CSI");
        let (number, last) = body.split_at(body.len() - 1);
        let number: Option<usize> = (!number.is_empty()).then(|| number.parse().unwrap());
        self.wraps = false;
        match (last, number) {
            ("C", Some(n)) => {
                self.column += n;
                assert!(n > 0 && self.column < self.columns, "right by {n}");
            }
            ("D", Some(n)) => {
                assert!(n > 0 && n <= self.column, "left by {n}");
                self.column -= n;
            }
            ("K", None) => self.rows[self.row][self.column..].fill(' '),
            ("H", None) => (self.row, self.column) = (0, 0),
            ("J", None) => {
                self.rows[self.row][self.column..].fill(' ');
                for row in &mut self.rows[self.row + 1..] {
                    row.fill(' ');
                }
            }
            _ => panic!("CSI {body} is not for a VT100"),
        }
    }
}

impl core::fmt::Write for Terminal {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        self.put(text);
        Ok(())
    }
}
