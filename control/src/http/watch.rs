//! watch
pub struct Stream {}
