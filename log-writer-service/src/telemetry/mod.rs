//! What the service says about itself: its log, its metrics, the summary for whoever started it by hand.

pub mod logging;
pub mod summary;
