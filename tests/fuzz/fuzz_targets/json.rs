//! Paths into a body, read in one pass, find the values of a parsed tree.
//!
//! The input is a line of paths, separated by spaces, and the body.
#![no_main]

use hookmill_rules::{Body, Path, Reads, Step};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fn walk<'v>(value: &'v Value, steps: &[Step]) -> Option<&'v Value> {
    steps.iter().try_fold(value, |value, step| match step {
        Step::Key(key) => value.as_object()?.get(key),
        Step::Index(index) => value.as_array()?.get(*index),
    })
}

fn find<'v>(body: &'v Value, path: &Path) -> Option<&'v Value> {
    let found = walk(body, &path.steps)?;
    let Some(select) = &path.select else { return Some(found) };
    let wanted = walk(body, &select.equals)?;
    let element = found.as_array()?.iter().find(|element| {
        element.as_object().and_then(|element| element.get(&select.field)) == Some(wanted)
    })?;
    walk(element, &select.rest)
}

fuzz_target!(|data: &[u8]| {
    let Some(end) = data.iter().position(|byte| *byte == b'\n') else { return };
    let Ok(paths) = std::str::from_utf8(&data[..end]) else { return };
    let (paths, body) = (paths.split(' ').map(str::parse::<Path>), &data[end + 1..]);
    let paths: Vec<_> = paths.filter_map(Result::ok).collect();
    for path in &paths {
        assert_eq!(path.to_string().parse::<Path>().as_ref(), Ok(path));
    }
    let mut reads = Reads::default();
    let slots: Vec<_> = paths.iter().map(|path| reads.add(path)).collect();
    let Ok(body) = Body::new(body) else { return };
    // The tree is stricter than a reader that skips values: about numbers, and depth.
    let Ok(tree) = serde_json::from_str::<Value>(body.as_str()) else { return };
    let found = reads.read(&body).expect("what is JSON can be read");
    for (path, slot) in paths.iter().zip(slots) {
        // The tree rounds numbers, and tells 1 from 1.0.
        let wanted = path.select.as_ref().and_then(|select| walk(&tree, &select.equals));
        if wanted.is_some_and(Value::is_number) {
            continue;
        }
        let text = slot.value(&found);
        let value = text.map(|text| serde_json::from_str::<Value>(text).expect("a part of JSON"));
        let expected = find(&tree, path).filter(|value| !value.is_null());
        assert_eq!(value.as_ref(), expected, "{path}");
    }
});
