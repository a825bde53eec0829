//! The example `bulk_insert`: the rows in the table and in the file of the rejects.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::Signal;
use sqlx::postgres::PgConnection;
use sqlx::sqlite::SqliteConnection;
use sqlx::{Connection, query_as, query_scalar};
use tokio::runtime::Runtime;

use crate::cluster::{self, Cluster};
use crate::harness::{Ended, Program, Sandbox};

/// A row of the table, without its file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Person {
    line: i64,
    email: String,
    name: String,
    age: i16,
}

/// A CSV file with bad rows, and the database and the file of the rejects of its runs.
pub(crate) struct Import<'s> {
    pub(crate) sandbox: &'s Sandbox,
    csv: PathBuf,
    pub(crate) database: String,
    rejects: PathBuf,
    /// The people of all rows that can be parsed, by line.
    people: BTreeMap<i64, Person>,
    /// The lines that must be rejected. The second line of a pair has the email of another row, and any of both is rejected.
    bad: Vec<(i64, Option<i64>)>,
}

impl<'s> Import<'s> {
    /// Writes a file in which one row of `every` is bad.
    pub(crate) fn new(sandbox: &'s Sandbox, database: String, rows: i64, every: i64) -> Self {
        let (mut text, mut people, mut bad) = ("email,name,age\n".to_owned(), BTreeMap::new(), Vec::new());
        for line in 2..rows + 2 {
            let mut person =
                Person { line, email: format!("{line}@site.example"), name: format!("No. {line}"), age: 40 };
            if line % every == every / 2 {
                let other = match bad.len() % 3 {
                    0 => {
                        text += &format!("{},\"{},40\n", person.email, person.name);
                        bad.push((line, None));
                        continue;
                    }
                    1 => {
                        person.age = 151;
                        None
                    }
                    _ => {
                        person.email = format!("{}@site.example", line - 7);
                        Some(line - 7)
                    }
                };
                bad.push((line, other));
            }
            text += &format!("{},\"{}\",{}\n", person.email, person.name, person.age);
            people.insert(line, person);
        }
        let csv = sandbox.file("people.csv", text);
        Self { sandbox, csv, database, rejects: sandbox.path("rejects.csv"), people, bad }
    }

    /// Twenty thousand rows, of which 60 are bad, for a new SQLite file.
    pub(crate) fn into_sqlite(sandbox: &'s Sandbox, name: &str) -> Self {
        Self::new(sandbox, sandbox.path(name).display().to_string(), 20_000, 333)
    }

    /// The same rows for a new PostgreSQL database.
    pub(crate) fn into_postgres(sandbox: &'s Sandbox) -> Self {
        let url = Runtime::new().unwrap().block_on(cluster::shared().database());
        Self::new(sandbox, url, 20_000, 333)
    }

    pub(crate) fn run(&self) -> Program<'s> {
        self.run_with(&self.database, &self.rejects)
    }

    fn run_with(&self, database: &str, rejects: &Path) -> Program<'s> {
        let program = self.sandbox.example("bulk_insert").arg(&self.csv);
        program.args(["--database", database]).arg("--rejects").arg(rejects)
    }

    fn table(&self) -> Vec<Person> {
        const ALL: &str = "SELECT line, email, name, age FROM people ORDER BY line";
        Runtime::new().unwrap().block_on(async {
            if self.database.starts_with("postgres://") {
                let mut connection = PgConnection::connect(&self.database).await.unwrap();
                return people(query_as(ALL).fetch_all(&mut connection).await.unwrap());
            }
            let mut connection = SqliteConnection::connect(&self.database).await.unwrap();
            people(query_as(ALL).fetch_all(&mut connection).await.unwrap())
        })
    }

    /// Returns the number of rows in the table, which may not exist yet.
    pub(crate) fn rows(&self) -> i64 {
        const COUNT: &str = "SELECT count(*) FROM people";
        Runtime::new().unwrap().block_on(async {
            if self.database.starts_with("postgres://") {
                let mut connection = PgConnection::connect(&self.database).await.unwrap();
                return query_scalar(COUNT).fetch_one(&mut connection).await.unwrap_or_default();
            }
            let Ok(mut connection) = SqliteConnection::connect(&self.database).await else { return 0 };
            query_scalar(COUNT).fetch_one(&mut connection).await.unwrap_or_default()
        })
    }

    /// Returns the reasons in the file of the rejects, by line.
    fn rejects(&self) -> BTreeMap<i64, String> {
        let text = fs::read_to_string(&self.rejects).unwrap();
        let mut lines = text.lines();
        assert_eq!(lines.next(), Some("line,reason,row"));
        let mut rejects = BTreeMap::new();
        for line in lines {
            let (number, reason) = line.split_once(',').unwrap();
            let is_new = rejects.insert(number.parse().unwrap(), reason.to_owned()).is_none();
            assert!(is_new, "line {number} is rejected twice");
        }
        rejects
    }

    /// After a complete run, each row is in the table or in the rejects, and in no other place.
    #[track_caller]
    pub(crate) fn is_complete(&self, ended: &Ended) {
        ended.exits(0);
        let (table, rejects) = (self.table(), self.rejects());
        let inserted: BTreeSet<i64> = table.iter().map(|person| person.line).collect();
        assert_eq!(inserted.len(), table.len(), "no row is in the table twice");
        for person in &table {
            assert_eq!(Some(person), self.people.get(&person.line));
        }
        assert_eq!(table.len() + rejects.len(), self.people.len() + self.bad.len().div_ceil(3));
        assert_eq!(rejects.len(), self.bad.len());
        for (line, twin) in &self.bad {
            let rejected = twin.filter(|twin| rejects.contains_key(twin)).unwrap_or(*line);
            assert!(rejects.contains_key(&rejected) && !inserted.contains(&rejected), "line {line}");
        }
        let counts = |count, what| format!("{count:10}  {what}\n");
        ended.out_has(&counts(rejects.len(), "rejected")).out_has(&counts(0, "left"));
    }
}

fn people(rows: Vec<(i64, String, String, i16)>) -> Vec<Person> {
    rows.into_iter().map(|(line, email, name, age)| Person { line, email, name, age }).collect()
}

/// Inserts all rows, and then again.
fn inserts_each_row_once(import: &Import<'_>) {
    assert_eq!(import.bad.len(), 60);
    let first = import.run().run();
    import.is_complete(&first);
    first.out_has("20000 of 20000 rows in ").out_has("     19940  inserted\n");
    let table = import.table();
    let again = import.run().run();
    import.is_complete(&again);
    again.out_has("         0  inserted\n     19940  recovered: inserted by an earlier run\n");
    assert_eq!(import.table(), table);
}

#[test]
fn bulk_insert_inserts_each_row_once_and_rejects_the_bad_ones() {
    let sandbox = Sandbox::new();
    let import = Import::into_sqlite(&sandbox, "people.db");
    inserts_each_row_once(&import);
    let reasons = import.rejects();
    let reason = |at: usize| reasons[&import.bad[at].0].as_str();
    assert_eq!(
        [reason(0), reason(1), reason(2)],
        [
            r#""a quote is not closed, or has text around it","166@site.example,""No. 166,40""#,
            r#""CHECK constraint failed: age BETWEEN 0 AND 150","499@site.example,""No. 499"",151""#,
            r#""UNIQUE constraint failed: people.email","825@site.example,""No. 832"",40""#,
        ]
    );
}

#[test]
fn bulk_insert_inserts_each_row_once_into_postgres() {
    let sandbox = Sandbox::new();
    inserts_each_row_once(&Import::into_postgres(&sandbox));
}

#[test]
fn bulk_insert_stops_at_too_many_bad_rows_and_continues_with_another_ratio() {
    let sandbox = Sandbox::new();
    let database = sandbox.path("people.db").display().to_string();
    let import = Import::new(&sandbox, database, 20_000, 20);
    let stopped = import.run().run();
    stopped.exits(1).err_has(&format!(
        "stopped: 201 rows are bad, and --min-success-ratio 0.99 allows 200 of 20000; see {}\n",
        import.rejects.display()
    ));
    let (inserted, rejected) = (import.table().len(), import.rejects().len());
    // The rows of the statement with the last bad row have all settled.
    assert!((201..230).contains(&rejected), "{rejected}");
    assert!((3_700..4_500).contains(&inserted), "{inserted}");
    let ended = import.run().args(["--min-success-ratio", "0.95"]).run();
    import.is_complete(&ended);
    ended.out_has(&format!("{inserted:10}  recovered: inserted by an earlier run\n"));
}

#[test]
fn bulk_insert_stops_at_ctrl_c_and_continues() {
    let sandbox = Sandbox::new();
    let database = sandbox.path("people.db").display().to_string();
    let import = Import::new(&sandbox, database, 200_000, 1_000);
    let mut run = import.run().args(["--batch-size", "50"]).start();
    run.until_err_has(" of 200000 rows, ");
    run.signal(Signal::INT);
    let ended = run.end();
    let inserted = import.table().len();
    ended.exits(130).out_has(&format!("{inserted:10}  inserted\n"));
    ended.err_has("to continue, start it again with the same arguments\n");
    assert!(inserted < 199_000, "{inserted}");
    import.is_complete(&import.run().run());
}

#[test]
fn bulk_insert_outlasts_a_crash_of_postgres() {
    let (sandbox, cluster) = (Sandbox::new(), Cluster::start());
    let url = Runtime::new().unwrap().block_on(cluster.database());
    let import = Import::new(&sandbox, url, 100_000, 1_000);
    let mut run = import.run().args(["--batch-size", "50"]).start();
    run.until_err_has(" of 100000 rows, ");
    assert!(import.rows() < 99_000, "it is still at work");
    cluster.restart_immediate();
    import.is_complete(&run.end());
}

#[test]
fn bulk_insert_does_not_blame_the_rows_for_the_database() {
    let sandbox = Sandbox::new();
    let import = Import::into_sqlite(&sandbox, "people.db");
    Runtime::new().unwrap().block_on(async {
        let url = format!("sqlite://{}?mode=rwc", import.database);
        let mut connection = SqliteConnection::connect(&url).await.unwrap();
        sqlx::raw_sql("CREATE TABLE people (other)").execute(&mut connection).await.unwrap();
    });
    let ended = import.run().run();
    ended.exits(1).err_has("stopped: the database does not insert rows: ").err_has("has no column named");
    assert_eq!(import.rejects().len(), 0);
}

#[test]
fn bulk_insert_refuses_what_it_cannot_use() {
    let sandbox = Sandbox::new();
    let import = Import::new(&sandbox, sandbox.path("people.db").display().to_string(), 10, 1_000);
    let refused = [
        (["--min-success-ratio", "1.5"], "--min-success-ratio must be between 0 and 1, got 1.5"),
        (["--batch-size", "0"], "invalid value '0' for '--batch-size <NUMBER>'"),
        (["--concurrency", "0"], "invalid value '0' for '--concurrency <NUMBER>'"),
    ];
    for (arguments, why) in refused {
        import.run().args(arguments).run().is_refused(why);
    }
    let missing = sandbox.path("missing.csv");
    let refusal = format!("cannot read {}: No such file", missing.display());
    sandbox.example("bulk_insert").arg(&missing).run().is_refused(&refusal);
    let other = sandbox.file("other.csv", "a,b\n1,2\n");
    let refusal = format!("cannot read {}: its first line must be \"email,name,age\"", other.display());
    sandbox.example("bulk_insert").arg(&other).run().is_refused(&refusal);
    let long = sandbox.file("long.csv", format!("email,name,age\n{}", "x".repeat(70_000)));
    let refusal = format!("cannot read {}: line 2 has 65536 bytes or more", long.display());
    sandbox.example("bulk_insert").arg(&long).run().is_refused(&refusal);
    let ended = import.run_with("postgres://localhost:1/people", &import.rejects).run();
    ended.exits(1).out_is("").err_has("cannot open the --database: ");
    let ended = import.run_with(&import.database, Path::new("/not there/rejects.csv")).run();
    ended.exits(1).out_is("").err_has("cannot write the --rejects /not there/rejects.csv: ");
}
