//! How long each step of an event's way takes alone, without a network and without stores (`make bench-parts`).
//!
//! Criterion compares with its last run and says what changed. What a step costs exactly, whatever else runs, is counted
//! by `make instructions`.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use log_writer_service::targets::Replay;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn parts(criterion: &mut Criterion) {
    let replay = Replay::prepare();
    let events = replay.events();
    let stored = replay.stored();
    let answer = Replay::bulk_answer();
    assert_eq!(
        Replay::read_answer(&answer),
        Replay::EVENTS,
        "every document is indexed"
    );

    let mut group = criterion.benchmark_group("1,000 events");
    group.throughput(Throughput::Elements(Replay::EVENTS as u64));
    group.bench_function("decode and normalise", |timed| {
        timed.iter(|| replay.events());
    });
    group.bench_function("encode rows", |timed| {
        timed.iter(|| replay.encode(&events));
    });
    group.bench_function("bytes to rows with ids", |timed| {
        timed.iter(|| replay.receive());
    });
    group.bench_function("read rows back", |timed| {
        timed.iter(|| replay.stored());
    });
    group.bench_function("bulk body", |timed| {
        timed.iter(|| replay.bulk_body(&stored));
    });
    group.bench_function("bulk answer", |timed| {
        timed.iter(|| Replay::read_answer(&answer));
    });
    group.finish();
}

criterion_group!(benches, parts);
criterion_main!(benches);
