//! The example `run_commands`: its output.

use std::ffi::OsStr;
use std::fmt::Write;
use std::os::unix::ffi::OsStrExt;

use crate::harness::{Sandbox, without_reader};

#[test]
fn run_commands_runs_several_commands_at_once_and_prints_in_input_order() {
    let sandbox = Sandbox::new();
    // Each command waits for the next one, so the last one ends first.
    let (first, second) = (sandbox.fifo("first"), sandbox.fifo("second"));
    let template = format!(
        "case {{}} in
        1) read -r word <'{first}' ;;
        2) read -r word <'{second}'; echo go >'{first}' ;;
        3) echo go >'{second}' ;;
        esac
        echo {{}} on stdout
        echo {{}} on stderr >&2",
        first = first.display(),
        second = second.display()
    );
    let ended = sandbox.example("run_commands").args(["--jobs", "3", &template, "1", "2", "3"]).run();
    ended.exits(0).out_is("1 on stdout\n2 on stdout\n3 on stdout\n");
    let is_in_order = ended.err.starts_with("1 on stderr\n2 on stderr\n3 on stderr\n");
    ended.check(is_in_order, "stderr is passed on").err_has("3 items in ");
}

#[test]
fn run_commands_does_not_mix_outputs() {
    let sandbox = Sandbox::new();
    let names = ["a", "b", "c"];
    let counting = "for line in $(seq 3000); do echo {} $line; done";
    let mut expected = String::new();
    for name in names {
        (1..=3000).for_each(|line| writeln!(expected, "{name} {line}").unwrap());
    }
    sandbox.example("run_commands").arg(counting).args(names).run().out_is(expected);
}

#[test]
fn run_commands_passes_arguments_unchanged() {
    let sandbox = Sandbox::new();
    let nasty: [&[u8]; 8] =
        [b"it's", b"$(id) `id` \"$HOME\"", b"two  words", b"*", b"caf\xe9", b"new\nline", b"", b"{}"];
    let expected: Vec<u8> =
        nasty.iter().flat_map(|argument| [b"[".as_slice(), argument, b"]\n"].concat()).collect();
    let arguments = nasty.map(OsStr::from_bytes);
    sandbox.example("run_commands").arg("printf \"[%s]\\n\"").args(arguments).run().out_is(expected);
    let ended = sandbox.example("run_commands").args(["echo {} and {}, not $2", "a"]).run();
    ended.out_is("a and a, not\n");
}

#[test]
fn run_commands_reads_lines_of_its_input() {
    let sandbox = Sandbox::new();
    let ended = sandbox.example("run_commands").arg("printf \"[%s]\\n\" {}").input("b\n\n  a b\n").run();
    ended.out_is("[b]\n[  a b]\n");
    let commands = "echo one\n\n  \necho two >&2; echo $0 $#\n-c";
    let ended = sandbox.example("run_commands").input(commands).run();
    ended.out_is("one\nsh 0\n").err_has("-c: failed after 1 attempt: exit code 127");
    sandbox.example("run_commands").run().exits(0);
    // A command has an empty input.
    sandbox.example("run_commands").input("cat").run().exits(0);
}

#[test]
fn run_commands_names_a_command_that_fails_and_runs_the_others() {
    let sandbox = Sandbox::new();
    let template = "echo out; echo first >&2; echo oops >&2; exit {}";
    let ended = sandbox.example("run_commands").args(["--jobs", "1", template, "0", "3", "0"]).run();
    ended.exits(1).out_is("out\nout\nout\n").err_has("2 succeeded, 1 failed");
    ended.err_has("exit 3: failed after 1 attempt: exit code 3\n    first\n    oops\n");
    let ended = sandbox.example("run_commands").input("seq 100 >&2; exit 1").run();
    ended.err_has("exit code 1\n    ...\n    91\n");
    let options = ["--fail-fast", "--jobs", "1", "exit {}", "0", "4", "0"];
    let ended = sandbox.example("run_commands").args(options).run();
    ended.err_has("1 succeeded, 1 failed, 0 cancelled, 1 not started");
}

#[test]
fn run_commands_retries_what_may_succeed_later() {
    let sandbox = Sandbox::new();
    let commands = "kill -9 $$\nnot-a-command\n/\nexec yes";
    let ended = sandbox.example("run_commands").args(["--retries", "1"]).input(commands).run();
    ended.err_has("kill -9 $$: failed after 2 attempts: signal: 9 (SIGKILL)");
    ended.err_has("not-a-command: failed after 1 attempt: exit code 127: ");
    ended.err_has("/: failed after 1 attempt: exit code 126: ");
    ended.err_has("exec yes: failed after 1 attempt: it printed more than 64 MiB");
    let template = "test -e {} || { : >{}; exit 1; }";
    let made = sandbox.path("made by the first attempt");
    let ended = sandbox.example("run_commands").args(["--retries", "1", template]).arg(made).run();
    ended.exits(0).err_has("1 retry");
}

#[test]
fn run_commands_fails_if_its_output_cannot_be_printed() {
    let sandbox = Sandbox::new();
    let ended = sandbox.example("run_commands").args(["echo", "x"]).with_full_disk().run();
    ended.exits(1).err_has("cannot print the output: No space left on device");
    let template = "seq 100000; : {}; exit 3";
    let ended = sandbox.example("run_commands").args([template, "x", "y"]).stdout(without_reader()).run();
    ended.exits(1).err_has("cannot print the output: Broken pipe");
    ended.err_has(": x; exit 3: failed after 1 attempt: exit code 3");
}

#[test]
fn run_commands_refuses_a_time_limit_of_zero() {
    let ended = Sandbox::new().example("run_commands").args(["--timeout", "0", "true", "x"]).run();
    ended.is_refused("timeout_per_attempt must be greater than zero");
}
