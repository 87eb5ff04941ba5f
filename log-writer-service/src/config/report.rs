//! The mistakes of a configuration, all of them in one text that a person can act on.

use std::fmt::{self, Display};

/// One value that takes part in a mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    /// `section.key`, or what was given in place of one.
    pub key: String,
    /// The value as TOML, without secrets; `None` if it is not to be shown.
    pub shown: Option<String>,
    /// Where it came from; `None` if from nowhere.
    pub origin: Option<String>,
}

/// One mistake: what was given, and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// The values that together are wrong; empty if it is about a whole file.
    pub given: Vec<Given>,
    /// What is wrong and what to write.
    pub message: String,
}

/// All mistakes of a configuration, never empty.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Report {
    /// In the order of the sources, then of the sections, then those between keys.
    pub mistakes: Vec<Mistake>,
}

impl Display for Given {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.key)?;
        if let Some(shown) = &self.shown {
            write!(formatter, " = {shown}")?;
        }
        match &self.origin {
            Some(origin) => write!(formatter, " ({origin})"),
            None => Ok(()),
        }
    }
}

impl Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.mistakes.len() {
            1 => writeln!(formatter, "the configuration has a mistake")?,
            many => writeln!(formatter, "the configuration has {many} mistakes")?,
        }
        for (number, mistake) in (1..).zip(&self.mistakes) {
            writeln!(formatter)?;
            let mut lead = format!("{number}. ");
            for given in &mistake.given {
                writeln!(formatter, "{lead}{given}")?;
                lead = "   ".to_owned();
            }
            writeln!(formatter, "{lead}{}", mistake.message)?;
        }
        writeln!(formatter)?;
        write!(
            formatter,
            "`log-writer-service config default` prints every key with its unit and its default"
        )
    }
}

/// The candidate nearest to a name that does not exist, if one is near.
pub(super) fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .into_iter()
        .map(|candidate| (distance(name, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= (candidate.len() / 3).max(1))
        .min()
        .map(|(_, candidate)| candidate)
}

/// Letters to insert, remove or replace (Levenshtein).
fn distance(left: &str, right: &str) -> usize {
    let mut row: Vec<usize> = (0..=right.chars().count()).collect();
    for (above, one) in (1..).zip(left.chars()) {
        let mut corner = std::mem::replace(row.first_mut().unwrap_or(&mut 0), above);
        let mut before = above;
        for (cell, other) in row.iter_mut().skip(1).zip(right.chars()) {
            let best = (corner + usize::from(one != other)).min(*cell + 1).min(before + 1);
            corner = std::mem::replace(cell, best);
            before = best;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typo_finds_its_key_and_nonsense_finds_none() {
        let keys = ["listen", "body_bytes_max", "lease", "urls", "url"];
        for (typo, expected) in [
            ("lisen", Some("listen")),
            ("body_byte_max", Some("body_bytes_max")),
            ("leese", Some("lease")),
            ("uri", Some("url")),
            ("colour", None),
        ] {
            assert_eq!(nearest(typo, keys), expected, "{typo}");
        }
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
    }
}
