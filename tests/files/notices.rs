//! Files that have never been executed say so, and stand in the list of `deploy/README.md`.

use std::fs;

use log_writer_tests::vector_programs::{configs, repository};

#[test]
fn every_file_that_was_never_executed_says_so_at_its_top_and_stands_in_the_list() {
    let kubernetes = fs::read_dir(repository().join("deploy/kubernetes")).unwrap();
    let kubernetes = kubernetes.map(|entry| format!("deploy/kubernetes/{}", entry.unwrap().file_name().display()));
    let vector = configs()
        .unwrap()
        .into_iter()
        .map(|config| format!("vector/{}", config.name));
    let others = [
        "deploy/Dockerfile",
        "deploy/systemd/log-writer.service",
        "docker-compose.elasticsearch.yml",
    ];
    let list = fs::read_to_string(repository().join("deploy/README.md")).unwrap();
    let (_, list) = list.split_once("## Never executed").unwrap();
    for path in others.into_iter().map(str::to_owned).chain(kubernetes).chain(vector) {
        let text = fs::read_to_string(repository().join(&path)).unwrap();
        let top: Vec<_> = text.lines().take_while(|line| line.starts_with('#')).collect();
        let says = top.iter().any(|line| line.starts_with("# Never "));
        assert!(says, "{path} does not say at its top that it was never executed");
        let folder = path
            .trim_start_matches("deploy/")
            .split_once('/')
            .map(|(folder, _)| format!("`{folder}/"));
        let listed =
            list.contains(path.trim_start_matches("deploy/")) || folder.is_some_and(|folder| list.contains(&folder));
        assert!(listed, "{path} is not in the list");
    }
}
