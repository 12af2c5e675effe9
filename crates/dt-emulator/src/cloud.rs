//! What all parts of the emulator share: the state behind its lock, the clocks, the keys, the network.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{Notify, broadcast};

use super::engine::Transport;
use super::identity::{Accounts, Grants, Keys};
use super::state::{Now, Published, State};
use super::time::{EmulatedTime, WallClock};
use dt_verify::Signer;

/// How many events a stream may be behind before it misses some.
const STREAM_BACKLOG: usize = 4_096;

/// The cloud.
pub(crate) struct Cloud {
    time: EmulatedTime,
    wall: WallClock,
    state: Mutex<State>,
    queued: Notify,
    streams: broadcast::Sender<Arc<Published>>,
    pub(crate) accounts: Accounts,
    pub(crate) grants: Mutex<Grants>,
    pub(crate) keys: Mutex<Keys>,
    transport: Arc<dyn Transport>,
    pub(crate) reach: Reach,
    pub(crate) organization: String,
    pub(crate) organization_name: String,
}

/// Who can reach it.
pub(crate) struct Reach {
    /// Only this machine.
    pub(crate) on_loopback: bool,
    /// The host under which others do, if one is known.
    pub(crate) public_host: Option<String>,
}

impl Cloud {
    pub(crate) fn new(
        time: EmulatedTime,
        wall: WallClock,
        state: State,
        accounts: Accounts,
        keys: Keys,
        transport: Arc<dyn Transport>,
        reach: Reach,
    ) -> Self {
        let organization = keys.organization().to_owned();
        Self {
            time,
            wall,
            state: Mutex::new(state),
            queued: Notify::new(),
            streams: broadcast::Sender::new(STREAM_BACKLOG),
            accounts,
            grants: Mutex::new(Grants::default()),
            keys: Mutex::new(keys),
            transport,
            reach,
            organization,
            organization_name: String::new(),
        }
    }

    /// Sets the organization's display name.
    pub(crate) fn with_organization_name(self, organization_name: String) -> Self {
        Self { organization_name, ..self }
    }

    pub(crate) const fn time(&self) -> &EmulatedTime {
        &self.time
    }

    /// The machine's time, in Unix seconds.
    pub(crate) fn wall_seconds(&self) -> i64 {
        self.wall.unix_seconds()
    }

    /// What the machine's clock says for a time of the emulated one, so that both give it the same age.
    pub(crate) fn wall_time_of(&self, emulated_millis: Option<i64>) -> i64 {
        let age = emulated_millis.map_or(0, |millis| self.time.now_millis().saturating_sub(millis));
        self.wall_seconds().saturating_sub(age.div_euclid(1_000))
    }

    /// Does something with the state. It must not take long: everyone waits.
    pub(crate) fn with_state<T>(&self, act: impl FnOnce(&mut State, Now) -> T) -> T {
        let mut state = self.state.lock();
        // Read under the lock, so that nobody's "now" is before what another has already noted.
        let now = Now(self.time.now_micros());
        act(&mut state, now)
    }

    /// Does something that may publish events: whoever streams gets them, and the engine looks at the queues.
    pub(crate) fn publishing<T>(&self, act: impl FnOnce(&mut State, Now, &mut Vec<Published>) -> T) -> T {
        let mut published = Vec::new();
        let done = self.with_state(|state, now| act(state, now, &mut published));
        if self.streams.receiver_count() > 0 {
            for event in published {
                // Whoever listened has gone.
                let _unheard = self.streams.send(Arc::new(event));
            }
        }
        self.queued.notify_one();
        done
    }

    /// Resolves when something may have been queued since the last time.
    pub(crate) async fn queued(&self) {
        self.queued.notified().await;
    }

    pub(crate) fn listen(&self) -> broadcast::Receiver<Arc<Published>> {
        self.streams.subscribe()
    }

    pub(crate) fn listeners(&self) -> usize {
        self.streams.receiver_count()
    }

    pub(crate) fn signer(&self) -> Option<Signer> {
        self.keys.lock().signer()
    }

    pub(crate) fn transport(&self) -> &dyn Transport {
        &*self.transport
    }
}
