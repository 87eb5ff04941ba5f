//! What a `Content-Type` says about the shape of a body.

/// The families that are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ContentType {
    /// One JSON document, or several.
    Json,
    /// One JSON value a line.
    JsonLines,
    /// Lines of text, whatever they look like.
    Text,
    /// Protocol Buffers.
    Protobuf,
    /// Avro.
    Avro,
    /// None, or one that says nothing: the bytes decide.
    Unknown,
}

impl ContentType {
    pub(super) fn of(header: Option<&str>) -> Self {
        let essence = header.unwrap_or_default().split(';').next().unwrap_or_default();
        let essence = essence.trim().to_ascii_lowercase();
        let (family, name) = essence.split_once('/').unwrap_or((&essence, ""));
        let name = name.strip_prefix("x-").unwrap_or(name);
        match (family, name) {
            (
                "application" | "text",
                "ndjson" | "jsonl" | "jsonlines" | "json-lines" | "ldjson" | "json-seq" | "stream+json",
            ) => Self::JsonLines,
            ("application" | "text", "json") => Self::Json,
            ("application", "protobuf" | "protobuffer" | "vnd.google.protobuf" | "grpc" | "grpc+proto") => {
                Self::Protobuf
            }
            ("avro", _) | ("application", "avro" | "vnd.apache.avro" | "vnd.apache.avro+binary" | "avro-binary") => {
                Self::Avro
            }
            _ if name.ends_with("+json") => Self::Json,
            _ if name.ends_with("+protobuf") || name.ends_with("+proto") => Self::Protobuf,
            _ if name.ends_with("+avro") => Self::Avro,
            ("text", _) => Self::Text,
            _ => Self::Unknown,
        }
    }
}
