//! list
pub struct Page {}
