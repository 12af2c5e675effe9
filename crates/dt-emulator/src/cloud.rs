//! The state that all parts of the emulator share: the state of the cloud behind its lock, the clocks, the keys, the network.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use parking_lot::Mutex;
use tokio::sync::{Notify, broadcast};

use super::engine::Transport;
use super::identity::{Accounts, Grants, Keys};
use super::state::{Now, Published, State};
use super::time::{EmulatedTime, WallClock};
use dt_verify::Signer;

/// The largest number of events by which a stream may be behind; beyond it, the stream misses events.
const STREAM_BACKLOG: usize = 4_096;

/// The emulated cloud: all parts of the emulator share it.
pub struct Cloud {
    time: EmulatedTime,
    wall: WallClock,
    state: Mutex<State>,
    queued: Notify,
    streams: broadcast::Sender<Arc<Published>>,
    pub accounts: Accounts,
    pub grants: Mutex<Grants>,
    pub keys: Mutex<Keys>,
    transport: Arc<dyn Transport>,
    pub reach: Reach,
    pub organization: String,
    pub organization_name: String,
}

/// The addresses under which clients reach the emulator.
pub struct Reach {
    /// Whether only this machine can reach the emulator.
    pub on_loopback: bool,
    /// The host of the emulator's public URL; `None` if none is configured.
    pub public_host: Option<String>,
}

/// The arguments for creating a [`Cloud`].
pub struct CloudParts {
    pub time: EmulatedTime,
    pub wall: WallClock,
    pub state: State,
    pub accounts: Accounts,
    pub keys: Keys,
    pub transport: Arc<dyn Transport>,
    pub reach: Reach,
    pub organization_name: String,
}

impl Cloud {
    /// Makes a cloud without streams and access tokens.
    pub fn new(parts: CloudParts) -> Self {
        let CloudParts { time, wall, state, accounts, keys, transport, reach, organization_name } = parts;
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
            organization_name,
        }
    }

    pub const fn time(&self) -> &EmulatedTime {
        &self.time
    }

    /// Returns the time of the system clock, in Unix seconds.
    pub fn wall_seconds(&self) -> i64 {
        self.wall.unix_seconds()
    }

    /// Returns the time of the system clock `seconds` from now, as an HTTP date (RFC 9110, section 5.6.7).
    pub fn http_date(&self, seconds: u16) -> String {
        // The latest time that an HTTP date can have.
        const LAST: i64 = 253_402_300_799;
        let at = self.wall_seconds().saturating_add(seconds.into()).clamp(0, LAST);
        let since = Duration::from_secs(u64::try_from(at).unwrap_or(0));
        httpdate::fmt_http_date(UNIX_EPOCH.checked_add(since).unwrap_or(UNIX_EPOCH))
    }

    /// Converts a time of the emulated clock (Unix milliseconds; `None` for now) to the time of the system clock (Unix seconds)
    /// that is equally long ago.
    pub fn wall_time_of(&self, emulated_millis: Option<i64>) -> i64 {
        let age = emulated_millis.map_or(0, |millis| self.time.now_millis().saturating_sub(millis));
        self.wall_seconds().saturating_sub(age.div_euclid(1_000))
    }

    /// Calls `act` with the locked state and the emulated time. `act` must be short, since all other parts of the emulator wait.
    pub fn with_state<T>(&self, act: impl FnOnce(&mut State, Now) -> T) -> T {
        let mut state = self.state.lock();
        // Read under the lock, so that no caller's time is before one that the state already has.
        let now = Now(self.time.now_micros());
        act(&mut state, now)
    }

    /// Calls `act` like [`with_state`](Self::with_state), sends the events that it publishes to the streams, and wakes the
    /// delivery engine.
    pub fn publishing<T>(&self, act: impl FnOnce(&mut State, Now, &mut Vec<Published>) -> T) -> T {
        let mut published = Vec::new();
        let done = self.with_state(|state, now| act(state, now, &mut published));
        if self.streams.receiver_count() > 0 {
            for event in published {
                // The last stream may have ended meanwhile.
                let _unreceived = self.streams.send(Arc::new(event));
            }
        }
        self.queued.notify_one();
        done
    }

    /// Waits until an event may have been queued since the last call.
    pub async fn queued(&self) {
        self.queued.notified().await;
    }

    pub fn listen(&self) -> broadcast::Receiver<Arc<Published>> {
        self.streams.subscribe()
    }

    pub fn listeners(&self) -> usize {
        self.streams.receiver_count()
    }

    pub fn signer(&self) -> Option<Signer> {
        self.keys.lock().signer()
    }

    pub fn transport(&self) -> &dyn Transport {
        &*self.transport
    }
}
