//! `deploy/Dockerfile` and `.dockerignore`.

use std::{
    collections::BTreeSet,
    fs,
    path::{Component, Path, PathBuf},
};

use log_writer_tests::vector_programs::repository;

use crate::{settings::is_variable, yaml::version};

const BINARY: &str = "/usr/local/bin/log-writer-service";

/// Instructions and their arguments, lines put together.
fn instructions() -> Vec<(String, String)> {
    let text = fs::read_to_string(repository().join("deploy/Dockerfile")).unwrap();
    let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    let joined = lines.collect::<Vec<_>>().join("\n").replace("\\\n", " ");
    let whole = joined.lines().filter(|line| !line.trim().is_empty());
    whole
        .map(|line| {
            let (name, rest) = line.split_once(' ').unwrap();
            (name.to_owned(), rest.split_whitespace().collect::<Vec<_>>().join(" "))
        })
        .collect()
}

fn arguments(instruction: &str) -> Vec<String> {
    let found = instructions().into_iter().filter(|(name, _)| name == instruction);
    found.map(|(_, rest)| rest).collect()
}

/// What the build sees of the repository: the first part of each path that `.dockerignore` lets in again.
fn context() -> BTreeSet<String> {
    let text = fs::read_to_string(repository().join(".dockerignore")).unwrap();
    let lines: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(lines.first(), Some(&"*"), "everything is out first");
    lines
        .iter()
        .skip(1)
        .map(|line| line.strip_prefix('!').unwrap().to_owned())
        .collect()
}

#[test]
fn it_builds_with_the_toolchain_of_the_workspace() {
    let workspace = fs::read_to_string(repository().join("Cargo.toml")).unwrap();
    let workspace: toml::Table = workspace.parse().unwrap();
    let package = &workspace["workspace"]["package"];
    let bases = arguments("FROM");
    let rust = bases[0].split(' ').next().unwrap();
    assert!(rust.ends_with("-slim-trixie"), "{rust}");
    assert!(
        version(rust)
            .unwrap()
            .starts_with(package["rust-version"].as_str().unwrap()),
        "{rust}"
    );
    assert_eq!(bases[2], "gcr.io/distroless/cc-debian13:nonroot");
    let labels = arguments("LABEL").join(" ");
    assert!(
        labels.contains(&format!("image.version=\"{}\"", package["version"].as_str().unwrap())),
        "{labels}"
    );
    assert!(
        labels.contains(&format!("image.licenses=\"{}\"", package["license"].as_str().unwrap())),
        "{labels}"
    );
}

#[test]
fn every_copied_file_exists_and_is_in_the_build_context() {
    let context = context();
    let mut copied = 0;
    for argument in arguments("COPY").iter().filter(|argument| !argument.starts_with("--")) {
        let mut words: Vec<_> = argument.split(' ').collect();
        words.pop();
        for source in words.into_iter().filter(|source| *source != ".") {
            assert!(repository().join(source).is_file(), "{source}");
            let inside = context.iter().any(|entry| Path::new(source).starts_with(entry));
            assert!(inside, "{source} is left out by .dockerignore");
            copied += 1;
        }
    }
    assert_eq!(copied, 4, "the manifests and the lock file");
}

/// Rust files below a folder.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

/// The path without `.` and `..`.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(plain.pop()),
            Component::CurDir => {}
            Component::Prefix(_) | Component::RootDir | Component::Normal(_) => plain.push(part),
        }
    }
    plain
}

#[test]
fn every_file_that_is_compiled_in_is_in_the_build_context() {
    let context = context();
    let package = Path::new("log-writer-service");
    for source in sources(&repository().join("log-writer-service/src")) {
        let text = fs::read_to_string(&source).unwrap();
        let folder = source.parent().unwrap().strip_prefix(repository()).unwrap();
        for (macro_name, base) in [
            ("include_str!(\"", folder),
            ("include_bytes!(\"", folder),
            ("migrate!(\"", package),
        ] {
            for rest in text.split(macro_name).skip(1) {
                let path = plain(&base.join(rest.split('"').next().unwrap()));
                let inside = context.iter().any(|entry| path.starts_with(entry));
                assert!(
                    inside,
                    "{} compiles in {}, which .dockerignore leaves out",
                    source.display(),
                    path.display()
                );
            }
        }
    }
}

#[test]
fn it_runs_unprivileged_and_asks_itself_how_it_is() {
    assert_eq!(arguments("USER"), ["nonroot"]);
    assert_eq!(arguments("ENTRYPOINT"), [format!("[\"{BINARY}\"]")]);
    assert_eq!(arguments("CMD"), ["[\"serve\"]"]);
    let [health] = arguments("HEALTHCHECK").try_into().unwrap();
    assert!(
        health.ends_with(&format!("CMD [\"{BINARY}\", \"healthcheck\"]")),
        "{health}"
    );
    assert!(
        arguments("COPY")
            .iter()
            .any(|argument| argument.starts_with("--from=build") && argument.ends_with(BINARY))
    );
    for assignment in arguments("ENV") {
        let (variable, _) = assignment.split_once('=').unwrap();
        assert!(is_variable(variable), "{variable}");
    }
    assert!(
        arguments("ARG").is_empty(),
        "an argument could carry a secret into the image"
    );
}
