//! What the service says about itself: its log, its metrics, its status, the summary for whoever started it by hand.
//!
//! Nothing here decides anything.

pub mod logging;
pub mod metric;
pub mod status;
pub mod summary;
