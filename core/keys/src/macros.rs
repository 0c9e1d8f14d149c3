//! The declaration of a table.

/// Declares a table and its keys.
///
/// A field is `/// doc`, `name: Type = key,`, where `key` is a `Key` of that type, made from a `Kind`. These may follow the struct, in
/// this order:
///
/// - `refuse NAME: PROBLEM, HINT;` rejects a key with a message of its own.
/// - `present FUNCTION;` with a `fn(&Section)` reports keys that need or exclude each other. It always runs.
/// - `check FUNCTION;` with a `fn(&Self, &Section)` reports values that contradict each other. It runs if no required key is missing.
/// - `schema { … };` adds members to the JSON Schema that say the same, as far as a schema can.
/// - `implement Default;` uses the defaults of the keys. All of them need one.
///
/// Everything but the struct is compiled with the feature `toml` of the declaring crate. A Worker carries the structs only.
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
        $(present $present:expr;)?
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
                // All keys are read before the first missing one returns, so that all errors are reported. No field is bound in between:
                // it may have the name of a kind.
                let ($($field,)*) = ($(
                    {
                        let key: $crate::Key<$Type> = $key;
                        key.read(section, $crate::name(stringify!($field)))
                    },
                )*);
                $(section.refuse($refused, $problem, $hint);)*
                $(
                    let present: fn(&$crate::Section<'_>) = $present;
                    present(section);
                )?
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
