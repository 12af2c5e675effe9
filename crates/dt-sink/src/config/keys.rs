//! The macro that declares a table of the configuration.

pub use crate::config_keys;

/// Declares a table of the configuration, with one entry for each key. A new key needs no change elsewhere.
///
/// An entry consists of the key's description for the reference, its name, the type of its value, and the way in which the value
/// is read ([`entry`](crate::config::entry)). The macro generates:
///
/// - the struct, with a field for each key;
/// - `with_defaults`, which takes what has no default; and `Default` where everything has one;
/// - `read_keys`, which reads the keys of a section, and reports every value that is wrong;
/// - `compare_keys`, which adds what is different in another such struct, and whether that needs a restart;
/// - `rows` and `tables`, from which `config reference`, `config sample` and `docs/configuration.md` are written;
/// - [`Keys`](crate::config::Keys), unless there is a `with { … }`.
///
/// Required keys are listed in `needed { … }`. Fields that are not keys are listed in `with { … }`.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
///
/// use dt_sink::config::{config_keys, duration, path};
///
/// config_keys! {
///     /// Where a sink of some type writes.
///     #[derive(Debug, Clone, PartialEq)]
///     pub struct Settings {
///         needed {
///             /// The file to append to.
///             file: std::path::PathBuf = path("path").needed("is missing; name the file"),
///         }
///         /// How long a write may take.
///         timeout: Duration = duration(Duration::ZERO..=Duration::from_secs(60)).or(Duration::from_secs(5)),
///     }
/// }
///
/// let settings = Settings::with_defaults("events.ndjson".into());
/// assert_eq!(settings.timeout, Duration::from_secs(5));
/// assert_eq!(Settings::rows()[1].allowed, "duration, 0s to 1m");
/// ```
#[macro_export]
macro_rules! config_keys {
    (
        $(#[$about:meta])*
        $visibility:vis struct $name:ident {
            $(needed { $(
                $(#[doc = $needed_doc:literal])+
                $needed:ident : $needed_type:ty = $needed_entry:expr
            ),+ $(,)? })?
            $(
                $(#[doc = $doc:literal])+
                $key:ident : $type:ty = $entry:expr
            ),* $(,)?
        }
        $(with { $(
            $(#[$other_about:meta])*
            $other_visibility:vis $other:ident : $other_type:ty
        ),+ $(,)? })?
    ) => {
        $(#[$about])*
        $visibility struct $name {
            $($( $(#[doc = $needed_doc])+ $visibility $needed: $needed_type, )+)?
            $( $(#[doc = $doc])+ $visibility $key: $type, )*
            $($( $(#[$other_about])* $other_visibility $other: $other_type, )+)?
        }

        #[allow(dead_code, unused_mut, unused_variables, reason = "there may be no keys, or no use for one of these")]
        impl $name {
            /// Creates the struct from values for the fields without a default; all other fields get their defaults.
            #[must_use]
            $visibility fn with_defaults(
                $($($needed: $needed_type,)+)?
                $($($other: $other_type,)+)?
            ) -> Self {
                Self {
                    $($($needed,)+)?
                    $($key: {
                        // A function, in which no parameter hides a name of the entry.
                        fn default() -> $type {
                            $crate::config::OptionalEntry::<$type>::default($entry)
                        }
                        default()
                    },)*
                    $($($other,)+)?
                }
            }

            /// Reads the keys of a section. Returns `None`, after a report, if a key has neither a valid value nor a default.
            $visibility fn read_keys(
                section: &mut $crate::config::Section<'_>,
                $($($other: $other_type,)+)?
            ) -> Option<Self> {
                // All of them, whatever is wrong with the others, so that all problems are reported at once.
                let ($($($needed,)+)? $($key,)*) = (
                    $($($crate::config::Entry::<$needed_type>::read(
                        $needed_entry, stringify!($needed), section,
                    ),)+)?
                    $($crate::config::Entry::<$type>::read($entry, stringify!($key), section),)*
                );
                Some(Self { $($($needed: $needed?,)+)? $($key: $key?,)* $($($other,)+)? })
            }

            /// Adds the keys whose values differ in `next` to `changes`.
            $visibility fn compare_keys(&self, next: &Self, changes: &mut $crate::config::Changes) {
                $($(
                    let values = (&self.$needed, &next.$needed);
                    $crate::config::Entry::<$needed_type>::compare($needed_entry, stringify!($needed), values, changes);
                )+)?
                $(
                    let values = (&self.$key, &next.$key);
                    $crate::config::Entry::<$type>::compare($entry, stringify!($key), values, changes);
                )*
            }

            /// Returns the description of each key of this table, for the reference.
            $visibility fn rows() -> Vec<$crate::config::Key> {
                let mut rows = Vec::new();
                $($(
                    let doc = concat!($($needed_doc),+).trim();
                    rows.extend($crate::config::Entry::<$needed_type>::rows($needed_entry, stringify!($needed), doc));
                )+)?
                $(
                    let doc = concat!($($doc),+).trim();
                    rows.extend($crate::config::Entry::<$type>::rows($entry, stringify!($key), doc));
                )*
                rows
            }

            /// Returns the descriptions of the tables below this one, for the reference.
            $visibility fn tables() -> Vec<$crate::config::Table> {
                let mut tables = Vec::new();
                $(
                    let doc = concat!($($doc),+).trim();
                    tables.extend($crate::config::Entry::<$type>::tables($entry, stringify!($key), doc));
                )*
                tables
            }
        }

        $crate::config_keys! { @traits $name [$($($needed)+)?] [$($($other)+)?] }
    };

    (@traits $name:ident [] []) => {
        impl Default for $name {
            fn default() -> Self {
                Self::with_defaults()
            }
        }

        $crate::config_keys! { @traits $name [keys] [] }
    };

    (@traits $name:ident [$($needed:ident)+] []) => {
        impl $crate::config::Keys for $name {
            fn read(section: &mut $crate::config::Section<'_>) -> Option<Self> {
                Self::read_keys(section)
            }

            fn compare(&self, next: &Self, changes: &mut $crate::config::Changes) {
                self.compare_keys(next, changes);
            }

            fn rows() -> Vec<$crate::config::Key> {
                Self::rows()
            }

            fn tables() -> Vec<$crate::config::Table> {
                Self::tables()
            }
        }
    };

    (@traits $name:ident [$($needed:ident)*] [$($other:ident)+]) => {};
}
