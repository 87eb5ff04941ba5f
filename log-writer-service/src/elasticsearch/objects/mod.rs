//! What the service keeps in the cluster: policy, component templates, index template, as they should be.
//!
//! The files in `es-templates` and `ilm` are compiled in and can be replaced one by one from a folder. What the
//! configuration decides (pattern, replicas, refresh interval, promoted fields) is set here, in either.

use std::{fmt, path::Path};

use serde_json::{Map, Value, json};

use super::{compare, error::SearchError, promoted::Promoted};
use crate::config::{self, Naming};

/// Value of `_meta.managed_by` in what is ours.
pub(super) const MANAGED_BY: &str = "log-writer";

/// The dataset whose objects have the files' names; another one's end in `_<dataset>`, so that two installations on
/// one cluster do not take each other's for their own with changes.
const PLAIN_DATASET: &str = "app";

const FILES: [(&str, ObjectKind, &str); 6] = [
    (
        "logs_policy",
        ObjectKind::Policy,
        include_str!("../../../../ilm/logs_policy.json"),
    ),
    (
        "logs_policy_monthly",
        ObjectKind::Policy,
        include_str!("../../../../ilm/logs_policy_monthly.json"),
    ),
    (
        "logs_settings",
        ObjectKind::ComponentTemplate,
        include_str!("../../../../es-templates/logs_settings.json"),
    ),
    (
        "logs_mappings",
        ObjectKind::ComponentTemplate,
        include_str!("../../../../es-templates/logs_mappings.json"),
    ),
    (
        "logs_template",
        ObjectKind::IndexTemplate,
        include_str!("../../../../es-templates/logs_template.json"),
    ),
    (
        "logs_template_monthly",
        ObjectKind::IndexTemplate,
        include_str!("../../../../es-templates/logs_template_monthly.json"),
    ),
];

/// What kind of object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ObjectKind {
    /// A lifecycle policy.
    Policy,
    /// A part of an index template.
    ComponentTemplate,
    /// An index template.
    IndexTemplate,
}

/// One object as it should be.
#[derive(Debug, Clone)]
pub(super) struct Object {
    pub(super) kind: ObjectKind,
    pub(super) name: String,
    /// The body of its `PUT`.
    pub(super) body: Value,
}

/// All objects of a configuration, in the order in which they need each other.
#[derive(Debug, Clone)]
pub(super) struct Objects {
    pub(super) all: Vec<Object>,
    /// The policy that new indices get.
    pub(super) policy: String,
}

impl fmt::Display for ObjectKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Policy => "lifecycle policy",
            Self::ComponentTemplate => "component template",
            Self::IndexTemplate => "index template",
        })
    }
}

impl ObjectKind {
    /// The path of its API.
    pub(super) fn path(self) -> &'static str {
        match self {
            Self::Policy => "_ilm/policy",
            Self::ComponentTemplate => "_component_template",
            Self::IndexTemplate => "_index_template",
        }
    }
}

impl Object {
    /// Whether it names the other one.
    pub(super) fn needs(&self, other: &Self) -> bool {
        match other.kind {
            ObjectKind::Policy => lifecycle(&self.body) == Some(other.name.as_str()),
            ObjectKind::ComponentTemplate => {
                let parts = self.body.get("composed_of").and_then(Value::as_array);
                parts.is_some_and(|parts| parts.iter().any(|part| part.as_str() == Some(&other.name)))
            }
            ObjectKind::IndexTemplate => false,
        }
    }
}

impl Objects {
    /// Reads the files and sets what the configuration decides.
    ///
    /// # Errors
    /// [`SearchError::Settings`] for a folder or file that cannot be used.
    pub(super) fn new(settings: &config::Elasticsearch, version: (u32, u32)) -> Result<Self, SearchError> {
        if let Some(folder) = &settings.templates_dir {
            refuse_unknown_files(folder)?;
        }
        let (policy, template) = match settings.naming {
            Naming::DataStream => ("logs_policy", "logs_template"),
            Naming::Monthly => ("logs_policy_monthly", "logs_template_monthly"),
        };
        let promoted = Promoted::new(&settings.promote)?;
        let mut all = Vec::new();
        for (file, kind, built_in) in FILES {
            if !["logs_settings", "logs_mappings", policy, template].contains(&file) {
                continue;
            }
            let mut body = read(settings.templates_dir.as_deref(), file, built_in)?;
            set(&mut body, kind, file, settings, version, &promoted).ok_or_else(|| {
                SearchError::Settings(format!("{file}.json is no {kind}: an object is missing in it"))
            })?;
            all.push(Object {
                kind,
                name: object_name(file, settings),
                body,
            });
        }
        // The index template's own settings go over those of its parts.
        let named = all
            .iter()
            .rev()
            .find_map(|object| lifecycle(&object.body))
            .map(str::to_owned);
        let policy = named.ok_or_else(|| SearchError::Settings("no template names a lifecycle policy".to_owned()))?;
        Ok(Self { all, policy })
    }
}

/// What the index patterns of the naming are.
pub(super) fn pattern(settings: &config::Elasticsearch) -> String {
    match settings.naming {
        Naming::DataStream => format!("logs-{}-*", settings.dataset),
        Naming::Monthly => "logs-*-20*.*".to_owned(),
    }
}

fn object_name(file: &str, settings: &config::Elasticsearch) -> String {
    // By monthly naming the dataset is in no index's name: all installations share the objects.
    if settings.naming == Naming::Monthly || settings.dataset == PLAIN_DATASET {
        file.to_owned()
    } else {
        format!("{file}_{}", settings.dataset)
    }
}

fn refuse_unknown_files(folder: &Path) -> Result<(), SearchError> {
    let unusable =
        |why: String| SearchError::Settings(format!("elasticsearch.templates_dir {}: {why}", folder.display()));
    for entry in std::fs::read_dir(folder).map_err(|error| unusable(error.to_string()))? {
        let path = entry.map_err(|error| unusable(error.to_string()))?.path();
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        let is_json = path.extension().is_some_and(|extension| extension == "json");
        if is_json && !FILES.iter().any(|(file, ..)| *file == stem) {
            let known: Vec<&str> = FILES.iter().map(|(file, ..)| *file).collect();
            return Err(unusable(format!(
                "{stem}.json replaces nothing; known are {}",
                known.join(", ")
            )));
        }
    }
    Ok(())
}

fn read(folder: Option<&Path>, file: &str, built_in: &str) -> Result<Value, SearchError> {
    let unusable = |why: String| SearchError::Settings(format!("{file}.json: {why}"));
    let path = folder.map(|folder| folder.join(format!("{file}.json")));
    let replacement = match path.filter(|path| path.exists()) {
        Some(path) => Some(std::fs::read_to_string(&path).map_err(|error| unusable(error.to_string()))?),
        None => None,
    };
    serde_json::from_str(replacement.as_deref().unwrap_or(built_in)).map_err(|error| unusable(error.to_string()))
}

/// Sets what the configuration decides; `None` if the body lacks the object it belongs in.
fn set(
    body: &mut Value,
    kind: ObjectKind,
    file: &str,
    settings: &config::Elasticsearch,
    version: (u32, u32),
    promoted: &Promoted,
) -> Option<()> {
    let named = match kind {
        ObjectKind::Policy => member(body, "policy")?,
        ObjectKind::ComponentTemplate | ObjectKind::IndexTemplate => body.as_object_mut()?,
    };
    let meta = named.entry("_meta").or_insert_with(|| json!({}));
    meta.as_object_mut()?.insert("managed_by".to_owned(), json!(MANAGED_BY));
    if kind == ObjectKind::Policy {
        return named.get("phases")?.as_object().map(|_| ());
    }
    let is_index_template = kind == ObjectKind::IndexTemplate;
    if is_index_template {
        named.insert("index_patterns".to_owned(), json!([pattern(settings)]));
        for part in named.get_mut("composed_of")?.as_array_mut()? {
            let file = part.as_str()?;
            if FILES.iter().any(|(known, ..)| *known == file) {
                *part = json!(object_name(file, settings));
            }
        }
    }
    let template = named.entry("template").or_insert_with(|| json!({})).as_object_mut()?;
    // Known from 8.19 and 9.1 on, refused as an unknown field before.
    if !matches!(version, (8, 19..) | (9, 1..) | (10.., _)) {
        template.remove("data_stream_options");
    }
    if let Some(own) = template.remove("settings") {
        let mut flat = compare::flat_settings(&own);
        if let Some(Value::String(policy)) = flat.get_mut("index.lifecycle.name")
            && FILES.iter().any(|(known, ..)| known == policy)
        {
            *policy = object_name(policy, settings);
        }
        template.insert("settings".to_owned(), Value::Object(flat));
    }
    if file == "logs_settings" {
        let flat = template.get_mut("settings")?.as_object_mut()?;
        flat.insert(
            "index.number_of_replicas".to_owned(),
            json!(settings.replicas.to_string()),
        );
        flat.insert("index.refresh_interval".to_owned(), json!(settings.refresh_interval));
    }
    if file == "logs_mappings" {
        let properties = member(template.get_mut("mappings")?, "properties")?;
        for (name, field_type) in promoted.types() {
            let mut field = json!({ "type": field_type.as_str() });
            if field_type.as_str() == "keyword" {
                field.as_object_mut()?.insert("ignore_above".to_owned(), json!(1024));
            }
            put_property(properties, name, field)?;
        }
    }
    Some(())
}

/// Puts a field under a dotted name, as objects within each other.
fn put_property(properties: &mut Map<String, Value>, name: &str, field: Value) -> Option<()> {
    match name.split_once('.') {
        None => {
            properties.insert(name.to_owned(), field);
            Some(())
        }
        Some((first, rest)) => {
            let object = properties.entry(first).or_insert_with(|| json!({ "properties": {} }));
            put_property(member(object, "properties")?, rest, field)
        }
    }
}

fn member<'a>(value: &'a mut Value, name: &str) -> Option<&'a mut Map<String, Value>> {
    value.get_mut(name)?.as_object_mut()
}

/// The policy that a template names.
fn lifecycle(body: &Value) -> Option<&str> {
    body.pointer("/template/settings")?
        .get("index.lifecycle.name")?
        .as_str()
}

#[cfg(test)]
mod tests;
