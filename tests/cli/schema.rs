//! `hookmill schema`.

use hookmill_tests::folder;

use crate::hookmill;

#[test]
fn the_schema_of_the_configuration_is_printed() {
    let output = hookmill(folder(), &["schema"]);
    let schema = folder().parent().unwrap().join("docs/hookmill.schema.json");
    assert_eq!(output.stdout, std::fs::read(schema).unwrap());
}
