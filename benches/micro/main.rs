//! Times of the parts, by criterion: what one event costs in each, on an idle machine.
//!
//! `cargo bench --bench micro`, with `-- verify` for a part; `cargo test --bench micro` runs each once. What must not grow
//! is guarded by `benches/guard`, which counts instructions.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a benchmark works on its own data, may fail loudly, and its macros make functions without docs"
)]

mod event;
#[path = "../inputs/mod.rs"]
mod inputs;
mod spool;
mod verify;

use std::cell::RefCell;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};

criterion_group!(micro, verify::verify, event::parse, event::format, answer, spool::append, spool::drain);
criterion_main!(micro);

/// Everything that the server does with a request, save the network and storing.
fn answer(criterion: &mut Criterion) {
    let (endpoint, deliveries) = (inputs::endpoint(), inputs::deliveries(64));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let turn = RefCell::new(deliveries.iter().cycle());
    let next = || turn.borrow_mut().next().expect("endless").request();
    let mut group = criterion.benchmark_group("answer");
    group.throughput(Throughput::Elements(1));
    group.bench_function("Endpoint::answer", |bencher| {
        let answer = |request| assert_eq!(runtime.block_on(endpoint.answer(None, request)).status(), 200);
        bencher.iter_batched(next, answer, BatchSize::SmallInput);
    });
    group.finish();
}
