//! Whole events, source by source, and properties of normalising.

use crate::config::Events;

/// Section `[events]` as delivered.
pub(super) fn default_settings() -> Events {
    let file: toml::Table = toml::from_str(include_str!("../../../config.default.toml")).unwrap();
    file["events"].clone().try_into().unwrap()
}
