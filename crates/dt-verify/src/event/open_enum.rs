//! The macro for enums of documented texts that keep unknown texts as well.

/// Makes an enum of documented texts, with the variant `Other` for any other text.
macro_rules! open_enum {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $text:expr,)+ }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum $name {
            $($(#[$doc])* $variant,)+
            /// An unknown value, as it was received.
            Other(String),
        }

        impl $name {
            /// All known values.
            pub const KNOWN: [Self; [$($text),+].len()] = [$(Self::$variant),+];

            /// Returns the value as DT spells it.
            #[must_use]
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$variant => $text,)+
                    Self::Other(text) => text,
                }
            }

            /// Returns `true` unless it is [`Other`](Self::Other).
            #[must_use]
            pub const fn is_known(&self) -> bool {
                !matches!(self, Self::Other(_))
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                $(if text == $text {
                    return Self::$variant;
                })+
                Self::Other(text.to_owned())
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                match Self::from(&*text) {
                    Self::Other(_) => Self::Other(text),
                    known => known,
                }
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

/// Makes an [`open_enum!`] that can also be the type of a payload's member.
macro_rules! text_member {
    ($(#[$meta:meta])* $name:ident { $($rest:tt)+ }) => {
        $crate::event::open_enum::open_enum! { $(#[$meta])* $name { $($rest)+ } }

        impl $crate::event::members::Json for $name {
            const ONE: &'static str = "a text";
            const MANY: &'static str = "a list of texts";

            fn from_json(value: &::serde_json::Value) -> Option<Self> {
                value.as_str().map(Self::from)
            }

            fn write<S: ::serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }

            fn documented(&self) -> Result<(), $crate::event::members::Undocumented> {
                if self.is_known() {
                    return Ok(());
                }
                let known: Vec<&str> = Self::KNOWN.iter().map(Self::as_str).collect();
                Err($crate::event::members::Undocumented(format!("one of {}", known.join(", "))))
            }
        }
    };
}
pub(in crate::event) use text_member;
