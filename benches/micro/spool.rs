//! The log on the disk of the build, each group synced.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput};
use dt_receiver::clock::SystemClock;
use dt_receiver::log::{Appended, Bounds, Log, LogOptions, SinkSet, SinkState, StartAt};
use dt_receiver::record::Record;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use crate::inputs;

const BATCHES: [usize; 3] = [1, 32, 256];

/// So many requests at once, until all are stored.
pub(crate) fn append(criterion: &mut Criterion) {
    let runtime = runtime();
    let mut group = criterion.benchmark_group("append");
    for batch in BATCHES {
        let (folder, mut made) = (temp_folder(), 0);
        let log = open(folder.path());
        let template = inputs::records(batch);
        group.throughput(Throughput::Elements(batch as u64));
        group.bench_function(BenchmarkId::from_parameter(batch), |bencher| {
            bencher.iter_custom(|times| {
                let mut took = Duration::ZERO;
                for _ in 0..times {
                    let records: Vec<_> = template.iter().map(|record| renamed(record, &mut made)).collect();
                    let started = Instant::now();
                    runtime.block_on(store(&log, records));
                    took += started.elapsed();
                }
                took
            });
        });
    }
    group.finish();
}

/// So many records at once, again and again from the start.
pub(crate) fn drain(criterion: &mut Criterion) {
    let (runtime, folder) = (runtime(), temp_folder());
    let log = open(folder.path());
    runtime.block_on(store(&log, inputs::records(4096)));
    let mut source = log.source(sink_of(&log));
    let mut group = criterion.benchmark_group("drain");
    for batch in BATCHES {
        source.seek(0);
        group.throughput(Throughput::Elements(batch as u64));
        group.bench_function(BenchmarkId::from_parameter(batch), |bencher| {
            bencher.iter(|| {
                if usize::try_from(source.position()).expect("small") + batch > 4096 {
                    source.seek(0);
                }
                let read = source.read(batch, i64::MAX).expect("read");
                assert!(!read.is_empty());
                read
            });
        });
    }
    group.finish();
}

async fn store(log: &Arc<Log>, records: Vec<Arc<Record>>) {
    let (mut appends, sinks) = (JoinSet::new(), SinkSet::new([1]));
    for record in records {
        let (log, sinks) = (Arc::clone(log), sinks.clone());
        appends.spawn(async move { log.append(record, sinks, true).await });
    }
    while let Some(appended) = appends.join_next().await {
        assert!(matches!(appended, Ok(Ok(Appended::New(_)))), "{appended:?}");
    }
}

/// A record that has not been stored yet.
fn renamed(record: &Record, made: &mut usize) -> Arc<Record> {
    *made += 1;
    Arc::new(Record { event_id: inputs::event_id(*made).into(), ..record.clone() })
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime")
}

fn temp_folder() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder")
}

fn open(folder: &Path) -> Arc<Log> {
    // No worker takes the events out, so there is no limit to how many there may be.
    let bounds = Bounds { max_size: u64::MAX, min_free: 0, ..LogOptions::default().bounds };
    let options = LogOptions { bounds, ..LogOptions::default() };
    let log = Arc::new(Log::open(folder, options, Arc::new(SystemClock)).expect("opened"));
    assert_eq!(sink_of(&log).number, 1);
    log
}

fn sink_of(log: &Log) -> SinkState {
    log.register(&Arc::from("sink"), StartAt::Now, Vec::new()).expect("known")
}
