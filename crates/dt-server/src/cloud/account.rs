//! The client with which this process calls DT's REST API.

use std::fmt;
use std::sync::Arc;

use parking_lot::RwLock;

use crate::config::ApiSettings;
use dt_api::{BuildError, Client};
use dt_sink::clock::Clock;

/// The client of DT's REST API that all parts of the receiver share. A reload can replace it.
pub struct Account {
    clock: Arc<dyn Clock>,
    clients: RwLock<Clients>,
}

#[derive(Clone)]
struct Clients {
    /// For calls that only read.
    reading: Client,
    /// For changes: it makes one attempt, so that it never repeats a change that somebody else has undone.
    changing: Client,
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Account").field("client", &self.clients.read().reading).finish_non_exhaustive()
    }
}

impl Account {
    /// Creates the client, without opening a connection. `clock` is the source of the times in assertions.
    ///
    /// # Errors
    ///
    /// [`BuildError`] if the settings are invalid. Settings that were read from a file were checked.
    pub fn new(settings: &ApiSettings, clock: Arc<dyn Clock>) -> Result<Self, BuildError> {
        let clients = RwLock::new(clients(settings, &clock)?);
        Ok(Self { clock, clients })
    }

    /// Returns the client. Callers do not keep it for longer than a call, or a list.
    #[must_use]
    pub fn client(&self) -> Client {
        self.clients.read().reading.clone()
    }

    /// Returns a client that makes a single attempt of each call, for changes.
    #[must_use]
    pub fn client_for_changes(&self) -> Client {
        self.clients.read().changing.clone()
    }

    /// Replaces the client by one with other settings. Calls that have begun end with the earlier client.
    ///
    /// # Errors
    ///
    /// [`BuildError`] if the settings are invalid; the earlier client stays.
    pub fn replace(&self, settings: &ApiSettings) -> Result<(), BuildError> {
        *self.clients.write() = clients(settings, &self.clock)?;
        Ok(())
    }
}

fn clients(settings: &ApiSettings, clock: &Arc<dyn Clock>) -> Result<Clients, BuildError> {
    let builder = || {
        let clock = Arc::clone(clock);
        Ok(settings.client_builder().ok_or(BuildError::Credentials)?.clock(move || clock.unix_millis()))
    };
    Ok(Clients { reading: builder()?.build()?, changing: builder()?.attempts(1).build()? })
}
