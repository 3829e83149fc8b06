//! What the runtime promises, each as a pod that is run.

mod commands;
mod hosts;
mod images;
mod requests;

use std::{future::Future, pin::Pin};

/// A test.
pub type Case = fn() -> Pin<Box<dyn Future<Output = ()>>>;

/// All of them.
pub fn all() -> Vec<(&'static str, Case)> {
    [requests::CASES, commands::CASES, hosts::CASES, images::CASES].concat()
}

/// Lists the tests of a file.
#[macro_export]
macro_rules! cases {
    ($($name:ident),* $(,)?) => {
        pub const CASES: &[(&str, $crate::cases::Case)] = &[$((stringify!($name), || Box::pin($name()))),*];
    };
}
