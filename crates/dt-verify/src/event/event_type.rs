//! The event types that DT documents, and the macro for enums that outlive the documentation.

/// Makes an enum of documented strings with a fallback that keeps any other.
macro_rules! open_enum {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum $name {
            $($(#[$doc])* $variant,)+
            /// A value that is not known here, as it was received.
            Other(String),
        }

        impl $name {
            /// All values known here.
            pub const KNOWN: [Self; [$($text),+].len()] = [$(Self::$variant),+];

            /// The value as DT spells it.
            #[must_use]
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$variant => $text,)+
                    Self::Other(text) => text,
                }
            }

            fn known(text: &str) -> Option<Self> {
                match text {
                    $($text => Some(Self::$variant),)+
                    _ => None,
                }
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self::known(text).unwrap_or_else(|| Self::Other(text.to_owned()))
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self::known(&text).unwrap_or(Self::Other(text))
            }
        }

        impl ::std::str::FromStr for $name {
            type Err = ::std::convert::Infallible;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Ok(text.into())
            }
        }

        impl ::std::fmt::Display for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}
pub(in crate::event) use open_enum;

open_enum! {
    /// What kind of event it is: `event.eventType`.
    ///
    /// The known ones are those of DT's page "Events". There will be others, so nothing fails on them.
    ///
    /// # Examples
    ///
    /// ```
    /// use dt_verify::event::EventType;
    ///
    /// assert_eq!(EventType::from("touch"), EventType::Touch);
    /// assert_eq!(EventType::from("smell").as_str(), "smell");
    /// assert_eq!(EventType::KNOWN.len(), 19);
    /// ```
    EventType {
        /// A sensor was touched.
        Touch = "touch",
        /// A temperature was measured.
        Temperature = "temperature",
        /// An object appeared at a proximity sensor, or went away.
        ObjectPresent = "objectPresent",
        /// Relative humidity and temperature were measured.
        Humidity = "humidity",
        /// How often objects appeared and went away.
        ObjectPresentCount = "objectPresentCount",
        /// How often a sensor was touched.
        TouchCount = "touchCount",
        /// Water came to a water detector, or went away.
        WaterPresent = "waterPresent",
        /// A CO₂ concentration was measured.
        Co2 = "co2",
        /// An air pressure was measured.
        Pressure = "pressure",
        /// Motion began or ended.
        Motion = "motion",
        /// A desk was taken or left.
        DeskOccupancy = "deskOccupancy",
        /// A door or window was opened or closed.
        Contact = "contact",
        /// The wires of a temperature probe were plugged or unplugged.
        ProbeWireStatus = "probeWireStatus",
        /// The charge of a sensor's battery.
        BatteryStatus = "batteryStatus",
        /// How well Cloud Connectors hear a sensor.
        NetworkStatus = "networkStatus",
        /// Labels of a device were set, changed or removed.
        LabelsChanged = "labelsChanged",
        /// How a device is connected has changed.
        ConnectionStatus = "connectionStatus",
        /// The Ethernet of a Cloud Connector has changed.
        EthernetStatus = "ethernetStatus",
        /// The cellular signal of a Cloud Connector has changed.
        CellularStatus = "cellularStatus",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_known_type_comes_back_from_its_name() {
        for known in EventType::KNOWN {
            assert_eq!(EventType::from(known.as_str()), known);
            assert_eq!(EventType::from(known.to_string()), known);
            assert!(!matches!(known, EventType::Other(_)));
        }
    }

    #[test]
    fn the_known_names_are_all_different() {
        let names: std::collections::BTreeSet<_> =
            EventType::KNOWN.iter().map(|known| known.as_str().to_owned()).collect();
        assert_eq!(names.len(), 19);
    }

    #[test]
    fn other_names_are_kept_exactly_and_case_counts() {
        for name in ["ping", "", "Touch", "touch ", "løft"] {
            assert_eq!(name.parse::<EventType>(), Ok(EventType::Other(name.to_owned())));
            assert_eq!(EventType::from(name).to_string(), name);
        }
    }
}
