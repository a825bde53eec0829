//! The CSV file: its rows one by one, and what a row means. A file with line breaks inside of its fields needs a real parser
//! of CSV.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use sha2::{Digest, Sha256};

const HEADER: &str = "email,name,age";

/// The maximum number of bytes in a row, so that a file without line breaks does not fill the memory.
const MAX_ROW: u64 = 64 * 1024;

/// A row as it is in the file.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    /// Its line in the file, from 1. Line 1 is the header.
    pub(crate) line: i64,
    pub(crate) text: String,
}

/// A row that the table may take.
#[derive(Debug)]
pub(crate) struct Person {
    pub(crate) line: i64,
    pub(crate) email: String,
    pub(crate) name: String,
    pub(crate) age: i16,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum ParseError {
    #[error("it is not UTF-8")]
    Text,
    #[error("it has a control character")]
    Control,
    #[error("a quote is not closed, or has text around it")]
    Quote,
    #[error("3 fields are required, got {0}")]
    Fields(usize),
    #[error("the age is not a number")]
    Age,
}

/// The rows that are not read yet.
#[derive(Debug)]
pub(crate) struct CsvFile {
    reader: BufReader<File>,
    line: i64,
    /// The number of rows in the file, without the header.
    pub(crate) rows: usize,
    /// The first bytes of its SHA-256. The rows of two files never count as the same.
    pub(crate) id: i64,
}

impl CsvFile {
    /// Reads the file once, for the number of its rows and its checksum.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file = || Ok::<_, io::Error>(BufReader::with_capacity(1 << 18, File::open(path)?));
        let mut csv = Self { reader: file()?, line: 0, rows: 0, id: 0 };
        let header = csv.next_line()?.map(|row| row.text);
        if header.as_deref() != Some(HEADER) {
            return Err(io::Error::other(format!("its first line must be {HEADER:?}")));
        }
        let mut sha256 = Sha256::new();
        while let Some(row) = csv.next_line()? {
            sha256.update(row.text.as_bytes());
            sha256.update(b"\n");
            csv.rows += 1;
        }
        let id = sha256.finalize().iter().take(8).fold(0, |id, byte| id << 8 | i64::from(*byte));
        csv = Self { reader: file()?, line: 0, id, ..csv };
        csv.next_line()?;
        Ok(csv)
    }

    fn next_line(&mut self) -> io::Result<Option<Row>> {
        let mut bytes = Vec::new();
        self.line += 1;
        if self.reader.by_ref().take(MAX_ROW).read_until(b'\n', &mut bytes)? == 0 {
            return Ok(None);
        }
        if bytes.len() as u64 == MAX_ROW && !bytes.ends_with(b"\n") {
            return Err(io::Error::other(format!("line {} has {MAX_ROW} bytes or more", self.line)));
        }
        let text = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        Ok(Some(Row { line: self.line, text: String::from_utf8_lossy(text).into_owned() }))
    }
}

impl Iterator for CsvFile {
    type Item = io::Result<Row>;

    fn next(&mut self) -> Option<io::Result<Row>> {
        self.next_line().transpose()
    }
}

impl Row {
    pub(crate) fn parse(&self) -> Result<Person, ParseError> {
        if self.text.contains(char::REPLACEMENT_CHARACTER) {
            return Err(ParseError::Text);
        }
        // Some databases do not store these.
        if self.text.contains(|letter: char| letter.is_control()) {
            return Err(ParseError::Control);
        }
        let fields = fields(&self.text).ok_or(ParseError::Quote)?;
        let [email, name, age] =
            <[String; 3]>::try_from(fields).map_err(|all| ParseError::Fields(all.len()))?;
        let age = age.trim().parse().map_err(|_| ParseError::Age)?;
        Ok(Person { line: self.line, email, name, age })
    }
}

/// Splits a row into its fields. A quoted field may contain commas, and each of its quotes is doubled.
fn fields(row: &str) -> Option<Vec<String>> {
    let (mut fields, mut rest) = (Vec::new(), row);
    loop {
        let (field, after) = match rest.strip_prefix('"') {
            Some(quoted) => unquote(quoted)?,
            None => {
                let (field, after) = rest.split_at(rest.find(',').unwrap_or(rest.len()));
                (field.to_owned(), after)
            }
        };
        fields.push(field);
        match after.strip_prefix(',') {
            Some(next) => rest = next,
            None if after.is_empty() => return Some(fields),
            None => return None,
        }
    }
}

/// Returns the quoted field that begins here, and the text after it.
fn unquote(mut rest: &str) -> Option<(String, &str)> {
    let mut field = String::new();
    loop {
        let (part, after) = rest.split_once('"')?;
        field += part;
        match after.strip_prefix('"') {
            Some(next) => rest = next,
            None => return Some((field, after)),
        }
        field.push('"');
    }
}

pub(crate) fn quote(field: &str) -> String {
    format!("\"{}\"", field.replace('"', "\"\""))
}
