//! Times as people write them in arguments.

use chrono::{DateTime, NaiveDate, NaiveTime, Utc};

/// A date (UTC), a moment, or how long ago.
pub(super) fn moment(text: &str) -> Result<DateTime<Utc>, String> {
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Ok(time.to_utc());
    }
    if let Ok(date) = text.parse::<NaiveDate>() {
        return Ok(date.and_time(NaiveTime::MIN).and_utc());
    }
    let ago = humantime::parse_duration(text).ok();
    ago.and_then(|ago| Utc::now().checked_sub_signed(chrono::Duration::from_std(ago).ok()?))
        .ok_or_else(|| "write a time like 2026-11-20T12:00:00Z or 2026-11-20, or how long ago: 2h, 7d".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_a_date_a_moment_or_how_long_ago() {
        assert_eq!(
            moment("2026-11-20T13:00:00+01:00").unwrap(),
            moment("2026-11-20T12:00:00Z").unwrap()
        );
        assert_eq!(moment("2026-11-20").unwrap(), moment("2026-11-20T00:00:00Z").unwrap());
        let moment_ago = moment("2h").unwrap();
        let ago = Utc::now() - moment_ago;
        assert!((7_200..7_260).contains(&ago.num_seconds()), "{ago}");
        for wrong in ["", "yesterday", "2", "2026-13-01", "999999999999y"] {
            assert!(moment(wrong).is_err(), "{wrong}");
        }
    }
}
