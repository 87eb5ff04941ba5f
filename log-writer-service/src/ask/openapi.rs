//! `/api/openapi.json`: the catalogue as `OpenAPI` 3.1.

use serde_json::{Map, Value, json};

use super::catalogue::{CATALOGUE, Entry, Kind, TENANT};

/// The document.
#[must_use]
pub fn document() -> Value {
    let paths: Map<String, Value> = CATALOGUE
        .iter()
        .map(|entry| (entry.path.to_owned(), json!({"get": operation(entry)})))
        .collect();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "log-writer-service",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Questions about log events. With authentication on they need the scope read, and see the \
                            events of the credential's tenant.",
        },
        "paths": paths,
        "components": {
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}, "basic": {"type": "http", "scheme": "basic"}},
            "schemas": {
                "Answer": {
                    "type": "object",
                    "required": ["store", "behind_seconds", "truncated", "rows"],
                    "properties": {
                        "store": {"enum": ["postgresql", "elasticsearch"], "description": "What found the rows."},
                        "behind_seconds": {"type": "number", "description": "Events younger than this may be missing."},
                        "truncated": {"type": "boolean", "description": "Whether there were more rows than the limits allow."},
                        "note": {"type": "string", "description": "What there is to know about this answer: rows left out, why Elasticsearch was not asked."},
                        "next": {"type": "string", "description": "`before` of the next page."},
                        "rows": {"type": "array", "items": {"type": "object"}},
                    },
                },
                "Problem": {
                    "type": "object",
                    "required": ["error", "message"],
                    "properties": {"error": {"type": "string"}, "message": {"type": "string"}},
                },
            },
        },
        "security": [{}, {"bearer": []}, {"basic": []}],
    })
}

fn operation(entry: &Entry) -> Value {
    let parameters: Vec<Value> = entry
        .parameters
        .iter()
        .chain([&TENANT])
        .map(|parameter| {
            let in_path = entry.path.contains(&format!("{{{}}}", parameter.name));
            let mut described = json!({
                "name": parameter.name,
                "in": if in_path { "path" } else { "query" },
                "required": entry.required.contains(&parameter.name),
                "description": parameter.about,
            });
            if let Some(described) = described.as_object_mut() {
                if parameter.kind == Kind::Object {
                    described.insert(
                        "content".to_owned(),
                        json!({"application/json": {"schema": parameter.schema()}}),
                    );
                } else {
                    described.insert("schema".to_owned(), parameter.schema());
                }
            }
            described
        })
        .collect();
    let problem = |about: &str| json!({"description": about, "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Problem"}}}});
    json!({
        "operationId": entry.name,
        "summary": entry.about,
        "parameters": parameters,
        "responses": {
            "200": {
                "description": "The answer",
                "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Answer"}}},
            },
            "400": problem("A parameter is wrong; the message says which"),
            "401": problem("No valid credential"),
            "403": problem("The credential does not allow this"),
            "503": problem("PostgreSQL does not answer"),
            "504": problem("It took longer than api.statement_timeout"),
        },
    })
}
