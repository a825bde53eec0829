//! Checks the structure of the code: imports, lengths of files, words, and the names of tests.
//!
//! Every check prints the number of checked things to standard error, and fails if there are none.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The floor of each file of `src`; a file in a folder is on the floor of the folder. A file imports from lower
/// floors, or from its own without a cycle.
const FLOORS: &[(&str, u8)] = &[
    ("lib", 5),
    ("guide", 5),
    ("plan", 5),
    ("macros", 5),
    ("task", 4),
    ("over", 4),
    ("run", 4),
    ("for_each", 4),
    ("batcher", 4),
    ("stream", 4),
    ("handle", 4),
    ("builder", 4),
    ("map_task_config", 4),
    ("recover", 4),
    ("cache", 4),
    ("restate", 4),
    ("engine", 3),
    ("context", 2),
    ("checkpoint", 2),
    ("signals", 2),
    ("keyed_limiter", 2),
    ("limiter", 2),
    ("retry_budget", 2),
    ("progress", 2),
    ("observe", 2),
    ("metrics_observer", 2),
    ("run_report", 2),
    ("progress_bar", 4),
    ("config", 2),
    ("lock", 2),
    ("ctrl_c", 2),
    ("retry_after_header", 2),
    ("rt", 2),
    ("result", 1),
    ("error", 1),
    ("verdict", 1),
    ("retry", 1),
    ("store", 2),
    ("zip", 1),
    ("outcome", 0),
    ("count", 0),
    ("decimal", 0),
    ("panic_payload", 0),
    ("random", 0),
];

/// The files that `tests/explorer` does not compile. Their imports are not restricted.
const UNEXPLORED: [&str; 15] = [
    "rt",
    "batcher",
    "cache",
    "checkpoint",
    "ctrl_c",
    "guide",
    "metrics_observer",
    "run_report",
    "progress_bar",
    "macros",
    "random",
    "recover",
    "restate",
    "retry_after_header",
    "store",
];

/// The names that the explored files import from `rt` instead: everything that synchronises threads or tasks.
const PRIMITIVES: [(&str, &[&str]); 3] = [
    (
        "std::",
        &["sync::Mutex", "sync::RwLock", "sync::Condvar", "sync::mpsc", "sync::atomic::Atomic", "thread"],
    ),
    (
        "tokio::",
        &["spawn", "task", "time", "sync::Mutex", "sync::Notify", "sync::Semaphore", "sync::OwnedSemaphore"],
    ),
    ("futures::", &["channel", "lock", "task::AtomicWaker"]),
];

/// The most lines of a file.
const MOST_LINES: usize = 420;

/// The page of the guide that states the rules. Each has a test that is named after it.
const RULES: &str = include_str!("../../src/guide/rules.md");

/// These poll the output of other processes, and kill them at random instants. A test cannot pause the clock of
/// another process.
const WAIT_FOR_PROCESSES: [&str; 3] =
    ["tests/durable/kill.rs", "tests/durable/process/log.rs", "tests/examples/harness/time_limit.rs"];

/// The rules of durable runs, and of runs over Restate, that have a test each.
const RULES_OF_FEATURES: [(&str, std::ops::RangeInclusive<u8>); 2] = [("durable", 1..=8), ("restate", 1..=5)];

struct SourceFile {
    /// Relative to the root of the project, with `/` between its parts.
    path: String,
    text: String,
    /// The text without comments and quoted text; the lines are the same.
    code: String,
}

impl SourceFile {
    /// The file and folder names below `src`, without `.rs` and `mod`: `engine/worker.rs` is `[engine, worker]`.
    fn module(&self) -> Vec<&str> {
        let below = self.path.strip_prefix("src/").unwrap_or(&self.path);
        let below = below.strip_suffix(".rs").unwrap_or(below);
        below.split('/').filter(|part| *part != "mod").collect()
    }

    fn floor(&self) -> Option<u8> {
        floor(self.module().first()?)
    }

    /// The code before the file's own unit tests.
    fn code_without_tests(&self) -> &str {
        self.code.split("#[cfg(test)]").next().unwrap_or_default()
    }

    /// The lines that match, with their numbers.
    fn lines_with(&self, needle: impl Fn(&str) -> bool) -> Vec<String> {
        let found = self.code.lines().enumerate().filter(|(_, line)| needle(line));
        found.map(|(number, line)| format!("{}:{}: {}", self.path, number + 1, line.trim())).collect()
    }
}

fn floor(module: &str) -> Option<u8> {
    FLOORS.iter().find(|(name, _)| *name == module).map(|(_, floor)| *floor)
}

/// All Rust files below a folder of the project, sorted.
fn files_below(folder: &str) -> Vec<SourceFile> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders = vec![root.join(folder)];
    let mut paths: Vec<PathBuf> = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                paths.push(path);
            }
        }
    }
    paths.sort();
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap();
        let below: Vec<_> =
            path.strip_prefix(root).unwrap().iter().map(|part| part.to_str().unwrap()).collect();
        SourceFile { path: below.join("/"), code: code_of(&text), text }
    };
    paths.into_iter().map(read).collect()
}

fn everything() -> Vec<SourceFile> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folders = ["src", "tests", "examples", "benches"].into_iter().filter(|name| root.join(name).is_dir());
    folders.flat_map(files_below).collect()
}

/// Blanks comments, strings and characters in Rust code, so that words are found only in code.
fn code_of(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let at = |index: usize| chars.get(index).copied().unwrap_or('\0');
    let mut code = String::with_capacity(text.len());
    let mut i = 0;
    while i < chars.len() {
        let starts_word = i == 0 || !is_word(at(i - 1));
        let end = match at(i) {
            '/' if at(i + 1) == '/' => (i..chars.len()).find(|j| at(*j) == '\n').unwrap_or(chars.len()),
            '/' if at(i + 1) == '*' => end_of_block_comment(&chars, i),
            '"' => end_of_string(&chars, i),
            'b' | 'c' if starts_word && at(i + 1) == '"' => end_of_string(&chars, i + 1),
            'r' if starts_word => end_of_raw_string(&chars, i),
            'b' | 'c' if starts_word && at(i + 1) == 'r' => end_of_raw_string(&chars, i + 1),
            '\'' if at(i + 1) == '\\' => (i + 3..chars.len()).find(|j| at(*j) == '\'').map_or(i, |j| j + 1),
            '\'' if at(i + 2) == '\'' => i + 3,
            _ => i,
        };
        if end <= i {
            code.push(at(i));
            i += 1;
            continue;
        }
        // The quotes stay, so that `f("x")` is not read as `f()`.
        code.push(if at(i) == '/' { ' ' } else { '"' });
        code.extend((i..end).map(at).filter(|c| *c == '\n'));
        i = end;
    }
    code
}

fn end_of_block_comment(chars: &[char], start: usize) -> usize {
    let (mut depth, mut i) = (0, start);
    while i < chars.len() {
        match (chars[i], chars.get(i + 1)) {
            ('/', Some('*')) => (depth, i) = (depth + 1, i + 2),
            ('*', Some('/')) => (depth, i) = (depth - 1, i + 2),
            _ => i += 1,
        }
        if depth == 0 {
            break;
        }
    }
    i
}

/// Returns the index after the closing quote of a string. `quote` is the index of its opening quote.
fn end_of_string(chars: &[char], quote: usize) -> usize {
    let mut i = quote + 1;
    while i < chars.len() && chars[i] != '"' {
        i += if chars[i] == '\\' { 2 } else { 1 };
    }
    (i + 1).min(chars.len())
}

/// Returns the index after the raw string with its `r` at `start`, or `start` if there is none.
fn end_of_raw_string(chars: &[char], start: usize) -> usize {
    let hashes = chars[start + 1..].iter().take_while(|c| **c == '#').count();
    let quote = start + 1 + hashes;
    if chars.get(quote) != Some(&'"') {
        return 0;
    }
    let closes = |i: &usize| chars[*i] == '"' && chars[*i + 1..].iter().take(hashes).all(|c| *c == '#');
    (quote + 1..chars.len()).find(closes).map_or(chars.len(), |i| i + 1 + hashes)
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Returns `true` if a line contains a word, or a path of words, as a whole.
fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(start, _)| {
        let before = line[..start].chars().next_back();
        let after = line[start + word.len()..].chars().next();
        !before.is_some_and(is_word) && !after.is_some_and(is_word)
    })
}

/// The code after each `prefix`: one path, or all paths of a group in braces.
fn paths_after(code: &str, prefix: &str) -> Vec<Vec<String>> {
    let mut paths = Vec::new();
    for (start, _) in code.match_indices(prefix) {
        if !code[..start].chars().next_back().is_some_and(|c| is_word(c) || c == ':') {
            read_paths(&code[start + prefix.len()..], &mut Vec::new(), &mut paths);
        }
    }
    paths
}

/// Reads `a::b`, or `{a::b, c::{d, e}}`, and returns the rest of the code.
fn read_paths<'a>(code: &'a str, before: &mut Vec<String>, paths: &mut Vec<Vec<String>>) -> &'a str {
    let code = code.trim_start();
    if let Some(mut rest) = code.strip_prefix('{') {
        loop {
            rest = rest.trim_start();
            match rest.chars().next() {
                Some('}') => return &rest[1..],
                Some(',') => rest = &rest[1..],
                None => return rest,
                Some(_) => {
                    let left = read_paths(rest, before, paths);
                    // Anything else in a group (`as name`, `*`) ends before the next comma or brace.
                    rest = &left[left.find([',', '}']).unwrap_or(left.len())..];
                }
            }
        }
    }
    let end = code.find(|c| !is_word(c)).unwrap_or(code.len());
    let (word, rest) = code.split_at(end);
    before.push(word.to_owned());
    let rest = match rest.strip_prefix("::") {
        Some(deeper) if deeper.starts_with(|c| is_word(c) || c == '{') => read_paths(deeper, before, paths),
        _ => {
            paths.push(before.clone());
            rest
        }
    };
    before.pop();
    rest
}

/// The imports of a file, as paths from the root of the crate.
fn imports(file: &SourceFile) -> Vec<Vec<String>> {
    let code = file.code_without_tests();
    let mut paths = paths_after(code, "crate::");
    let module: Vec<String> = file.module().into_iter().map(str::to_owned).collect();
    for up in 1..=module.len() {
        let above = &module[..module.len() - up];
        let prefix = "super::".repeat(up);
        paths.extend(paths_after(code, &prefix).into_iter().filter(|path| path[0] != "super").map(|path| {
            let mut whole = above.to_vec();
            whole.extend(path);
            whole
        }));
    }
    let module = if module == ["lib"] { Vec::new() } else { module };
    paths.extend(paths_after(code, "self::").into_iter().map(|path| [module.clone(), path].concat()));
    paths
}

/// A cycle among the nodes that can be reached from one another, if there is one.
fn circle(edges: &BTreeMap<String, BTreeSet<String>>) -> Option<Vec<String>> {
    fn walk(
        edges: &BTreeMap<String, BTreeSet<String>>,
        way: &mut Vec<String>,
        done: &mut BTreeSet<String>,
    ) -> bool {
        let here = way[way.len() - 1].clone();
        for next in edges.get(&here).into_iter().flatten() {
            let known = way.contains(next);
            if !known && done.contains(next) {
                continue;
            }
            way.push(next.clone());
            if known || walk(edges, way, done) {
                return true;
            }
            way.pop();
        }
        done.insert(here);
        false
    }

    let mut done = BTreeSet::new();
    edges.keys().find_map(|start| {
        let mut way = vec![start.clone()];
        walk(edges, &mut way, &mut done).then_some(way)
    })
}

/// Prints the number of things that a check has looked at, and fails if some are wrong.
fn report(check: &str, looked_at: usize, things: &str, wrong: &[String]) {
    eprintln!("{check}: looked at {looked_at} {things}");
    assert!(looked_at > 0, "{check}: there were no {things} to look at, so nothing was held");
    assert!(wrong.is_empty(), "{check}:\n  {}", wrong.join("\n  "));
}

#[test]
fn every_file_is_on_a_floor() {
    let files = files_below("src");
    let unplaced = files.iter().filter(|file| file.floor().is_none());
    let wrong: Vec<_> = unplaced
        .map(|file| format!("{} stands on no floor: place it in FLOORS of tests/it/tidy.rs", file.path))
        .collect();
    report("floors", files.len(), "files", &wrong);
}

#[test]
fn imports_come_from_lower_floors() {
    let files = files_below("src");
    let modules: BTreeSet<String> = files.iter().map(|file| file.module().join("/")).collect();
    let mut looked_at = 0;
    let mut wrong = Vec::new();
    // Between the modules of the crate, and between the files within one folder.
    let mut beside: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for file in &files {
        let module = file.module();
        // The other check reports a file that is on no floor; `lib.rs` imports everything.
        let (Some(own), false) = (file.floor(), module == ["lib"]) else { continue };
        for path in imports(file) {
            looked_at += 1;
            let Some(floor) = floor(&path[0]) else {
                wrong.push(format!("{} imports {}, which is on no floor", file.path, path.join("::")));
                continue;
            };
            if floor > own {
                let import = path.join("::");
                wrong.push(format!("{} on floor {own} imports {import} from floor {floor}", file.path));
            }
            if floor == own && path[0] != module[0] {
                beside.entry(module[0].to_owned()).or_default().insert(path[0].clone());
            }
            // A file in a folder may use the items of the folder's own file (`engine.rs` for `engine/`).
            let sibling = path.get(..module.len()).map(|path| path.join("/"));
            if let Some(sibling) = sibling.filter(|sibling| module.len() > 1 && modules.contains(sibling)) {
                let whole = module.join("/");
                if sibling != whole {
                    beside.entry(whole).or_default().insert(sibling);
                }
            }
        }
    }
    if let Some(circle) = circle(&beside) {
        wrong.push(format!("a circle on one floor: {}", circle.join(" -> ")));
    }
    eprintln!("of them between files of one floor: {}", beside.values().map(BTreeSet::len).sum::<usize>());
    report("imports", looked_at, "imports", &wrong);
}

#[test]
fn files_are_short() {
    let files = everything();
    let long = files.iter().map(|file| (&file.path, file.text.lines().count()));
    let wrong: Vec<_> = long
        .clone()
        .filter(|(path, lines)| path.starts_with("src/") && *lines > MOST_LINES)
        .map(|(path, lines)| format!("{path} has {lines} lines, allowed are {MOST_LINES}"))
        .collect();
    report("length", long.filter(|(path, _)| path.starts_with("src/")).count(), "files", &wrong);
}

#[test]
fn one_file_names_the_backoff_crate() {
    let files = files_below("src");
    let naming = |file: &&SourceFile| !file.lines_with(|line| names_crate(line, "backoff")).is_empty();
    let names: Vec<_> = files.iter().filter(naming).map(|file| file.path.as_str()).collect();
    let wrong: Vec<_> = files
        .iter()
        .filter(|file| file.path != "src/retry.rs")
        .flat_map(|file| file.lines_with(|line| names_crate(line, "backoff")))
        .collect();
    report("backoff", files.len(), "files", &wrong);
    assert_eq!(names, ["src/retry.rs"], "the check would see the crate where it is named");
}

/// Returns `true` if a line imports from a crate or names a path into it.
fn names_crate(line: &str, name: &str) -> bool {
    [format!("use {name}"), format!("{name}::"), format!("extern crate {name}")].iter().any(|path| {
        line.match_indices(path.as_str()).any(|(start, found)| {
            let before = line[..start].chars().next_back();
            let after = line[start + found.len()..].chars().next();
            let whole = found.ends_with("::") || !after.is_some_and(is_word);
            whole && !before.is_some_and(|c| is_word(c) || c == ':')
        })
    })
}

#[test]
fn the_explorer_can_replace_every_primitive() {
    let mut explored = files_below("src");
    explored.retain(|file| file.module().first().is_some_and(|module| !UNEXPLORED.contains(module)));
    let past_rt = |file: &SourceFile| -> Vec<String> {
        let of_crate = |(krate, names): &(&str, &[&str])| -> Vec<String> {
            let paths = paths_after(file.code_without_tests(), krate).into_iter().map(|path| path.join("::"));
            let primitives = paths.filter(|path| names.iter().any(|name| path.starts_with(name)));
            primitives
                .map(|path| format!("{} imports {krate}{path}; take it from crate::rt", file.path))
                .collect()
        };
        PRIMITIVES.iter().flat_map(of_crate).collect()
    };
    let wrong: Vec<_> = explored.iter().flat_map(past_rt).collect();
    report("explored", explored.len(), "files", &wrong);
    let seam = files_below("src").into_iter().find(|file| file.path == "src/rt.rs").unwrap();
    assert!(past_rt(&seam).len() > 10, "the check would see the primitives where they are imported");
}

#[test]
fn no_unsafe_no_todo_no_sleep() {
    let files = everything();
    let lines: usize = files.iter().map(|file| file.code.lines().count()).sum();
    let mut wrong = Vec::new();
    for file in &files {
        wrong.extend(file.lines_with(|line| has_word(line, "unsafe")));
        wrong.extend(file.lines_with(|line| has_word(line, "todo!") || has_word(line, "unimplemented!")));
        wrong.extend(file.lines_with(|line| line.contains("#[ignore") || line.contains(", ignore")));
        if file.path.starts_with("tests/") && !WAIT_FOR_PROCESSES.contains(&file.path.as_str()) {
            wrong.extend(file.lines_with(|line| has_word(line, "thread::sleep")));
        }
    }
    report("unsafe, unfinished, asleep", lines, "lines", &wrong);
}

#[test]
fn the_lowest_floors_are_pure() {
    let files = files_below("src");
    let pure: Vec<_> = files.iter().filter(|file| file.floor().is_some_and(|floor| floor <= 1)).collect();
    let impure = |line: &str| {
        ["async", "await", "tokio", "Instant::now", "SystemTime"].iter().any(|word| has_word(line, word))
    };
    let wrong: Vec<_> = pure.iter().flat_map(|file| file.lines_with(impure)).collect();
    report("purity", pure.len(), "files on the floors 0 and 1", &wrong);
}

/// The modules of the engine that the scheduler may use beside itself.
const BELOW_THE_SCHEDULER: [&str; 2] = ["timer", "shutdown"];

#[test]
fn the_scheduler_has_no_type_parameters() {
    let files = files_below("src");
    let is_scheduler = |file: &&SourceFile| file.path.starts_with("src/engine/scheduler");
    let mut wrong = Vec::new();
    let mut looked_at = 0;
    for file in files.iter().filter(is_scheduler) {
        looked_at += 1;
        for path in imports(file).iter().filter(|path| path[0] == "engine") {
            let part = path.get(1).map_or("", String::as_str);
            if part != "scheduler" && !BELOW_THE_SCHEDULER.contains(&part) {
                wrong.push(format!("{} imports {}", file.path, path.join("::")));
            }
        }
        wrong.extend(file.lines_with(|line| {
            line.contains("impl<") || has_word(line, "Plan") || has_word(line, "ItemsOf")
        }));
    }
    report("scheduler", looked_at, "files without type parameters", &wrong);
}

#[test]
fn every_rule_has_a_test() {
    let files = files_below("tests");
    let mut found: BTreeMap<u8, usize> = BTreeMap::new();
    for file in &files {
        for (start, prefix) in file.code.match_indices("fn rule_") {
            let number = file.code.get(start + prefix.len()..start + prefix.len() + 3);
            if let Some(Ok(rule)) = number.and_then(|number| number.strip_suffix('_')).map(str::parse) {
                *found.entry(rule).or_default() += 1;
            }
        }
    }
    let rules: BTreeSet<u8> =
        RULES.lines().filter_map(|line| line.strip_prefix("**")?.split_once('.')?.0.parse().ok()).collect();
    let missing = rules.iter().filter(|rule| !found.contains_key(rule));
    let mut wrong: Vec<_> =
        missing.map(|rule| format!("rule {rule} has no test fn rule_{rule:02}_...")).collect();
    let unknown = found.keys().filter(|rule| !rules.contains(rule));
    wrong.extend(
        unknown.map(|rule| format!("tests are named after rule {rule}, which the guide does not have")),
    );
    for (feature, rules) in RULES_OF_FEATURES {
        for rule in rules {
            let name = format!("fn {feature}_rule_{rule}_");
            if !files.iter().any(|file| file.code.contains(&name)) {
                wrong.push(format!("no test is named {name}..."));
            }
        }
    }
    let tests: usize = found.values().sum();
    report("rules", tests, &format!("tests of {} rules", found.len()), &wrong);
}

#[test]
fn the_checks_find_violations() {
    let code = code_of(concat!(
        "a /* one /* two */ unsafe */ b // unsafe\n",
        "c(\"unsafe \\\" unsafe\", r#\"un\"safe\"#, br\"unsafe\", b\"unsafe\") 'x' '\"' '\\'' d\n",
        "fn e<'a>(f: &'a str) { r = 1; \"two\nlines\" } unsafe g // end"
    ));
    assert_eq!(
        code, "a   b  \nc(\", \", \", \") \" \" \" d\nfn e<'a>(f: &'a str) { r = 1; \"\n } unsafe g  ",
        "comments, strings and characters are blank, all else is as it was"
    );

    let file = |path: &str, text: &str| SourceFile {
        path: path.to_owned(),
        text: text.to_owned(),
        code: code_of(text),
    };
    let lane = file(
        "src/engine/lane.rs",
        "use crate::{config::Config, error::{self, BoxError as B}, outcome::*};\nuse super::super::run::MapRun;\n\
         use super::{core::Core, lock};\nfn x(y: crate::verdict::Ratio, z: supercrate::No) {}\n// crate::task::No",
    );
    let mut found: Vec<_> = imports(&lane).iter().map(|path| path.join("::")).collect();
    found.sort();
    let expected = [
        "config::Config",
        "engine::core::Core",
        "engine::lock",
        "error::BoxError",
        "error::self",
        "outcome",
        "run::MapRun",
        "verdict::Ratio",
    ];
    assert_eq!(found, expected);
    assert_eq!((lane.floor(), file("src/mapper.rs", "").floor()), (Some(3), None));

    assert!(has_word("x = unsafe { 1 }", "unsafe") && !has_word("forbid(unsafe_code)", "unsafe"));
    assert!(names_crate("use backoff::Backoff;", "backoff") && names_crate("b: backoff::B", "backoff"));
    assert!(!names_crate("self.backoff(1)", "backoff") && !names_crate("mod_backoff::x", "backoff"));

    let edge = |from: &str, to: &str| (from.to_owned(), BTreeSet::from([to.to_owned()]));
    assert_eq!(circle(&BTreeMap::from([edge("a", "b"), edge("b", "c")])), None);
    let found = circle(&BTreeMap::from([edge("a", "b"), edge("b", "c"), edge("c", "b")]));
    assert_eq!(found.unwrap(), ["a", "b", "c", "b"]);
}
