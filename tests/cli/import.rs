//! `hookmill import`.

use hookmill_tests::api::Api;
use serde_json::{Value, json};

use crate::{Dev, hookmill, printed, shown, with_files};

/// A folder with the preset of Stripe, whose API has this number of customers.
pub(crate) fn with_customers(api: &Api, count: u32) -> tempfile::TempDir {
    let customer =
        |n: u32| json!({ "id": format!("cus_{n}"), "object": "customer", "livemode": false });
    api.lists("/v1/customers", (0..count).map(customer).collect());
    let config = format!(
        "[sources.stripe]\nscheme = \"stripe\"\nsecrets = [\"env:STRIPE_WEBHOOK_SECRET\"]\npreset = \"stripe\"\n\
         api = {{ key = \"env:STRIPE_API_KEY\", url = \"http://{}/stripe\" }}\n\
         [sources.github]\nscheme = \"github\"\nsecrets = [\"env:GITHUB_WEBHOOK_SECRET\"]\n",
        api.address()
    );
    let folder = with_files(&config, "", &[]);
    std::fs::remove_dir_all(folder.path().join("app")).unwrap();
    folder
}

#[test]
fn an_import_is_planned_and_run() {
    let api = Api::start();
    let folder = with_customers(&api, 150);
    let folder = folder.path();
    let _dev = Dev::start_with(folder, &[("STRIPE_API_KEY", "sk_test_1")]);
    insta::assert_snapshot!(shown(folder, &["import", "github"]), @"
    exit code 1
    --- stdout
    --- stderr
    error: the source `github` has no API in hookmill.toml; add [sources.github.api] with its `key`
    ");
    insta::assert_snapshot!(shown(folder, &["import", "stripe", "--only", "customers,subscription"]), @"
    exit code 1
    --- stdout
    --- stderr
    error: no rule keeps objects of a list `subscription`; the lists are charges, disputes, checkout_sessions, credit_notes, customers, subscriptions, invoices, invoice_payments, payment_intents, payouts, prices, products, radar_early_fraud_warnings, refunds, subscription_schedules
    ");
    let planned = hookmill(folder, &["import", "stripe", "--only", "customers"]);
    let planned = String::from_utf8(planned.stdout).unwrap();
    let id = planned
        .split_whitespace()
        .find(|word| word.len() == 16 && word.bytes().all(|b| b.is_ascii_hexdigit()));
    let id = id.unwrap_or_else(|| panic!("{planned}"));
    insta::assert_snapshot!(planned.replace(id, "[id]"), @"
    all objects of stripe: customers
    hookmill replays run [id] --rate 100 --reason '…' loads them
    ");
    let run = ["replays", "run", id, "--rate", "10000", "--reason", "a new mirror"];
    insta::assert_snapshot!(shown(folder, &run).replace(id, "[id]"), @"
    exit code 0
    --- stdout
    --- stderr
    done: 150 sent, 150 applied, 0 failed
    ");
    let list = printed(folder, &["replays", "list", "--json"]);
    assert_eq!((&list[0]["kind"], &list[0]["total"]), (&"import".into(), &Value::Null));
}
