//! `application/x-www-form-urlencoded`, decoded as strictly as a signature requires: every field, in order, in the signed
//! bytes. Browsers' decoders replace bytes that are not UTF-8, so that two bodies could have one meaning.
//! <https://url.spec.whatwg.org/#application/x-www-form-urlencoded>

use std::collections::BTreeMap;

use hookmill_core::rejection::{Reason, Rejection};
use percent_encoding::percent_decode;

/// The names and values of a form or a query, decoded.
pub(crate) fn pairs(form: &[u8]) -> impl Iterator<Item = (Vec<u8>, Vec<u8>)> {
    let decode = |text: &[u8]| {
        let text: Vec<u8> = text.iter().map(|b| if *b == b'+' { b' ' } else { *b }).collect();
        percent_decode(&text).collect()
    };
    form.split(|b| *b == b'&').filter(|field| !field.is_empty()).map(move |field| {
        let (name, value) = match field.iter().position(|b| *b == b'=') {
            Some(at) => (&field[..at], &field[at + 1..]),
            None => (field, &[][..]),
        };
        (decode(name), decode(value))
    })
}

/// The fields of a form.
pub(crate) fn fields(body: &[u8]) -> Result<Vec<(String, String)>, Rejection> {
    let text = |bytes| {
        String::from_utf8(bytes)
            .map_err(|_| Rejection::new(Reason::MalformedEvent, "the form is not UTF-8"))
    };
    pairs(body).map(|(name, value)| Ok((text(name)?, text(value)?))).collect()
}

/// The fields as a JSON object of strings, for rules. Of a repeated field, the last counts. An empty field is `null`: a form
/// has no other way to say that there is no value.
pub(crate) fn to_json(fields: &[(String, String)]) -> Vec<u8> {
    let mut values = BTreeMap::new();
    for (name, value) in by_name(fields) {
        values.insert(name, Some(value).filter(|value| !value.is_empty()));
    }
    serde_json::to_vec(&values).expect("texts serialize")
}

/// The fields sorted by name; of a repeated one, the last.
pub(crate) fn by_name(fields: &[(String, String)]) -> BTreeMap<&str, &str> {
    let mut by_name = BTreeMap::new();
    // `collect` would add its own sort to a Worker.
    for (name, value) in fields {
        by_name.insert(name.as_str(), value.as_str());
    }
    by_name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_decoded_in_order() {
        let fields = fields("b=1&a=x+y%26z&&c&a=%C3%BC&d=%zz%".as_bytes()).unwrap();
        let expected = [("b", "1"), ("a", "x y&z"), ("c", ""), ("a", "ü"), ("d", "%zz%")];
        assert_eq!(fields, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
        assert_eq!(
            to_json(&fields),
            "{\"a\":\"ü\",\"b\":\"1\",\"c\":null,\"d\":\"%zz%\"}".as_bytes()
        );
    }

    #[test]
    fn bytes_that_are_not_utf_8_are_rejected() {
        assert_eq!(fields(b"a=%ff").unwrap_err().reason, Reason::MalformedEvent);
        assert_eq!(fields(b"a=\xff").unwrap_err().reason, Reason::MalformedEvent);
    }
}
