//! What a request has to say to its client besides its answer.

use parking_lot::Mutex;
use std::sync::Arc;

/// Warnings of one request are kept up to this many bytes; what goes out of them is less.
const MOST: usize = 256 * 1024;

/// Sentences for the Warning header, told whatever comes of the request, and each once: attempts after lost races say them again. Clones are one list.
#[derive(Clone, Debug, Default)]
pub struct Warnings(Arc<Mutex<Vec<String>>>);

impl Warnings {
    /// One more.
    pub fn add(&self, warning: String) {
        let mut list = self.0.lock();
        if !list.contains(&warning) && list.iter().map(String::len).sum::<usize>() < MOST {
            list.push(warning);
        }
    }
    /// Some more.
    pub fn extend(&self, warnings: Vec<String>) {
        warnings.into_iter().for_each(|warning| self.add(warning));
    }
    /// All of them so far, which are forgotten.
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_told_once_and_not_without_end() {
        let warnings = Warnings::default();
        warnings.extend(vec!["a".into(), "b".into(), "a".into()]);
        warnings.clone().add("b".into());
        assert_eq!(warnings.take(), ["a", "b"]);
        (0..100).for_each(|at| warnings.add(at.to_string().repeat(MOST / 8)));
        assert!(warnings.take().iter().map(String::len).sum::<usize>() < 2 * MOST);
        assert_eq!(warnings.take(), Vec::<String>::new());
    }
}
