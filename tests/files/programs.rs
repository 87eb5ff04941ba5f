//! What the VRL programs of `vector/*.toml` make of events.

use std::collections::BTreeSet;

use log_writer_tests::vector_programs::{
    Made, VectorConfig, compile, compiled, configs, repository, run, run_programs, run_samples,
};
use serde_json::{Value, json};

fn config(name: &str) -> VectorConfig {
    configs()
        .unwrap()
        .into_iter()
        .find(|config| config.name == name)
        .unwrap_or_else(|| panic!("no {name}"))
}

/// One event through the program of `vector.toml`.
fn parsed(source_type: &str, event: Value) -> Value {
    let program = compiled(config("vector.toml").program().unwrap()).unwrap();
    run(&program, event, source_type).unwrap()
}

/// A line of a file through the program.
fn line(file: &str, message: &str) -> Value {
    let event = json!({"file": file, "host": "vm", "message": message, "source_type": "file", "timestamp": "2026-11-20T20:02:02.427Z"});
    parsed("file", event)
}

/// Checks members of an event by JSON pointer.
fn assert_members(event: &Value, members: &[(&str, Value)]) {
    for (pointer, wanted) in members {
        assert_eq!(event.pointer(pointer), Some(wanted), "{pointer} of {event}");
    }
}

#[test]
fn the_program_is_the_same_in_every_configuration() {
    let programs: BTreeSet<_> = configs()
        .unwrap()
        .iter()
        .map(|config| config.program().unwrap().to_owned())
        .collect();
    assert_eq!(programs.len(), 1);
}

#[test]
fn the_program_uses_only_functions_that_vector_0_57_has() {
    let known = std::fs::read_to_string(repository().join("tests/fixtures/vector-options/functions.txt")).unwrap();
    let known: BTreeSet<_> = known.lines().collect();
    let program = config("vector.toml").program().unwrap().to_owned();
    let code = program.lines().filter(|line| !line.trim_start().starts_with('#'));
    let mut used = BTreeSet::new();
    for line in code {
        // Every second part is a regular expression.
        let line = line.split('\'').step_by(2).collect::<Vec<_>>().join(" ");
        let mut word = String::new();
        for letter in line.chars() {
            match letter {
                'a'..='z' | '0'..='9' | '_' => word.push(letter),
                '(' | '!' if !word.is_empty() => drop(used.insert(std::mem::take(&mut word))),
                _ => word.clear(),
            }
        }
    }
    assert!(used.contains("uuid_v7") && used.contains("parse_json"), "{used:?}");
    used.remove("if");
    let unknown: Vec<_> = used.iter().filter(|name| !known.contains(name.as_str())).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}

#[test]
fn an_unknown_function_does_not_compile() {
    let error = compile(".event_id = uuid_v9()").unwrap_err().to_string();
    assert!(error.contains("undefined function"), "{error}");
}

#[test]
fn a_step_that_can_fail_without_an_answer_does_not_compile() {
    let error = compile(". = parse_json(.message)").unwrap_err().to_string();
    assert!(error.contains("unhandled"), "{error}");
}

#[test]
fn no_event_is_dropped_and_each_has_an_id() {
    for config in configs().unwrap() {
        let made = run_samples(&config).unwrap();
        let wanted: usize = config
            .components("sources")
            .iter()
            .map(|(_, kind, _)| log_writer_tests::vector_programs::samples(kind).unwrap().len())
            .sum();
        assert_eq!(made.len(), wanted, "{}", config.name);
        let mut seen = BTreeSet::new();
        for event in &made {
            let id: uuid::Uuid = event.after["event_id"].as_str().unwrap().parse().unwrap();
            assert_eq!(id.get_version_num(), 7, "{}", event.after);
            let sent = event.before.to_string().contains(&id.to_string());
            assert!(sent || seen.insert(id), "{id} was given twice");
        }
    }
}

#[test]
fn every_word_of_a_line_is_still_somewhere() {
    let lost = |made: &Made| {
        let text = made.before["message"].as_str().unwrap_or_default().to_owned();
        let Value::Object(sent) = serde_json::from_str(&text).unwrap_or_default() else {
            return Vec::new();
        };
        let after = made.after.to_string();
        let kept = |value: &Value| after.contains(&value.to_string());
        sent.into_iter().filter(|(_, value)| !kept(value)).collect()
    };
    for config in configs().unwrap() {
        for made in run_samples(&config).unwrap() {
            assert_eq!(lost(&made), [], "{}: {}", config.name, made.after);
            assert!(made.before.get("message").is_none() || made.after.get("message").is_some());
        }
    }
}

#[test]
fn the_samples_are_what_the_posting_suite_gets() {
    let all = run_programs();
    let names: Vec<_> = all.iter().map(|(name, _)| name.as_str()).collect();
    let wanted = [
        "compose.toml",
        "file-backup.toml",
        "kafka-agent.toml",
        "kafka-aggregator.toml",
        "kubernetes.toml",
        "vector.toml",
    ];
    assert_eq!(names, wanted);
    assert!(all.iter().all(|(_, events)| !events.is_empty()));
}

#[test]
fn a_line_of_json_becomes_its_members() {
    let event = line(
        "/var/log/payments/pino.log",
        r#"{"level":50,"time":1795204922123,"hostname":"web-3","msg":"no route"}"#,
    );
    assert_members(
        &event,
        &[
            ("/message", json!("no route")),
            ("/level", json!(50)),
            ("/time", json!(1_795_204_922_123_i64)),
            ("/collector/timestamp", json!("2026-11-20T20:02:02.427Z")),
            ("/service", json!("payments")),
            ("/host", json!("vm")),
        ],
    );
    assert!(
        event.get("timestamp").is_none() && event.get("msg").is_none(),
        "{event}"
    );
}

#[test]
fn what_a_program_wrote_goes_over_what_vector_added_and_hides_nothing() {
    let event = line(
        "/var/log/a.log",
        r#"{"host":"h2","collector":"mine","event_id":"order-12","message":"m"}"#,
    );
    assert_members(
        &event,
        &[
            ("/host", json!("h2")),
            ("/collector/host", json!("vm")),
            ("/collector/collector", json!("mine")),
            ("/event_id_sent", json!("order-12")),
            ("/message", json!("m")),
        ],
    );
}

#[test]
fn an_id_that_the_sender_gave_is_kept() {
    let id = "0192f5a0-7c1e-7d2a-9a57-2f5d3c1b8e44";
    for sent in [
        json!({"event_id": id}),
        json!({"event": {"id": id}}),
        json!({"event.id": id}),
        json!({"log.record.uid": id}),
        json!({"attributes": {"log.record.uid": id}}),
    ] {
        assert_eq!(parsed("http_server", sent.clone())["event_id"], json!(id), "{sent}");
    }
    let ulid = json!({"event_id": "01JD5QX8ZK7M9T3V4W5Y6Z7A8B"});
    assert_eq!(parsed("http_server", ulid.clone())["event_id"], ulid["event_id"]);
}

#[test]
fn logfmt_syslog_and_apache_lines_are_read() {
    let event = line(
        "/var/log/w.log",
        r#"level=warn ts=2026-11-20T20:02:00Z msg="card declined" order=ord-77"#,
    );
    assert_members(
        &event,
        &[
            ("/level", json!("warn")),
            ("/message", json!("card declined")),
            ("/ts", json!("2026-11-20T20:02:00Z")),
            ("/order", json!("ord-77")),
        ],
    );
    let event = line(
        "/var/log/r.log",
        "<34>1 2026-11-20T19:57:56.415Z web1 sshd 9492 ID275 - Failed password",
    );
    assert_members(
        &event,
        &[
            ("/appname", json!("sshd")),
            ("/hostname", json!("web1")),
            ("/severity", json!("crit")),
            ("/message", json!("Failed password")),
            ("/timestamp", json!("2026-11-20T19:57:56.415Z")),
        ],
    );
    assert!(event.get("service").is_none(), "`appname` says who wrote it: {event}");
    let access = r#"203.0.113.7 - alice [20/Nov/2026:19:57:53 +0100] "GET /cart HTTP/1.1" 503 17 "-" "curl/8.1""#;
    let event = line("/var/log/nginx/access.log", access);
    assert_members(
        &event,
        &[
            ("/message", json!(access)),
            ("/level", json!("error")),
            ("/timestamp", json!("2026-11-20T18:57:53Z")),
            ("/http/status", json!(503)),
            ("/http/client", json!("203.0.113.7")),
            ("/host", json!("vm")),
            ("/service", json!("nginx")),
        ],
    );
    let event = line(
        "/var/log/apache2/error.log",
        "[Fri Nov 20 19:57:54.123456 2026] [proxy:error] [pid 7:tid 14] [client 192.0.2.1:6] AH00898: broken pipe",
    );
    assert_members(
        &event,
        &[
            ("/level", json!("error")),
            ("/message", json!("AH00898: broken pipe")),
            ("/apache/module", json!("proxy")),
            ("/apache/pid", json!(7)),
            ("/timestamp", json!("2026-11-20T19:57:54.123456Z")),
        ],
    );
}

#[test]
fn a_line_that_only_looks_like_something_stays_as_it_is() {
    let cut = format!("{{\"a\": \"{}", "x".repeat(100_000));
    for text in [
        "{\"broken\": ",
        "[1,2,3]",
        "",
        "   ",
        "<999>nothing that syslog knows",
        "a=1 but prose follows",
        "nul \u{0} and \u{fffd}",
        "[Fri Nov 20 later] [x] y",
        "1 2 3 [20/Nov/2026: so what",
        "{\"a\":1} and more",
        cut.as_str(),
    ] {
        let event = line("/var/log/odd.log", text);
        assert_eq!(event["message"], json!(text));
        assert!(event["event_id"].is_string());
        assert_eq!(event["timestamp"], json!("2026-11-20T20:02:02.427Z"));
    }
    let event = parsed("http_server", json!({"message": {"msg": "an object"}}));
    assert_eq!(event["message"], json!({"msg": "an object"}));
    assert!(parsed("http_server", json!({}))["event_id"].is_string());
}

#[test]
fn the_level_is_found_in_words_and_in_the_journals_priority() {
    for (text, level) in [
        ("ERROR second line: connection refused", json!("ERROR")),
        ("2026-11-20 20:02:01,337 WARNING pool exhausted", json!("WARNING")),
        ("no errors so far", Value::Null),
        ("TERRORS", Value::Null),
    ] {
        assert_eq!(line("/var/log/a.log", text)["level"], level, "{text}");
    }
    let journal = |priority: &str, text: &str| {
        parsed("journald", json!({"PRIORITY": priority, "message": text}))["level"].clone()
    };
    assert_eq!(journal("3", "Failed to start"), json!("err"));
    assert_eq!(journal("6", "ERROR in the text is not the priority"), json!("info"));
    assert_eq!(journal("6", r#"{"level":"debug","msg":"tick"}"#), json!("debug"));
    let told = parsed(
        "http_server",
        json!({"severity_text": "INFO", "message": "ERROR 7 was fixed"}),
    );
    assert!(told.get("level").is_none(), "{told}");
}

#[test]
fn the_service_is_named_by_whoever_knows_it_best() {
    let pod = |labels: Value| {
        let event = json!({"message": "m", "kubernetes": {"container_name": "web", "pod_labels": labels, "pod_node_name": "node-1"}});
        parsed("kubernetes_logs", event)
    };
    assert_members(
        &pod(json!({"app": "shop", "app.kubernetes.io/name": "storefront"})),
        &[("/service", json!("storefront")), ("/host", json!("node-1"))],
    );
    assert_eq!(pod(json!({"app": "shop"}))["service"], json!("shop"));
    assert_eq!(pod(json!({}))["service"], json!("web"));
    let docker = |labels: Value| {
        parsed(
            "docker_logs",
            json!({"message": "m", "container_name": "shop-web-1", "label": labels}),
        )
    };
    assert_eq!(
        docker(json!({"com.docker.compose.service": "web"}))["service"],
        json!("web")
    );
    assert_eq!(docker(json!({}))["service"], json!("shop-web-1"));
    assert_eq!(
        parsed("journald", json!({"_SYSTEMD_UNIT": "ssh.service"}))["service"],
        json!("ssh")
    );
    assert_eq!(line("/var/log/auth.log", "m")["service"], json!("auth"));
    assert!(line("/srv/x.log", "m").get("service").is_none());
    let ecs = line("/var/log/a.log", r#"{"service":{"name":"payments"}}"#);
    assert_eq!(ecs["service"], json!({"name": "payments"}));
}

#[test]
fn an_event_keeps_its_id_on_its_way_through_kafka() {
    let agent = config("kafka-agent.toml");
    let aggregator = compiled(config("kafka-aggregator.toml").program().unwrap()).unwrap();
    for made in run_samples(&agent).unwrap() {
        let message = json!({"message": made.after.to_string(), "topic": "logs", "partition": 0, "offset": 5, "source_type": "kafka", "timestamp": "2026-11-20T20:02:05Z"});
        let arrived = run(&aggregator, message.clone(), "kafka").unwrap();
        let again = run(&aggregator, message, "kafka").unwrap();
        assert_eq!(arrived["event_id"], made.after["event_id"]);
        assert_eq!(arrived, again, "what is read twice must be the same event");
        for name in ["message", "level", "service", "timestamp"] {
            assert!(
                made.after.get(name).is_none() || arrived.get(name) == made.after.get(name),
                "{name}: {} became {arrived}",
                made.after
            );
        }
    }
}
