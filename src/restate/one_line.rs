//! Shows text from elsewhere in a message.

use std::fmt::{self, Display, Formatter, Write};

/// How many characters of the text a message contains.
const LONGEST: usize = 400;

/// Text in one line, cut if it is long. A handler may fail with any text, and the engine's own errors have stack traces.
pub(super) struct OneLine<T>(pub(super) T);

impl<T: Display> Display for OneLine<T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut line = Line { out: f, left: LONGEST };
        // A line that is full ends the text with an error.
        match write!(line, "{}", self.0) {
            Err(_) if line.left == 0 => f.write_str("..."),
            written => written,
        }
    }
}

/// The line that the text is written to.
struct Line<'a, 'b> {
    out: &'a mut Formatter<'b>,
    left: usize,
}

impl Write for Line<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            self.left = self.left.checked_sub(1).ok_or(fmt::Error)?;
            if c.is_control() || ['\u{2028}', '\u{2029}'].contains(&c) {
                write!(self.out, "{}", c.escape_debug())?;
            } else {
                self.out.write_char(c)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_one_line_and_cut() {
        assert_eq!(OneLine("plain `text` with \"quotes\"").to_string(), "plain `text` with \"quotes\"");
        assert_eq!(OneLine("a\r\nb\u{1b}[31m\u{2028}").to_string(), r"a\r\nb\u{1b}[31m\u{2028}");
        let full = "ä".repeat(LONGEST);
        assert_eq!(OneLine(&full).to_string(), full);
        assert_eq!(OneLine(format!("{full}b")).to_string(), format!("{full}..."));
    }

    #[test]
    fn a_text_of_many_pieces_is_cut_as_one() {
        let pieces = format_args!("{}{}", "a".repeat(LONGEST - 1), "bcd").to_string();
        assert!(OneLine(pieces).to_string().ends_with("ab..."));
    }
}
