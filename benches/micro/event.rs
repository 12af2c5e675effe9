//! Reading a body, as far as routing needs it and as a whole, and writing a record's line.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, Throughput};
use dt_receiver::event::{Delivery, Envelope, EventType};
use dt_receiver::record::{Format, Record};

use crate::inputs::{self, Delivered};

pub(crate) fn parse(criterion: &mut Criterion) {
    let (signer, verifier) = (inputs::signer(), inputs::verifier());
    let mut group = criterion.benchmark_group("parse");
    group.throughput(Throughput::Elements(1));
    let connector: Arc<str> = "default".into();
    for event_type in
        [EventType::Touch, EventType::Temperature, EventType::Humidity, EventType::NetworkStatus]
    {
        let verified = Delivered::of_type(event_type.clone(), 1, &signer).verify(&verifier);
        group.bench_function(BenchmarkId::new("Envelope::parse", &event_type), |bencher| {
            // What it borrows must not leave, so that what it holds is dropped within.
            bencher.iter(|| _ = black_box(Envelope::parse(&verified).expect("a delivery")));
        });
        group.bench_function(BenchmarkId::new("Delivery::parse", &event_type), |bencher| {
            bencher.iter(|| Delivery::parse(&verified).expect("a delivery"));
        });
        group.bench_function(BenchmarkId::new("Record::read", &event_type), |bencher| {
            bencher.iter(|| Record::read(&verified, Arc::clone(&connector), 0).expect("a delivery"));
        });
    }
    group.finish();
}

pub(crate) fn format(criterion: &mut Criterion) {
    let (records, mut line) = (inputs::records(64), Vec::new());
    let mut group = criterion.benchmark_group("format");
    group.throughput(Throughput::Elements(1));
    for format in Format::ALL {
        let mut turn = records.iter().cycle();
        group.bench_function(format.name(), |bencher| {
            bencher.iter(|| {
                line.clear();
                format.write_line(turn.next().expect("endless"), &mut line);
                black_box(&line);
            });
        });
    }
    group.finish();
}
