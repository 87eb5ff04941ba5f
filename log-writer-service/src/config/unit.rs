//! Values with a unit: durations (`"7d"`, `"250ms"`) and sizes (`"8MiB"`, or a plain number of bytes).

/// A duration as text with a unit.
pub(super) mod duration {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, de::Error};

    /// Reads `"1h 30m"`, `"250ms"`, `"7d"`.
    pub(in crate::config) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(deserializer)?;
        humantime::parse_duration(&text).map_err(|error| {
            D::Error::custom(format!(
                "`{text}` is no duration ({error}); write it like \"30s\" or \"7d\""
            ))
        })
    }
}

/// A number of bytes, as a number or as text with a unit.
pub(super) mod bytes {
    use bytesize::ByteSize;
    use serde::{Deserialize, Deserializer, de::Error};

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Size {
        Number(u64),
        Text(String),
    }

    /// Reads `8388608`, `"8MiB"`, `"10MB"`.
    pub(in crate::config) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
        let bytes = match Size::deserialize(deserializer)? {
            Size::Number(number) => number,
            Size::Text(text) => text
                .parse::<ByteSize>()
                .map_err(|error| D::Error::custom(format!("`{text}` is no size ({error}); write it like \"8MiB\"")))?
                .as_u64(),
        };
        usize::try_from(bytes).map_err(D::Error::custom)
    }
}
