//! Habits that run the real binary: the demo and the tests.

pub mod demo;
pub mod test;
