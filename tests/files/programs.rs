//! What the VRL programs of `vector/*.toml` make of events.

use log_writer_tests::vector_programs::run_programs;

#[test]
fn show() {
    for (name, events) in run_programs() {
        for event in events {
            println!("{name} {event}");
        }
    }
}
