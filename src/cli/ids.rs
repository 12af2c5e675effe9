//! Ids of made-up events and tokens: xids, as DT's, all different.

use dt_verify::xid;

/// What makes the ids of one run differ from those of any other. There is no more randomness in a run than this; the rest
/// is counting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    events: u64,
    tokens: u64,
}

impl Run {
    /// Starts a run of its own.
    pub(super) fn random() -> anyhow::Result<Self> {
        let number = || {
            getrandom::u64().map_err(|error| anyhow::anyhow!("the system gives no random numbers: {error}"))
        };
        Ok(Self { events: number()?, tokens: number()? })
    }

    /// Makes a run with known ids.
    #[cfg(test)]
    pub(super) const fn known(events: u64, tokens: u64) -> Self {
        Self { events, tokens }
    }

    /// Returns the id of the event of this number, that happens in that second.
    pub(super) fn event_id(self, number: u64, unix_seconds: i64) -> String {
        xid(unix_seconds, self.events.wrapping_add(number).to_be_bytes())
    }

    /// Returns the id of the token of this number, that is issued in that second.
    pub(super) fn token_id(self, number: u64, unix_seconds: i64) -> String {
        xid(unix_seconds, self.tokens.wrapping_add(number).to_be_bytes())
    }

    /// Returns a number that is another for each token and each run.
    pub(super) const fn unique(self, number: u64) -> u64 {
        self.tokens.wrapping_add(number)
    }

    /// Returns a secret that no one else has.
    pub(super) fn other_secret(self) -> String {
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
