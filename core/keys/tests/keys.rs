//! The reader, the JSON Schema and the reference of a declared table.

#![cfg(feature = "toml")]

use std::time::Duration;

use hookmill_keys::kind::{
    boolean, choice, duration, list, members, one_or_many, table, table_or, text, whole,
};
use hookmill_keys::{
    ConfigError, Document, Located, Table, defaults, flatten, keys, parse, reference, root_schema,
    seconds,
};

keys! {
    /// A shop.
    #[derive(PartialEq, Debug)]
    struct Shop {
        /// The name.
        name: Located<String> = text("a name").located().required("add the name: name = \"tea\""),
        /// The owner.
        owner: Option<String> = text("a name").expected("add the owner"),
        opening: Opening = flatten(),
        /// The days.
        days: Vec<u8> = one_or_many(whole(1..=7), "a day, or a list of days").default("[1, 2]"),
        /// The goods.
        goods: Option<Vec<(Located<String>, Price)>> = members(price(), "goods and prices").optional()
            .example("{ tea = 3 }"),
        /// What the type is.
        r#type: &'static str = choice(vec![("retail", "r"), ("online", "o")]).default("\"retail\""),
        /// Whether it is open.
        open: Option<bool> = boolean().optional().defaults_to("asks the owner"),
    }
    refuse "closed": "`closed` is not supported", "use open = false";
    present |section| {
        if let (Some(open), None) = (section.at("open"), section.at("owner")) {
            section.report(open.error("`open` needs an `owner`"));
        }
    };
    check |shop, section| {
        if shop.name.value == "closed" {
            section.report(shop.name.error("a shop cannot be called that"));
        }
    };
    schema { "dependentRequired": { "open": ["owner"] } };
}

keys! {
    /// When it opens.
    #[derive(PartialEq, Debug)]
    struct Opening {
        /// How long it is open.
        hours: Duration = duration(seconds(60)..=seconds(86_400)).default("\"8h\""),
    }
    implement Default;
}

keys! {
    /// A price with a currency.
    #[derive(PartialEq, Debug)]
    struct Price {
        /// The amount.
        amount: u32 = whole(0..=1_000_000).required("add the amount"),
        /// The words on the label.
        label: Option<Vec<String>> = list(text("a word"), "a list of words").optional(),
    }
}

fn price() -> hookmill_keys::Kind<Price> {
    let amount = whole(0..=1_000_000).map(|amount| Price { amount, label: None });
    table_or(table("a price"), amount)
}

fn errors<T>((_, errors): (Option<T>, Vec<ConfigError>)) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_table_is_read_with_its_defaults() {
    let text = "name = 'tea'\nowner = 'Ada'\nhours = '1h'\ngoods = { tea = 3, cup = { amount = 9, label = ['a'] } }";
    let (shop, errors) = parse::<Shop>("shop.toml", text);
    assert_eq!(errors, []);
    let shop = shop.expect("there is no error");
    assert_eq!((shop.owner.as_deref(), shop.opening.hours), (Some("Ada"), seconds(3600)));
    assert_eq!((shop.days, shop.r#type, shop.open), (vec![1, 2], "r", None));
    let goods = shop.goods.expect("there are goods");
    assert_eq!(goods[0].1, Price { amount: 9, label: Some(vec!["a".to_owned()]) });
    assert_eq!(goods[1].1, Price { amount: 3, label: None });
    assert_eq!(defaults::<Opening>(), Opening { hours: seconds(8 * 3600) });
    assert_eq!(Opening::default(), defaults());
}

#[test]
fn every_error_is_reported_at_once() {
    let text = "days = [0, 'a']\nhours = '1s'\ntype = 'onlin'\nopen = 1\nclosed = true\ndoors = 2\ngoods = { tea = 'a', cup = {} }";
    insta::assert_snapshot!(errors(parse::<Shop>("shop.toml", text)), @r#"
    shop.toml:1:9: days[0]: found 0
      hint: expected a whole number from 1 to 7
    shop.toml:1:12: days[1]: found a string
      hint: expected a whole number from 1 to 7
    shop.toml:2:9: hours: found 1s
      hint: expected a duration from 1m to 1d
    shop.toml:3:8: type: found "onlin"
      hint: did you mean `online`?
    shop.toml:4:8: open: `open` needs an `owner`
    shop.toml:4:8: open: found a whole number
      hint: expected true or false
    shop.toml:5:10: closed: `closed` is not supported
      hint: use open = false
    shop.toml:6:1: unknown key `doors`
      hint: did you mean `goods`?
    shop.toml:7:17: goods.tea: found a string
      hint: expected a whole number from 0 to 1000000
    shop.toml:7:28: goods.cup: `amount` is missing
      hint: add the amount
    "#);
    insta::assert_snapshot!(errors(parse::<Shop>("shop.toml", "name = 'closed'\nowner = 'a'")), @"shop.toml:1:8: name: a shop cannot be called that");
    insta::assert_snapshot!(errors(parse::<Shop>("shop.toml", "name = 'tea\nowner = 1")), @"
    shop.toml:1:12: invalid literal string, expected `'`
      1 | name = 'tea
        |            ^
    ");
}

#[test]
fn a_missing_key_comes_from_the_section_behind() {
    let read = |text: &str, behind: &str| {
        let (own, other) = (Document::new("own.toml", text), Document::new("behind.toml", behind));
        let (table, other_table) = (own.parse(), other.parse());
        let fallback = other.root(&other_table);
        let section = own.root(&table).over(Some(&fallback));
        let read = Opening::read(&section);
        section.finish();
        fallback.finish();
        (read, [own.into_errors(), other.into_errors()].concat())
    };
    assert_eq!(read("hours = '1h'", "hours = '2h'").0, Some(Opening { hours: seconds(3600) }));
    assert_eq!(read("", "hours = '2h'").0, Some(Opening { hours: seconds(7200) }));
    insta::assert_snapshot!(errors(read("hour = 1", "hours = 1\nminutes = 2")), @r#"
    own.toml:1:1: unknown key `hour`
      hint: did you mean `hours`?
    behind.toml:1:9: hours: found a whole number
      hint: expected a duration such as "5m"
    behind.toml:2:1: unknown key `minutes`
      hint: possible here: `hours`
    "#);
}

#[test]
fn the_schema_and_the_reference_follow() {
    insta::assert_json_snapshot!(root_schema::<Shop>("shop.toml", Vec::new()));
    insta::assert_snapshot!(reference(&Shop::keys()), @r#"
    | Key | Default | Meaning |
    | --- | --- | --- |
    | `name` | required | The name. |
    | `owner` | required | The owner. |
    | `hours` | `"8h"` | How long it is open. 1m to 1d. |
    | `days` | `[1, 2]` | The days. |
    | `goods` | none | The goods. Example: `goods = { tea = 3 }`. |
    | `type` | `"retail"` | What the type is. One of `retail`, `online`. |
    | `open` | asks the owner | Whether it is open. |
    "#);
}

#[test]
#[should_panic(expected = "the default of `count` is not one of its values: 9")]
fn a_default_is_one_of_the_values() {
    keys! {
        /// A table.
        struct Wrong {
            /// A number.
            count: u8 = whole(1..=8).default("9"),
        }
    }
    assert_eq!(defaults::<Wrong>().count, 9);
}

#[test]
fn one_syntax_error_is_one_message_with_its_line() {
    let text = |broken: &str| {
        let more = "[b]\nlist = [\n  'a',\n]\n[[c]]\nd = { e = 'f' }\n".repeat(20);
        errors(parse::<Shop>("shop.toml", &format!("name = 'tea'\n{broken}\n{more}")))
    };
    insta::assert_snapshot!(text("days = [1, 2"), @"
    shop.toml:3:1: missing comma between array elements, expected `,`
      2 | days = [1, 2
      3 | [b]
        | ^
    ");
    insta::assert_snapshot!(text("\towner 'Ada' # 9"), @"
    shop.toml:2:8: key with no value, expected `=`
      2 | 	owner 'Ada' # 9
        | 	      ^
    ");
    // A long word may be a secret that does not belong here.
    insta::assert_snapshot!(text("a = ['whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw', \"é\" 1]"), @r#"
    shop.toml:2:52: missing comma between array elements, expected `,`
      2 | a = ['**************************************', "é" 1]
        |                                                    ^
    "#);
}

#[test]
fn missing_keys_are_reported_once_the_others_are_readable() {
    let errors = |text: &str| errors(parse::<Shop>("shop.toml", text));
    insta::assert_snapshot!(errors(""), @r#"
    shop.toml:1:1: `name` is missing
      hint: add the name: name = "tea"
    shop.toml:1:1: `owner` is missing
      hint: add the owner
    "#);
    // `nmae` explains why there is no `name`.
    insta::assert_snapshot!(errors("nmae = 'tea'"), @"
    shop.toml:1:1: unknown key `nmae`
      hint: did you mean `name`?
    ");
    insta::assert_snapshot!(errors("name = 3"), @"
    shop.toml:1:8: name: found a whole number
      hint: expected a name
    ");
    // An error inside a table does not explain what is missing outside.
    insta::assert_snapshot!(errors("name = 'tea'\ngoods = { cup = {}, tea = { amuont = 1 } }"), @"
    shop.toml:1:1: `owner` is missing
      hint: add the owner
    shop.toml:2:17: goods.cup: `amount` is missing
      hint: add the amount
    shop.toml:2:29: goods.tea: unknown key `amuont`
      hint: did you mean `amount`?
    ");
}
