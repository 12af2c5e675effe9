//! Stub.
#![allow(missing_docs, unused, clippy::all, clippy::unimplemented)]
use std::path::{Path, PathBuf};
use std::sync::Arc;
use bytes::Bytes;
use http::HeaderMap;
use crate::record::{DeadLetter, Record, RequestId};
#[derive(Debug, Clone, thiserror::Error)]
pub enum DeadError {
    #[error("{path}")]
    Missing { path: PathBuf },
}
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Filter { pub id: Option<i64>, pub sink: Option<String>, pub reason: Option<String> }
#[derive(Debug, Clone)]
pub struct Letter {
    pub id: i64, pub reason: String, pub connector: Arc<str>, pub sink: Option<String>, pub error: String, pub attempts: u32, pub replays: u32,
    pub received_at: i64, pub buried_at: i64, pub event_id: Option<String>, pub request_id: Option<RequestId>, pub signatures: Vec<(String, String)>,
    pub header_names: Vec<String>, pub body_bytes: usize, pub body: Bytes,
}
impl Letter {
    pub fn headers(&self) -> HeaderMap { HeaderMap::new() }
    pub fn record(&self) -> Option<Record> { None }
}
#[derive(Debug)]
pub struct DeadLetters;
impl DeadLetters {
    pub fn open_read_only(_: &Path) -> Result<Self, DeadError> { Ok(Self) }
    pub fn highest_id(&self) -> i64 { 0 }
    pub fn size_bytes(&self) -> u64 { 0 }
    pub fn trouble(&self) -> Option<String> { None }
    pub fn counts(&self) -> Result<Vec<(&'static str, u64)>, DeadError> { Ok(Vec::new()) }
    pub fn check(&self) -> Result<Vec<String>, DeadError> { Ok(Vec::new()) }
    pub fn list(&self, _: &Filter, _: i64, _: usize, _: bool) -> Result<Vec<Letter>, DeadError> { Ok(Vec::new()) }
    pub fn remove(&self, _: &[i64]) -> Result<usize, DeadError> { Ok(0) }
    pub fn still_dead(&self, _: i64, _: &str) -> Result<(), DeadError> { Ok(()) }
    pub async fn add(&self, _: DeadLetter) -> Result<Option<i64>, DeadError> { Ok(None) }
    pub fn add_blocking(&self, _: Vec<(i64, DeadLetter)>) -> Result<(), DeadError> { Ok(()) }
}
