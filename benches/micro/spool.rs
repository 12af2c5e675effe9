//! The spool on the disk of the build, each transaction synced.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput};
use dt_receiver::clock::SystemClock;
use dt_receiver::record::Record;
use dt_receiver::spool::{Appended, Spool, SpoolOptions};
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
        let spool = open(folder.path());
        let template = inputs::records(batch);
        group.throughput(Throughput::Elements(batch as u64));
        group.bench_function(BenchmarkId::from_parameter(batch), |bencher| {
            bencher.iter_custom(|times| {
                let mut took = Duration::ZERO;
                for _ in 0..times {
                    let records: Vec<_> = template.iter().map(|record| renamed(record, &mut made)).collect();
                    let started = Instant::now();
                    runtime.block_on(store(&spool, records));
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
    let spool = open(folder.path());
    runtime.block_on(store(&spool, inputs::records(4096)));
    let reader = spool.reader().expect("opened");
    let mut group = criterion.benchmark_group("drain");
    for batch in BATCHES {
        let mut seq = 0;
        group.throughput(Throughput::Elements(batch as u64));
        group.bench_function(BenchmarkId::from_parameter(batch), |bencher| {
            bencher.iter(|| {
                let read = reader.after(seq, batch).expect("read");
                assert_eq!(read.len(), batch);
                seq = read.last().map_or(0, |stored| stored.seq) % 4096;
                read
            });
        });
    }
    group.finish();
}

async fn store(spool: &Arc<Spool>, records: Vec<Arc<Record>>) {
    let mut appends = JoinSet::new();
    for record in records {
        let spool = Arc::clone(spool);
        appends.spawn(async move { spool.append(record, true).await });
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

fn open(folder: &Path) -> Arc<Spool> {
    // Nothing takes the records out, so there is no end to how many there may be.
    let options = SpoolOptions { max_size: u64::MAX, min_free: 0, ..SpoolOptions::default() };
    Arc::new(Spool::open(folder, options, Arc::new(SystemClock)).expect("opened"))
}
