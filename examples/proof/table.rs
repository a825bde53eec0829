//! The table of claims, and the facts that decide them.

use std::fmt::{Debug, Display};
use std::io::{self, Write};
use std::time::Duration;

use anyhow::Result;
use tokio::time::timeout;

/// The time after which a claim has failed. A run that hangs must not hang the table.
const LIMIT: Duration = Duration::from_secs(60);

/// One measurement of a claim.
struct Fact {
    measured: String,
    wanted: String,
    holds: bool,
}

/// The measurements of one claim. The claim holds if each of them does.
#[derive(Default)]
pub(crate) struct Facts(Vec<Fact>);

impl Facts {
    pub(crate) fn equal<T: PartialEq + Debug>(mut self, what: &str, measured: T, wanted: T) -> Self {
        let holds = measured == wanted;
        self.0.push(Fact { measured: format!("{what}: {measured:?}"), wanted: format!("{wanted:?}"), holds });
        self
    }

    pub(crate) fn at_least<T: PartialOrd + Debug>(mut self, what: &str, measured: T, least: T) -> Self {
        let (measured, holds) = (format!("{what}: {measured:?}"), measured >= least);
        self.0.push(Fact { measured, wanted: format!("at least {least:?}"), holds });
        self
    }

    pub(crate) fn at_most<T: PartialOrd + Debug>(mut self, what: &str, measured: T, most: T) -> Self {
        let (measured, holds) = (format!("{what}: {measured:?}"), measured <= most);
        self.0.push(Fact { measured, wanted: format!("at most {most:?}"), holds });
        self
    }
}

/// A table on stdout that grows while the claims are measured.
pub(crate) struct Table {
    rows: usize,
    failed: usize,
}

impl Table {
    pub(crate) fn begin() -> io::Result<Self> {
        print("claim", "measured", "wanted", "ok")?;
        print(&"-".repeat(CLAIM), &"-".repeat(MEASURED), &"-".repeat(WANTED), "----")?;
        Ok(Self { rows: 0, failed: 0 })
    }

    /// Measures a claim and prints its rows, one for each fact.
    pub(crate) async fn add(
        &mut self,
        claim: &str,
        measure: impl Future<Output = Result<Facts>>,
    ) -> io::Result<()> {
        let facts = match timeout(LIMIT, measure).await {
            Ok(Ok(Facts(facts))) => facts,
            Ok(Err(error)) => vec![not_measured(format!("{error:#}"))],
            Err(_) => vec![not_measured(format!("it has not ended within {LIMIT:?}"))],
        };
        let mut claim = claim;
        for Fact { measured, wanted, holds } in &facts {
            print(claim, measured, wanted, if *holds { "ok" } else { "FAIL" })?;
            claim = "";
        }
        self.rows += facts.len();
        self.failed += facts.iter().filter(|fact| !fact.holds).count();
        Ok(())
    }

    /// Prints the last line, and returns `true` if all claims hold.
    pub(crate) fn end(self, took: impl Display) -> io::Result<bool> {
        writeln!(io::stdout(), "\n{} facts in {took}, {} failed", self.rows, self.failed)?;
        Ok(self.failed == 0 && self.rows > 0)
    }
}

/// Drops what is below a millisecond, so that the table stays narrow.
pub(crate) fn whole_ms(time: Duration) -> Duration {
    Duration::from_millis(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

fn not_measured(why: String) -> Fact {
    Fact { measured: why, wanted: "a measurement".to_owned(), holds: false }
}

const CLAIM: usize = 35;
const MEASURED: usize = 57;
const WANTED: usize = 16;

fn print(claim: &str, measured: &str, wanted: &str, ok: &str) -> io::Result<()> {
    writeln!(io::stdout(), "{claim:CLAIM$} | {measured:MEASURED$} | {wanted:WANTED$} | {ok}")
}
