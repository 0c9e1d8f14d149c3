//! Prints the OpenAPI document of the admin API; `cargo xtask schema` writes it to docs/openapi.json.

// It prints the document.
#![allow(clippy::print_stdout)]

fn main() {
    println!("{}", hookmill_admin::document().to_pretty_json().expect("texts serialize"));
}
