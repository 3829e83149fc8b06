//! One long step: a spinner with its name while it runs, its time when it is done, its output only when it fails.

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use std::{
    io::{BufRead, BufReader, IsTerminal, Read},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// Runs `command` to its end. On a terminal a spinner shows the last line it printed; elsewhere its name is printed at start.
pub fn run(name: &str, command: &mut Command) -> Result<()> {
    let begun = Instant::now();
    let bar = spinner(name);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("{name}: cannot start {:?}", command.get_program()))?;
    let mut tail = Vec::new();
    if let Some(stderr) = child.stderr.take() {
        for line in BufReader::new(stderr.take(64 << 20)).lines().map_while(Result::ok) {
            bar.set_message(line.chars().take(90).collect::<String>());
            tail.push(line);
            if tail.len() > 200 {
                tail.remove(0);
            }
        }
    }
    let status = child.wait()?;
    bar.finish_and_clear();
    if !status.success() {
        bail!("{name} failed ({status}):\n{}", tail.join("\n"));
    }
    done(name, begun);
    Ok(())
}

/// Runs `command` with its output shown as it comes.
pub fn shown(name: &str, command: &mut Command) -> Result<()> {
    let begun = Instant::now();
    println!("── {name}");
    let status = command.stdin(Stdio::null()).status().with_context(|| format!("{name}: cannot start {:?}", command.get_program()))?;
    if !status.success() {
        bail!("{name} failed ({status})");
    }
    done(name, begun);
    Ok(())
}

fn done(name: &str, begun: Instant) {
    println!("✓ {name} ({:.1} s)", begun.elapsed().as_secs_f32());
}

fn spinner(name: &str) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        println!("… {name}");
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {prefix} {elapsed} {msg:.dim}") {
        bar.set_style(style);
    }
    bar.set_prefix(name.to_string());
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}

/// Tries `probe` until it succeeds or `bound` has passed; the last error is the answer then.
pub fn eventually<T>(bound: Duration, mut probe: impl FnMut() -> Result<T>) -> Result<T> {
    let end = Instant::now() + bound;
    loop {
        match probe() {
            Err(_) if Instant::now() < end => std::thread::sleep(Duration::from_millis(100)),
            done => return done,
        }
    }
}
