//! Every target over its corpus, and over mutations of it that are the same in every run.

use coracle_fuzz::{
    TARGETS, Target,
    mutate::{Chance, mutated, shrunk, words},
};
use libtest_mimic::{Arguments, Failed, Trial};
use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    process::ExitCode,
};

fn main() -> ExitCode {
    let mut trials: Vec<Trial> = TARGETS.iter().map(|target| Trial::test(target.name, || replay(target))).collect();
    trials.push(Trial::test("every_folder_has_a_target", folders));
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn corpus() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/corpus"))
}

fn replay(target: &Target) -> Result<(), Failed> {
    let mut files: Vec<_> = fs::read_dir(corpus().join(target.name))?.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
    files.sort();
    let inputs: Vec<Vec<u8>> = files.iter().map(fs::read).collect::<Result<_, _>>()?;
    for (file, input) in files.iter().zip(&inputs) {
        attempt(target, input).map_err(|why| format!("{}: {why}", file.display()))?;
    }
    let inputs: Vec<&[u8]> = inputs.iter().map(Vec::as_slice).collect();
    let words = words(&inputs);
    let mut chance = Chance::new(target.name);
    for _ in 0..target.mutations {
        let input = mutated(&mut chance, &inputs, &words);
        if let Err(why) = attempt(target, &input) {
            let small = shrunk(input, |input| attempt(target, input).is_err());
            return Err(format!("{why}\nsmall input that fails (to become a file in the corpus): \"{}\"", small.escape_ascii()).into());
        }
    }
    Ok(())
}

fn attempt(target: &Target, input: &[u8]) -> Result<(), String> {
    catch_unwind(AssertUnwindSafe(|| (target.run)(input))).map_err(|why| match why.downcast_ref::<String>() {
        Some(text) => text.clone(),
        None => why.downcast_ref::<&str>().map_or_else(|| "it panicked".into(), ToString::to_string),
    })
}

fn folders() -> Result<(), Failed> {
    for entry in fs::read_dir(corpus())? {
        let name = entry?.file_name();
        if !TARGETS.iter().any(|target| target.name == name) {
            return Err(format!("corpus/{} belongs to no target", name.display()).into());
        }
    }
    Ok(())
}
