//! Every option in `vector/*.toml` is one that Vector 0.57 documents, with a value of its type.
//!
//! `tests/fixtures/vector-options/` lists the options: path, types, permitted values.

use std::{collections::BTreeSet, fs};

use log_writer_tests::vector_programs::{VectorConfig, configs, repository};
use toml::Value;

/// One documented option: `*` stands for any name, `[]` behind a name for an element of the list.
#[derive(Debug)]
struct Known {
    path: Vec<String>,
    kinds: Vec<String>,
    values: Vec<String>,
    deprecated: bool,
}

/// The options in a list of the fixtures; none if there is no such list.
fn known(list: &str) -> Vec<Known> {
    let path = repository()
        .join("tests/fixtures/vector-options")
        .join(format!("{list}.txt"));
    let Ok(text) = fs::read_to_string(path) else {
        return Vec::new();
    };
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let mut words = line.split(' ');
            let mut next = || words.next().unwrap_or_default();
            let path = next().replace("[]", ".[]").split('.').map(str::to_owned).collect();
            let kinds = next().split(',').map(str::to_owned).collect();
            let rest: Vec<_> = words.collect();
            let values = rest.iter().find_map(|word| word.strip_prefix("enum="));
            Known {
                path,
                kinds,
                values: values
                    .into_iter()
                    .flat_map(|all| all.split('|'))
                    .map(str::to_owned)
                    .collect(),
                deprecated: rest.contains(&"deprecated"),
            }
        })
        .collect()
}

impl Known {
    fn is_at(&self, path: &[String]) -> bool {
        self.path.len() == path.len()
            && self
                .path
                .iter()
                .zip(path)
                .all(|(known, given)| known == "*" || known == given)
    }

    fn takes(&self, value: &Value) -> bool {
        self.kinds.iter().any(|kind| match (kind.as_str(), value) {
            ("string", Value::String(text)) => self.values.is_empty() || self.values.contains(text),
            ("uint", Value::Integer(number)) => *number >= 0,
            ("float", Value::Float(_) | Value::Integer(_))
            | ("bool", Value::Boolean(_))
            | ("array", Value::Array(_))
            | ("object", Value::Table(_)) => true,
            _ => false,
        })
    }
}

/// What is wrong with a value and all in it.
fn mistakes(known: &[Known], path: &[String], value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    if !path.is_empty() {
        let at: Vec<_> = known.iter().filter(|option| option.is_at(path)).collect();
        if at.is_empty() {
            return vec![format!("{} is no option", path.join("."))];
        }
        if !at.iter().any(|option| option.takes(value)) {
            found.push(format!("{} does not take {value}", path.join(".")));
        }
        if at.iter().all(|option| option.deprecated) {
            found.push(format!("{} is deprecated", path.join(".")));
        }
    }
    let inner = |name: &str| [path, &[name.to_owned()]].concat();
    match value {
        Value::Table(table) => {
            for (name, value) in table {
                found.extend(mistakes(known, &inner(name), value));
            }
        }
        Value::Array(values) => {
            for value in values {
                found.extend(mistakes(known, &inner("[]"), value));
            }
        }
        Value::String(_) | Value::Integer(_) | Value::Float(_) | Value::Boolean(_) | Value::Datetime(_) => {}
    }
    found
}

/// What is wrong in a whole configuration.
fn mistakes_of(config: &VectorConfig) -> Vec<String> {
    let mut global = config.table.clone();
    let mut found = Vec::new();
    for kind in ["sources", "transforms", "sinks"] {
        let named = global
            .remove(kind)
            .and_then(|value| value.as_table().cloned())
            .unwrap_or_default();
        let components = config.components(kind);
        assert_eq!(
            named.len(),
            components.len(),
            "{}: a component without `type`",
            config.name
        );
        for (name, component_type, options) in components {
            let own = known(&format!("{kind}.{component_type}"));
            if own.is_empty() {
                found.push(format!("{name}: no list of the options of {kind}.{component_type}"));
                continue;
            }
            let mut all = own;
            all.extend(known(kind));
            let mut options = options.clone();
            options.remove("type");
            for mistake in mistakes(&all, &[], &Value::Table(options)) {
                found.push(format!("{kind}.{name}: {mistake}"));
            }
        }
    }
    found.extend(mistakes(&known("global"), &[], &Value::Table(global)));
    found
}

#[test]
fn every_option_is_one_that_vector_documents() {
    for config in configs().unwrap() {
        assert_eq!(mistakes_of(&config), Vec::<String>::new(), "{}", config.name);
    }
}

#[test]
fn a_wrong_option_or_value_is_found() {
    let good = configs()
        .unwrap()
        .into_iter()
        .find(|config| config.name == "vector.toml")
        .unwrap();
    for (from, to, mistake) in [
        (
            "max_events = 5_000",
            "max_event = 5_000",
            "sinks.log_writer: batch.max_event is no option",
        ),
        (
            "compression = \"zstd\"",
            "compression = \"lz4\"",
            "sinks.log_writer: compression does not take \"lz4\"",
        ),
        (
            "when_full = \"block\"",
            "when_full = \"overflow\"",
            "sinks.log_writer: buffer.when_full does not take \"overflow\"",
        ),
        (
            "timeout_secs = 60",
            "timeout_secs = \"60s\"",
            "sinks.log_writer: request.timeout_secs does not take \"60s\"",
        ),
        (
            "read_from = \"beginning\"",
            "start_at_beginning = true",
            "sources.files: start_at_beginning is no option",
        ),
        (
            "type = \"syslog\"",
            "type = \"sislog\"",
            "syslog: no list of the options of sources.sislog",
        ),
        ("data_dir =", "data_directory =", "data_directory is no option"),
    ] {
        assert!(good.text.contains(from), "{from}");
        let text = good.text.replacen(from, to, 1);
        let table = text.parse().unwrap();
        let broken = VectorConfig {
            text,
            table,
            ..good.clone()
        };
        assert_eq!(mistakes_of(&broken), [mistake]);
    }
}

#[test]
fn every_input_is_a_component_of_the_file_and_every_source_is_read() {
    for config in configs().unwrap() {
        let names: BTreeSet<_> = ["sources", "transforms"]
            .iter()
            .flat_map(|kind| config.components(kind))
            .map(|(name, _, _)| name.to_owned())
            .collect();
        let inputs: BTreeSet<_> = ["transforms", "sinks"]
            .iter()
            .flat_map(|kind| config.components(kind))
            .flat_map(|(_, _, options)| options["inputs"].as_array().unwrap().clone())
            .map(|input| input.as_str().unwrap().to_owned())
            .collect();
        assert_eq!(names, inputs, "{}", config.name);
    }
}

#[test]
fn no_file_but_the_one_of_kubernetes_needs_secrets_and_none_the_environment_to_start() {
    for config in configs().unwrap() {
        // Vector looks for both in the whole text, comments too.
        let secrets = usize::from(config.name == "kubernetes.toml");
        assert_eq!(config.text.matches("SECRET[").count(), secrets, "{}", config.name);
        let variable = |pair: &[char]| matches!(pair, ['$', next] if next.is_alphanumeric() || "_{$".contains(*next));
        let letters: Vec<char> = config.text.chars().collect();
        assert!(!letters.windows(2).any(variable), "{}", config.name);
    }
}
