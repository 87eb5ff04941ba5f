//! Events as real senders shape them: Vector's sources (0.57.0, recorded or from its source code) and loggers.

use serde_json::json;

use super::{Unusable, normalised, patient, refused};

/// Sent, and what must become of it.
fn check(sent: &str, expected: serde_json::Value) {
    assert_eq!(normalised(&patient(), sent), expected, "{sent}");
}

#[test]
fn an_event_in_our_own_words_fills_the_columns() {
    check(
        r#"{"correlation_id":"5f557203","error_details":null,"fields":{"n":61,"request":{"method":"GET"}},"host":"node-2","id":"01a1f640-bc18-7aeb-90ed-a82f8f6d0558","level":"INFO","message":"GET / 200","performance_metrics":{"duration_ms":1712},"service":"svc-17","source_type":"stdin","tags":["web"],"timestamp":"2026-11-20T00:00:00.024169+00:00","user_id":null}"#,
        json!({"time":"2026-11-20T00:00:00.024169Z","service":"svc-17","host":"node-2","message":"GET / 200","correlation_id":"5f557203",
            "tags":["web"],"performance_metrics":{"duration_ms":1712},
            "fields":{"id":"01a1f640-bc18-7aeb-90ed-a82f8f6d0558","n":61,"request":{"method":"GET"},"source_type":"stdin"}}),
    );
}

#[test]
fn vector_sources_are_understood() {
    check(
        r#"{"file":"/var/log/app.log","host":"vm","message":"ERROR second line","source_type":"file","timestamp":"2026-11-20T20:02:02.427691139Z"}"#,
        json!({"time":"2026-11-20T20:02:02.427691Z","host":"vm","message":"ERROR second line",
            "fields":{"file":"/var/log/app.log","source_type":"file","_log_writer":{"nanos":139}}}),
    );
    // http_server, with what its payload had.
    check(
        r#"{"User-Agent":"Python-urllib/3.11","big":"12345678901234567890","deep":{"a":{"b":1}},"emoji":"😀","float":1e+308,"neg":-0.0,"path":"/","s":"nul:\u0000 end","source_type":"http_server","timestamp":"2026-11-20T20:00:04.765361104Z"}"#,
        json!({"time":"2026-11-20T20:00:04.765361Z","fields":{"User-Agent":"Python-urllib/3.11","big":"12345678901234567890",
            "deep":{"a":{"b":1}},"emoji":"😀","float":1e308,"neg":-0.0,"path":"/","s":"nul:\u{FFFD} end","source_type":"http_server",
            "_log_writer":{"nanos":104,"sanitized":true}}}),
    );
    // opentelemetry: dotted keys inside `resources`.
    check(
        r#"{"attributes":{"error_code":"PRICE_MISSING","http.response.status_code":500,"user.id":"u7"},"dropped_attributes_count":0,"flags":1,"message":"Price is missing","observed_timestamp":"2025-11-20T12:00:00.100Z","resources":{"deployment.environment.name":"prod","host.name":"h1","service.name":"order-service"},"scope":{"name":"my.lib","version":"1.0"},"severity_number":17,"severity_text":"ERROR","source_type":"opentelemetry","span_id":"eee19b7ec3c1b174","timestamp":"2025-11-20T12:00:00Z","trace_id":"5B8EFFF798038103D269B633813FC60C"}"#,
        json!({"time":"2025-11-20T12:00:00.000000Z","level":"ERROR","service":"order-service","host":"h1","message":"Price is missing","user_id":"u7",
            "trace_id":"5b8efff798038103d269b633813fc60c","span_id":"eee19b7ec3c1b174",
            "fields":{"attributes":{"error_code":"PRICE_MISSING","http.response.status_code":500,"user.id":"u7"},"dropped_attributes_count":0,"flags":1,
                "observed_timestamp":"2025-11-20T12:00:00.100Z","resources":{"deployment.environment.name":"prod","host.name":"h1","service.name":"order-service"},
                "scope":{"name":"my.lib","version":"1.0"},"severity_number":17,"source_type":"opentelemetry"}}),
    );
    check(
        r#"{"message":{"msg":"structured body","n":1.5},"severity_number":13,"timestamp":"2025-11-20T12:00:01Z"}"#,
        json!({"time":"2025-11-20T12:00:01.000000Z","level":"WARN","message":"{\"msg\":\"structured body\",\"n\":1.5}"}),
    );
    // docker_logs: label keys are dotted.
    check(
        r#"{"container_id":"fcf1","container_name":"web","image":"nginx","label":{"com.docker.compose.service":"web","maintainer":"x"},"message":"GET /","source_type":"docker_logs","stream":"stdout","timestamp":"2026-11-20T00:00:00Z"}"#,
        json!({"time":"2026-11-20T00:00:00.000000Z","service":"web","message":"GET /","fields":{"container_id":"fcf1","image":"nginx",
            "label":{"com.docker.compose.service":"web","maintainer":"x"},"source_type":"docker_logs","stream":"stdout"}}),
    );
}

#[test]
fn syslog_journald_and_gelf_are_understood() {
    check(
        r#"{"appname":"su","exampleSDID@32473":{"iut":"3"},"facility":"auth","host":"web1","hostname":"web1.example.com","message":"failed","msgid":"ID47","procid":99,"severity":"crit","source_ip":"10.0.0.1","timestamp":"2026-11-20T00:00:00.003Z","version":1}"#,
        json!({"time":"2026-11-20T00:00:00.003000Z","level":"FATAL","service":"su","host":"web1","message":"failed",
            "fields":{"exampleSDID@32473":{"iut":"3"},"facility":"auth","hostname":"web1.example.com","msgid":"ID47","procid":99,"severity":"crit",
                "source_ip":"10.0.0.1","version":1}}),
    );
    check(
        r#"{"PRIORITY":"3","SYSLOG_IDENTIFIER":"sshd","_COMM":"sshd","_HOSTNAME":"db1","MESSAGE":"bye","_PID":"1","__REALTIME_TIMESTAMP":"1763596800123456"}"#,
        json!({"time":"2025-11-20T00:00:00.123456Z","level":"ERROR","service":"sshd","host":"db1","message":"bye","fields":{"_COMM":"sshd","_PID":"1"}}),
    );
    check(
        r#"{"version":"1.1","host":"h","short_message":"short","full_message":"long\nlonger","timestamp":1763596800.25,"level":4,"_service":"pay","_user_id":42,"_k":"v"}"#,
        json!({"time":"2025-11-20T00:00:00.250000Z","level":"WARN","service":"pay","host":"h","message":"short","user_id":"42",
            "fields":{"version":"1.1","full_message":"long\nlonger","_k":"v"}}),
    );
}

#[test]
fn kubernetes_is_found_nested_and_stays_where_it_is() {
    let kubernetes = json!({"container_name":"c","pod_labels":{"app":"shop","app.kubernetes.io/name":"checkout"},"pod_node_name":"n1","pod_name":"p"});
    let sent = json!({"message":"m","stream":"stderr","kubernetes":kubernetes,"timestamp":"2026-11-20T00:00:00Z"});
    let expected = json!({"time":"2026-11-20T00:00:00.000000Z","service":"checkout","host":"n1","message":"m","fields":{"stream":"stderr","kubernetes":kubernetes}});
    check(&sent.to_string(), expected);
    check(
        r#"{"kubernetes":{"pod_labels":{"app":"shop"},"container_name":"c"},"service":"own"}"#,
        json!({"service":"own","fields":{"kubernetes":{"pod_labels":{"app":"shop"},"container_name":"c"}}}),
    );
    check(
        r#"{"kubernetes":{"container_name":"c"}}"#,
        json!({"service":"c","fields":{"kubernetes":{"container_name":"c"}}}),
    );
}

#[test]
fn loggers_are_understood() {
    for (sent, expected) in [
        // pino; bunyan differs in little.
        (
            r#"{"level":50,"time":1763596800123,"pid":7,"hostname":"h","msg":"boom","err":{"type":"TypeError","stack":"at x"}}"#,
            json!({"time":"2025-11-20T00:00:00.123000Z","level":"ERROR","host":"h","message":"boom","error_details":{"type":"TypeError","stack":"at x"},"fields":{"pid":7}}),
        ),
        // ECS loggers: dotted keys, and the same nested.
        (
            r#"{"@timestamp":"2026-11-20T00:00:00.000Z","log.level":"warn","message":"m","ecs.version":"1.2.0","service.name":"s","trace.id":"ABCDEF0123456789abcdef0123456789","error.type":"E","event.id":"01ARZ3NDEKTSV4RRFFQ69G5FAV"}"#,
            json!({"id":"01563e3a-b5d3-d676-4c61-efb99302bd5b","time":"2026-11-20T00:00:00.000000Z","level":"WARN","service":"s","message":"m",
                "trace_id":"abcdef0123456789abcdef0123456789","fields":{"ecs.version":"1.2.0","error.type":"E","event.id":"01ARZ3NDEKTSV4RRFFQ69G5FAV"}}),
        ),
        (
            r#"{"log":{"level":"debug","logger":"l"},"service":{"name":"s"},"host":{"name":"h","ip":["10.0.0.1"]},"user":{"id":"u"},"trace":{"id":"a1"},"span":{"id":"b2"}}"#,
            json!({"level":"DEBUG","service":"s","host":"h","user_id":"u","trace_id":"a1","span_id":"b2","fields":{"log":{"level":"debug","logger":"l"},
                "service":{"name":"s"},"host":{"name":"h","ip":["10.0.0.1"]},"user":{"id":"u"},"trace":{"id":"a1"},"span":{"id":"b2"}}}),
        ),
        // Docker's own files, Splunk's shape, structlog.
        (
            r#"{"log":"line\n","stream":"stdout","time":"2026-11-20T00:00:00.5Z"}"#,
            json!({"time":"2026-11-20T00:00:00.500000Z","message":"line\n","fields":{"stream":"stdout"}}),
        ),
        (
            r#"{"event":"user_logged_in","level":"info","timestamp":"2026-11-20T00:00:00Z"}"#,
            json!({"time":"2026-11-20T00:00:00.000000Z","message":"user_logged_in"}),
        ),
        // python-json-logger.
        (
            r#"{"asctime":"2026-11-20 00:00:00,123","name":"app.db","levelname":"CRITICAL","levelno":50,"message":"m","exc_info":"Traceback"}"#,
            json!({"time":"2026-11-20T00:00:00.123000Z","level":"FATAL","message":"m","error_details":{"message":"Traceback"},
                "fields":{"name":"app.db","levelname":"CRITICAL","levelno":50}}),
        ),
        // log4j2's JsonLayout, zap, Serilog's compact format.
        (
            r#"{"instant":{"epochSecond":1763596800,"nanoOfSecond":118000000},"thread":"main","level":"ERROR","loggerName":"L","message":"m","thrown":{"name":"X"},"contextMap":{"trace_id":"a9"}}"#,
            json!({"time":"2025-11-20T00:00:00.118000Z","level":"ERROR","message":"m","trace_id":"a9","error_details":{"name":"X"},
                "fields":{"instant":{"epochSecond":1763596800,"nanoOfSecond":118000000},"thread":"main","loggerName":"L","contextMap":{"trace_id":"a9"}}}),
        ),
        (
            r#"{"level":"dpanic","ts":1763596800.5,"caller":"a.go:1","msg":"m","error":"refused"}"#,
            json!({"time":"2025-11-20T00:00:00.500000Z","level":"FATAL","message":"m","error_details":{"message":"refused"},"fields":{"level":"dpanic","caller":"a.go:1"}}),
        ),
        (
            r#"{"@t":"2026-11-20T00:00:00.1234567Z","@mt":"Hi {Name}","@l":"Warning","@tr":"a1","@sp":"b2","Name":"x"}"#,
            json!({"time":"2026-11-20T00:00:00.123456Z","level":"WARN","message":"Hi {Name}","trace_id":"a1","span_id":"b2","fields":{"Name":"x","_log_writer":{"nanos":700}}}),
        ),
        // Datadog, W3C.
        (
            r#"{"dd":{"trace_id":"123","span_id":"0","service":"s"},"message":"m","ddtags":"env:prod,v:1"}"#,
            json!({"service":"s","message":"m","trace_id":"123","tags":["env:prod","v:1"],"fields":{"dd":{"trace_id":"123","span_id":"0","service":"s"}}}),
        ),
        (
            r#"{"traceparent":"00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01"}"#,
            json!({"trace_id":"4bf92f3577b34da6a3ce929d0e0e4736","span_id":"00f067aa0ba902b7",
                "fields":{"traceparent":"00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01"}}),
        ),
    ] {
        check(sent, expected);
    }
}

#[test]
fn metrics_and_traces_are_told_from_logs_by_their_whole_shape() {
    for (sent, unusable) in [
        (
            r#"{"name":"started_total","namespace":"vector","tags":{"a":"b"},"timestamp":"2026-11-20T00:00:00Z","kind":"absolute","counter":{"value":1.0}}"#,
            Some(Unusable::Metric),
        ),
        (
            r#"{"name":"g","kind":"incremental","interval_ms":10,"gauge":{"value":1}}"#,
            Some(Unusable::Metric),
        ),
        (
            r#"{"name":"h","kind":"absolute","aggregated_histogram":{"buckets":[],"count":0,"sum":0.0}}"#,
            Some(Unusable::Metric),
        ),
        (r#"{"resourceMetrics":[]}"#, Some(Unusable::Metric)),
        (r#"{"resourceSpans":[{}]}"#, Some(Unusable::Trace)),
        (
            r#"{"trace_id":1,"spans":[{"trace_id":1,"span_id":2}]}"#,
            Some(Unusable::Trace),
        ),
        (
            r#"{"trace_id":"a","span_id":"b","name":"GET /","kind":2,"start_time_unix_nano":1,"end_time_unix_nano":2}"#,
            Some(Unusable::Trace),
        ),
        (
            r#"{"name":"x","kind":"absolute","message":"m","counter":{"value":1}}"#,
            None,
        ),
        (
            r#"{"name":"x","kind":"absolute","counter":{"value":1},"user":"u"}"#,
            None,
        ),
        (r#"{"name":"x","kind":"Pod","set":{}}"#, None),
        (r#"{"name":"x","kind":"absolute","counter":1}"#, None),
        (r#"{"spans":[1,2],"trace_id":"a"}"#, None),
        (r#"{"resourceMetrics":"none"}"#, None),
        (r#"{"trace_id":"a","span_id":"b"}"#, None),
    ] {
        assert_eq!(refused(sent), unusable, "{sent}");
    }
}
