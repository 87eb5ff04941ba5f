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
    ends: Ends,
}

/// Where each text ends among all of them.
#[derive(Clone, PartialEq)]
struct Ends {
    columns: [u32; COLUMN_COUNT],
    /// Whether the column is null, bit by bit from the lowest.
    nulls: u16,
    tags: Box<[u32]>,
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
    /// Takes the columns in the order of [`TextColumns`], and the tags, as PostgreSQL sends them.
    ///
    /// `None` if one of them is no UTF-8, or null where it must not be. They are checked at one go, since most are a few
    /// bytes.
    #[must_use]
    pub fn read(columns: [Option<&[u8]>; COLUMN_COUNT], tags: &[&[u8]]) -> Option<Self> {
        let [level, service, _, message, ..] = columns;
        level.and(service).and(message)?;
        let (bytes, ends) = join(columns, tags);
        let all = String::from_utf8(bytes).ok()?;
        // Else two that are broken could be one character together.
        let mut each = ends.columns.iter().chain(&ends.tags);
        let are_whole = each.all(|end| all.is_char_boundary(*end as usize));
        are_whole.then_some(Self { all, ends })
    }

    /// Each column by its name; allocates for tags only.
    #[must_use]
    pub fn columns(&self) -> TextColumns<'_> {
        let mut begin = 0;
        let mut next = |end: u32| {
            let text = self.all.get(begin..end as usize).unwrap_or_default();
            begin = end as usize;
            text
        };
        let mut nulls = self.ends.nulls;
        let texts = self.ends.columns.map(|end| {
            let is_null = nulls & 1 == 1;
            nulls >>= 1;
            Some(next(end)).filter(|_| !is_null)
        });
        let tags = self.ends.tags.iter().map(|end| next(*end)).collect();
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
        let texts = [
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
        let tags: Vec<&[u8]> = columns.tags.iter().map(|tag| tag.as_bytes()).collect();
        let (bytes, ends) = join(texts.map(|text| text.map(str::as_bytes)), &tags);
        // Texts, one after another, are text.
        let all = String::from_utf8(bytes).unwrap_or_default();
        Self { all, ends }
    }
}

/// The bytes of all columns and tags, and where each ends.
fn join(columns: [Option<&[u8]>; COLUMN_COUNT], tags: &[&[u8]]) -> (Vec<u8>, Ends) {
    let bytes = columns.iter().flatten().chain(tags).map(|text| text.len()).sum();
    let mut all = Vec::with_capacity(bytes);
    let (mut nulls, mut bit) = (0, 1);
    let columns = columns.map(|column| {
        match column {
            Some(text) => all.extend_from_slice(text),
            None => nulls |= bit,
        }
        bit <<= 1;
        end_of(&all)
    });
    let tags = tags.iter().map(|tag| {
        all.extend_from_slice(tag);
        end_of(&all)
    });
    let tags = tags.collect();
    (all, Ends { columns, nulls, tags })
}

/// PostgreSQL sends no row above 1 GiB.
fn end_of(text: &[u8]) -> u32 {
    u32::try_from(text.len()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_no_text_is_refused_wherever_it_stands() {
        let mut columns: [Option<&[u8]>; COLUMN_COUNT] = [None; COLUMN_COUNT];
        for (at, text) in [(0, "INFO"), (1, "a"), (3, "é")] {
            columns[at] = Some(text.as_bytes());
        }
        let read = StoredTexts::read(columns, &["é".as_bytes()]).unwrap();
        assert_eq!((read.columns().message, read.columns().tags), ("é", vec!["é"]));
        for needed in [0, 1, 3] {
            let mut broken = columns;
            broken[needed] = None;
            assert_eq!(StoredTexts::read(broken, &[]), None);
        }
        // Each half of a character, and what stands beside it, is broken, though both are one character together.
        let [first, second] = *"é".as_bytes() else { panic!() };
        for at in 0..COLUMN_COUNT {
            let mut broken = columns;
            broken[at] = Some(std::slice::from_ref(&first));
            assert_eq!(StoredTexts::read(broken, &[]), None, "{at}");
            if let Some(next) = broken.get_mut(at + 1) {
                *next = Some(std::slice::from_ref(&second));
                assert_eq!(StoredTexts::read(broken, &[]), None, "{at} with the next");
            }
        }
        let halves = [std::slice::from_ref(&first), std::slice::from_ref(&second)];
        assert_eq!(StoredTexts::read(columns, &halves), None);
        columns[COLUMN_COUNT - 1] = Some(halves[0]);
        assert_eq!(StoredTexts::read(columns, &halves[1..]), None);
    }

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
