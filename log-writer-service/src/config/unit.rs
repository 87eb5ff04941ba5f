//! Values with a form of their own: durations (`"7d"`, `"250ms"`), sizes (`"8MiB"`, or a plain number of bytes), the
//! address to listen on, URLs.
//!
//! Each says in its error how the value is written; none quotes a URL, which may hold a password.

/// A duration as text with a unit.
pub(super) mod duration {
    use std::{fmt, time::Duration};

    use serde::{
        Deserializer,
        de::{Error, Visitor},
    };

    struct Text;

    impl Visitor<'_> for Text {
        type Value = Duration;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("a duration like \"30s\" or \"7d\"")
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<Duration, E> {
            humantime::parse_duration(text.trim()).map_err(|error| {
                let text = text.trim();
                if text.parse::<f64>().is_ok() {
                    E::custom(format!("`{text}` has no unit; write \"{text}s\" or \"{text}ms\""))
                } else {
                    E::custom(format!(
                        "`{text}` is no duration ({error}); write it like \"30s\" or \"7d\""
                    ))
                }
            })
        }

        fn visit_u64<E: Error>(self, number: u64) -> Result<Duration, E> {
            Err(E::custom(format!(
                "{number} has no unit; write \"{number}s\" or \"{number}ms\""
            )))
        }

        fn visit_i64<E: Error>(self, number: i64) -> Result<Duration, E> {
            match u64::try_from(number) {
                Ok(number) => self.visit_u64(number),
                Err(_) => Err(E::custom(format!(
                    "{number} is no duration; write it like \"30s\" or \"7d\""
                ))),
            }
        }
    }

    /// Reads `"1h 30m"`, `"250ms"`, `"7d"`.
    pub(in crate::config) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        deserializer.deserialize_any(Text)
    }
}

/// A number of bytes, as a number or as text with a unit.
pub(super) mod bytes {
    use std::fmt;

    use bytesize::ByteSize;
    use serde::{
        Deserializer,
        de::{Error, Visitor},
    };

    struct Size;

    impl Visitor<'_> for Size {
        type Value = usize;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("a size like \"8MiB\" or a number of bytes")
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<usize, E> {
            let text = text.trim();
            let size = text.parse::<ByteSize>().map_err(|_| {
                E::custom(format!(
                    "`{text}` is no size; write a number of bytes, or one with B, kB, MB, GB, KiB, MiB or GiB, like \"8MiB\""
                ))
            })?;
            self.visit_u64(size.as_u64())
        }

        fn visit_u64<E: Error>(self, bytes: u64) -> Result<usize, E> {
            usize::try_from(bytes).map_err(|_| E::custom(format!("{bytes} bytes are more than this machine can count")))
        }

        fn visit_i64<E: Error>(self, number: i64) -> Result<usize, E> {
            let bytes = u64::try_from(number).map_err(|_| E::custom(format!("{number} is less than no bytes")))?;
            self.visit_u64(bytes)
        }
    }

    /// Reads `8388608`, `"8MiB"`, `"10MB"`.
    pub(in crate::config) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
        deserializer.deserialize_any(Size)
    }
}

/// An address and a port to listen on.
pub(super) mod address {
    use std::net::SocketAddr;

    use serde::{Deserialize, Deserializer, de::Error};

    /// Reads `"127.0.0.1:8080"`, `"[::]:8080"`.
    pub(in crate::config) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.trim().parse().map_err(|_| {
            D::Error::custom(format!(
                "`{text}` is no address with a port; write numbers, not a name: \"127.0.0.1:8080\", \"0.0.0.0:8080\", \"[::]:8080\""
            ))
        })
    }
}

/// A list of URLs.
pub(super) mod urls {
    use serde::{Deserialize, Deserializer, de::Error};
    use url::Url;

    /// Reads `["http://127.0.0.1:9200"]`.
    pub(in crate::config) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Url>, D::Error> {
        let texts = Vec::<String>::deserialize(deserializer)?;
        let many = texts.len() > 1;
        let mut urls = Vec::with_capacity(texts.len());
        for (number, text) in (1..).zip(&texts) {
            let url = Url::parse(text.trim()).map_err(|error| {
                let which = if many {
                    format!("number {number} ")
                } else {
                    String::new()
                };
                D::Error::custom(format!(
                    "{which}is no URL ({error}); write it like \"http://127.0.0.1:9200\""
                ))
            })?;
            urls.push(url);
        }
        Ok(urls)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    struct Both {
        #[serde(with = "super::duration")]
        time: Duration,
        #[serde(with = "super::bytes")]
        size: usize,
    }

    fn read(time: &str, size: &str) -> Result<Both, String> {
        toml::from_str(&format!("time = {time}\nsize = {size}"))
            .map_err(|error: toml::de::Error| error.message().to_owned())
    }

    #[test]
    fn units_are_read_as_people_write_them() {
        for (time, expected) in [
            ("'250ms'", 250),
            ("'30s'", 30_000),
            ("'1h 30m'", 5_400_000),
            ("' 7d '", 604_800_000),
        ] {
            assert_eq!(read(time, "1").unwrap().time, Duration::from_millis(expected), "{time}");
        }
        for (size, expected) in [
            ("512", 512),
            ("'512'", 512),
            ("'8MiB'", 8 << 20),
            ("'8 MB'", 8_000_000),
            ("'1kB'", 1000),
        ] {
            assert_eq!(read("'1s'", size).unwrap().size, expected, "{size}");
        }
    }

    #[test]
    fn a_bad_unit_is_told_with_the_right_way_to_write_it() {
        for (time, size, part) in [
            ("30", "1", "write \"30s\""),
            ("'30'", "1", "write \"30s\""),
            ("'30 secnds'", "1", "like \"30s\""),
            ("-5", "1", "-5 is no duration"),
            ("true", "1", "a duration like"),
            ("'1s'", "'8 megs'", "like \"8MiB\""),
            ("'1s'", "-1", "less than no bytes"),
            ("'1s'", "[1]", "a size like"),
        ] {
            let message = read(time, size).unwrap_err();
            assert!(message.contains(part), "{time} {size}: {message}");
        }
    }
}
