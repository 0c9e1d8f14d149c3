//! `hookmill check`: valid configurations, every error that it finds, and the tests of a configuration.

use std::path::Path;

use hookmill_tests::folder;

use crate::{command, hookmill, readme_block, shown, with_example};

/// A folder with the example configuration and this repository's Workers.
fn with_workers() -> tempfile::TempDir {
    let example = with_example();
    for stage in ["ingress", "consumers", "dlq"] {
        let file = format!("{stage}/worker/wrangler.toml");
        std::fs::create_dir_all(example.path().join(&file).parent().unwrap()).unwrap();
        let from = folder().parent().unwrap().join(&file);
        std::fs::copy(from, example.path().join(&file)).unwrap();
    }
    example
}

/// Replaces the first occurrence of a text in a file of a folder.
fn replace(folder: &Path, file: &str, from: &str, to: &str) {
    let path = folder.join(file);
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{file} has {from:?}");
    std::fs::write(&path, text.replacen(from, to, 1)).unwrap();
}

#[test]
fn the_example_configuration_is_valid() {
    let example = with_example();
    insta::assert_snapshot!(shown(example.path(), &["check"]), @"
    exit code 0
    --- stdout
    --- stderr
    hookmill.toml: 2 sources and 26 rules, no errors
    ");
    insta::assert_snapshot!(shown(example.path(), &["check", "--json"]), @r#"
    exit code 0
    --- stdout
    {"errors":[],"valid":true}
    --- stderr
    "#);
}

#[test]
fn every_commented_line_of_the_example_is_valid_too() {
    let example = with_example();
    let path = example.path().join("hookmill.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    // Commented TOML has no space after the `#`; explanations are sentences.
    let opened: Vec<_> = text
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(code)
                if code.starts_with('[') || code.starts_with('#') || code.contains(" = ") =>
            {
                code
            }
            _ => line,
        })
        .collect();
    assert!(opened.contains(&"[[rules]]") && opened.contains(&"[database]"));
    std::fs::create_dir_all(example.path().join("migrations/app")).unwrap();
    std::fs::write(&path, opened.join("\n")).unwrap();
    insta::assert_snapshot!(shown(example.path(), &["check"]), @"
    exit code 0
    --- stdout
    --- stderr
    hookmill.toml: 2 sources and 26 rules, no errors
    ");
}

/// Every block of TOML in a document, in order.
fn toml_blocks(document: &str) -> Vec<String> {
    blocks(document, "toml")
}

/// Every block of a language in a document, in order.
fn blocks(document: &str, language: &str) -> Vec<String> {
    let path = folder().parent().unwrap().join("docs").join(document);
    let text = std::fs::read_to_string(path).unwrap();
    let fence = format!("\n```{language}\n");
    let mut rest = text.as_str();
    let mut blocks = Vec::new();
    while let Some((_, block)) = rest.split_once(&fence) {
        let (block, after) = block.split_once("```").unwrap();
        blocks.push(block.to_owned());
        rest = after;
    }
    blocks
}

#[test]
fn every_configuration_in_the_documents_is_valid() {
    let blocks = toml_blocks("providers.md");
    assert!(blocks.len() > 20, "{} blocks", blocks.len());
    for block in blocks {
        let config = hookmill_config::parse("docs/providers.md", &block);
        let config = config.unwrap_or_else(|errors| panic!("{block}\n{}", errors[0]));
        assert!(!config.ingress.sources.is_empty(), "{block}");
    }
}

#[test]
fn every_configuration_in_the_document_about_emails_is_valid() {
    let temporary = tempfile::tempdir().unwrap();
    let root = folder().parent().unwrap();
    std::fs::create_dir(temporary.path().join("templates")).unwrap();
    let template = "templates/welcome.html";
    std::fs::copy(root.join(template), temporary.path().join(template)).unwrap();
    // All of them together, with their sources.
    let mut blocks = toml_blocks("email.md");
    assert_eq!(blocks.len(), 8);
    // A configuration has one email provider or the other.
    let smtp = blocks.iter().position(|block| block.contains("provider = \"smtp\"")).unwrap();
    let smtp = blocks.remove(smtp);
    let smtp = hookmill_config::parse(
        "docs/email.md",
        &format!("[sources.a]\nscheme = \"svix\"\nsecrets = [\"env:A\"]\n{smtp}"),
    );
    let smtp = smtp.unwrap_or_else(|errors| panic!("{}", errors[0]));
    let [api] = smtp.emails.unwrap().sending.apis.try_into().unwrap();
    assert_eq!(api.url, "smtp+starttls://email-smtp.us-east-1.amazonaws.com:587");
    let mut config = blocks.concat();
    for source in ["clerk", "stripe", "support"] {
        config += &format!("[sources.{source}]\nscheme = \"svix\"\nsecrets = [\"env:A\"]\n");
    }
    std::fs::write(temporary.path().join("hookmill.toml"), config).unwrap();
    insta::assert_snapshot!(shown(temporary.path(), &["check"]), @"
    exit code 0
    --- stdout
    --- stderr
    hookmill.toml: 6 sources and 34 rules, no errors
    ");
}

#[test]
fn every_configuration_in_the_documents_about_operation_is_valid() {
    let example = with_example();
    let blocks = ["admin.md", "operations.md"].map(toml_blocks).concat();
    assert_eq!(blocks.len(), 4);
    let path = example.path().join("hookmill.toml");
    let mut config = std::fs::read_to_string(&path).unwrap();
    for block in blocks {
        let (section, said) = block.split_once('\n').unwrap();
        let header = format!("\n{section}\n");
        let Some((before, after)) = config.split_once(&header) else {
            config.push_str(&format!("\n{block}\n"));
            continue;
        };
        // Keys of the example are replaced.
        let keys: Vec<_> = said.lines().filter_map(|line| line.split_once(" = ")).collect();
        let (old, others) = after.split_once("\n\n").unwrap();
        let others_lines =
            old.lines().filter(|line| keys.iter().all(|(key, _)| !line.starts_with(key)));
        let old = others_lines.collect::<Vec<_>>().join("\n");
        config = format!("{before}{header}{said}{old}\n\n{others}");
    }
    std::fs::write(&path, config).unwrap();
    let checked = shown(example.path(), &["check"]);
    assert!(checked.starts_with("exit code 0"), "{checked}");
}

/// Writes the configuration whose parts are in docs/configuration.md, with its other files.
fn documented(folder: &Path) -> String {
    let [sql] = blocks("configuration.md", "sql").try_into().unwrap();
    let files = ["tests/signed-up.json", "tests/order.json", "tests/order-changed.json"];
    let bodies: [String; 3] = blocks("configuration.md", "json").try_into().unwrap();
    for name in ["tests", "migrations/app"] {
        std::fs::create_dir_all(folder.join(name)).unwrap();
    }
    std::fs::write(folder.join("migrations/app/1000_orders.sql"), sql).unwrap();
    for (file, body) in files.into_iter().zip(bodies) {
        std::fs::write(folder.join(file), body).unwrap();
    }
    let config = toml_blocks("configuration.md").join("\n");
    std::fs::write(folder.join("hookmill.toml"), &config).unwrap();
    config
}

#[test]
fn the_tests_in_the_document_pass_and_failing_ones_show_the_actual_result() {
    let example = with_example();
    let path = example.path().join("hookmill.toml");
    let config = documented(example.path());
    insta::assert_snapshot!(shown(example.path(), &["check"]), @"
    exit code 0
    --- stdout
    --- stderr
    hookmill.toml: 4 sources and 39 rules, no errors; 2 tests passed
    ");
    let wrong = config
        .replace("email = \"ada@example.com\", banned = false", "email = \"bob@example.com\", banned = true")
        .replace("to = \"ada@example.com\" } },\n]", "to = \"bob@example.com\" } },\n    { table = \"users\", rows = 2 },\n    { table = \"usrs\", rows = 2 },\n    { outcome = \"recorded\" },\n    { sms = { to = \"+1\" } },\n    \"nothing\",\n]");
    // The line numbers do not matter here.
    let (example_lines, _) = wrong.split_once("[[tests]]").unwrap();
    let before = example_lines.lines().count();
    let moved = "\n".repeat(300 - before);
    std::fs::write(&path, wrong.replacen("[[tests]]", &format!("{moved}[[tests]]"), 1)).unwrap();
    insta::assert_snapshot!(shown(example.path(), &["check"]), @r#"
    exit code 1
    --- stdout
    --- stderr
    error: hookmill.toml:305:5: tests[0].expect[0]: who signs up is a user, and welcome: `users` is not as expected
      - banned = true
      + banned = 0
      - email = "bob@example.com"
      + email = "ada@example.com"
        id = "user_1"
        last_name = {"exists":false}
    hookmill.toml:306:5: tests[0].expect[1]: who signs up is a user, and welcome: the email is not as expected
        template = "welcome"
      - to = "bob@example.com"
      + to = ["ada@example.com"]
    hookmill.toml:307:5: tests[0].expect[2]: who signs up is a user, and welcome: `users` has 1 row, not 2
        _deleted = 0
        _event_id = "test_0"
        _precedence = 1
        _version = 1767225600000000
        banned = 0
        email = "ada@example.com"
        first_name = "Ada"
        id = "user_1"
        updated_at = 1767225600000
    hookmill.toml:308:5: tests[0].expect[3]: who signs up is a user, and welcome: there is no table `usrs`
      hint: did you mean `users`?
    hookmill.toml:309:5: tests[0].expect[4]: who signs up is a user, and welcome: the event is applied, not recorded
    hookmill.toml:310:5: tests[0].expect[5]: who signs up is a user, and welcome: no sms is sent
    hookmill.toml:311:5: tests[0].expect[6]: who signs up is a user, and welcome: found in `users`
        _deleted = 0
        _event_id = "test_0"
        _precedence = 1
        _version = 1767225600000000
        banned = 0
        email = "ada@example.com"
        first_name = "Ada"
        id = "user_1"
        updated_at = 1767225600000
    7 errors in the configuration
    "#);
}

#[test]
fn a_rule_with_an_unknown_handler_is_an_error() {
    let example = with_example();
    documented(example.path());
    replace(example.path(), "hookmill.toml", "\"stripe-revenue\"", "\"revenue-by-day\"");
    insta::assert_snapshot!(shown(example.path(), &["check"]), @"
    exit code 1
    --- stdout
    --- stderr
    error: hookmill.toml:101:11: rules[7].handler: there is no handler `revenue-by-day`
      hint: possible here: `stripe-revenue`
    1 error in the configuration
    ");
}

/// A configuration with every error about messages.
const FAULTY: &str = r#"
[sources.s]
scheme = "svix"
secrets = ["env:A"]

[[rules]]
name = "a"
on = "s:a"
email = { template = "welcom", to = "data.email" }

[[rules]]
name = "b"
on = "s:b"
when = { "a." = 1, b = {} }
email = { template = "welcome", to = ["a@example.com", "data.email"], data = { nam = "x" }, when = { b = 1 }, delay = "1y" }

[[rules]]
name = "c"
on = "s:c"
email = { template = "welcome", to = "a@b c", dat = { name = "x" } }
sms = { to = "+1", body = "{{ code }}" }

[[rules]]
name = "d"
on = "s:d"
sms = { to = "phone", body = "{{ code", data = {} }

[[rules]]
name = "e"
on = "s:e"
track = { provider = "posthog", event = "E", user = "id" }

[[rules]]
name = "f"
on = "s:f"
outcome = { email = "id", is = "eaten" }

[[rules]]
name = "g"
on = "s:g"
suppress = { address = "email" }

[templates.welcome]
subject = "Welcome, {{ name }}"
html = "welcome.html"
text = "nowhere.txt"

[templates.broken]
subject = "{% if %}"
html = "broken.html"

[email]
provider = "sendmail"
fallback = "resend"
from = "Acme"
wait = "2h"
on_uncertain = "maybe"
[email.resend]
key = "re_secret"
url = "http://api.resend.com"
[email.sendgrid]
url = "https://user:hunter2@api.sendgrid.com"
[email.quota]
warn_at = 2
"#;

#[test]
fn errors_about_emails_are_found_before_any_is_sent() {
    let temporary = tempfile::tempdir().unwrap();
    std::fs::write(temporary.path().join("hookmill.toml"), FAULTY).unwrap();
    std::fs::write(temporary.path().join("welcome.html"), "{{ name }} {{ link }}").unwrap();
    std::fs::write(temporary.path().join("broken.html"), "<p>\n{% endif %}").unwrap();
    insta::assert_snapshot!(shown(temporary.path(), &["check"]), @r#"
    exit code 1
    --- stdout
    --- stderr
    error: hookmill.toml:9:22: rules[0].email.template: no template has the name `welcom`
      hint: did you mean `welcome`?
    hookmill.toml:14:10: rules[1].when.a.: found "a.": expected a name at character 3
      hint: expected a path such as "data.object.status"
    hookmill.toml:14:24: rules[1].when.b: invalid condition
      hint: expected a value, a list of values, { not = … }, or { exists = true }; quote a path with dots
    hookmill.toml:15:38: rules[1].email.to: the list mixes addresses and paths; use one kind
      hint: expected a path to an address, an address, or a list of either
    hookmill.toml:15:100: rules[1].email.when: `when` is a key of the rule, not of its effect
      hint: move it below `on`: when = { "data.status" = "active" }
    hookmill.toml:15:119: rules[1].email.delay: found 1year
      hint: expected a duration from 0s to 30d
    hookmill.toml:17:1: rules[2]: a rule can have only one effect, and this one has `email`, `sms`
      hint: move the other effect to another rule
    hookmill.toml:20:38: rules[2].email.to: found "a@b c"
      hint: expected an address, as in "Acme <hello@example.com>"
    hookmill.toml:20:47: rules[2].email: unknown key `dat`
      hint: did you mean `data`?
    hookmill.toml:21:14: rules[2].sms.to: found "+1"
      hint: expected a phone number with country code, such as "+15550100002"
    hookmill.toml:26:14: rules[3].sms.to: `[sms]` is not configured
      hint: add [sms] with `account` and `from`
    hookmill.toml:26:30: rules[3].sms.body: syntax error: unexpected end of input, expected end of variable block
    hookmill.toml:31:22: rules[4].track.provider: `[tracking.posthog]` is not configured
      hint: add [tracking.posthog]
    hookmill.toml:36:32: rules[5].outcome.is: found "eaten"
      hint: possible here: `delayed`, `delivered`, `opened`, `clicked`, `failed`, `bounced`, `unsubscribed`, `complained`
    hookmill.toml:41:12: rules[6].suppress: `reason` is missing
      hint: add a short reason: reason = "bounced"
    hookmill.toml:46:8: templates.welcome.text: cannot read nowhere.txt: No such file or directory (os error 2)
    hookmill.toml:49:11: templates.broken.subject: line 1: syntax error: unexpected end of block
    hookmill.toml:50:8: templates.broken.html: broken.html, line 2: syntax error: unknown statement endif
    hookmill.toml:53:12: email.provider: found "sendmail"
      hint: did you mean `sendgrid`?
    hookmill.toml:55:8: email.from: found "Acme"
      hint: expected an address, as in "Acme <hello@example.com>"
    hookmill.toml:56:8: email.wait: found 2h
      hint: expected a duration from 0s to 1h
    hookmill.toml:57:16: email.on_uncertain: found "maybe"
      hint: possible here: `hold`, `retry`
    hookmill.toml:59:7: email.resend.key: not the name of a secret; never write a secret into this file
      hint: put the secret into an environment variable and use its name: "env:API_KEY"
    hookmill.toml:60:7: email.resend.url: found "http://api.resend.com"
      hint: expected https://, because each request carries the key
    hookmill.toml:62:7: email.sendgrid.url: the URL contains a user name or password
      hint: remove it and name the API key's secret in `key`
    hookmill.toml:63:1: email.quota: the quota has neither `day` nor `month`
      hint: add at least one, such as month = 3000
    hookmill.toml:64:11: email.quota.warn_at: found 2
      hint: expected a fraction above 0 and at most 1
    27 errors in the configuration
    "#);
}

#[test]
fn a_missing_variable_of_a_template_is_an_error() {
    let example = with_example();
    let path = example.path().join("hookmill.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let texts = "\n[[rules]]\nname = \"text\"\non = \"clerk:user.created\"\nsms = { to = \"+15550100002\", body = \"{{ code }}\" }\n\n[sms]\naccount = \"AC11111111111111111111111111111111\"\nfrom = \"+15550100001\"\n";
    let text = text
        .replace("data = { name = \"data.first_name\" }", "data = { nmae = \"data.first_name\" }");
    let text = text.replace("\"Welcome", "\"{{ company }}: welcome");
    std::fs::write(path, text + texts).unwrap();
    let html = "<p>{{ signed_up | date }} {% if name %}{{ name | upcase }}{% endif %}</p>";
    let file = example.path().join("templates/welcome.html");
    std::fs::write(&file, html).unwrap();
    insta::assert_snapshot!(shown(example.path(), &["check"]), @r#"
    exit code 1
    --- stdout
    --- stderr
    error: hookmill.toml:59:8: templates.welcome.html: templates/welcome.html, line 1: there is no filter `upcase`
    hookmill.toml:117:37: rules[1].sms.body: `body` needs `code`
      hint: say where it is: data = { code = "data.…" }
    2 errors in the configuration
    "#);
    std::fs::write(file, html.replace("upcase", "upper")).unwrap();
    insta::assert_snapshot!(shown(example.path(), &["check"]), @r#"
    exit code 1
    --- stdout
    --- stderr
    error: hookmill.toml:55:8: rules[0].email.data: template `welcome` needs `company`
      hint: say where it is: data = { company = "data.…" }
    hookmill.toml:55:8: rules[0].email.data: template `welcome` needs `signed_up`
      hint: say where it is: data = { signed_up = "data.…" }
    hookmill.toml:55:10: rules[0].email.data.nmae: template `welcome` does not use `nmae`
      hint: did you mean `name`?
    hookmill.toml:117:37: rules[1].sms.body: `body` needs `code`
      hint: say where it is: data = { code = "data.…" }
    4 errors in the configuration
    "#);
}

#[test]
fn the_readmes_own_tables_work() {
    let example = with_example();
    let path = example.path().join("hookmill.toml");
    let text = std::fs::read_to_string(&path).unwrap() + &readme_block("[database]");
    std::fs::write(&path, text).unwrap();
    let app = example.path().join("migrations/app");
    std::fs::create_dir_all(&app).unwrap();
    let sql = readme_block("-- migrations/app/1000_refunded_charges.sql");
    std::fs::write(app.join("1000_refunded_charges.sql"), sql).unwrap();
    insta::assert_snapshot!(shown(example.path(), &["check"]), @"
    exit code 0
    --- stdout
    --- stderr
    hookmill.toml: 2 sources and 27 rules, no errors
    ");
}

#[test]
fn a_configuration_with_errors_is_rejected_before_anything_starts() {
    let temporary = tempfile::tempdir().unwrap();
    std::fs::write(
        temporary.path().join("hookmill.toml"),
        "[sources.a]\nscheme = \"strip\"\nsecrets = [\"x\"]\n",
    )
    .unwrap();
    insta::assert_snapshot!(shown(temporary.path(), &["check"]), @r#"
    exit code 1
    --- stdout
    --- stderr
    error: hookmill.toml:2:10: sources.a.scheme: found "strip"
      hint: did you mean `stripe`?
    hookmill.toml:3:12: sources.a.secrets[0]: not the name of a secret; never write a secret into this file
      hint: put the secret into an environment variable and use its name: "env:STRIPE_WEBHOOK_SECRET"
    2 errors in the configuration
    "#);
    insta::assert_snapshot!(shown(temporary.path(), &["check", "--json"]), @r#"
    exit code 1
    --- stdout
    {"errors":[{"column":10,"file":"hookmill.toml","hint":"did you mean `stripe`?","key":"sources.a.scheme","line":2,"problem":"found \"strip\""},{"column":12,"file":"hookmill.toml","hint":"put the secret into an environment variable and use its name: \"env:STRIPE_WEBHOOK_SECRET\"","key":"sources.a.secrets[0]","line":3,"problem":"not the name of a secret; never write a secret into this file"}],"valid":false}
    --- stderr
    error: the configuration is not valid
    "#);
    for command in ["serve", "dev", "migrate"] {
        let output = hookmill(temporary.path(), &[command]);
        assert_eq!(output.status.code(), Some(1), "{command}");
        assert!(
            String::from_utf8_lossy(&output.stderr).contains("2 errors in the configuration"),
            "{command}"
        );
    }
    assert!(!temporary.path().join(".hookmill").exists(), "nothing was made");
    insta::assert_snapshot!(shown(temporary.path(), &["check", "--config", "nowhere.toml"]), @"
    exit code 1
    --- stdout
    --- stderr
    error: no configuration found; pass its path with --config: cannot read the configuration nowhere.toml: No such file or directory (os error 2)
    ");
}

#[test]
fn a_rate_limit_that_the_worker_lacks_is_an_error() {
    let example = with_workers();
    let limit = "[sources.stripe]\nrate_limit = { requests = 1000, per = \"10s\" }";
    replace(example.path(), "hookmill.toml", "[sources.stripe]", limit);
    insta::assert_snapshot!(shown(example.path(), &["check"]), @r#"
    exit code 1
    --- stdout
    --- stderr
    error: ingress/worker/wrangler.toml:1:1: the source `stripe` has a rate_limit but no binding
      hint: [[ratelimits]]
            name = "RATE_LIMIT_STRIPE"
            namespace_id = "1001"
            simple = { limit = 1000, period = 10 }
    1 error in the configuration
    "#);
    let docs =
        std::fs::read_to_string(folder().parent().unwrap().join("docs/providers.md")).unwrap();
    let binding = &docs[docs.find("  [[ratelimits]]").unwrap()..];
    let binding = binding.split("```").next().unwrap();
    let with_it = format!("{binding}\n[observability]");
    replace(example.path(), "ingress/worker/wrangler.toml", "[observability]", &with_it);
    assert_eq!(hookmill(example.path(), &["check"]).status.code(), Some(0));
}

#[test]
fn check_computes_how_many_events_d1_has_space_for() {
    let example = with_workers();
    let note = |from: &str, to: &str| {
        replace(example.path(), "hookmill.toml", from, to);
        let shown = shown(example.path(), &["check"]);
        let note = shown.lines().find_map(|line| line.strip_prefix("note: "));
        // The size of events is that of the samples.
        let (note, size) = note.unwrap().split_once(" (events of ").unwrap();
        let rest = size.split_once(" KB, without the rows of rules)").unwrap().1;
        let kilobytes: f64 = size.split(' ').next().unwrap().parse().unwrap();
        (format!("{note}{rest}"), kilobytes + 1.4)
    };
    let number = |note: &str, after: &str, before: &str| -> f64 {
        let (_, rest) = note.split_once(after).unwrap();
        rest.split_once(before).unwrap().0.parse().unwrap()
    };
    // 300 bytes of the ledger for each event.
    let (forever, each) = note("messages = \"30d\"", "messages = \"30d\"");
    assert!(
        forever.starts_with("the ledger keeps events forever, and 33 million fill D1's 10 GB; ")
    );
    assert!(forever.ends_with("; `events` in `[retention]` removes old ones"), "{forever}");
    let gigabytes = number(&forever, "kept messages take ", " GB");
    assert!((gigabytes / (each * 2.592) - 1.0).abs() < 0.1, "{gigabytes} GB, {each} KB");

    let (old, _) = note("messages = \"30d\"\n", "");
    assert_eq!(
        old,
        "the ledger keeps events forever, and 33 million fill D1's 10 GB; `events` in `[retention]` removes old ones"
    );
    let (limited, _) = note("settled = \"90d\"\n", "settled = \"90d\"\nevents = \"100d\"\n");
    // 10 GB / 300 bytes / 8,640,000 seconds.
    assert_eq!(limited, "`[retention]` lets 3.9 events a second fit into D1's 10 GB; more fill it");
    let (kept, each) = note("events = \"100d\"\n", "events = \"100d\"\nmessages = \"30d\"\n");
    let rate = number(&kept, "lets ", " events");
    assert!((rate * (2.592 + each * 2.592) / 10.0 - 1.0).abs() < 0.1, "{rate}, {each} KB");
}

#[test]
fn workers_that_do_not_fit_together_are_an_error() {
    let example = with_workers();
    assert_eq!(hookmill(example.path(), &["check"]).status.code(), Some(0));
    replace(
        example.path(),
        "ingress/worker/wrangler.toml",
        "\"hookmill-events\"",
        "\"hookmill-event\"",
    );
    replace(example.path(), "dlq/worker/wrangler.toml", "database_id = \"0", "database_id = \"1");
    insta::assert_snapshot!(
        [shown(example.path(), &["check"]), shown(example.path(), &["check", "--json"])].concat(),
        @r#"
    exit code 1
    --- stdout
    --- stderr
    error: dlq/worker/wrangler.toml:69:15: d1_databases[0].database_id: "10000000-0000-0000-0000-000000000000" here, but "00000000-0000-0000-0000-000000000000" at consumers/worker/wrangler.toml:59:15
      hint: database_id = "00000000-0000-0000-0000-000000000000"
    ingress/worker/wrangler.toml:14:9: queues.producers[0].queue: consumers/worker/wrangler.toml has no consumer of "hookmill-event"
      hint: did you mean `hookmill-events`?
    2 errors in the configuration
    exit code 1
    --- stdout
    {"errors":[{"column":15,"file":"dlq/worker/wrangler.toml","hint":"database_id = \"00000000-0000-0000-0000-000000000000\"","key":"d1_databases[0].database_id","line":69,"problem":"\"10000000-0000-0000-0000-000000000000\" here, but \"00000000-0000-0000-0000-000000000000\" at consumers/worker/wrangler.toml:59:15"},{"column":9,"file":"ingress/worker/wrangler.toml","hint":"did you mean `hookmill-events`?","key":"queues.producers[0].queue","line":14,"problem":"consumers/worker/wrangler.toml has no consumer of \"hookmill-event\""}],"valid":false}
    --- stderr
    error: the configuration is not valid
    "#
    );
    // Paths are relative to the current folder.
    let file = example.path().join("hookmill.toml");
    let output = hookmill(folder(), &["check", "--config", file.to_str().unwrap()]);
    let at = format!("{}:14:9", example.path().join("ingress/worker/wrangler.toml").display());
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && text.contains(&at), "{text}");

    let worker = example.path().join("dlq/worker");
    std::fs::rename(worker.join("wrangler.toml"), worker.join("wrangler.jsonc")).unwrap();
    std::fs::remove_file(example.path().join("ingress/worker/wrangler.toml")).unwrap();
    insta::assert_snapshot!(shown(example.path(), &["check"]), @"
    exit code 1
    --- stdout
    --- stderr
    note: dlq/worker/wrangler.jsonc is not checked; Hookmill reads only wrangler.toml
    error: ingress/worker/wrangler.toml:1:1: the file is missing, but other Workers have one
      hint: all three Workers are required; this file configures the ingress Worker
    1 error in the configuration
    ");
}

#[test]
fn migrations_that_the_workers_lack_are_an_error() {
    let example = with_workers();
    let at = example.path().join("sql");
    std::fs::create_dir(&at).unwrap();
    std::fs::write(at.join("1000_notes.sql"), "CREATE TABLE notes (id TEXT PRIMARY KEY) STRICT;")
        .unwrap();
    let database = "[database]\nmigrations = \"sql\"\n\n[queue]";
    replace(example.path(), "hookmill.toml", "[queue]", database);
    insta::assert_snapshot!(shown(example.path(), &["check"]), @r#"
    exit code 1
    --- stdout
    --- stderr
    error: consumers/worker/wrangler.toml:62:22: d1_databases[0].migrations_pattern: this does not find the migrations in "sql", which hookmill.toml:107:14 names
      hint: wrangler reads one folder and its subfolders: move them below `migrations`, such as migrations/app
    dlq/worker/wrangler.toml:72:22: d1_databases[0].migrations_pattern: this does not find the migrations in "sql", which hookmill.toml:107:14 names
      hint: wrangler reads one folder and its subfolders: move them below `migrations`, such as migrations/app
    2 errors in the configuration
    "#);
}

/// The output of `hookmill check --secrets` with this environment.
fn secrets(folder: &Path, more: &[&str], environment: &[(&str, &str)]) -> String {
    let mut command = command(folder, &[&["check", "--secrets"], more].concat());
    for name in ["STRIPE_WEBHOOK_SECRET_NEXT", "RESEND_API_KEY", "ALERT_URL", "ALERT_SECRET"] {
        command.env_remove(name);
    }
    let output = command.envs(environment.iter().copied()).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8(text).unwrap();
    for (_, secret) in environment {
        assert!(!text.contains(secret), "{text}");
    }
    format!("exit code {}\n{text}", output.status.code().unwrap())
}

#[test]
fn secrets_are_checked_only_on_request() {
    let example = with_example();
    // Without the option, the machine's environment does not matter.
    assert_eq!(hookmill(example.path(), &["check"]).status.code(), Some(0));
    let stripe = ("STRIPE_WEBHOOK_SECRET", "whsec_for_stripe");
    let clerk = ("CLERK_WEBHOOK_SECRET", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
    let resend = ("RESEND_API_KEY", "re_123456");
    insta::assert_snapshot!(
        [
            secrets(example.path(), &[], &[]),
            secrets(example.path(), &[], &[stripe, clerk, resend]),
            secrets(
                example.path(),
                &[],
                &[
                    ("STRIPE_WEBHOOK_SECRET", "   "),
                    ("STRIPE_WEBHOOK_SECRET_NEXT", "  "),
                    ("CLERK_WEBHOOK_SECRET", "whsec_not base64"),
                    ("RESEND_API_KEY", "re_\"123\""),
                ],
            ),
            secrets(
                example.path(),
                &[],
                &[("STRIPE_WEBHOOK_SECRET", "\"this is in quotes\""), clerk, resend],
            ),
            secrets(example.path(), &[], &[("STRIPE_WEBHOOK_SECRET", "whsec_guessed"), clerk, resend]),
            secrets(example.path(), &["--json"], &[stripe, clerk]),
        ]
        .join("\n"),
        @r#"
    exit code 1
    error: source `clerk`: none of its secrets is set (CLERK_WEBHOOK_SECRET)
    source `stripe`: none of its secrets is set (STRIPE_WEBHOOK_SECRET, STRIPE_WEBHOOK_SECRET_NEXT)
    RESEND_API_KEY is not set; it must contain the key for resend
    3 errors

    exit code 0
    note: source `stripe`: STRIPE_WEBHOOK_SECRET_NEXT is not set; another secret of the source is
    hookmill.toml: 2 sources and 26 rules, no errors

    exit code 1
    error: source `clerk`: CLERK_WEBHOOK_SECRET is not a secret of this scheme: `whsec_` and base64
    source `stripe`: STRIPE_WEBHOOK_SECRET is set but blank
    RESEND_API_KEY contains a space, a quote or another character that is invalid in a key
    source `stripe`: STRIPE_WEBHOOK_SECRET_NEXT is set but blank
    4 errors

    exit code 0
    note: source `stripe`: STRIPE_WEBHOOK_SECRET_NEXT is not set; another secret of the source is
    note: STRIPE_WEBHOOK_SECRET probably is in quotes, which are not part of it
    hookmill.toml: 2 sources and 26 rules, no errors

    exit code 1
    note: source `stripe`: STRIPE_WEBHOOK_SECRET_NEXT is not set; another secret of the source is
    error: source `stripe`: STRIPE_WEBHOOK_SECRET has 13 bytes; a secret needs at least 16, or it can be guessed

    exit code 1
    {"errors":[{"problem":"RESEND_API_KEY is not set; it must contain the key for resend"}],"valid":false}
    note: source `stripe`: STRIPE_WEBHOOK_SECRET_NEXT is not set; another secret of the source is
    error: the configuration is not valid
    "#
    );

    let alerts = "[alerts]\nwebhook = { url = \"env:ALERT_URL\", secret = \"env:ALERT_SECRET\" }\ndead_letters = 5\n\n[queue]";
    replace(example.path(), "hookmill.toml", "[queue]", alerts);
    let text = std::fs::read_to_string(example.path().join("hookmill.toml")).unwrap();
    let text = text.replace(
        "\"env:CLERK_WEBHOOK_SECRET\"",
        "{ name = \"env:CLERK_WEBHOOK_SECRET\", not_after = 2020-01-01T00:00:00Z }",
    );
    std::fs::write(example.path().join("hookmill.toml"), text).unwrap();
    insta::assert_snapshot!(
        [
            secrets(example.path(), &[], &[stripe, clerk, resend]),
            secrets(
                example.path(),
                &[],
                &[stripe, resend, ("ALERT_URL", "http://x"), ("ALERT_SECRET", "whsec_???")],
            ),
        ]
        .join("\n"),
        @"
    exit code 1
    note: source `stripe`: STRIPE_WEBHOOK_SECRET_NEXT is not set; another secret of the source is
    error: source `clerk`: all secrets have expired (`not_after`); add the current secret
    ALERT_URL is not set; `[alerts]` names it
    ALERT_SECRET is not set; `[alerts]` names it
    3 errors

    exit code 1
    note: source `stripe`: STRIPE_WEBHOOK_SECRET_NEXT is not set; another secret of the source is
    error: source `clerk`: all secrets have expired (`not_after`); add the current secret
    ALERT_URL does not begin with https://; `[alerts]` names it
    ALERT_SECRET is not `whsec_` and base64; `[alerts]` names it
    3 errors
    "
    );
}
