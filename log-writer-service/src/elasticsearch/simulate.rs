//! What a new index would really get: Elasticsearch is asked, since another template may go over ours in silence.

use elasticsearch::http::Method;
use serde_json::Value;

use super::{
    client::{Client, read, segment},
    compare,
    error::SearchError,
    objects::{self, Objects},
};
use crate::config::{self, Naming};

/// Streams whose mapping is compared with the templates' at most.
const STREAMS_MAX: usize = 100;

/// What an index would get if it were made now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Simulated {
    /// The name that was simulated.
    pub target: String,
    /// What it would not get from us; empty if all is well.
    pub wrong: Vec<String>,
    /// The template that it would be made from, if that is not ours.
    pub overridden_by: Option<String>,
}

impl Simulated {
    /// Whether a new index gets our policy and mapping.
    pub fn is_ours(&self) -> bool {
        self.wrong.is_empty() && self.overridden_by.is_none()
    }
}

/// A name that the naming makes, of a tenant that need not exist.
fn sample(settings: &config::Elasticsearch) -> String {
    match settings.naming {
        Naming::DataStream => format!("logs-{}-default", settings.dataset),
        Naming::Monthly => "logs-default-2026.01".to_owned(),
    }
}

/// Simulates a new index and compares what it would get.
pub(super) async fn simulate(
    client: &Client,
    settings: &config::Elasticsearch,
    objects: &Objects,
) -> Result<Simulated, SearchError> {
    let target = sample(settings);
    let path = format!("_index_template/_simulate_index/{}", segment(&target));
    let body = client.call(Method::Post, &path, None).await?;
    let answer: Value = read(&format!("POST /{path}"), &body)?;
    let wrong = differences(&answer, settings.naming, &objects.policy);
    let winner = winner(client, &target).await?;
    let ours = objects.all.last().map(|template| template.name.as_str());
    Ok(Simulated {
        target,
        wrong,
        overridden_by: winner.filter(|winner| Some(winner.as_str()) != ours),
    })
}

fn differences(answer: &Value, naming: Naming, policy: &str) -> Vec<String> {
    let text = |pointer: &str| match answer.pointer(pointer).map(compare::as_text) {
        Some(Value::String(text)) => text,
        _ => "none".to_owned(),
    };
    let mut wanted = vec![
        ("lifecycle policy", "/template/settings/index/lifecycle/name", policy),
        (
            "type of @timestamp",
            "/template/mappings/properties/@timestamp/type",
            "date_nanos",
        ),
        ("dynamic", "/template/mappings/dynamic", "false"),
        (
            "type of fields",
            "/template/mappings/properties/fields/type",
            "flattened",
        ),
        (
            "type of event.id_tail",
            "/template/mappings/properties/event/properties/id_tail/type",
            "long",
        ),
    ];
    if naming == Naming::DataStream {
        wanted.push((
            "data stream",
            "/template/mappings/_data_stream_timestamp/enabled",
            "true",
        ));
    }
    let different = wanted.into_iter().filter_map(|(what, pointer, wanted)| {
        let found = text(pointer);
        (found != wanted).then(|| format!("{what} would be {found}, not {wanted}"))
    });
    let pipelines = ["default_pipeline", "final_pipeline"].into_iter().filter_map(|name| {
        let found = text(&format!("/template/settings/index/{name}"));
        (found != "none" && found != "_none").then(|| format!("{name} would be {found}, not none"))
    });
    different.chain(pipelines).collect()
}

/// The index template of the highest priority that matches the name.
async fn winner(client: &Client, target: &str) -> Result<Option<String>, SearchError> {
    let path = "_index_template?filter_path=index_templates.name,index_templates.index_template.index_patterns,\
                index_templates.index_template.priority";
    let answer: Value = read("GET /_index_template", &client.call(Method::Get, path, None).await?)?;
    let templates = answer.get("index_templates").and_then(Value::as_array);
    let matching = templates.into_iter().flatten().filter_map(|template| {
        let patterns = template.pointer("/index_template/index_patterns")?.as_array()?;
        let matches = patterns
            .iter()
            .filter_map(Value::as_str)
            .any(|pattern| glob(pattern, target));
        let priority = template.pointer("/index_template/priority").and_then(Value::as_u64);
        let name = template.get("name")?.as_str()?;
        matches.then(|| (priority.unwrap_or(0), name.to_owned()))
    });
    Ok(matching.max().map(|(_, name)| name))
}

/// Whether a name matches a pattern with `*`, as Elasticsearch's index patterns do.
fn glob(pattern: &str, name: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else {
        return pattern == name;
    };
    let Some(name) = name.strip_prefix(first) else {
        return false;
    };
    // `rest` matches a tail of the name, whatever the star took.
    (0..=name.len()).any(|taken| name.get(taken..).is_some_and(|tail| glob(rest, tail)))
}

/// Indices now written to whose mapping is not the templates': a new one comes with the next rollover.
pub(super) async fn older_indices(
    client: &Client,
    settings: &config::Elasticsearch,
) -> Result<Vec<String>, SearchError> {
    if settings.naming == Naming::Monthly {
        return Ok(Vec::new());
    }
    let pattern = objects::pattern(settings);
    let path = format!("_data_stream/{}", segment(&pattern));
    let streams: Value = read("GET /_data_stream", &client.call(Method::Get, &path, None).await?)?;
    let mut older = Vec::new();
    for stream in streams
        .get("data_streams")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .take(STREAMS_MAX)
    {
        let written = stream
            .get("indices")
            .and_then(Value::as_array)
            .and_then(|indices| indices.last());
        let (Some(name), Some(index)) = (
            stream.get("name").and_then(Value::as_str),
            written
                .and_then(|index| index.get("index_name"))
                .and_then(Value::as_str),
        ) else {
            continue;
        };
        let path = format!("{}/_mapping", segment(index));
        let now: Value = read("GET /_mapping", &client.call(Method::Get, &path, None).await?)?;
        let path = format!("_index_template/_simulate_index/{}", segment(name));
        let next: Value = read("POST /_simulate_index", &client.call(Method::Post, &path, None).await?)?;
        let now = now.get(index).and_then(|index| index.get("mappings")).map(fields);
        if now != next.pointer("/template/mappings").map(fields) {
            older.push(index.to_owned());
        }
    }
    Ok(older)
}

/// The mapped fields without those that Elasticsearch added by itself.
fn fields(mappings: &Value) -> Value {
    let mut properties = compare::as_text(mappings.get("properties").unwrap_or(&Value::Null));
    if let Some(metrics) = properties.get_mut("performance_metrics").and_then(Value::as_object_mut) {
        metrics.retain(|name, _| name == "dynamic" || name == "subobjects");
    }
    properties
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_elasticsearchs_do() {
        for (pattern, name, expected) in [
            ("logs-app-*", "logs-app-default", true),
            ("logs-*-*", "logs-app-default", true),
            ("logs-*", "metrics-app-default", false),
            ("*", "anything", true),
            ("logs-app-default", "logs-app-default", true),
            ("logs-app", "logs-app-default", false),
            ("*-default", "logs-app-default", true),
            ("logs-*-20*.*", "logs-acme-2026.11", true),
            ("logs-*-20*.*", "logs-app-default", false),
        ] {
            assert_eq!(glob(pattern, name), expected, "{pattern} {name}");
        }
    }
}
