//! `hookmill check`: valid configurations, every error that it finds, and the tests of a configuration.

use std::path::Path;

use hookmill_tests::folder;

use crate::{command, hookmill, readme_block, shown, with_example, with_files};

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
    hookmill.toml: 2 sources and 32 rules, no errors
    ");
    insta::assert_snapshot!(shown(example.path(), &["check", "--json"]), @r#"
    exit code 0
    --- stdout
    {"errors":[],"notes":[],"valid":true,"warnings":[]}
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
    let app = example.path().join("migrations/app");
    std::fs::create_dir_all(&app).unwrap();
    let sql = opened.iter().filter_map(|line| line.strip_prefix("# "));
    let sql: Vec<_> = sql.filter(|line| line.starts_with("CREATE")).collect();
    std::fs::write(app.join("1000_plans.sql"), sql.join("\n")).unwrap();
    std::fs::write(&path, opened.join("\n")).unwrap();
    insta::assert_snapshot!(shown(example.path(), &["check"]), @"
    exit code 0
    --- stdout
    --- stderr
    hookmill.toml: 2 sources and 33 rules, no errors
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
    let names = ["signed-up", "subscribed", "order", "order-changed"];
    let files = names.map(|name| format!("tests/{name}.json"));
    let bodies: [String; 4] = blocks("configuration.md", "json").try_into().unwrap();
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
    hookmill.toml: 4 sources and 46 rules, no errors; 3 tests passed
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
    error: hookmill.toml:305:5: test "who signs up is a user, and welcome".expect[0]: `users` is not as expected (-: expected, +: found)
      - banned = 1
      + banned = 0
      - email = "bob@example.com"
      + email = "ada@example.com"
        id = "user_1"
        last_name = {"exists":false}
    error: hookmill.toml:306:5: test "who signs up is a user, and welcome".expect[1]: the email is not as expected (-: expected, +: found)
        template = "welcome"
      - to = "bob@example.com"
      + to = ["ada@example.com"]
    error: hookmill.toml:307:5: test "who signs up is a user, and welcome".expect[2]: `users` has 1 row, not 2
        _deleted = 0
        _event_id = "test_0"
        _precedence = 1
        _version = 1767225600000000
        banned = 0
        email = "ada@example.com"
        first_name = "Ada"
        id = "user_1"
        updated_at = 1767225600000
    error: hookmill.toml:308:5: test "who signs up is a user, and welcome".expect[3]: there is no table or view `usrs`
      hint: did you mean `users`?
    error: hookmill.toml:309:5: test "who signs up is a user, and welcome".expect[4]: the event is applied, not recorded
    error: hookmill.toml:310:5: test "who signs up is a user, and welcome".expect[5]: no sms is sent
    error: hookmill.toml:311:5: test "who signs up is a user, and welcome".expect[6]: found in `users`
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
    insta::assert_snapshot!(shown(example.path(), &["check"]), @r#"
    exit code 1
    --- stdout
    --- stderr
    error: hookmill.toml:103:11: rule "revenue".handler: there is no handler `revenue-by-day`
      hint: possible here: `stripe-revenue`
    1 error in the configuration
    "#);
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
    error: hookmill.toml:9:22: rule "a".email.template: no template has the name `welcom`
      hint: did you mean `welcome`?
    error: hookmill.toml:14:10: rule "b".when.a.: found "a.": expected a name at character 3
      hint: expected a path such as "data.object.status"
    error: hookmill.toml:14:24: rule "b".when.b: invalid condition
      hint: expected a value, a list of values, { not = … }, { exists = true } or { exists = false }; quote a path with dots
    error: hookmill.toml:15:38: rule "b".email.to: the list mixes addresses and paths; use one kind
      hint: expected a path to an address, an address, or a list of either
    error: hookmill.toml:15:100: rule "b".email.when: `when` is a key of the rule, not of its effect
      hint: move it below `on`: when = { "data.status" = "active" }
    error: hookmill.toml:15:119: rule "b".email.delay: found 1year
      hint: expected a duration from 0s to 30d
    error: hookmill.toml:17:1: rule "c": a rule can have only one effect, and this one has `email`, `sms`
      hint: move the other effect to another rule
    error: hookmill.toml:20:38: rule "c".email.to: found "a@b c"
      hint: expected an address, as in "Acme <hello@example.com>"
    error: hookmill.toml:20:47: rule "c".email: unknown key `dat`
      hint: did you mean `data`?
    error: hookmill.toml:21:14: rule "c".sms.to: found "+1"
      hint: expected a phone number with country code, such as "+15550100002"
    error: hookmill.toml:26:14: rule "d".sms.to: `[sms]` is not configured
      hint: add [sms] with `account` and `from`
    error: hookmill.toml:26:30: rule "d".sms.body: syntax error: unexpected end of input, expected end of variable block
    error: hookmill.toml:31:22: rule "e".track.provider: `[tracking.posthog]` is not configured
      hint: add [tracking.posthog]
    error: hookmill.toml:36:32: rule "f".outcome.is: found "eaten"
      hint: possible here: `delayed`, `delivered`, `opened`, `clicked`, `failed`, `bounced`, `unsubscribed`, `complained`
    error: hookmill.toml:41:12: rule "g".suppress: `reason` is missing
      hint: add a short reason: reason = "bounced"
    error: hookmill.toml:46:8: templates.welcome.text: cannot read nowhere.txt: No such file or directory (os error 2)
    error: hookmill.toml:49:11: templates.broken.subject: line 1: syntax error: unexpected end of block
    error: hookmill.toml:50:8: templates.broken.html: broken.html, line 2: syntax error: unknown statement endif
    error: hookmill.toml:53:12: email.provider: found "sendmail"
      hint: did you mean `sendgrid`?
    error: hookmill.toml:55:8: email.from: found "Acme"
      hint: expected an address, as in "Acme <hello@example.com>"
    error: hookmill.toml:56:8: email.wait: found 2h
      hint: expected a duration from 0s to 1h
    error: hookmill.toml:57:16: email.on_uncertain: found "maybe"
      hint: possible here: `hold`, `retry`
    error: hookmill.toml:59:7: email.resend.key: not the name of a secret; never write a secret into this file
      hint: put the secret into an environment variable and use its name: "env:API_KEY"
    error: hookmill.toml:60:7: email.resend.url: found "http://api.resend.com"
      hint: expected https://, because each request carries the key
    error: hookmill.toml:62:7: email.sendgrid.url: the URL contains a user name or password
      hint: remove it and name the API key's secret in `key`
    error: hookmill.toml:63:1: email.quota: the quota has neither `day` nor `month`
      hint: add at least one, such as month = 3000
    error: hookmill.toml:64:11: email.quota.warn_at: found 2
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
    error: hookmill.toml:63:8: templates.welcome.html: templates/welcome.html, line 1: there is no filter `upcase`
    error: hookmill.toml:121:37: rule "text".sms.body: `body` needs `code`
      hint: say where it is: data = { code = "data.…" }
    2 errors in the configuration
    "#);
    std::fs::write(file, html.replace("upcase", "upper")).unwrap();
    insta::assert_snapshot!(shown(example.path(), &["check"]), @r#"
    exit code 1
    --- stdout
    --- stderr
    error: hookmill.toml:59:8: rule "welcome".email.data: template `welcome` needs `company`
      hint: say where it is: data = { company = "data.…" }
    error: hookmill.toml:59:8: rule "welcome".email.data: template `welcome` needs `signed_up`
      hint: say where it is: data = { signed_up = "data.…" }
    error: hookmill.toml:59:10: rule "welcome".email.data.nmae: template `welcome` does not use `nmae`
      hint: did you mean `name`?
    error: hookmill.toml:121:37: rule "text".sms.body: `body` needs `code`
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
    hookmill.toml: 2 sources and 33 rules, no errors
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
    error: hookmill.toml:3:12: sources.a.secrets[0]: not the name of a secret; never write a secret into this file
      hint: put the secret into an environment variable and use its name: "env:STRIPE_WEBHOOK_SECRET"
    2 errors in the configuration
    "#);
    insta::assert_snapshot!(shown(temporary.path(), &["check", "--json"]), @r#"
    exit code 1
    --- stdout
    {"errors":[{"column":10,"file":"hookmill.toml","hint":"did you mean `stripe`?","key":"sources.a.scheme","line":2,"problem":"found \"strip\""},{"column":12,"file":"hookmill.toml","hint":"put the secret into an environment variable and use its name: \"env:STRIPE_WEBHOOK_SECRET\"","key":"sources.a.secrets[0]","line":3,"problem":"not the name of a secret; never write a secret into this file"}],"notes":[],"valid":false,"warnings":[]}
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
    error: no configuration found; write one with `hookmill init`, or pass its path with --config: cannot read the configuration nowhere.toml: No such file or directory (os error 2)
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
    error: dlq/worker/wrangler.toml:69:15: d1_databases[0].database_id: "10000000-0000-0000-0000-000000000000" here, but "00000000-0000-0000-0000-000000000000" at consumers/worker/wrangler.toml:64:15
      hint: database_id = "00000000-0000-0000-0000-000000000000"
    error: ingress/worker/wrangler.toml:14:9: queues.producers[0].queue: consumers/worker/wrangler.toml has no consumer of "hookmill-event"
      hint: did you mean `hookmill-events`?
    2 errors in the configuration
    exit code 1
    --- stdout
    {"errors":[{"column":15,"file":"dlq/worker/wrangler.toml","hint":"database_id = \"00000000-0000-0000-0000-000000000000\"","key":"d1_databases[0].database_id","line":69,"problem":"\"10000000-0000-0000-0000-000000000000\" here, but \"00000000-0000-0000-0000-000000000000\" at consumers/worker/wrangler.toml:64:15"},{"column":9,"file":"ingress/worker/wrangler.toml","hint":"did you mean `hookmill-events`?","key":"queues.producers[0].queue","line":14,"problem":"consumers/worker/wrangler.toml has no consumer of \"hookmill-event\""}],"notes":[],"valid":false,"warnings":[]}
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
    error: consumers/worker/wrangler.toml:67:22: d1_databases[0].migrations_pattern: this does not find the migrations in "sql", which hookmill.toml:111:14 names
      hint: wrangler reads one folder and its subfolders: move them below `migrations`, such as migrations/app
    error: dlq/worker/wrangler.toml:72:22: d1_databases[0].migrations_pattern: this does not find the migrations in "sql", which hookmill.toml:111:14 names
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
    error: source `stripe`: none of its secrets is set (STRIPE_WEBHOOK_SECRET, STRIPE_WEBHOOK_SECRET_NEXT)
    error: RESEND_API_KEY is not set; it must contain the key for resend
    3 errors

    exit code 0
    note: source `stripe`: STRIPE_WEBHOOK_SECRET_NEXT is not set; another secret of the source is
    hookmill.toml: 2 sources and 32 rules, no errors

    exit code 1
    error: source `clerk`: CLERK_WEBHOOK_SECRET is not a secret of this scheme: `whsec_` and base64
    error: source `stripe`: STRIPE_WEBHOOK_SECRET is set but blank
    error: RESEND_API_KEY contains a space, a quote or another character that is invalid in a key
    error: source `stripe`: STRIPE_WEBHOOK_SECRET_NEXT is set but blank
    4 errors

    exit code 0
    note: source `stripe`: STRIPE_WEBHOOK_SECRET_NEXT is not set; another secret of the source is
    note: STRIPE_WEBHOOK_SECRET probably is in quotes, which are not part of it
    hookmill.toml: 2 sources and 32 rules, no errors

    exit code 1
    note: source `stripe`: STRIPE_WEBHOOK_SECRET_NEXT is not set; another secret of the source is
    error: source `stripe`: STRIPE_WEBHOOK_SECRET has 13 bytes; a secret needs at least 16, or it can be guessed

    exit code 1
    {"errors":[{"problem":"RESEND_API_KEY is not set; it must contain the key for resend"}],"notes":[],"valid":false,"warnings":[]}
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
    error: ALERT_URL is not set; `[alerts]` names it
    error: ALERT_SECRET is not set; `[alerts]` names it
    3 errors

    exit code 1
    note: source `stripe`: STRIPE_WEBHOOK_SECRET_NEXT is not set; another secret of the source is
    error: source `clerk`: all secrets have expired (`not_after`); add the current secret
    error: ALERT_URL does not begin with https://; `[alerts]` names it
    error: ALERT_SECRET is not `whsec_` and base64; `[alerts]` names it
    3 errors
    "
    );
}

/// The columns of a table with a version.
const GUARD: &str = "_version INTEGER, _precedence INTEGER, _event_id TEXT, _deleted INTEGER";

/// The same as [`with_rules`], with another migration.
fn with_tables(rules: &str, migration: &str) -> tempfile::TempDir {
    let folder = with_rules(rules);
    std::fs::write(folder.path().join("app/1001_more.sql"), migration).unwrap();
    folder
}

/// Writes a configuration with sources of Stripe and Clerk, and tables of its own.
fn with_rules(rules: &str) -> tempfile::TempDir {
    let temporary = tempfile::tempdir().unwrap();
    let sources = ["stripe", "clerk"].map(|name| {
        format!(
            "[sources.{name}]\nscheme = \"{name}\"\nsecrets = [\"env:A\"]\npreset = \"{name}\"\n"
        )
    });
    let config = format!("{}[database]\nmigrations = \"app\"\n{rules}", sources.concat());
    std::fs::write(temporary.path().join("hookmill.toml"), config).unwrap();
    std::fs::create_dir(temporary.path().join("app")).unwrap();
    let sql = format!(
        "CREATE TABLE paid (id TEXT PRIMARY KEY, a TEXT, b TEXT, c TEXT, d TEXT, e TEXT, {GUARD}) STRICT;\n\
         CREATE TABLE lines (invoice TEXT, id TEXT, a TEXT, b TEXT, PRIMARY KEY (invoice, id)) STRICT;\n\
         CREATE TABLE months (month TEXT PRIMARY KEY, amount INTEGER) STRICT;\n\
         ALTER TABLE customers ADD COLUMN tax_exempt TEXT;\n\
         ALTER TABLE subscription_items ADD COLUMN nickname TEXT;"
    );
    std::fs::write(temporary.path().join("app/1000_own.sql"), sql).unwrap();
    temporary
}

#[test]
fn paths_and_types_that_no_sample_has_are_warnings() {
    let folder = with_rules(
        r#"
[[rules]]
name = "paid"
on = "stripe:invoice.paid"
when = { "data.object.statsu" = "paid" }
table = "paid"
key = { id = "data.object.number" }
version = { unix_seconds = "created" }
tie = { precedence = { path = "data.object.sttaus", order = ["paid"] } }
set = { a = "data.object.custmer", b = "data.object.lines.data[3].amuont", c = "customer_email", d = ["data.object.payment_intent", "data.object.metadata.mine"], e = "data.object.customer.email" }

[[rules]]
name = "lines"
on = ["stripe:invoice.paid", "stripe:invoice.finalized"]
each = "data.object.lines.data"
table = "lines"
key = { invoice = "data.object.id", id = "@.id" }
version = { unix_seconds = "created" }
set = { a = "@.quantiyt", b = "@.pricing.price_details.price" }

[[rules]]
name = "failed"
on = ["stripe:invoice.payment_fialed", "stripe:custmer.*", "clerk:*.creatd", "stripe:some.new_thing"]
table = "paid"
key = { id = "data.id" }
version = { unix_seconds = "created" }
set = { a = "a", b = "b", c = "c", d = "d", e = "e" }

[[rules]]
name = "months"
on = "stripe:invoice.paid"
handler = "stripe-revenue"
table = "months"
key = { month = "day" }
add = { amount = "amount" }

[[rules]]
name = "user"
on = "clerk:user.created"
table = "paid"
key = { id = "data.email_addresses[id = data.primary_email_adress_id].email_address" }
version = { unix_seconds = "timestamp" }
set = { a = "data.email_addresses[id = data.primary_email_address_id].emial_address", b = "data.unsafe_metadata.a", c = "data.phone_numbers[0].phone_number", d = "d", e = "e" }
"#,
    );
    insta::assert_snapshot!(shown(folder.path(), &["check"]), @r#"
    exit code 0
    --- stdout
    --- stderr
    warning: hookmill.toml:13:8: rule "paid": no sample of `invoice.paid` has `data.object.statsu`
      hint: did you mean `status`?
    warning: hookmill.toml:19:22: rule "paid".tie.precedence: no sample of `invoice.paid` has `data.object.sttaus`
      hint: did you mean `status`?
    warning: hookmill.toml:20:13: rule "paid".set.a: no sample of `invoice.paid` has `data.object.custmer`
      hint: did you mean `customer`?
    warning: hookmill.toml:20:40: rule "paid".set.b: no sample of `invoice.paid` has `data.object.lines.data[3].amuont`
      hint: did you mean `amount`?
    warning: hookmill.toml:20:80: rule "paid".set.c: no sample of `invoice.paid` has `customer_email`
      hint: did you mean `data.object.customer_email`?
    warning: hookmill.toml:20:167: rule "paid".set.e: no sample of `invoice.paid` has `data.object.customer.email`
    warning: hookmill.toml:29:13: rule "lines".set.a: no sample of `invoice.finalized`, `invoice.paid` has `@.quantiyt`
      hint: did you mean `quantity`?
    warning: hookmill.toml:32:8: rule "failed": `clerk` has no event of type `*.creatd`
      hint: did you mean `*.created`?
    warning: hookmill.toml:32:8: rule "failed": `stripe` has no event of type `custmer.*`
      hint: did you mean `customer.*`?
    warning: hookmill.toml:32:8: rule "failed": `stripe` has no event of type `invoice.payment_fialed`
      hint: did you mean `invoice.payment_failed`?
    warning: hookmill.toml:44:17: rule "months".key.month: the values of handler `stripe-revenue` have no `day`
      hint: possible here: `month`, `currency`, `amount`
    warning: hookmill.toml:51:14: rule "user".key.id: no sample of `user.created` has `data.email_addresses[id = data.primary_email_adress_id].email_address`
      hint: did you mean `primary_email_address_id`?
    warning: hookmill.toml:53:13: rule "user".set.a: no sample of `user.created` has `data.email_addresses[id = data.primary_email_address_id].emial_address`
      hint: did you mean `email_address`?
    warning: hookmill.toml:53:163: rule "user".set.d: no sample of `user.created` has `d`
    warning: hookmill.toml:53:172: rule "user".set.e: no sample of `user.created` has `e`
    note: hookmill.toml:16:9: rule "paid".table: rules write this table for events of `clerk` and `stripe`
      hint: if two of their events have the same version and the same id, the later arrival counts; if their objects are different ones, add the source to the key: { event = "source" }
    hookmill.toml: 2 sources and 36 rules, no errors, 15 warnings
    "#);
    assert_eq!(hookmill(folder.path(), &["check", "--deny-warnings"]).status.code(), Some(1));
    let found = crate::printed(folder.path(), &["check", "--json"]);
    assert_eq!((&found["valid"], found["errors"].as_array().unwrap().len()), (&true.into(), 0));
    insta::assert_json_snapshot!(found["warnings"][0], @r#"
    {
      "column": 8,
      "file": "hookmill.toml",
      "hint": "did you mean `status`?",
      "key": "rule \"paid\"",
      "line": 13,
      "problem": "no sample of `invoice.paid` has `data.object.statsu`"
    }
    "#);
    let denied = crate::printed(folder.path(), &["check", "--json", "--deny-warnings"]);
    assert_eq!(denied["valid"], false);
}

#[test]
fn a_table_without_a_view_of_its_live_rows_is_a_warning() {
    let folder = with_rules(
        r#"
[[rules]]
name = "orders"
on = "stripe:customer.subscription.*"
table = "order"
key = { id = "data.object.id" }
version = { unix_seconds = "created" }
delete = "customer.subscription.deleted"
final = true
set = { status = "data.object.status" }

[[rules]]
name = "seats"
on = "stripe:invoice.paid"
table = "seats"
key = { id = "data.object.id" }
version = { unix_seconds = "created" }
parents = { order_id = "order" }
set = { order_id = "data.object.customer" }

[[rules]]
name = "accounts"
on = "stripe:customer.deleted"
table = "accounts"
update = true
key = { customer_id = "data.object.id" }
version = { unix_seconds = "created" }
delete = "*"

[[rules]]
name = "paid"
on = "stripe:invoice.paid"
table = "paid"
key = { id = "data.object.number" }
version = { unix_seconds = "created" }
set = { a = "id", b = "id", c = "id", d = "id", e = "id" }
"#,
    );
    let mut sql = format!(
        "CREATE TABLE \"order\" (id TEXT PRIMARY KEY, status TEXT, {GUARD}) STRICT;\n\
         CREATE TABLE seats (id TEXT PRIMARY KEY, order_id TEXT, {GUARD}) STRICT;\n\
         CREATE INDEX seats_of_order ON seats (order_id);\n\
         CREATE TABLE accounts (customer_id TEXT PRIMARY KEY, plan TEXT, {GUARD}) STRICT;\n\
         -- A view of children reads the parents too.\n\
         CREATE VIEW children AS SELECT id FROM seats WHERE NOT EXISTS (\n\
             SELECT 1 FROM \"order\" AS parent WHERE parent.id = order_id AND parent._deleted = 1);\n"
    );
    let migration = folder.path().join("app/1001_orders.sql");
    std::fs::write(&migration, &sql).unwrap();
    insta::assert_snapshot!(shown(folder.path(), &["check"]), @r#"
    exit code 0
    --- stdout
    --- stderr
    warning: hookmill.toml:15:9: rule "orders".table: no view leaves out the deleted rows of `order`
      hint: applications should read a view; add to a migration: CREATE VIEW "live_order" AS SELECT "id", "status" FROM "order" WHERE _deleted = 0;
    warning: hookmill.toml:25:9: rule "seats".table: no view leaves out the deleted rows of `seats`
      hint: applications should read a view; add to a migration: CREATE VIEW live_seats AS SELECT id, order_id FROM seats WHERE _deleted = 0;
    warning: hookmill.toml:34:9: rule "accounts".table: no view leaves out the deleted rows of `accounts`
      hint: applications should read a view; add to a migration: CREATE VIEW live_accounts AS SELECT customer_id, plan FROM accounts WHERE _deleted IS NOT 1;
    hookmill.toml: 2 sources and 35 rules, no errors, 3 warnings
    "#);
    // The statements of the hints are right.
    let found = crate::printed(folder.path(), &["check", "--json"]);
    for warning in found["warnings"].as_array().unwrap() {
        let (_, view) = warning["hint"].as_str().unwrap().split_once("CREATE VIEW").unwrap();
        sql += &format!("CREATE VIEW{view}\n");
    }
    std::fs::write(&migration, &sql).unwrap();
    let denied = crate::printed(folder.path(), &["check", "--json", "--deny-warnings"]);
    assert_eq!(denied["valid"], true, "{denied}");
}

/// They pass a test with one object, and fail with two events in the wrong order.
#[test]
fn a_constraint_between_rows_is_a_warning() {
    let folder = with_tables(
        r#"
[[rules]]
name = "seats"
on = "stripe:invoice.paid"
table = "seats"
key = { id = "data.object.id" }
version = { unix_seconds = "created" }
set = { customer = "data.object.customer", number = "data.object.number" }
"#,
        &format!(
            "CREATE TABLE seats (id TEXT PRIMARY KEY, customer TEXT REFERENCES customers (id), number TEXT, {GUARD}) STRICT;\n\
         CREATE UNIQUE INDEX seats_by_number ON seats (number);\n\
         CREATE UNIQUE INDEX seats_by_customer ON seats (customer) WHERE number IS NULL;\n\
         CREATE UNIQUE INDEX customers_by_email ON customers (lower(email));\n\
         ALTER TABLE prices ADD COLUMN place TEXT AS (nickname || '!') VIRTUAL;\n\
         ALTER TABLE prices ADD COLUMN owner TEXT;\n\
         ALTER TABLE prices ADD COLUMN note TEXT;\n\
         CREATE UNIQUE INDEX prices_by_place ON prices (place);\n\
         CREATE UNIQUE INDEX prices_by_owner ON prices (owner) WHERE active = 1;\n\
         CREATE UNIQUE INDEX prices_by_note ON prices (note);\n\
         CREATE TABLE discounts (item TEXT, subscription TEXT, FOREIGN KEY (subscription, item)\n\
             REFERENCES subscription_items (subscription_id, id)) STRICT;\n\
         CREATE TABLE labels (id TEXT PRIMARY KEY, item TEXT, subscription TEXT, FOREIGN KEY (subscription, item)\n\
             REFERENCES subscription_items (subscription_id, id) ON DELETE CASCADE) STRICT;\n\
         CREATE TABLE stamps (id TEXT PRIMARY KEY, label TEXT REFERENCES labels (id)) STRICT;\n\
         CREATE TABLE plans (id TEXT PRIMARY KEY) STRICT;\n\
         ALTER TABLE products ADD COLUMN plan TEXT DEFAULT 'free' REFERENCES plans (id);"
        ),
    );
    insta::assert_snapshot!(shown(folder.path(), &["check"]), @r#"
    exit code 0
    --- stdout
    --- stderr
    warning: hookmill.toml:4:10: sources.stripe.preset: `customers` is UNIQUE in (an expression)
      hint: if such a value moves from one object to another and the second event arrives first, it is retried, and then becomes a dead letter; use an index that is not UNIQUE
    warning: hookmill.toml:4:10: sources.stripe.preset: `prices` is UNIQUE in (owner) for some rows
      hint: if such a value moves from one object to another and the second event arrives first, it is retried, and then becomes a dead letter; use an index that is not UNIQUE
    warning: hookmill.toml:4:10: sources.stripe.preset: `prices` is UNIQUE in (place)
      hint: if such a value moves from one object to another and the second event arrives first, it is retried, and then becomes a dead letter; use an index that is not UNIQUE
    warning: hookmill.toml:4:10: sources.stripe.preset: a foreign key of `discounts` refers to `subscription_items`, whose rows rules remove
      hint: an event that removes such a row is retried, and then becomes a dead letter; remove the foreign key, or add ON DELETE CASCADE
    warning: hookmill.toml:4:10: sources.stripe.preset: a foreign key of `products` refers to `plans`
      hint: an event that arrives before the row that it refers to is retried, and then becomes a dead letter; remove the foreign key
    warning: hookmill.toml:4:10: sources.stripe.preset: a foreign key of `stamps` refers to `labels`, whose rows a foreign key removes with those of `subscription_items`
      hint: an event that removes such a row is retried, and then becomes a dead letter; remove the foreign key, or add ON DELETE CASCADE
    warning: hookmill.toml:13:8: rule "seats": the sample of `invoice.paid` becomes a dead letter: refused: rule `seats`: the store refused: FOREIGN KEY constraint failed
    warning: hookmill.toml:15:9: rule "seats".table: `seats` is UNIQUE in (customer) for some rows
      hint: if such a value moves from one object to another and the second event arrives first, it is retried, and then becomes a dead letter; use an index that is not UNIQUE
    warning: hookmill.toml:15:9: rule "seats".table: `seats` is UNIQUE in (number)
      hint: if such a value moves from one object to another and the second event arrives first, it is retried, and then becomes a dead letter; use an index that is not UNIQUE
    warning: hookmill.toml:15:9: rule "seats".table: a foreign key of `seats` refers to `customers`
      hint: an event that arrives before the row that it refers to is retried, and then becomes a dead letter; remove the foreign key
    hookmill.toml: 2 sources and 32 rules, no errors, 10 warnings
    "#);
}

#[test]
fn rules_that_write_one_row_of_one_event_are_a_warning() {
    let rule = |name: &str, when: &str, value: &str| {
        format!(
            r#"
[[rules]]
name = "{name}"
on = "stripe:invoice.paid"
{when}
table = "seats"
key = {{ id = "data.object.id" }}
version = {{ unix_seconds = "created" }}
set = {{ number = {value} }}
"#
        )
    };
    let rules = [
        rule("first", "when = { livemode = true }", "\"data.object.number\""),
        rule("second", "when = { livemode = { not = true } }", "\"data.object.receipt_number\""),
        rule("third", "", "\"data.object.number\""),
    ];
    let table = format!("CREATE TABLE seats (id TEXT PRIMARY KEY, number TEXT, {GUARD}) STRICT;");
    let folder = with_tables(&rules.concat(), &table);
    insta::assert_snapshot!(shown(folder.path(), &["check"]));
}

#[test]
fn triggers_conditions_on_counters_and_local_versions_are_pointed_out() {
    let folder = with_tables(
        r#"
[[rules]]
name = "seats"
on = "clerk:session.created"
table = "seats"
key = { id = "data.user_id" }
version = { time = "data.client_id", format = "%F %T", zone = "Europe/Berlin" }

[[rules]]
name = "totals"
on = "stripe:invoice.paid"
table = "totals"
key = { id = "data.object.customer" }
add = { total = { integer = "data.object.total" } }
"#,
        &format!(
            "CREATE TABLE seats (id TEXT PRIMARY KEY, {GUARD}) STRICT;\n\
             CREATE TABLE totals (id TEXT PRIMARY KEY, total INTEGER CHECK (total >= 0)) STRICT;\n\
             CREATE TABLE history (id TEXT) STRICT;\n\
             CREATE TRIGGER noted AFTER INSERT ON seats BEGIN INSERT INTO history VALUES (new.id); END;\n\
             CREATE TRIGGER cleaned AFTER UPDATE ON seats WHEN new._deleted BEGIN DELETE FROM seats WHERE id = new.id; END;\n\
             CREATE TRIGGER refused BEFORE DELETE ON seats BEGIN SELECT raise(ignore); END;\n\
             CREATE TRIGGER copied AFTER INSERT ON history BEGIN UPDATE OR IGNORE seats SET _deleted = 0 WHERE id = new.id; END;\n\
             CREATE TRIGGER lowered AFTER INSERT ON users BEGIN UPDATE users SET email = lower(new.email); END;"
        ),
    );
    insta::assert_snapshot!(shown(folder.path(), &["check"]));
}

#[test]
fn a_column_that_a_deletion_may_lack_is_a_warning() {
    let rule = r#"
[sources.shop]
scheme = "token"
secrets = ["env:SHOP_TOKEN"]
signature = { header = "X-Token" }
event = { id = "id", type = "type" }

[[rules]]
name = "orders"
on = "shop:order.*"
table = "orders"
key = { id = "order.id" }
version = "order.version"
set = { state = "order.state", note = "order.note", source = { value = "shop" } }
delete = "order.deleted"
"#;
    let table = format!(
        "CREATE TABLE orders (id TEXT PRIMARY KEY, state TEXT NOT NULL, note TEXT, source TEXT NOT NULL, {GUARD}) STRICT;\n\
         CREATE VIEW live_orders AS SELECT id, state FROM orders WHERE _deleted = 0;"
    );
    let folder = with_tables(rule, &table);
    insta::assert_snapshot!(shown(folder.path(), &["check"]), @r#"
    exit code 0
    --- stdout
    --- stderr
    warning: hookmill.toml:24:9: rule "orders".set.state: the column `state` is NOT NULL, and a deletion may lack its value
      hint: such an event becomes a dead letter; allow NULL in the column, or add a test with an event that deletes
    hookmill.toml: 3 sources and 32 rules, no errors, 1 warning
    "#);
    // Known from a test, the deletion has what the column needs.
    let file = folder.path().join("hookmill.toml");
    let config = std::fs::read_to_string(&file).unwrap();
    let test = "[[tests]]\ngiven = { source = \"shop\", file = \"gone.json\" }\nexpect = { table = \"live_orders\", rows = 0 }\n";
    std::fs::write(&file, config + test).unwrap();
    let gone =
        r#"{"id":"e1","type":"order.deleted","order":{"id":"o1","version":1,"state":"gone"}}"#;
    std::fs::write(folder.path().join("gone.json"), gone).unwrap();
    let found = crate::printed(folder.path(), &["check", "--json"]);
    assert_eq!(found["warnings"], serde_json::json!([]));
    // A constraint that is not NOT NULL.
    for column in [
        "state TEXT CHECK (state IS NOT NULL)",
        "state TEXT, upper TEXT NOT NULL AS (upper(state))",
    ] {
        let folder = with_tables(rule, &table.replace("state TEXT NOT NULL", column));
        let found = crate::printed(folder.path(), &["check", "--json"]);
        let problem = found["warnings"][0]["problem"].as_str().unwrap();
        assert!(
            problem.starts_with("`orders` refuses a deletion that has only the key:"),
            "{found}"
        );
    }
}

#[test]
fn a_column_that_respells_texts_is_a_warning() {
    let folder = with_tables(
        r#"
[[rules]]
name = "untidy"
on = "stripe:invoice.paid"
table = "untidy"
key = { id = "data.object.id" }
version = { unix_seconds = "created" }
set = { number = "data.object.number", whole = { json = "data.object" }, live = "livemode", total = { integer = "data.object.total" } }
"#,
        &format!(
            "CREATE TABLE untidy (id VARCHAR(255) PRIMARY KEY, number STRING, whole JSON, live BOOLEAN, total NUMERIC, {GUARD});"
        ),
    );
    insta::assert_snapshot!(shown(folder.path(), &["check"]));
}

#[test]
fn conditions_and_types_that_no_event_meets_are_warnings() {
    let folder = with_tables(
        r#"
[[rules]]
name = "sessions"
on = "clerk:session.*"
when = { "data.status" = 1, "data.expire_at" = "0", "data.user_id" = { exists = true }, object = ["event"] }
table = "paid"
key = { id = "data.id" }
version = { unix_milliseconds = "timestamp" }
tie = { precedence = { type = ["*.created", "*.endd", "*"] } }
delete = ["session.removd", "session.revoked"]
set = { a = "type", b = "type", c = "type", d = "type", e = "type" }
"#,
        "CREATE VIEW live_paid AS SELECT id, a FROM paid WHERE _deleted = 0;",
    );
    insta::assert_snapshot!(shown(folder.path(), &["check"]), @r#"
    exit code 0
    --- stdout
    --- stderr
    warning: hookmill.toml:13:8: rule "sessions": the value at `data.expire_at` is a number in every sample, and a condition compares it with a text
      hint: it never equals; write the value without quotes
    warning: hookmill.toml:13:8: rule "sessions": the value at `data.status` is a text in every sample, and a condition compares it with a number
      hint: it never equals; write the value in quotes
    warning: hookmill.toml:19:22: rule "sessions".tie.precedence: `clerk` has no event of type `*.endd`
      hint: did you mean `*.ended`?
    warning: hookmill.toml:20:11: rule "sessions".delete[0]: `clerk` has no event of type `session.removd`
      hint: did you mean `session.removed`?
    hookmill.toml: 2 sources and 32 rules, no errors, 4 warnings
    "#);
}

#[test]
fn a_rule_that_makes_a_sample_a_dead_letter_is_a_warning() {
    let folder = with_tables(
        r#"
[[rules]]
extend = "stripe-customers"
set = { signup_day = { rfc3339 = "data.object.created" } }

[[rules]]
name = "failures"
on = "stripe:invoice.payment_failed"
table = "failures"
key = { id = "data.object.id" }
version = { rfc3339 = "created" }
set = { at = { unix_seconds = "created" } }

[[rules]]
name = "tenants"
on = "stripe:customer.created"
table = "failures"
key = { id = "data.object.metadata.tenant" }
version = { unix_seconds = "created" }
set = { at = { unix_seconds = "created" } }
"#,
        &format!(
            "ALTER TABLE customers ADD COLUMN signup_day INTEGER;
         CREATE TABLE failures (id TEXT PRIMARY KEY, at INTEGER, {GUARD}) STRICT;"
        ),
    );
    // Events without `metadata.tenant` become dead letters too, but only the user knows which ones have it.
    insta::assert_snapshot!(shown(folder.path(), &["check"]), @r#"
    exit code 0
    --- stdout
    --- stderr
    warning: hookmill.toml:14:22: rules[0].set.signup_day: the sample of `customer.created` becomes a dead letter: unreadable: rule `stripe-customers`: the value at `data.object.created` is not a valid RFC 3339 time
    warning: hookmill.toml:17:8: rule "failures": the sample of `invoice.payment_failed` becomes a dead letter: unreadable: rule `failures`: the value at `created` is not a valid RFC 3339 time
    hookmill.toml: 2 sources and 33 rules, no errors, 2 warnings
    "#);
}

#[test]
fn a_rule_that_replaces_a_presets_rule_and_drops_something_is_a_warning() {
    let folder = with_rules(
        r#"
[[rules]]
name = "stripe-customers"
on = ["stripe:customer.created"]
table = "customers"
key = { id = "data.object.id" }
version = { unix_seconds = "created" }
set = { email = "data.object.email" }
"#,
    );
    insta::assert_snapshot!(shown(folder.path(), &["check"]), @r#"
    exit code 0
    --- stdout
    --- stderr
    warning: hookmill.toml:13:8: rule "stripe-customers".name: it replaces a preset's rule, but does not set `account`, `balance`, `created`, `currency`, `delinquent`, `livemode`, `metadata`, `name`, `phone`, and does not take the events `customer.updated`
      hint: add them, or add your columns to the preset's rule: extend = "stripe-customers"
    hookmill.toml: 2 sources and 31 rules, no errors, 1 warning
    "#);
}

#[test]
fn columns_are_added_to_a_presets_rule() {
    let good = r#"
[[rules]]
extend = "stripe-customers"
set = { tax_exempt = "data.object.tax_exempt" }

[[rules]]
extend = ["stripe-subscription-items"]
set = { nickname = "@.price.nickname" }

[[tests]]
name = "it is set"
given = { source = "stripe", file = "created.json" }
expect = { table = "customers", row = { id = "cus_1", email = "a@example.com", tax_exempt = "reverse" } }
"#;
    let folder = with_rules(good);
    let body = r#"{ "id": "evt_1", "type": "customer.created", "created": 1767225600,
        "data": { "object": { "id": "cus_1", "email": "a@example.com", "tax_exempt": "reverse" } } }"#;
    std::fs::write(folder.path().join("created.json"), body).unwrap();
    insta::assert_snapshot!(shown(folder.path(), &["check"]), @"
    exit code 0
    --- stdout
    --- stderr
    hookmill.toml: 2 sources and 31 rules, no errors; 1 test passed
    ");
    let bad = good
        .replace("tax_exempt = \"data.object.tax_exempt\"", "tax_exempt = \"data.object.tax_exmept\", email = \"data.object.email\", phnoe = \"@.a\", nothing = \"data.object.id\"")
        .replace("[\"stripe-subscription-items\"]", "[\"stripe-subscription-item\", \"clerk-users\"]\nname = \"a\"");
    let own = "\n[[rules]]\nextend = \"paid\"\nset = {}\n\n[[rules]]\nname = \"paid\"\non = \"stripe:invoice.paid\"\n\
               table = \"paid\"\nkey = { id = \"data.object.id\" }\nversion = { unix_seconds = \"created\" }\n";
    let folder = with_rules(&format!("{bad}{own}"));
    insta::assert_snapshot!(shown(folder.path(), &["check"]), @r#"
    exit code 1
    --- stdout
    --- stderr
    error: hookmill.toml:14:48: rules[0].set.email: rule `stripe-customers` sets `email` already
      hint: choose another column; to change this one, write a rule with that name, which replaces it
    error: hookmill.toml:14:85: rules[0].set.phnoe: rule `stripe-customers` is about no list
      hint: a path without `@` selects from the body
    error: hookmill.toml:14:92: rules[0].set.nothing: table `customers` has no column `nothing`
      hint: add it in a migration: ALTER TABLE customers ADD COLUMN nothing …
    error: hookmill.toml:17:11: rule "a".extend[0]: no preset has a rule `stripe-subscription-item`
      hint: did you mean `stripe-subscription-items`?
    error: hookmill.toml:18:1: rule "a": unknown key `name`
      hint: possible here: `extend`, `set`
    error: hookmill.toml:19:20: rule "a".set.nickname: rule `clerk-users` is about no list
      hint: a path without `@` selects from the body
    error: hookmill.toml:27:10: rules[2].extend: this file has a rule `paid`
      hint: add the columns to that rule
    7 errors in the configuration
    "#);
    // A typo is a warning, and the test fails.
    let typo = good.replace("\"data.object.tax_exempt\"", "\"data.object.tax_exmept\"");
    let folder = with_rules(&typo);
    std::fs::write(folder.path().join("created.json"), body).unwrap();
    insta::assert_snapshot!(shown(folder.path(), &["check"]), @r#"
    exit code 1
    --- stdout
    --- stderr
    warning: hookmill.toml:14:22: rules[0].set.tax_exempt: no sample of `customer.created`, `customer.updated` has `data.object.tax_exmept`
      hint: did you mean `tax_exempt`?
    error: hookmill.toml:23:10: test "it is set".expect: `customers` is not as expected (-: expected, +: found)
        email = "a@example.com"
        id = "cus_1"
      - tax_exempt = "reverse"
      + tax_exempt = null
    1 error in the configuration
    "#);
    // The rule for deletions sets fewer columns.
    let one = "[[rules]]\nextend = \"clerk-organization-memberships\"\nset = { note = \"data.private_metadata.note\" }\n";
    let folder = with_rules(one);
    std::fs::write(
        folder.path().join("app/1001_note.sql"),
        "ALTER TABLE organization_memberships ADD COLUMN note TEXT;",
    )
    .unwrap();
    insta::assert_snapshot!(shown(folder.path(), &["check"]), @"
    exit code 0
    --- stdout
    --- stderr
    hookmill.toml: 2 sources and 31 rules, no errors
    ");
    let absent = good.replace("tax_exempt = \"data", "tax_exmept = \"data");
    let folder = with_rules(&absent);
    insta::assert_snapshot!(shown(folder.path(), &["check"]), @"
    exit code 1
    --- stdout
    --- stderr
    error: hookmill.toml:14:9: rules[0].set.tax_exmept: table `customers` has no column `tax_exmept`
      hint: did you mean `tax_exempt`?
    1 error in the configuration
    ");
}

#[test]
fn an_error_comes_without_its_consequences() {
    let folder = with_rules(
        r#"
[[rules]]
name = "misspelled"
on = "stripe:invoice.paid"
table = "paid"
key = { id = "data.object.id" }
verison = { unix_seconds = "created" }
set = { a = "data.object.customer" }

[[rules]]
name = "unreadable"
on = "stripe:invoice.paid"
table = "lines"
key = "data.object.id"
version = { unix_seconds = "created" }

[[rules]]
name = "independent"
on = "stripe:invoice.paid"
table = "paid"
key = { id = "data.object.id" }
version = { unix_seconds = "created" }
set = { z = "data.object.customer", b = "data." }
"#,
    );
    insta::assert_snapshot!(shown(folder.path(), &["check"]), @r#"
    exit code 1
    --- stdout
    --- stderr
    error: hookmill.toml:17:1: rule "misspelled": unknown key `verison`
      hint: did you mean `version`?
    error: hookmill.toml:24:7: rule "unreadable".key: found a string
      hint: expected columns and paths of their values: { id = "data.object.id" }
    error: hookmill.toml:33:9: rule "independent".set.z: table `paid` has no column `z`
      hint: did you mean `a`?
    error: hookmill.toml:33:41: rule "independent".set.b: found "data.": expected a name at character 6
      hint: expected a path such as "data.object.id"
    4 errors in the configuration
    "#);
    // Without the user's tables, nothing can be said about the rules.
    std::fs::write(folder.path().join("app/1000_own.sql"), "CREAT TABLE paid (id TEXT)").unwrap();
    insta::assert_snapshot!(shown(folder.path(), &["check"]), @r#"
    exit code 1
    --- stdout
    --- stderr
    error: hookmill.toml:10:14: database.migrations: migration 1000_own.sql failed: near "CREAT": syntax error in CREAT TABLE paid (id TEXT) at offset 0
    error: hookmill.toml:17:1: rule "misspelled": unknown key `verison`
      hint: did you mean `version`?
    error: hookmill.toml:24:7: rule "unreadable".key: found a string
      hint: expected columns and paths of their values: { id = "data.object.id" }
    error: hookmill.toml:33:41: rule "independent".set.b: found "data.": expected a name at character 6
      hint: expected a path such as "data.object.id"
    4 errors in the configuration
    "#);
    let path = folder.path().join("hookmill.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replacen("[\"env:A\"]", "[\"env:A\"", 1)).unwrap();
    insta::assert_snapshot!(shown(folder.path(), &["check"]), @r#"
    exit code 1
    --- stdout
    --- stderr
    error: hookmill.toml:4:1: missing comma between array elements, expected `,`
      3 | secrets = ["env:A"
      4 | preset = "stripe"
        | ^
    1 error in the configuration
    "#);
}

#[test]
fn a_note_says_which_rules_an_import_does_not_fill() {
    let rule = |name: &str, on: &str| {
        format!(
            "[[rules]]\nname = \"{name}\"\non = {on}\ntable = \"{name}\"\nkey = {{ id = \"data.object.id\" }}\nversion = {{ unix_seconds = \"created\" }}\n"
        )
    };
    let config = "[sources.stripe]\nscheme = \"stripe\"\nsecrets = [\"env:A\"]\napi = { key = \"env:B\" }\n[database]\nmigrations = \"app\"\n".to_owned()
        + &rule("paid", "\"stripe:invoice.paid\"")
        + &rule("customers_too", "\"stripe:customer.*\"")
        + &rule("subscribed", "[\"stripe:customer.subscription.created\", \"stripe:customer.subscription.updated\"]");
    let table = |name: &str| {
        format!(
            "CREATE TABLE {name} (id TEXT PRIMARY KEY, _version INTEGER NOT NULL, _precedence INTEGER NOT NULL, _event_id TEXT NOT NULL, _deleted INTEGER NOT NULL) STRICT;\n"
        )
    };
    let tables = ["paid", "customers_too", "subscribed"].map(table).concat();
    let folder = with_files(&config, &tables, &[]);
    let shown = shown(folder.path(), &["check"]);
    let notes: Vec<_> = shown.lines().filter(|line| line.contains("import")).collect();
    insta::assert_snapshot!(notes.join("\n"), @r#"
note: hookmill.toml:10:9: rule "paid".table: `hookmill import stripe` fills this table without the objects of `invoices`
  hint: an import shows each object as `invoice.updated`; if the rule should see it, add "stripe:invoice.updated" to `on`
"#);
}

#[test]
fn a_note_says_what_a_version_costs_that_the_body_lacks() {
    let folder = tempfile::tempdir().unwrap();
    let write = |file: &str, text: &str| std::fs::write(folder.path().join(file), text).unwrap();
    std::fs::create_dir(folder.path().join("m")).unwrap();
    let rule = |name: &str, version: &str| {
        format!(
            "[[rules]]\nname = \"{name}\"\non = \"shop:{name}\"\ntable = \"{name}\"\nkey = {{ id = \"id\" }}\nversion = {version}\n"
        )
    };
    let text = "[sources.shop]\nscheme = \"token\"\nsecrets = [\"env:SHOP\"]\nsignature = { header = \"X-Token\" }\nevent = { id = \"id\", type = \"type\" }\nkeep_headers = [\"X-Sent-At\"]\n[database]\nmigrations = \"m\"\n".to_owned()
        + &rule("arrived", "{ event = \"received_at\" }")
        + &rule("sent", "{ rfc3339 = [\"at\", \"header:X-Sent-At\"] }");
    write("hookmill.toml", &text);
    let table = |name: &str| {
        format!(
            "CREATE TABLE {name} (id TEXT PRIMARY KEY, _version INTEGER NOT NULL, _precedence INTEGER NOT NULL, _event_id TEXT NOT NULL, _deleted INTEGER NOT NULL) STRICT;\n"
        )
    };
    write("m/1000_app.sql", &(table("arrived") + &table("sent")));
    insta::assert_snapshot!(shown(folder.path(), &["check", "--deny-warnings"]), @r#"
    exit code 0
    --- stdout
    --- stderr
    note: hookmill.toml:14:11: rule "arrived".version: the order of arrival is not the order of events
      hint: a late retry of the provider overwrites newer rows; if the provider sends a time in a header, use it: version = { rfc3339 = "header:X-Sent-At" }
    note: hookmill.toml:20:11: rule "sent".version: the version is in a header, which signatures rarely cover
      hint: with another header, a captured request can overwrite newer rows; if the body has a version, use it alone
    hookmill.toml: 1 source and 2 rules, no errors
    "#);
    let found = crate::printed(folder.path(), &["check", "--json"]);
    assert_eq!(found["notes"][0]["line"], 14, "{found}");
    // A header that no source keeps.
    let text = std::fs::read_to_string(folder.path().join("hookmill.toml")).unwrap();
    write("hookmill.toml", &text.replace("keep_headers = [\"X-Sent-At\"]", ""));
    insta::assert_snapshot!(shown(folder.path(), &["check"]), @r#"
    exit code 1
    --- stdout
    --- stderr
    error: hookmill.toml:20:11: rule "sent".version: no source of this rule keeps the header "x-sent-at"
      hint: add to [sources.shop]: keep_headers = ["x-sent-at"]
    1 error in the configuration
    "#);
    // A misspelled one.
    write("hookmill.toml", &text.replace("\"header:X-Sent-At\"", "\"header:X-Send-At\""));
    insta::assert_snapshot!(shown(folder.path(), &["check"]), @r#"
    exit code 1
    --- stdout
    --- stderr
    error: hookmill.toml:20:11: rule "sent".version: no source of this rule keeps the header "x-send-at"
      hint: did you mean `header:x-sent-at`?
    1 error in the configuration
    "#);
}

/// A test may leave out members, so only a path that is like another is a warning.
#[test]
fn a_path_that_no_test_has_is_a_warning_if_it_is_like_another() {
    let folder = tempfile::tempdir().unwrap();
    let write = |file: &str, text: &str| std::fs::write(folder.path().join(file), text).unwrap();
    std::fs::create_dir(folder.path().join("m")).unwrap();
    let config = r#"
[sources.shop]
scheme = "token"
secrets = ["env:SHOP"]
signature = { header = "X-Token" }
event = { id = "id", type = "type" }

[sources.stripe]
scheme = "stripe"
secrets = ["env:A"]
preset = "stripe"

[database]
migrations = "m"

[[rules]]
name = "orders"
on = "shop:order.*"
when = { "order.state" = "1" }
table = "orders"
key = { id = "order.id" }
version = "order.version"
set = { note = "order.note", state = "order.stat" }

[[rules]]
name = "lines"
on = "shop:order.*"
each = "order.lines"
more = "order.lines_continue"
table = "lines"
key = { order_id = "order.id", id = "@.id" }
version = "order.version"

[[rules]]
name = "returns"
on = "shop:return.made"
table = "returns"
key = { id = "return.id" }
version = "return.version"

# Of the test alone: no sample has it.
[[rules]]
extend = "stripe-customers"
set = { surname = "data.object.surname" }

[[tests]]
given = [{ source = "shop", file = "order.json" }, { source = "stripe", file = "customer.json" }]
expect = { table = "orders", rows = 0 }
"#;
    write("hookmill.toml", config);
    write(
        "order.json",
        r#"{"id":"e1","type":"order.made","order":{"id":"o1","version":1,"state":1,"lines":[]}}"#,
    );
    write(
        "customer.json",
        r#"{"id":"e2","type":"customer.updated","created":1,"data":{"object":{"id":"cus_1","surname":"Lovelace"}}}"#,
    );
    let table = |name: &str| {
        format!(
            "CREATE TABLE {name} (id TEXT PRIMARY KEY, note TEXT, state TEXT, {GUARD}) STRICT;\n"
        )
    };
    let own = "ALTER TABLE customers ADD COLUMN surname TEXT;\n\
        CREATE TABLE lines (order_id TEXT, id TEXT, _version INTEGER, _precedence INTEGER, _event_id TEXT, PRIMARY KEY (order_id, id)) STRICT;\n";
    write("m/1000_app.sql", &(table("orders") + &table("returns") + own));
    insta::assert_snapshot!(shown(folder.path(), &["check"]), @r#"
    exit code 0
    --- stdout
    --- stderr
    warning: hookmill.toml:17:8: rule "orders": the value at `order.state` is a number in every test, and a condition compares it with a text
      hint: it never equals; write the value without quotes
    warning: hookmill.toml:23:38: rule "orders".set.state: no test of `order.*` has `order.stat`
      hint: did you mean `state`?
    warning: hookmill.toml:26:8: rule "lines": no test has the path of `more`, `order.lines_continue`
      hint: without it, every list counts as complete, and rows that it lacks are removed; add a test with an incomplete list
    hookmill.toml: 2 sources and 24 rules, no errors, 3 warnings; 1 test passed
    "#);
}

#[test]
fn events_that_are_not_all_known_get_few_warnings() {
    let folder = with_rules(
        r#"
[sources.twilio]
scheme = "twilio"
secrets = ["env:A"]
public_url = "https://hooks.example.com/webhooks/twilio"

[sources.github]
scheme = "github"
secrets = ["env:A"]

[sources.any]
scheme = "svix"
secrets = ["env:A"]

[sources.sendgrid]
scheme = "sendgrid"
secrets = ["env:A"]

# A form lacks its blank fields.
[[rules]]
name = "texts"
on = "twilio:message.received"
table = "paid"
key = { id = "MessageSid" }
version = { unix_seconds = "created" }
set = { a = "MediaUrl7", b = "Bdoy", c = "ReferralHeadline", d = "From", e = "To" }

# GitHub has more types than samples; only a typing error is noticed.
[[rules]]
name = "issues"
on = ["github:issues.transferred", "github:pull_request.opend", "github:issues.opened"]
table = "paid"
key = { id = "issue.node_id" }
version = { rfc3339 = "issue.updated_at" }
set = { a = "issue.titel", b = "issue.state", c = "action", d = "issue.user.login", e = "repository.name" }

# This scheme is that of many providers.
[[rules]]
name = "anything"
on = "any:order.creatd"
table = "paid"
key = { id = "order.id" }
version = { unix_seconds = "at" }
set = { a = "a", b = "b", c = "c", d = "d", e = "e" }

# Its events have members of the sender's own.
[[rules]]
name = "bounces"
on = ["sendgrid:bounce", "sendgrid:bonuce"]
table = "paid"
key = { id = "sg_event_id" }
version = { unix_seconds = "timestamp" }
set = { a = "customer", b = "email", c = "reason", d = "status", e = "ip" }
"#,
    );
    insta::assert_snapshot!(shown(folder.path(), &["check"]), @r#"
    exit code 0
    --- stdout
    --- stderr
    warning: hookmill.toml:36:30: rule "texts".set.b: no sample of `message.received` has `Bdoy`
      hint: did you mean `Body`?
    warning: hookmill.toml:40:8: rule "issues": `github` has no event of type `pull_request.opend`
      hint: did you mean `pull_request.opened`?
    warning: hookmill.toml:45:13: rule "issues".set.a: no sample of `issues.opened` has `issue.titel`
      hint: did you mean `title`?
    warning: hookmill.toml:58:8: rule "bounces": `sendgrid` has no event of type `bonuce`
      hint: did you mean `bounce`?
    note: hookmill.toml:33:9: rule "texts".table: rules write this table for events of `any` and `github` and `sendgrid` and `twilio`
      hint: if two of their events have the same version and the same id, the later arrival counts; if their objects are different ones, add the source to the key: { event = "source" }
    hookmill.toml: 6 sources and 35 rules, no errors, 4 warnings
    "#);
}
