//! Creates the connectors' verifiers and the key sets that are fetched for them.

use std::collections::HashMap;
use std::sync::Arc;

use super::StartError;
use crate::config::{Config, ConnectorConfig};
use crate::keys::{Keys, LiveVerifier};
use crate::telemetry::Telemetry;
use dt_sink::clock::Clock;

/// The verifiers of the connectors, in the order of the configuration, and the key sets that are fetched for them, by issuer.
pub struct Live {
    pub verifiers: Vec<Arc<LiveVerifier>>,
    pub keys: HashMap<String, Arc<Keys>>,
}

/// Creates the verifiers of the connectors, without fetching keys. The key sets of the issuers in `known` are reused.
///
/// # Errors
///
/// [`StartError::Issuer`] if keys cannot be fetched from an issuer's URL.
pub fn live_verifiers(
    config: &Config,
    known: &HashMap<String, Arc<Keys>>,
    clock: &Arc<dyn Clock>,
    telemetry: &Arc<Telemetry>,
) -> Result<Live, StartError> {
    let mut live = Live { verifiers: Vec::new(), keys: HashMap::new() };
    for ConnectorConfig { name, verifier, key_issuer, .. } in &config.connectors {
        let Some(issuer) = key_issuer else {
            live.verifiers.push(Arc::new(LiveVerifier::fixed(verifier.clone())));
            continue;
        };
        let keys = match live.keys.get(issuer).or_else(|| known.get(issuer)) {
            Some(keys) => Arc::clone(keys),
            None => {
                let keys = Keys::new(issuer, &config.key_folder(), Arc::clone(clock), Arc::clone(telemetry));
                let failed = |source| StartError::Issuer { connector: Arc::clone(name), source };
                Arc::new(keys.map_err(failed)?)
            }
        };
        live.keys.insert(issuer.clone(), Arc::clone(&keys));
        live.verifiers.push(Arc::new(LiveVerifier::with_keys(verifier.clone(), keys)));
    }
    Ok(live)
}
