//! Runs the rounds in several processes, one after another.
//!
//! The memory layout differs in each process, which changes the cost of a task for each item by some percent. A median over
//! several processes does not depend on it.

use std::cell::LazyCell;
use std::env;
use std::ops::Range;
use std::process::Stdio;

use crate::cell::{Cores, Measurement};
use crate::frame::{Cost, current_thread, two_workers, without_memory_of_others};

/// The number of processes. It is lower if there are fewer rounds.
const PROCESSES: usize = 7;

/// Returns the largest number of rounds of a measurement.
fn rounds(measurements: &[Measurement]) -> usize {
    measurements.iter().map(Measurement::rounds).max().unwrap_or(0)
}

/// The rounds of this process.
fn share(process: usize, rounds: usize) -> Range<usize> {
    let first = |process| process * rounds / PROCESSES;
    first(process)..first(process + 1)
}

/// Makes all processes measure, and reads the figures that they print.
pub(crate) fn collect(measurements: &mut [Measurement]) {
    let rounds = rounds(measurements);
    for process in (0..PROCESSES).filter(|process| !share(*process, rounds).is_empty()) {
        let mut program = without_memory_of_others();
        program.args(env::args_os().skip(1)).arg(format!("--process={process}"));
        let output = program.stderr(Stdio::inherit()).output().expect("this program can be started");
        assert!(output.status.success(), "process {process}: {}", output.status);
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            let (measurement, contender, cost) = read(line).expect("what print has printed");
            measurements[measurement].take(contender, cost);
        }
    }
    eprintln!();
}

/// Measures the share of this process. The cells take turns, like their contenders, so that a disturbance of the machine
/// that lasts for seconds is in few rounds of each cell, and in no median.
pub(crate) fn measure(measurements: &[Measurement], process: usize) {
    let (one, two) = (LazyCell::new(current_thread), LazyCell::new(two_workers));
    let runtime = |measurement: &Measurement| match measurement.cell().cores {
        Cores::One => &*one,
        Cores::Two => &*two,
    };
    let rounds = rounds(measurements);
    let share = share(process, rounds);
    for measurement in measurements {
        if share.clone().any(|round| measurement.is_due(round, rounds)) {
            measurement.warm_up(runtime(measurement));
        }
    }
    for round in share {
        eprint!("\rround {} of {rounds}", round + 1);
        for (number, measurement) in measurements.iter().enumerate() {
            if measurement.is_due(round, rounds) {
                for (contender, cost) in measurement.measure(round, runtime(measurement)) {
                    print(number, contender, cost);
                }
            }
        }
    }
}

fn print(measurement: usize, contender: usize, Cost { wall, cpu }: Cost) {
    println!("{measurement} {contender} {wall} {cpu}");
}

fn read(line: &str) -> Option<(usize, usize, Cost)> {
    let mut words = line.split(' ');
    let (measurement, contender) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    let (wall, cpu) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    Some((measurement, contender, Cost { wall, cpu }))
}
