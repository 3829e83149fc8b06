//! A file of what is expected, in parts that each begin with a line `$ command`. `CORACLE_GOLDEN=write` writes it anew; read the difference before it is kept.

use anyhow::ensure;
use coracle_tests::{Result, eventually};
use std::{collections::BTreeMap, fs, path::PathBuf};

/// What is expected, and what was seen so far.
pub struct Golden {
    file: PathBuf,
    wanted: BTreeMap<String, String>,
    seen: Vec<(String, String)>,
    write: bool,
}

impl Golden {
    /// A file beside the tests.
    pub fn open(name: &str) -> Result<Self> {
        let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests").join(name);
        let write = std::env::var("CORACLE_GOLDEN").is_ok_and(|what| what == "write");
        let text = if write { String::new() } else { fs::read_to_string(&file)? };
        let parts = text.split("\n$ ").filter_map(|part| part.split_once('\n'));
        let wanted = parts.map(|(title, rest)| (title.trim_start_matches("$ ").to_string(), rest.trim_end().to_string())).collect();
        Ok(Self { file, wanted, seen: Vec::new(), write })
    }

    /// This is what is expected of this command.
    pub fn compare(&mut self, command: &str, shown: &str) -> Result {
        self.same(command, shown.trim_end())?;
        self.seen.push((command.to_string(), shown.trim_end().to_string()));
        Ok(())
    }

    /// This will be what is expected.
    pub fn eventually(&mut self, command: &str, shown: impl Fn() -> Result<String>) -> Result {
        let last = eventually(command, 30, || {
            let text = shown()?;
            self.same(command, text.trim_end())?;
            Ok(text)
        })?;
        self.compare(command, &last)
    }

    fn same(&self, command: &str, shown: &str) -> Result {
        let wanted = self.wanted.get(command).map(String::as_str);
        ensure!(self.write || wanted == Some(shown), "{command}: wanted\n{}\nand got\n{shown}", wanted.unwrap_or("nothing"));
        Ok(())
    }

    /// Nothing is expected besides.
    pub fn close(self) -> Result {
        if self.write {
            let parts = self.seen.iter().map(|(command, shown)| format!("$ {command}\n{shown}\n"));
            fs::write(&self.file, parts.collect::<Vec<_>>().join("\n"))?;
            return Ok(());
        }
        ensure!(
            self.seen.len() == self.wanted.len(),
            "{} parts were seen of {} that {} has",
            self.seen.len(),
            self.wanted.len(),
            self.file.display()
        );
        Ok(())
    }
}
