//! YAML files: paths into them, and what they say about images and variables.

use std::fs;

use log_writer_tests::vector_programs::{configs, repository};
use serde::Deserialize;
use serde_yaml_ng::{Deserializer, Value};

/// The documents of a file in the repository.
pub(crate) fn documents(path: &str) -> Vec<Value> {
    let text = fs::read_to_string(repository().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    Deserializer::from_str(&text)
        .map(|document| Value::deserialize(document).unwrap_or_else(|error| panic!("{path}: {error}")))
        .collect()
}

/// The value at a path of names and positions; names that contain a dot are not needed.
pub(crate) fn at<'a>(value: &'a Value, path: &str) -> &'a Value {
    path.split('.').fold(value, |value, name| {
        let inner = match name.parse::<usize>() {
            Ok(position) => value.get(position),
            Err(_) => value.get(name),
        };
        inner.unwrap_or_else(|| panic!("no {path} in {value:?}"))
    })
}

/// The text at a path.
pub(crate) fn text<'a>(value: &'a Value, path: &str) -> &'a str {
    at(value, path).as_str().unwrap_or_else(|| panic!("{path} is no text"))
}

/// The list at a path; empty if there is none.
pub(crate) fn list(value: &Value, name: &str) -> Vec<Value> {
    value
        .get(name)
        .and_then(Value::as_sequence)
        .cloned()
        .unwrap_or_default()
}

/// The names of a table's members.
pub(crate) fn names(value: &Value) -> Vec<&str> {
    value
        .as_mapping()
        .unwrap()
        .keys()
        .map(|key| key.as_str().unwrap())
        .collect()
}

/// The version in an image's tag, if it has three numbers.
pub(crate) fn version(image: &str) -> Option<&str> {
    let tag = image.rsplit_once(':')?.1;
    let version = tag.split('-').next()?;
    let numbers: Vec<_> = version.split('.').collect();
    let pinned = numbers.len() == 3 && numbers.iter().all(|number| number.parse::<u32>().is_ok());
    pinned.then_some(version)
}

/// The version of Vector whose options the fixtures list.
pub(crate) const VECTOR: &str = "0.57.0";

/// `seconds` of "40s".
pub(crate) fn seconds(text: &str) -> u64 {
    text.strip_suffix('s')
        .and_then(|number| number.parse().ok())
        .unwrap_or_else(|| panic!("{text} is not in seconds"))
}

/// The ports that sources of a Vector configuration listen on.
pub(crate) fn vector_ports(name: &str) -> Vec<u16> {
    let all = configs().unwrap();
    let config = all.iter().find(|config| config.name == name).unwrap();
    let sources = config.components("sources");
    let addresses = sources.iter().filter_map(|(_, _, options)| options.get("address"));
    let mut ports: Vec<_> = addresses.map(|address| port(address.as_str().unwrap())).collect();
    ports.sort_unstable();
    ports
}

/// The port of Vector's own API.
pub(crate) fn vector_api_port(name: &str) -> u16 {
    let all = configs().unwrap();
    let config = all.iter().find(|config| config.name == name).unwrap();
    port(config.table["api"]["address"].as_str().unwrap())
}

/// Where a Vector configuration posts to.
pub(crate) fn vector_target(name: &str) -> String {
    let all = configs().unwrap();
    let config = all.iter().find(|config| config.name == name).unwrap();
    let sinks = config.components("sinks");
    let (_, _, sink) = sinks.iter().find(|(_, kind, _)| *kind == "http").unwrap();
    sink["uri"].as_str().unwrap().to_owned()
}

/// The port behind the last colon.
pub(crate) fn port(address: &str) -> u16 {
    address
        .rsplit_once(':')
        .and_then(|(_, port)| port.parse().ok())
        .unwrap_or_else(|| panic!("no port in {address}"))
}

#[test]
fn the_fixtures_are_of_the_version_that_the_images_run() {
    let folder = repository().join("tests/fixtures/vector-options");
    for entry in fs::read_dir(folder).unwrap() {
        let text = fs::read_to_string(entry.unwrap().path()).unwrap();
        assert!(
            text.lines().next().unwrap().contains(&format!("Vector {VECTOR}")),
            "{text:.80}"
        );
    }
}
