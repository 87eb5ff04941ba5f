//! Time of an event: microseconds since 1970-01-01T00:00:00Z, what PostgreSQL keeps of a time.

use chrono::{DateTime, Utc};

/// Microseconds since 1970-01-01T00:00:00Z; negative before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub i64);

const MICROS_A_DAY: i64 = 86_400_000_000;

impl Timestamp {
    /// The latest time that Elasticsearch's `date_nanos` can hold: 2262-04-11T23:47:16.854775Z.
    pub const MAX_STORED: Self = Self(i64::MAX / 1000);

    /// Text such as `2026-11-21T08:00:00.120000Z`: UTC, always six digits.
    pub fn to_rfc3339(self) -> String {
        let mut out = String::with_capacity(27);
        self.write_rfc3339(&mut out);
        out
    }

    /// Appends what [`Self::to_rfc3339`] gives.
    pub fn write_rfc3339(self, out: &mut String) {
        let (year, month, day) = civil_from_days(self.0.div_euclid(MICROS_A_DAY));
        let micros = self.0.rem_euclid(MICROS_A_DAY);
        let seconds = micros / 1_000_000;
        if year < 0 {
            out.push('-');
        }
        push_padded(out, year.abs(), 4);
        for (separator, number) in [
            ('-', month),
            ('-', day),
            ('T', seconds / 3600),
            (':', seconds / 60 % 60),
            (':', seconds % 60),
        ] {
            out.push(separator);
            push_padded(out, number, 2);
        }
        out.push('.');
        push_padded(out, micros % 1_000_000, 6);
        out.push('Z');
    }

    /// What [`Self::to_rfc3339`] gives, of the years 0 to 9999.
    pub(crate) fn rfc3339_bytes(self) -> Option<[u8; 27]> {
        let (year, month, day) = civil_from_days(self.0.div_euclid(MICROS_A_DAY));
        if !(0..=9999).contains(&year) {
            return None;
        }
        let micros = self.0.rem_euclid(MICROS_A_DAY);
        let seconds = micros / 1_000_000;
        let [y1, y2] = two_digits(year / 100);
        let [y3, y4] = two_digits(year % 100);
        let [m1, m2] = two_digits(month);
        let [d1, d2] = two_digits(day);
        let [h1, h2] = two_digits(seconds / 3600);
        let [i1, i2] = two_digits(seconds / 60 % 60);
        let [s1, s2] = two_digits(seconds % 60);
        let [f1, f2] = two_digits(micros / 10_000 % 100);
        let [f3, f4] = two_digits(micros / 100 % 100);
        let [f5, f6] = two_digits(micros % 100);
        Some([
            y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2, b'T', h1, h2, b':', i1, i2, b':', s1, s2, b'.', f1, f2, f3, f4,
            f5, f6, b'Z',
        ])
    }

    /// Milliseconds since 1970, rounded down.
    pub(super) fn millis(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// Whether both stores can hold it: 1970-01-01 to 2262-04-11.
    pub(super) fn can_be_stored(self) -> bool {
        (Self(0)..=Self::MAX_STORED).contains(&self)
    }
}

impl From<DateTime<Utc>> for Timestamp {
    fn from(time: DateTime<Utc>) -> Self {
        Self(time.timestamp_micros())
    }
}

impl From<Timestamp> for DateTime<Utc> {
    /// Times beyond chrono's range (year 262,000) become its last.
    fn from(time: Timestamp) -> Self {
        Self::from_timestamp_micros(time.0).unwrap_or(if time.0 < 0 { Self::MIN_UTC } else { Self::MAX_UTC })
    }
}

fn push_padded(out: &mut String, number: i64, width: u32) {
    let mut divisor = 10_i64.pow(width - 1);
    while number / divisor > 9 {
        divisor *= 10;
    }
    while divisor > 0 {
        let digit = u32::try_from(number / divisor % 10).unwrap_or_default();
        out.push(char::from_digit(digit, 10).unwrap_or('0'));
        divisor /= 10;
    }
}

/// The digits of a number below 100.
fn two_digits(number: i64) -> [u8; 2] {
    let number = u8::try_from(number).unwrap_or_default();
    [b'0' + number / 10, b'0' + number % 10]
}

/// Days since 1970-01-01 of a date of the Gregorian calendar (Howard Hinnant, "chrono-Compatible Low-Level Date
/// Algorithms").
pub(super) fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// Year, month and day of a count of days since 1970-01-01.
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use chrono::SecondsFormat;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn text_always_has_six_digits_and_z() {
        assert_eq!(Timestamp(0).to_rfc3339(), "1970-01-01T00:00:00.000000Z");
        assert_eq!(Timestamp(-1).to_rfc3339(), "1969-12-31T23:59:59.999999Z");
        assert_eq!(Timestamp::MAX_STORED.to_rfc3339(), "2262-04-11T23:47:16.854775Z");
    }

    proptest! {
        #[test]
        fn text_is_what_chrono_writes(micros in -62_135_596_800_000_000_i64..253_402_300_800_000_000) {
            let time = Timestamp(micros);
            let theirs = DateTime::<Utc>::from(time);
            let expected = theirs.to_rfc3339_opts(SecondsFormat::Micros, true);
            prop_assert_eq!(time.rfc3339_bytes().map(Vec::from), Some(expected.clone().into_bytes()));
            prop_assert_eq!(time.to_rfc3339(), expected);
            prop_assert_eq!(Timestamp::from(theirs), time);
        }

        #[test]
        fn no_time_panics(micros in any::<i64>()) {
            let time = Timestamp(micros);
            prop_assert!(time.to_rfc3339().ends_with('Z'));
            let is_short = (-62_167_219_200_000_000..253_402_300_800_000_000).contains(&micros);
            let expected = is_short.then(|| time.to_rfc3339().into_bytes());
            prop_assert_eq!(time.rfc3339_bytes().map(Vec::from), expected);
            prop_assert!(DateTime::<Utc>::from(time) <= DateTime::<Utc>::MAX_UTC);
            let days = micros.div_euclid(MICROS_A_DAY);
            let (year, month, day) = civil_from_days(days);
            prop_assert_eq!(days_from_civil(year, month, day), days);
        }
    }
}
