//! The texts of one row, in one piece of memory, and another for where its tags end: many thousands of rows are held at once,
//! each with a dozen texts.

use std::fmt;

/// How many columns [`TextColumns`] has beside the tags.
const COLUMN_COUNT: usize = 12;

/// The texts of one row of `application_logs` but its tenant: text, JSON and tags.
#[derive(Clone, PartialEq)]
pub struct StoredTexts {
    /// In the order of [`TextColumns`].
    all: String,
    /// Where each column but the tags ends.
    ends: [u32; COLUMN_COUNT],
    /// Whether the column is null, bit by bit from the lowest.
    nulls: u16,
    /// Where each tag ends.
    tag_ends: Box<[u32]>,
}

/// [`StoredTexts`], each column by its name.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TextColumns<'a> {
    /// Column `level`: TRACE, DEBUG, INFO, WARN, ERROR or FATAL.
    pub level: &'a str,
    /// Column `service`.
    pub service: &'a str,
    /// Column `host`.
    pub host: Option<&'a str>,
    /// Column `message`.
    pub message: &'a str,
    /// Column `correlation_id`.
    pub correlation_id: Option<&'a str>,
    /// Column `user_id`.
    pub user_id: Option<&'a str>,
    /// Column `trace_id`.
    pub trace_id: Option<&'a str>,
    /// Column `span_id`.
    pub span_id: Option<&'a str>,
    /// Column `fields`: JSON object text.
    pub fields: Option<&'a str>,
    /// Column `error_details`: JSON object text.
    pub error_details: Option<&'a str>,
    /// Column `performance_metrics`: JSON object text.
    pub performance_metrics: Option<&'a str>,
    /// Column `ai_analysis`: JSON object text.
    pub ai_analysis: Option<&'a str>,
    /// Column `tags`; empty for null.
    pub tags: Vec<&'a str>,
}

impl StoredTexts {
    /// Each column by its name; allocates for tags only.
    #[must_use]
    pub fn columns(&self) -> TextColumns<'_> {
        let mut begin = 0;
        let mut next = |end: u32| {
            let text = self.all.get(begin..end as usize).unwrap_or_default();
            begin = end as usize;
            text
        };
        let mut nulls = self.nulls;
        let texts = self.ends.map(|end| {
            let is_null = nulls & 1 == 1;
            nulls >>= 1;
            Some(next(end)).filter(|_| !is_null)
        });
        let tags = self.tag_ends.iter().map(|end| next(*end)).collect();
        let [
            level,
            service,
            host,
            message,
            correlation_id,
            user_id,
            trace_id,
            span_id,
            fields,
            error_details,
            performance_metrics,
            ai_analysis,
        ] = texts;
        TextColumns {
            level: level.unwrap_or_default(),
            service: service.unwrap_or_default(),
            host,
            message: message.unwrap_or_default(),
            correlation_id,
            user_id,
            trace_id,
            span_id,
            fields,
            error_details,
            performance_metrics,
            ai_analysis,
            tags,
        }
    }

    /// Bytes of all texts and tags; the document has more.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.all.len()
    }
}

impl fmt::Debug for StoredTexts {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.columns().fmt(formatter)
    }
}

impl From<TextColumns<'_>> for StoredTexts {
    fn from(columns: TextColumns<'_>) -> Self {
        let texts: [_; COLUMN_COUNT] = [
            Some(columns.level),
            Some(columns.service),
            columns.host,
            Some(columns.message),
            columns.correlation_id,
            columns.user_id,
            columns.trace_id,
            columns.span_id,
            columns.fields,
            columns.error_details,
            columns.performance_metrics,
            columns.ai_analysis,
        ];
        let bytes = texts.iter().flatten().chain(&columns.tags).map(|text| text.len()).sum();
        let mut all = String::with_capacity(bytes);
        let (mut nulls, mut bit) = (0, 1);
        let ends = texts.map(|text| {
            match text {
                Some(text) => all.push_str(text),
                None => nulls |= bit,
            }
            bit <<= 1;
            end_of(&all)
        });
        let tag_ends = columns.tags.into_iter().map(|tag| {
            all.push_str(tag);
            end_of(&all)
        });
        let tag_ends = tag_ends.collect();
        Self {
            all,
            ends,
            nulls,
            tag_ends,
        }
    }
}

/// PostgreSQL sends no row above 1 GiB.
fn end_of(text: &str) -> u32 {
    u32::try_from(text.len()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_column_comes_back_as_it_was(
            given in prop::collection::vec(any::<String>(), 3),
            nullable in prop::collection::vec(any::<Option<String>>(), 9),
            tags in prop::collection::vec(any::<String>(), 0..4),
        ) {
            let nullable: Vec<Option<&str>> = nullable.iter().map(Option::as_deref).collect();
            let columns = TextColumns {
                level: &given[0],
                service: &given[1],
                host: nullable[0],
                message: &given[2],
                correlation_id: nullable[1],
                user_id: nullable[2],
                trace_id: nullable[3],
                span_id: nullable[4],
                fields: nullable[5],
                error_details: nullable[6],
                performance_metrics: nullable[7],
                ai_analysis: nullable[8],
                tags: tags.iter().map(String::as_str).collect(),
            };
            let texts = StoredTexts::from(columns.clone());
            prop_assert_eq!(texts.columns(), columns);
            prop_assert_eq!(texts.all.capacity(), texts.bytes(), "nothing is kept beside them");
        }
    }
}
