//! The declaration of a table.

/// Declares a table and its keys.
///
/// A field is `/// doc`, `name: Type = key,`, where `key` is a `Key` of that type, made from a `Kind`. After the struct may
/// stand
///
/// - `refuse NAME: PROBLEM, HINT;` for a key that the reader refuses with a message of its own,
/// - `check FUNCTION;` with a `fn(&Self, &Section)` that reports what is wrong between keys,
/// - `implement Default;`, if all keys have defaults,
/// - `schema { … };` with members of the JSON Schema that say the same, as far as a schema can.
///
/// Without the feature `toml` of the declaring crate, only the struct remains: what a Worker carries of a configuration.
#[macro_export]
macro_rules! keys {
    (
        $(#[$($attribute:tt)*])*
        $visibility:vis struct $Name:ident {
            $(
                $(#[$($field_attribute:tt)*])*
                $field_visibility:vis $field:ident: $Type:ty = $key:expr,
            )*
        }
        $(refuse $refused:literal: $problem:expr, $hint:expr;)*
        $(check $check:expr;)?
        $(schema $schema:tt;)?
        $(implement $Default:ident;)?
    ) => {
        $(#[$($attribute)*])*
        $visibility struct $Name {
            $(
                $(#[$($field_attribute)*])*
                $field_visibility $field: $Type,
            )*
        }

        #[cfg(feature = "toml")]
        impl $crate::Table for $Name {
            const DOC: &'static str = $crate::docs!($([$($attribute)*])*);

            fn read(section: &$crate::Section<'_>) -> ::core::option::Option<Self> {
                // All keys are read before one is missed, so that all errors are reported.
                // And before one is bound: a field may have the name of a kind.
                let ($($field,)*) = ($(
                    {
                        let key: $crate::Key<$Type> = $key;
                        key.read(section, $crate::name(stringify!($field)))
                    },
                )*);
                $(section.refuse($refused, $problem, $hint);)*
                let read = Self { $($field: $field?,)* };
                $(
                    let check: fn(&Self, &$crate::Section<'_>) = $check;
                    check(&read, section);
                )?
                ::core::option::Option::Some(read)
            }

            fn keys() -> ::std::vec::Vec<$crate::KeyDoc> {
                let mut keys = ::std::vec::Vec::new();
                $(
                    let key: $crate::Key<$Type> = $key;
                    key.describe(
                        $crate::name(stringify!($field)),
                        $crate::docs!($([$($field_attribute)*])*),
                        &mut keys,
                    );
                )*
                keys
            }

            $(
                fn constraints() -> $crate::expansion::Value {
                    $crate::expansion::json!($schema)
                }
            )?
        }

        $(
            #[cfg(feature = "toml")]
            impl $Default for $Name {
                fn default() -> Self {
                    $crate::defaults()
                }
            }
        )?
    };
}

/// The text of doc comments among attributes.
#[doc(hidden)]
#[macro_export]
macro_rules! docs {
    () => { "" };
    ([doc = $line:literal] $($rest:tt)*) => { concat!($line, $crate::docs!($($rest)*)) };
    ([$($other:tt)*] $($rest:tt)*) => { $crate::docs!($($rest)*) };
}
