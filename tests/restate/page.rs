//! The commands and the configurations of the page of the module `restate`. The tests use those of the page itself.

use crate::harness::{Program, Sandbox};
use crate::server::{self, Server};

const PAGE: &str = include_str!("../../src/restate/operation.md");

/// Returns the code of one kind below a heading of the page.
pub(crate) fn code(heading: &str, kind: &str) -> String {
    let fence = format!("```{kind}");
    let (mut in_code, mut is_below, mut is_wanted) = (false, false, false);
    let mut code = String::new();
    for line in PAGE.lines() {
        if line.starts_with("```") {
            in_code = !in_code;
            is_wanted = in_code && is_below && line == fence;
        } else if !in_code && line.starts_with('#') {
            is_below = line == heading;
        } else if is_wanted {
            code.extend([line, "\n"]);
        }
    }
    assert!(!code.is_empty(), "the page has no {kind} below {heading}");
    code
}

/// Returns the page's commands for an operator, for this server.
fn operator(server: &Server) -> String {
    let admin = server.admin();
    code("# Queries for an operator", "sh").replace("localhost:9070", admin.strip_prefix("http://").unwrap())
}

/// Returns a shell command that can use the functions `ask` and `each` of the page.
fn command<'s>(sandbox: &'s Sandbox, operator: &str, command: &str) -> Program<'s> {
    let is_function = |line: &&str| line.starts_with("ask()") || line.starts_with("each()");
    let functions: Vec<_> = operator.lines().filter(is_function).collect();
    assert_eq!(functions.len(), 2, "{functions:?}");
    sandbox.program("bash").args(["-c", &format!("{}\n{command}", functions.join("\n"))])
}

/// Purges the failures of a run with the command of the page.
pub(crate) fn purge(sandbox: &Sandbox, server: &Server, run_id: &str) {
    let operator = operator(server);
    let purge = operator.lines().find(|line| line.ends_with(" | each purge")).unwrap();
    command(sandbox, &operator, &purge.replace("words-2026-11-22", run_id)).run().exits(0);
}

#[tokio::test]
async fn the_engine_answers_the_queries_of_the_page() {
    let (sandbox, server) = (Sandbox::new(), server::shared().await);
    let operator = operator(server);
    let questions: Vec<_> = operator.lines().filter(|line| line.starts_with("ask \"")).collect();
    assert!(questions.len() >= 8, "{questions:?}");
    for question in questions {
        let question = question.split(" | each ").next().unwrap();
        command(&sandbox, &operator, question).run().exits(0).out_has("\"rows\":");
    }
}
