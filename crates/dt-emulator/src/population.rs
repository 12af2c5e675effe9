//! The devices that an emulator starts with: their types and numbers, and their creation.

use std::collections::BTreeMap;
use std::str::FromStr;

use super::api::add_device;
use super::state::{Device, Labels, MAX_DEVICES, Now, State};
use dt_verify::event::simulation;

/// The number of devices of each type that have a heartbeat: `temperature:20,humidity:5`.
///
/// # Examples
///
/// ```
/// use dt_emulator::Population;
///
/// let devices: Population = "temperature:20,humidity:5,touch".parse().unwrap();
/// assert_eq!(devices.len(), 26);
/// assert!("toaster:1".parse::<Population>().is_err());
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Population(BTreeMap<&'static str, usize>);

/// Why a text is not a [`Population`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PopulationError {
    /// No device type has this name.
    #[error("there is no device type \"{0}\"; expected {known}", known = simulation::device_types().join(", "))]
    UnknownType(String),
    /// The text after the colon is not a number of devices.
    #[error("found \"{0}\"; expected a number of devices from 1 to {MAX_DEVICES}, all types together")]
    BadCount(String),
}

impl PopulationError {
    /// Returns a stable name of the error.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::UnknownType(_) => "device_type_unknown",
            Self::BadCount(_) => "device_count",
        }
    }
}

impl Population {
    /// Returns the number of devices of all types.
    #[must_use]
    pub fn len(&self) -> usize {
        // A sum that saturates is above `MAX_DEVICES`, which parsing refuses.
        self.0.values().copied().fold(0, usize::saturating_add)
    }

    /// Returns whether there are no devices.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Creates the devices that a project does not have yet. Devices beyond the limit of the project are not created.
    pub(crate) fn create_missing(&self, state: &mut State, project: &str, now: Now) {
        for (device_type, wanted) in &self.0 {
            let counts = |device: &&Device| device.has_heartbeat && device.device_type == *device_type;
            let devices = state.projects.get(project).map(|project| &project.devices);
            let present = devices.map_or(0, |devices| devices.values().filter(counts).count());
            for number in (1..=*wanted).skip(present) {
                let id = format!("emu{}", state.id(now));
                let labels = Labels::from([("name".to_owned(), format!("{device_type} {number}"))]);
                // A full project stays as it is.
                let _added =
                    add_device(state, project, Device::new(id, (*device_type).to_owned(), labels, true));
            }
        }
    }
}

impl FromStr for Population {
    type Err = PopulationError;

    fn from_str(text: &str) -> Result<Self, PopulationError> {
        let device_types = simulation::device_types();
        let mut population = Self::default();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let (name, count) = part.split_once(':').unwrap_or((part, "1"));
            let device_type = device_types.iter().find(|device_type| **device_type == name);
            let device_type = device_type.ok_or_else(|| PopulationError::UnknownType(name.to_owned()))?;
            let bad = || PopulationError::BadCount(count.to_owned());
            let more = count.parse::<usize>().ok().filter(|count| *count > 0).ok_or_else(bad)?;
            let sum = population.0.entry(device_type).or_default();
            *sum = sum.checked_add(more).ok_or_else(bad)?;
            if population.len() > MAX_DEVICES {
                return Err(bad());
            }
        }
        Ok(population)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn populations_are_read() {
        let population: Population = "temperature:2, ccon,temperature:3".parse().unwrap();
        assert_eq!(population.len(), 6);
        assert!("".parse::<Population>().unwrap().is_empty());
        for (text, code) in [
            ("toaster:1", "device_type_unknown"),
            ("ccon:0", "device_count"),
            ("ccon:x", "device_count"),
            ("ccon:10001", "device_count"),
            ("ccon:9999,touch:2", "device_count"),
            ("ccon:1,ccon:18446744073709551615", "device_count"),
        ] {
            assert_eq!(text.parse::<Population>().unwrap_err().code(), code, "{text}");
        }
    }

    #[test]
    fn no_device_is_created_twice() {
        let mut state = State::new(7);
        let population: Population = "temperature:3,touch:2".parse().unwrap();
        population.create_missing(&mut state, "p", Now(0));
        population.create_missing(&mut state, "p", Now(0));
        assert_eq!(state.projects["p"].devices.len(), 5);
    }
}
