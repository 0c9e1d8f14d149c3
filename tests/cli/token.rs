//! `hookmill token`.

use crate::{Dev, hookmill, shown, with_example};

#[test]
fn a_token_is_not_replaced_without_a_request() {
    let example = with_example();
    let _dev = Dev::start(example.path());
    let create = ["token", "create", "ines", "--role", "read"];
    assert_eq!(hookmill(example.path(), &create).status.code(), Some(0));
    insta::assert_snapshot!(shown(example.path(), &create), @"
    exit code 1
    --- stdout
    --- stderr
    error: a token ines already exists; `hookmill token revoke ines` revokes it
    ");
    assert_eq!(hookmill(example.path(), &["token", "revoke", "ines"]).status.code(), Some(0));
    assert_eq!(hookmill(example.path(), &create).status.code(), Some(0));
}
