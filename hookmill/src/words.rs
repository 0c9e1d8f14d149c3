//! The parser for words on the command line.

use clap::builder::{PossibleValuesParser, TypedValueParser};
use hookmill_core::words::Word;

/// Accepts the words of an enum.
pub fn word<W: Word>() -> impl TypedValueParser<Value = W> {
    PossibleValuesParser::new(W::words())
        .map(|text| W::parse(&text).expect("clap refuses every other text"))
}
