//! Reads the values that rules need from a body, in one pass and without building the rest.

use std::borrow::Cow;
use std::convert::Infallible;
use std::fmt;
use std::ops::ControlFlow;

use indexmap::IndexMap;
use rustc_hash::FxBuildHasher;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use thiserror::Error;

use super::number::same;
use super::path::{Path, PlainPath, Step};

/// The paths that rules read, as a tree, so that one pass over a body finds all values.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Reads {
    root: Node,
    slots: usize,
}

#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
struct Node {
    /// The slot of the value, if a path ends here.
    slot: Option<Slot>,
    keys: Children<String>,
    elements: Children<usize>,
}

/// Every member of a body is looked up in these maps, so the hash is a fast one. It need not resist attacks, since only the
/// configuration adds entries.
type Children<K> = IndexMap<K, Node, FxBuildHasher>;

/// The place of a plain path's value in the [`Values`] of a [`Reads`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Slot(usize);

/// A path whose plain parts have slots in a [`Reads`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Read {
    slot: Slot,
    select: Option<SelectRead>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct SelectRead {
    /// Reads `field` of each element, then the path inside the selected one.
    element: Reads,
    field: Slot,
    equals: Slot,
    rest: Slot,
}

/// A body whose strings are all text.
///
/// JSON can escape half of a surrogate pair, which no text contains: something cut a text in the middle of a character. RFC
/// 8259 section 8.2 leaves its meaning open. Here it is U+FFFD, so that the other values of the event are not lost.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Body<'b>(Cow<'b, str>);

impl<'b> Body<'b> {
    /// A body as received. It need not be JSON.
    ///
    /// # Errors
    ///
    /// [`NotJson`] if it is not UTF-8.
    pub fn new(body: &'b [u8]) -> Result<Self, NotJson> {
        let text = std::str::from_utf8(body).map_err(|e| {
            let head = &body[..e.valid_up_to()];
            let line_start = head.iter().rposition(|b| *b == b'\n').map_or(0, |i| i + 1);
            NotJson {
                line: head.iter().filter(|b| **b == b'\n').count() + 1,
                column: head.len() - line_start + 1,
            }
        })?;
        Ok(Self(whole_characters(text)))
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Replaces the escapes of halves of surrogate pairs. The replacement is as long, so positions stay true.
fn whole_characters(text: &str) -> Cow<'_, str> {
    const ESCAPE: usize = r"\uFFFD".len();
    let bytes = text.as_bytes();
    let unit = |at: usize| {
        let digits = text.get(at..at + ESCAPE)?.strip_prefix(r"\u")?;
        let is_hex = digits.bytes().all(|b| b.is_ascii_hexdigit());
        u16::from_str_radix(digits, 16).ok().filter(|_| is_hex)
    };
    let mut halves = Vec::new();
    let mut at = 0;
    while let Some(found) = bytes.get(at..).and_then(|rest| memchr::memchr(b'\\', rest)) {
        let here = at + found;
        at = here
            + match unit(here) {
                None => 2,
                Some(0xd800..0xdc00) if matches!(unit(here + ESCAPE), Some(0xdc00..0xe000)) => {
                    2 * ESCAPE
                }
                Some(0xd800..0xe000) => {
                    halves.push(here);
                    ESCAPE
                }
                Some(_) => ESCAPE,
            };
    }
    if halves.is_empty() {
        return Cow::Borrowed(text);
    }
    let mut whole = text.to_owned();
    for half in halves {
        whole.replace_range(half..half + ESCAPE, r"\ufffd");
    }
    Cow::Owned(whole)
}

/// The body is not JSON, or not text. Gives the position, never the content.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error("the body is not valid JSON (line {line}, column {column})")]
pub struct NotJson {
    /// Line in the body, from 1.
    pub line: usize,
    /// Column in the body, from 1.
    pub column: usize,
}

impl From<serde_json::Error> for NotJson {
    fn from(error: serde_json::Error) -> Self {
        Self { line: error.line(), column: error.column() }
    }
}

const NULL: &str = "null";

/// The values of one body: the JSON text of each, as the provider wrote it. Of a value that cannot have a member or an
/// element, because it is `null` or too short, that is `null` too.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Values<'b>(Vec<Option<&'b str>>);

impl Values<'_> {
    /// The text of the value that [`Reads::whole`] reads.
    pub fn whole(&self) -> &str {
        self.0.first().copied().flatten().unwrap_or(NULL)
    }
}

impl Reads {
    /// Reads the whole value.
    pub fn whole() -> Self {
        Self { root: Node { slot: Some(Slot(0)), ..Node::default() }, slots: 1 }
    }

    /// Adds a path; a repeated path gets the same slot.
    pub fn add(&mut self, path: &Path) -> Read {
        let slot = self.slot(&path.steps);
        let select = path.select.as_ref().map(|select| {
            let mut element = Self::default();
            let field = element.slot(&[Step::Key(select.field.clone())]);
            let rest = element.slot(&select.rest);
            SelectRead { element, field, equals: self.slot(&select.equals), rest }
        });
        Read { slot, select }
    }

    /// Adds a path; a repeated path gets the same slot.
    pub fn add_plain(&mut self, path: &PlainPath) -> Slot {
        self.slot(&path.0)
    }

    fn slot(&mut self, steps: &[Step]) -> Slot {
        let mut node = &mut self.root;
        for step in steps {
            node = match step {
                Step::Key(key) => node.keys.entry(key.clone()).or_default(),
                Step::Index(index) => node.elements.entry(*index).or_default(),
            };
        }
        *node.slot.get_or_insert_with(|| {
            self.slots += 1;
            Slot(self.slots - 1)
        })
    }

    /// Reads a body, which may be any JSON. Of a repeated member, the last counts.
    ///
    /// # Errors
    ///
    /// [`NotJson`].
    pub fn read<'b>(&self, body: &'b Body<'_>) -> Result<Values<'b>, NotJson> {
        let mut values = Values(vec![None; self.slots]);
        let mut json = serde_json::Deserializer::from_str(body.as_str());
        Walk { node: &self.root, values: &mut values }.deserialize(&mut json)?;
        json.end()?;
        Ok(values)
    }
}

impl Slot {
    /// The JSON text at this path; `None` if there is no value, or `null`.
    pub fn value<'b>(self, values: &Values<'b>) -> Option<&'b str> {
        values.0[self.0].filter(|text| *text != NULL)
    }
}

impl Read {
    /// The JSON text at this path; `None` if there is no value, or `null`.
    pub fn value<'b>(&self, values: &Values<'b>) -> Option<&'b str> {
        match &self.select {
            None => self.slot.value(values),
            Some(select) => {
                let (array, wanted) = (values.0[self.slot.0]?, values.0[select.equals.0]?);
                let found = select.find(array, wanted).break_value()?;
                found.filter(|text| *text != NULL)
            }
        }
    }

    /// Whether this path leads nowhere: an object on its way does not have the next member. It leads somewhere if a value on
    /// its way is `null`, or a list without the element.
    pub fn is_absent(&self, values: &Values<'_>) -> bool {
        let at = |slot: Slot| values.0[slot.0];
        let Some(select) = &self.select else { return at(self.slot).is_none() };
        let (Some(array), Some(wanted)) = (at(self.slot), at(select.equals)) else {
            return true;
        };
        select.find(array, wanted) == ControlFlow::Break(None)
    }
}

impl SelectRead {
    /// The value in the first element that matches.
    fn find<'b>(&self, array: &'b str, wanted: &str) -> ControlFlow<Option<&'b str>> {
        if wanted == NULL {
            return ControlFlow::Continue(());
        }
        let found = each_element(array, &self.element, |values| {
            let field = values.0[self.field.0];
            Ok::<_, Infallible>(if field.is_some_and(|field| same(field, wanted)) {
                ControlFlow::Break(values.0[self.rest.0])
            } else {
                ControlFlow::Continue(())
            })
        });
        // The value at the path of a list may be something else. Then no element matches.
        found.unwrap_or(ControlFlow::Continue(()))
    }
}

/// Why [`each_element`] stopped.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Stopped<E> {
    /// The text is not a JSON array.
    NotAList,
    /// An element is not JSON.
    NotJson(NotJson),
    /// The callback failed.
    By(E),
}

/// Calls a function with the values of each element of an array, in order, until it breaks or fails. Only one element is in
/// memory at a time, so a long list takes none.
///
/// # Errors
///
/// [`Stopped`].
pub fn each_element<'b, B, E>(
    array: &'b str,
    reads: &Reads,
    each: impl FnMut(Values<'b>) -> Result<ControlFlow<B>, E>,
) -> Result<ControlFlow<B>, Stopped<E>> {
    struct Elements<'r, F, B, E> {
        reads: &'r Reads,
        each: F,
        /// The result that stopped it.
        stopped: Option<Result<B, E>>,
    }

    impl<'b, F, B, E> Visitor<'b> for &mut Elements<'_, F, B, E>
    where
        F: FnMut(Values<'b>) -> Result<ControlFlow<B>, E>,
    {
        type Value = ();

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list")
        }

        fn visit_seq<A: SeqAccess<'b>>(self, mut list: A) -> Result<(), A::Error> {
            loop {
                let mut values = Values(vec![None; self.reads.slots]);
                let walk = Walk { node: &self.reads.root, values: &mut values };
                if list.next_element_seed(walk)?.is_none() {
                    return Ok(());
                }
                let stop = match (self.each)(values) {
                    Ok(ControlFlow::Continue(())) => continue,
                    Ok(ControlFlow::Break(value)) => Ok(value),
                    Err(error) => Err(error),
                };
                self.stopped = Some(stop);
                return Err(serde::de::Error::custom("stopped"));
            }
        }
    }

    let mut elements = Elements { reads, each, stopped: None };
    let mut json = serde_json::Deserializer::from_str(array);
    let read = json.deserialize_seq(&mut elements);
    match (elements.stopped, read) {
        (Some(Ok(value)), _) => Ok(ControlFlow::Break(value)),
        (Some(Err(error)), _) => Err(Stopped::By(error)),
        (None, Ok(())) => Ok(ControlFlow::Continue(())),
        (None, Err(_)) if !array.starts_with('[') => Err(Stopped::NotAList),
        (None, Err(error)) => Err(Stopped::NotJson(error.into())),
    }
}

/// Visits one value of the body, along the part of the tree that begins here.
struct Walk<'n, 'v, 'b> {
    node: &'n Node,
    values: &'v mut Values<'b>,
}

impl<'b> DeserializeSeed<'b> for Walk<'_, '_, 'b> {
    type Value = ();

    fn deserialize<D: Deserializer<'b>>(self, json: D) -> Result<(), D::Error> {
        let leaf = self.node.keys.is_empty() && self.node.elements.is_empty();
        let Some(slot) = self.node.slot else {
            return if leaf {
                IgnoredAny::deserialize(json).map(drop)
            } else {
                json.deserialize_any(self)
            };
        };
        let text = <&'b RawValue>::deserialize(json)?.get();
        self.values.0[slot.0] = Some(text);
        if !leaf {
            serde_json::Deserializer::from_str(text)
                .deserialize_any(self)
                .map_err(serde::de::Error::custom)?;
        }
        Ok(())
    }
}

impl<'b> Visitor<'b> for Walk<'_, '_, 'b> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'b>>(self, mut map: A) -> Result<(), A::Error> {
        // The indexes of the first 128 members that were read.
        let mut read = 0_u128;
        while let Some(index) = map.next_key_seed(KeyIn(&self.node.keys))? {
            let Some(index) = index else {
                map.next_value::<IgnoredAny>().map(drop)?;
                continue;
            };
            let node = &self.node.keys[index];
            let bit = u32::try_from(index).ok().and_then(|index| 1_u128.checked_shl(index));
            if bit.is_none_or(|bit| read & bit != 0) {
                node.set_below(self.values, None);
            }
            read |= bit.unwrap_or_default();
            map.next_value_seed(Walk { node, values: &mut *self.values })?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'b>>(self, mut seq: A) -> Result<(), A::Error> {
        let mut length = 0;
        loop {
            let more = match self.node.elements.get(&length) {
                Some(node) => {
                    seq.next_element_seed(Walk { node, values: &mut *self.values })?.is_some()
                }
                None => seq.next_element::<IgnoredAny>()?.is_some(),
            };
            if !more {
                break;
            }
            length += 1;
        }
        for (_, node) in self.node.elements.iter().filter(|(index, _)| **index >= length) {
            node.set(self.values, Some(NULL));
        }
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.node.set_below(self.values, Some(NULL));
        Ok(())
    }
}

impl Node {
    /// Sets the value here and those below.
    fn set<'b>(&self, values: &mut Values<'b>, text: Option<&'b str>) {
        if let Some(slot) = self.slot {
            values.0[slot.0] = text;
        }
        self.set_below(values, text);
    }

    /// Sets the values below. A repeated member forgets them: its last value may lack what the first had.
    fn set_below<'b>(&self, values: &mut Values<'b>, text: Option<&'b str>) {
        for node in self.keys.values().chain(self.elements.values()) {
            node.set(values, text);
        }
    }
}

/// Looks up a member's name among the children without storing it. Returns its index.
struct KeyIn<'n>(&'n Children<String>);

impl<'b> DeserializeSeed<'b> for KeyIn<'_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'b>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_str(self)
    }
}

impl Visitor<'_> for KeyIn<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a member's name")
    }

    fn visit_str<E>(self, key: &str) -> Result<Self::Value, E> {
        Ok(self.0.get_index_of(key))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn read(path: &str, body: &str) -> Result<Option<String>, NotJson> {
        let mut reads = Reads::default();
        // Neighbors, so that the tree has more than one branch and reads a value both whole and in part.
        reads.add(&"data.object".parse().unwrap());
        let read = reads.add(&path.parse().unwrap());
        let body = Body::new(body.as_bytes())?;
        let values = reads.read(&body)?;
        Ok(read.value(&values).map(ToOwned::to_owned))
    }

    #[test]
    fn the_last_of_a_repeated_member_counts_with_its_content() {
        let body = r#"{"a":{"b":1},"a":[1,{"c":2}],"a":{"d":3}}"#;
        assert_eq!(read("a.d", body), Ok(Some("3".into())));
        for path in ["a.b", "a[1].c", "a[0]"] {
            assert_eq!(read(path, body), Ok(None), "{path}");
        }
    }

    #[test]
    fn a_value_is_its_text_in_the_body() {
        let body = r#"{"created": 1.50, "data":{"object":{"id":"s\u0075b","a":[{"p": 1},{"p":{"q":[]} }]}},"z":null}"#;
        for (path, expected) in [
            ("created", Some("1.50")),
            ("data.object.id", Some(r#""s\u0075b""#)),
            ("data.object.a[1].p", Some(r#"{"q":[]}"#)),
            ("data.object.a[2].p", None),
            ("data.object.a.p", None),
            ("data.object.id.x", None),
            ("z", None),
            ("z.y", None),
            ("nothing", None),
        ] {
            assert_eq!(read(path, body).unwrap().as_deref(), expected, "{path}");
        }
    }

    #[test]
    fn a_path_leads_nowhere_if_an_object_lacks_the_next_member() {
        let body = r#"{"a":{"b":null,"c":[],"d":"text","e":{"f":1}},"n":null,"l":[{"id":"x","v":{}},{"id":null}],"w":"x","o":"y"}"#;
        for (path, absent) in [
            ("a.b", false),
            ("a.b.c", false),
            ("a.b[0].c", false),
            ("n.x.y[1].z", false),
            ("a.c[0]", false),
            ("a.c[0].d", false),
            ("l[2].v", false),
            ("l[id = w].id", false),
            ("l[id = o].id", false),
            ("l[id = n].id", false),
            ("n[id = w].id", false),
            ("a.x", true),
            ("a.x[0]", true),
            ("a.c.x", true),
            ("a.d.x", true),
            ("a.e.f.x", true),
            ("l[0].x", true),
            ("l[id = w].x", true),
            ("l[id = w].v.x", true),
            ("l[id = x].id", true),
            ("x[id = w].id", true),
        ] {
            let mut reads = Reads::default();
            reads.add(&"a".parse().unwrap());
            let read = reads.add(&path.parse().unwrap());
            let body = Body::new(body.as_bytes()).unwrap();
            let values = reads.read(&body).unwrap();
            assert_eq!(read.is_absent(&values), absent, "{path}");
            assert!(!absent || read.value(&values).is_none(), "{path}");
        }
        // Of a repeated member, the last counts.
        for (body, absent) in [(r#"{"a":null,"a":{}}"#, true), (r#"{"a":{},"a":null}"#, false)] {
            let mut reads = Reads::default();
            let read = reads.add(&"a.b".parse().unwrap());
            let body = Body::new(body.as_bytes()).unwrap();
            assert_eq!(read.is_absent(&reads.read(&body).unwrap()), absent);
        }
    }

    #[test]
    fn a_selection_picks_the_element_that_matches_another_value() {
        let path = "data.emails[id = data.primary].address";
        let body = r#"{"data":{"primary":"i\u0064_2","emails":[{"id":"id_1","address":"a@x"},{"id":"id_2","address":"b@x"}]}}"#;
        assert_eq!(read(path, body).unwrap().as_deref(), Some("\"b@x\""));
        let body = r#"{"data":{"primary":98765432109876543211,"emails":[{"id":98765432109876543210,"address":"a"},{"id":98765432109876543211,"address":"b"}]}}"#;
        assert_eq!(read(path, body).unwrap().as_deref(), Some("\"b\""), "not rounded");
        for body in [
            r#"{"data":{"primary":null,"emails":[{"id":"id_1","address":"a@x"}]}}"#,
            r#"{"data":{"primary":"id_3","emails":[{"id":"id_1","address":"a@x"}, 7]}}"#,
            r#"{"data":{"primary":"id_3","emails":{}}}"#,
            r#"{"data":{"primary":"id_3"}}"#,
        ] {
            assert_eq!(read(path, body).unwrap(), None, "{body}");
        }
    }

    #[test]
    fn invalid_json_is_rejected_with_the_position() {
        for (body, line, column) in
            [("", 1, 0), ("{\"a\":1}\n}", 2, 1), ("{\"created\":}", 1, 12), ("[1,]", 1, 4)]
        {
            assert_eq!(read("created", body), Err(NotJson { line, column }), "{body}");
        }
        assert_eq!(Body::new(b"{\n\"a\":\"\xff\"}"), Err(NotJson { line: 2, column: 6 }));
    }

    #[test]
    fn half_a_surrogate_pair_becomes_a_replacement_character() {
        for (text, expected) in [
            (r"\ud83d", r"\ufffd"),
            (r"\uDE00", r"\ufffd"),
            (r"a\ud83dz", r"a\ufffdz"),
            (r"\ud83d\ude00", r"\ud83d\ude00"),
            (r"\ud83d\ud83d\ude00", r"\ufffd\ud83d\ude00"),
            (r"\ude00\ud83d", r"\ufffd\ufffd"),
            // An escaped backslash, and the letters of an escape.
            (r"\\ud83d", r"\\ud83d"),
            (r"\\\ud83d", r"\\\ufffd"),
            (r"\ud83d\\ude00", r"\ufffd\\ude00"),
            (r"\u00e9é", r"\u00e9é"),
            // Not JSON.
            (r"\é\ud8", r"\é\ud8"),
            (r"\u+d83", r"\u+d83"),
            (r"\", r"\"),
        ] {
            assert_eq!(whole_characters(text), expected, "{text}");
        }
        let body = r#"{"a\ud83d":1,"b":[{"id":"\ud83d","n":2}],"c":"\udbff"}"#;
        for (path, expected) in [("b[id = c].n", "2"), ("c", r#""\ufffd""#), ("b[0].n", "2")] {
            assert_eq!(read(path, body).unwrap().as_deref(), Some(expected), "{path}");
        }
    }

    #[test]
    fn deep_nesting_does_not_exhaust_the_stack() {
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(
            read("created", &format!("{{\"x\":{deep},\"created\":7}}")).unwrap().as_deref(),
            Some("7")
        );
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[ab]", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn one_pass_finds_the_values_of_a_parsed_tree(body in any_json()) {
            let mut reads = Reads::default();
            let paths = ["a", "b", "a.a", "a.b", "a[0]", "a[1].b", "b.a.b", "b[0][1]", "a.a.a"];
            let read: Vec<_> = paths.iter().map(|p| reads.add(&p.parse().unwrap())).collect();
            let text = body.to_string();
            let body_of_text = Body::new(text.as_bytes()).unwrap();
            let values = reads.read(&body_of_text).unwrap();
            for (path, read) in paths.iter().zip(&read) {
                let pointer = format!("/{}", path.replace("][", "/").replace(['.', '['], "/").replace(']', ""));
                let expected = body.pointer(&pointer).filter(|v| !v.is_null());
                let found = read.value(&values).map(|t| serde_json::from_str::<Value>(t).unwrap());
                // In a JSON pointer, a number may also name a member of an object. Here it may not, and the bodies have no
                // such member.
                prop_assert_eq!(found.as_ref(), expected, "{}", path);
            }
        }
    }
}
