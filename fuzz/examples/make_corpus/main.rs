//! Makes the seeds of all fuzz targets, in `fuzz/corpus/<target>/`, from the committed vectors, the samples of the library
//! and what is written here. Run it again after any of these changes; what it made before and no longer makes goes.
//!
//! ```text
//! cargo run --manifest-path fuzz/Cargo.toml --example make_corpus
//! ```

mod bodies;
mod configurations;
mod connections;
mod folders;
mod proxy_headers;
mod requests;
mod vectors;

use std::collections::BTreeMap;
use std::path::Path;
use std::{fs, io};

fn main() -> io::Result<()> {
    write("verify_request", &requests::requests())?;
    write("event_parse", &bodies::bodies())?;
    write("config_read", &configurations::configurations())?;
    write("http_ingest", &connections::connections())?;
    write("proxy_header", &proxy_headers::proxy_headers())?;
    write("log_recovery", &folders::folders())
}

/// Seeds by name.
type Seeds = BTreeMap<String, Vec<u8>>;

fn write(target: &str, seeds: &Seeds) -> io::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder)?;
    for (name, content) in seeds {
        fs::write(folder.join(name), content)?;
    }
    let bytes: usize = seeds.values().map(Vec::len).sum();
    eprintln!("{target}: {} seeds, {} KiB", seeds.len(), bytes.div_ceil(1024));
    Ok(())
}
