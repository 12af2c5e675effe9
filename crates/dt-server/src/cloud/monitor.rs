//! Watches the Data Connectors that deliver to this receiver, and sets those that DT disabled to `ACTIVE` again.
//!
//! The only changes that are ever made at DT are `PATCH {"status": "ACTIVE"}` and `:sync`, and only for a Data Connector with the
//! status `SYSTEM_DISABLED` that delivers to the URL of a connector of the configuration. The number of attempts is stored before
//! each attempt, so a process that is killed does not repeat it.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use dt_api::{Client, Connector, ConnectorMetrics, ConnectorSettings, ConnectorStatus};
use dt_verify::event::{EventType, rfc3339_millis};

use super::context::{Context, MonitorError};
use super::problems::Problems;
use super::reach::{self, Unreachable};
use super::store::{ConnectorState, NewWindow};
use super::watched::{Watched, WatchedConnector};
use crate::http::outcomes;
use crate::telemetry::{Answers, ConnectorDisabled, ConnectorEnabled};

/// The largest number of Data Connectors of a project that are read. DT allows 10.
const MAX_CONNECTORS: usize = 1000;
/// The number of attempts to set a Data Connector to `ACTIVE`, without a delivery between them.
const MAX_TRIES: u32 = 3;
/// After this time of failures, DT disables a Data Connector, in milliseconds.
const DISABLE_AFTER: i64 = 5 * 24 * 3_600_000;
/// The period of DT's counts of deliveries, in milliseconds.
const COUNTED: i64 = 24 * 3_600_000;
/// The cause of a window after a Data Connector was not `ACTIVE`.
pub const CAUSE: &str = "inactive";

/// The status of a Data Connector that is not at DT any more.
const NOT_FOUND: &str = "NOT_FOUND";
/// The values of the label `status`. Others are `OTHER`.
const STATUSES: [&str; 5] = ["ACTIVE", "USER_DISABLED", "SYSTEM_DISABLED", NOT_FOUND, "OTHER"];

/// Why a Data Connector that DT disabled is not set to `ACTIVE` now.
#[derive(Debug, thiserror::Error)]
enum Blocked {
    #[error("`monitor.reenable` is false")]
    Off,
    #[error("{MAX_TRIES} attempts were made, and no delivery succeeded since")]
    GivenUp,
    #[error("this receiver refused {0} of its requests with 401 or 403 before: find the reason in the log")]
    Refused(u32),
    #[error("this receiver is not ready: {0}")]
    NotReady(String),
    #[error("the next attempt is not before {0}")]
    TooSoon(String),
    #[error(transparent)]
    Unreachable(#[from] Unreachable),
    #[error(transparent)]
    Failed(#[from] MonitorError),
    #[error("its URL was changed meanwhile, and is not that of this receiver any more")]
    Moved,
    #[error("DT has not set it to ACTIVE, but to {0}")]
    NotActive(String),
}

impl Blocked {
    const fn code(&self) -> &'static str {
        match self {
            Self::Off => "reenable_off",
            Self::GivenUp => "reenable_given_up",
            Self::Refused(_) => "reenable_refused_requests",
            Self::NotReady(_) => "reenable_not_ready",
            Self::TooSoon(_) => "reenable_too_soon",
            Self::Unreachable(_) => "reenable_unreachable",
            Self::Failed(error) => error.code(),
            Self::Moved => "reenable_moved",
            Self::NotActive(_) => "reenable_not_active",
        }
    }
}

/// The event types that a project's Data Connectors deliver to this receiver, for each that is `ACTIVE`.
#[derive(Debug, Default)]
pub struct DeliveredTypes(Vec<Vec<EventType>>);

impl DeliveredTypes {
    /// Returns whether no Data Connector is `ACTIVE`.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns whether a Data Connector delivers events of this type.
    pub fn contain(&self, event_type: &EventType) -> bool {
        self.0.iter().any(|types| types.is_empty() || types.contains(event_type))
    }
}

/// The answers to the requests of each connector since the last check, by name.
pub type RecentAnswers = HashMap<Arc<str>, Answers>;

/// A Data Connector at DT, and the connector to which it delivers.
#[derive(Clone, Copy)]
struct Observed<'a> {
    project: &'a str,
    connector: &'a WatchedConnector,
    real: &'a Connector,
}

/// The monitor.
pub struct Monitor {
    context: Arc<Context>,
    answers: RecentAnswers,
}

impl Monitor {
    pub fn new(context: Arc<Context>) -> Self {
        Self { context, answers: HashMap::new() }
    }

    /// Returns the answers since the last call.
    pub fn recent_answers(&mut self, watched: &Watched) -> RecentAnswers {
        let outcomes = outcomes();
        let count = |connector: &WatchedConnector| {
            (Arc::clone(&connector.name), self.context.telemetry.answers(&connector.name, &outcomes))
        };
        let now: RecentAnswers = watched.connectors.iter().map(count).collect();
        let before = std::mem::replace(&mut self.answers, now.clone());
        let since = |(name, answers): (Arc<str>, Answers)| {
            let earlier = before.get(&name).copied().unwrap_or_default();
            (name, answers.since(earlier))
        };
        now.into_iter().map(since).collect()
    }

    /// Checks the Data Connectors of a project, and adds problems. Returns the event types that they deliver.
    ///
    /// # Errors
    ///
    /// [`MonitorError`] if they cannot be listed, or `cloud.db` fails.
    pub async fn check(
        &self,
        project: &str,
        watched: &Watched,
        recent: &RecentAnswers,
        problems: &mut Problems,
    ) -> Result<DeliveredTypes, MonitorError> {
        let client = self.context.account.client();
        let real = client.connectors(project)?.up_to(MAX_CONNECTORS).await?;
        let name = project.to_owned();
        let now = self.context.now();
        let known = self.context.stored(move |store| {
            store.baseline(&name, now)?;
            store.connectors(&name)
        });
        let known = known.await?;
        let mut states = Vec::new();
        let mut types = DeliveredTypes::default();
        let mut expected = BTreeSet::new();
        if watched.of_project(project).next().is_none() && !watched.sources.contains(project) {
            let text = format!(
                "project {project}: no connector accepts its events; name it in the `projects` of a connector, or remove it from \
                 `monitor.projects`"
            );
            problems.add(format!("{project}/connector"), "project_without_connector", text);
        }
        for connector in watched.of_project(project) {
            let mine: Vec<&Connector> = real.iter().filter(|real| connector.is_target_of(real)).collect();
            let mut of_connector = Vec::new();
            let mut all_metrics = Vec::new();
            for real in &mine {
                let observed = Observed { project, connector, real };
                let metrics = match client.connector_metrics(project, real.id()).await {
                    Ok(metrics) => Some(metrics),
                    Err(error) => {
                        let text = format!("connector {}: its metrics at DT: {error}", connector.name);
                        problems.add(format!("{project}/{}/metrics", real.id()), error.code(), text);
                        None
                    }
                };
                let before = before(&known, observed, &mine);
                let recent = recent.get(&connector.name).copied().unwrap_or_default();
                let mut state = self.observe(observed, before, recent, metrics);
                self.act(&mut state, before, watched, problems).await?;
                all_metrics.extend(metrics);
                if state.status == ConnectorStatus::Active.as_str() {
                    types.0.push(real.events.clone());
                }
                of_connector.push(state);
            }
            if mine.is_empty() {
                let text = format!(
                    "connector {}: project {project} has no Data Connector with the URL {}; create it, such as by `dt-receiver \
                     connectors apply`",
                    connector.name,
                    connector.url()
                );
                problems.add(format!("{project}/{}", connector.name), "connector_not_found", text);
                let gone = known.iter().filter(|state| *state.connector == *connector.name).cloned();
                let now = self.context.now();
                of_connector.extend(gone.map(|state| gone_since(state, now)));
            }
            self.measure((project, &connector.name), &of_connector, &all_metrics);
            expected.extend(of_connector.iter().flat_map(|state| connector.types_of(&state.events)));
            states.extend(of_connector);
        }
        let name = project.to_owned();
        let stored = self.context.stored(move |store| {
            if !states.is_empty() {
                store.set_delivered_types(&name, &expected, now)?;
            }
            store.set_connectors(&name, &states)
        });
        stored.await?;
        Ok(types)
    }

    /// Returns the new state of a Data Connector, and logs a change of its status.
    fn observe(
        &self,
        Observed { project, connector, real }: Observed<'_>,
        before: Option<&ConnectorState>,
        recent: Answers,
        metrics: Option<ConnectorMetrics>,
    ) -> ConnectorState {
        let now = self.context.now();
        let is_active = real.status == ConnectorStatus::Active;
        let is_same = before.is_some_and(|before| before.status == real.status.as_str());
        let last_accepted = self.context.telemetry.last_accepted(&connector.name).saturating_mul(1000);
        let known = before.and_then(|before| before.success_at);
        // Another Data Connector may deliver to the same connector.
        let is_success = recent.successes > 0 && metrics.is_some_and(|metrics| metrics.success_count > 0);
        let is_clean = metrics.is_some_and(|metrics| metrics.success_count > 0 && metrics.error_count == 0);
        let success_at = match known {
            _ if is_success => Some(now),
            Some(at) => Some(at),
            None => Some(last_accepted).filter(|at| *at > 0),
        };
        let refused = before.map_or(0, |before| before.refused);
        let more = u32::try_from(recent.refused).unwrap_or(u32::MAX);
        let tried_at = before.and_then(|before| before.tried_at);
        let is_recovered = success_at > tried_at;
        let state = ConnectorState {
            project: project.to_owned(),
            id: real.id().to_owned(),
            connector: connector.name.to_string(),
            status: real.status.as_str().to_owned(),
            since: before.filter(|_| is_same).map_or(now, |before| before.since),
            clean_at: if is_active && is_clean {
                Some(now)
            } else {
                before.and_then(|before| before.clean_at)
            },
            active_at: if is_active { Some(now) } else { before.and_then(|before| before.active_at) },
            success_at,
            refused: match is_success {
                true => 0,
                false if is_active => refused.saturating_add(more),
                // What others send meanwhile is not the reason.
                false => refused,
            },
            tries: if is_recovered { 0 } else { before.map_or(0, |before| before.tries) },
            tried_at,
            sync_due: before.is_some_and(|before| before.sync_due),
            labels: real.labels.clone(),
            events: real.events.iter().map(|event| event.as_str().to_owned()).collect(),
        };
        if !is_same && matches!(real.status, ConnectorStatus::SystemDisabled | ConnectorStatus::UserDisabled)
        {
            let by_system = real.status == ConnectorStatus::SystemDisabled;
            let (connector, id) = (&*connector.name, real.id());
            self.context.telemetry.emit(&ConnectorDisabled { connector, project, id, by_system });
        }
        state
    }

    /// Does what the status of a Data Connector requires: sets it to `ACTIVE`, syncs it, opens a window, adds problems.
    async fn act(
        &self,
        state: &mut ConnectorState,
        before: Option<&ConnectorState>,
        watched: &Watched,
        problems: &mut Problems,
    ) -> Result<(), MonitorError> {
        let (project, id, name) = (state.project.clone(), state.id.clone(), state.connector.clone());
        let about = format!("{project}/{id}");
        let since = rfc3339_millis(state.since);
        let mut by_monitor = false;
        let is_active = |status: &str| status == ConnectorStatus::Active.as_str();
        let was_inactive =
            !is_active(&state.status) || before.is_some_and(|before| !is_active(&before.status));
        match &*state.status {
            "SYSTEM_DISABLED" => match self.enable(state, watched).await {
                Ok(is_enabled) => by_monitor = is_enabled,
                Err(blocked) => {
                    let text = format!(
                        "connector {name}: DT has disabled the Data Connector {id} of project {project} (seen since {since}), and \
                         it is not enabled again: {blocked}; if all is well, run `dt-receiver connectors enable {id} --project \
                         {project}`"
                    );
                    problems.add(about.clone(), blocked.code(), text);
                }
            },
            "USER_DISABLED" => {
                let text = format!(
                    "connector {name}: a person has disabled the Data Connector {id} of project {project} (seen since {since}); it \
                     is never enabled by itself"
                );
                problems.show(about.clone(), "user_disabled", text);
            }
            "ACTIVE" => {}
            other => {
                let text = format!(
                    "connector {name}: the Data Connector {id} of project {project} has the status {}, which this version does \
                     not know",
                    other.escape_debug()
                );
                problems.add(about.clone(), "status_unknown", text);
            }
        }
        if !is_active(&state.status) {
            return Ok(());
        }
        if was_inactive {
            self.context.telemetry.emit(&ConnectorEnabled {
                connector: &name,
                project: &project,
                id: &id,
                by_monitor,
            });
            if watched.monitor_fills() {
                let from = inactive_since(before.unwrap_or(state));
                let (until, cause) = (self.context.now(), CAUSE.to_owned());
                let window = NewWindow { project: project.clone(), from, until, cause, devices: None };
                self.context.open_window(window).await?;
            }
            let now = self.context.now();
            state.active_at = Some(now);
            if by_monitor {
                state.since = now;
            }
        }
        if state.sync_due {
            match self.context.account.client().sync_connector(&project, &id).await {
                Ok(()) => state.sync_due = false,
                Err(error) => {
                    let text = format!("connector {name}: the Data Connector {id} cannot be synced: {error}");
                    problems.add(format!("{about}/sync"), error.code(), text);
                }
            }
        }
        Ok(())
    }

    /// Sets a Data Connector that DT disabled to `ACTIVE`, if nothing speaks against it. Returns whether that was done; `false`
    /// if somebody else has changed its status meanwhile.
    async fn enable(&self, state: &mut ConnectorState, watched: &Watched) -> Result<bool, Blocked> {
        let Some(settings) = &watched.monitor else { return Err(Blocked::Off) };
        let now = self.context.now();
        if !settings.reenable {
            return Err(Blocked::Off);
        }
        if state.tries >= MAX_TRIES {
            return Err(Blocked::GivenUp);
        }
        if state.refused > 0 {
            return Err(Blocked::Refused(state.refused));
        }
        let pause = i64::try_from(settings.reenable_after.as_millis()).unwrap_or(i64::MAX);
        if let Some(next) = state.tried_at.map(|at| at.saturating_add(pause)).filter(|next| *next > now) {
            return Err(Blocked::TooSoon(rfc3339_millis(next)));
        }
        let readiness = self.context.endpoint.readiness();
        if !readiness.ready {
            return Err(Blocked::NotReady(readiness.problems.join("; ")));
        }
        reach::check(&settings.public_url).await?;
        let (project, id) = (state.project.clone(), state.id.clone());
        // A person may have changed it since the list was read, which may have been seconds ago.
        let client: Client = self.context.account.client_for_changes();
        let found = client.connector(&project, &id).await.map_err(MonitorError::from)?;
        state.status = found.status.as_str().to_owned();
        if found.status != ConnectorStatus::SystemDisabled {
            return Ok(false);
        }
        let is_ours = |connector: &WatchedConnector| {
            *connector.name == *state.connector && connector.is_target_of(&found)
        };
        if !watched.connectors.iter().any(is_ours) {
            return Err(Blocked::Moved);
        }
        state.tries = state.tries.saturating_add(1);
        state.tried_at = Some(now);
        state.sync_due = true;
        let attempt = state.clone();
        let stored = self.context.stored(move |store| store.set_connector(&attempt)).await;
        stored.map_err(MonitorError::from)?;
        self.context.telemetry.metrics.cloud_enabled.with_label_values(&[&*state.connector, &project]).inc();
        let active = ConnectorSettings::new().status(ConnectorStatus::Active);
        let changed = client.update_connector(&project, &id, &active).await.map_err(MonitorError::from)?;
        state.status = changed.status.as_str().to_owned();
        match changed.status {
            ConnectorStatus::Active => Ok(true),
            other => Err(Blocked::NotActive(other.to_string())),
        }
    }

    /// Sets the metrics of a connector in a project.
    fn measure(
        &self,
        (project, connector): (&str, &str),
        states: &[ConnectorState],
        found: &[ConnectorMetrics],
    ) {
        let metrics = &self.context.telemetry.metrics;
        let labels = [connector, project];
        let label_of = |status: &str| STATUSES.into_iter().find(|known| *known == status).unwrap_or("OTHER");
        for status in STATUSES {
            let is_there = states.iter().any(|state| label_of(&state.status) == status)
                || states.is_empty() && status == NOT_FOUND;
            metrics.cloud_status.with_label_values(&[connector, project, status]).set(f64::from(is_there));
        }
        // Shown from the start, so that `increase()` counts the first attempt.
        metrics.cloud_enabled.with_label_values(&labels);
        if found.is_empty() {
            return;
        }
        let errors = found.iter().map(|metrics| metrics.error_count).fold(0, u64::saturating_add);
        let successes = found.iter().map(|metrics| metrics.success_count).fold(0, u64::saturating_add);
        metrics.cloud_errors.with_label_values(&labels).set(errors as f64);
        metrics.cloud_successes.with_label_values(&labels).set(successes as f64);
        if let Some(latency) = found.iter().filter_map(|metrics| metrics.latency_p99).max() {
            metrics.cloud_latency.with_label_values(&labels).set(latency.as_secs_f64());
        }
        let success_at = states.iter().filter_map(|state| state.success_at).max();
        let since_success = success_at.map_or(0, |at| self.context.now().saturating_sub(at).max(0));
        // Without failures, silence is no reason for DT to disable it.
        let failing = if errors > 0 && successes == 0 { since_success } else { 0 };
        let left = DISABLE_AFTER.saturating_sub(failing).max(0);
        metrics.cloud_disable_left.with_label_values(&labels).set(left as f64 / 1000.0);
        if let Some(at) = success_at {
            metrics.cloud_last_success.with_label_values(&labels).set(at as f64 / 1000.0);
        }
    }
}

/// Returns what was known about a Data Connector. One that was created anew takes the place of one that is gone.
fn before<'a>(
    known: &'a [ConnectorState],
    Observed { connector, real, .. }: Observed<'_>,
    mine: &[&Connector],
) -> Option<&'a ConnectorState> {
    let is_gone = |state: &&ConnectorState| {
        *state.connector == *connector.name && !mine.iter().any(|real| real.id() == state.id)
    };
    known
        .iter()
        .find(|state| state.id == real.id())
        .or_else(|| known.iter().filter(is_gone).max_by_key(|state| state.active_at))
}

/// Returns the state of a Data Connector that is not at DT any more.
fn gone_since(state: ConnectorState, now: i64) -> ConnectorState {
    let since = if state.status == NOT_FOUND { state.since } else { now };
    ConnectorState { status: NOT_FOUND.to_owned(), since, sync_due: false, ..state }
}

/// Returns the time from which a Data Connector that was not `ACTIVE` may have delivered nothing. When DT disables it, deliveries
/// have failed for days. DT's counts are those of 24 hours, and those of this receiver may belong to another Data Connector. So
/// only a time without a failure is certain.
fn inactive_since(before: &ConnectorState) -> i64 {
    let active_at = before.active_at.unwrap_or(before.since);
    let success_at = before.success_at.map(|at| at.saturating_sub(COUNTED));
    before.clean_at.or(success_at).map_or(active_at, |at| at.min(active_at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_without_deliveries_begins_before_the_first_failure() {
        let state = |clean_at, success_at| ConnectorState {
            project: "p".to_owned(),
            id: "a".to_owned(),
            connector: "plant".to_owned(),
            status: "SYSTEM_DISABLED".to_owned(),
            since: 900 + COUNTED,
            active_at: Some(800 + COUNTED),
            clean_at,
            success_at,
            refused: 0,
            tries: 0,
            tried_at: None,
            sync_due: false,
            labels: Vec::new(),
            events: Vec::new(),
        };
        assert_eq!(inactive_since(&state(Some(5), Some(700 + COUNTED))), 5);
        assert_eq!(inactive_since(&state(None, Some(700 + COUNTED))), 700);
        assert_eq!(inactive_since(&state(None, None)), 800 + COUNTED);
        assert_eq!(inactive_since(&state(Some(850 + COUNTED), None)), 800 + COUNTED);
    }
}
