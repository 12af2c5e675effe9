//! Unique ids of sample events and tokens, in the format of DT's ids (xid).

use dt_verify::xid;

/// The random numbers from which the ids of one run are derived, so that two runs have different ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    events: u64,
    tokens: u64,
}

impl Run {
    /// Starts a run with random ids.
    pub fn random() -> anyhow::Result<Self> {
        let number = || getrandom::u64().map_err(|error| anyhow::anyhow!("no random numbers: {error}"));
        Ok(Self { events: number()?, tokens: number()? })
    }

    /// Starts a run with fixed ids.
    #[cfg(test)]
    pub const fn known(events: u64, tokens: u64) -> Self {
        Self { events, tokens }
    }

    /// Returns the id of event number `number`, created at a time in Unix seconds.
    pub fn event_id(self, number: u64, unix_seconds: i64) -> String {
        xid(unix_seconds, self.events.wrapping_add(number).to_be_bytes())
    }

    /// Returns the id of token number `number`, issued at a time in Unix seconds.
    pub fn token_id(self, number: u64, unix_seconds: i64) -> String {
        xid(unix_seconds, self.tokens.wrapping_add(number).to_be_bytes())
    }

    /// Returns a number that differs for each token and each run.
    pub const fn unique(self, number: u64) -> u64 {
        self.tokens.wrapping_add(number)
    }

    /// Returns a random secret.
    pub fn other_secret(self) -> String {
        format!("{:016x}{:016x}", self.events, self.tokens)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_differ_even_where_the_counter_wraps() {
        let run = Run::known(u64::MAX - 500, 7);
        let made: std::collections::BTreeSet<_> = (0..1000)
            .flat_map(|number| [run.event_id(number, 1_700_000_000), run.token_id(number, 1_800_000_000)])
            .collect();
        assert_eq!(made.len(), 2000);
        assert!(made.iter().all(|id| id.len() == 20));
    }
}
