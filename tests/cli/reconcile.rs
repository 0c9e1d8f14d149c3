//! `hookmill reconcile`.

use hookmill_tests::api::Api;
use serde_json::{Value, json};

use crate::import::with_customers;
use crate::{Dev, hookmill, shown};

#[test]
fn a_reconciliation_says_what_differs_and_repairs_it() {
    let api = Api::start();
    let folder = with_customers(&api, 3);
    let folder = folder.path();
    let compare = |arguments: &[&str]| {
        let all = [&["reconcile", "stripe", "--table", "customers"][..], arguments].concat();
        shown(folder, &all)
    };
    let dev = Dev::start_with(folder, &[("STRIPE_API_KEY", "sk_test_1")]);
    insta::assert_snapshot!(compare(&[]), @"
    exit code 3
    --- stdout
    compared: 3 customers
    customers: 3 missing
      customers cus_0 missing, confirmed
      customers cus_1 missing, confirmed
      customers cus_2 missing, confirmed
    the tables differ; --repair sends the objects through the rules
    --- stderr
    ");
    insta::assert_snapshot!(compare(&["--repair"]), @"
    exit code 3
    --- stdout
    compared: 3 customers
    customers: 3 missing; 3 of them repaired
      customers cus_0 missing, repaired
      customers cus_1 missing, repaired
      customers cus_2 missing, repaired
    the tables differed; run the command again to confirm the repair
    --- stderr
    done: 3 sent, 3 applied, 0 failed
    ");
    insta::assert_snapshot!(compare(&[]), @"
    exit code 0
    --- stdout
    compared: 3 customers
    equal
    --- stderr
    ");
    let json = hookmill(folder, &["reconcile", "stripe", "--table", "customers", "--json"]);
    let json: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!((&json["report"]["tables"], &json["drifts"]), (&json!({}), &json!([])));
    insta::assert_snapshot!(shown(folder, &["reconcile", "stripe", "--table", "nothing"]), @"
    exit code 4
    --- stdout
    --- stderr
    error: no list of the API of `stripe` has the objects of `nothing`; the tables with lists are charges, checkout_sessions, credit_notes, customers, disputes, early_fraud_warnings, invoice_lines, invoice_payments, invoices, payment_intents, payouts, prices, products, refunds, subscription_items, subscription_schedules, subscriptions
    ");
    drop(dev);
    insta::assert_snapshot!(compare(&[]), @"
    exit code 4
    --- stdout
    --- stderr
    error: no `hookmill serve` or `hookmill dev` process uses .hookmill; start one, since that process compares the tables
    ");
}
