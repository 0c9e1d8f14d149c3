//! The command line, as a person meets it: what is printed, where, and the exit code.

// Outside #[test] functions, clippy does not know that this is a test.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read};
use std::net::SocketAddr;
use std::ops::Range;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};

use hookmill_tests::http::{exchange, request};
use hookmill_tests::native::binary;
use hookmill_tests::{eventually, folder};
use serde_json::{Value, json};

/// `hookmill` in a folder, with nothing in its environment that it might listen to.
fn command(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.args(arguments).current_dir(folder).stdin(Stdio::null());
    for name in
        ["CARGO", "STRIPE_WEBHOOK_SECRET", "CLERK_WEBHOOK_SECRET", "HOOKMILL_URL", "HOOKMILL_TOKEN"]
    {
        command.env_remove(name);
    }
    command
}

/// Runs `hookmill` in a folder, to its end.
fn hookmill(folder: &Path, arguments: &[&str]) -> Output {
    command(folder, arguments).output().unwrap()
}

/// What it prints, which is JSON.
fn printed(folder: &Path, arguments: &[&str]) -> Value {
    let output = hookmill(folder, arguments);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
}

/// Exit code, standard output and standard error, the folder's path taken out.
fn shown(folder: &Path, arguments: &[&str]) -> String {
    let output = hookmill(folder, arguments);
    let text = |bytes: &[u8]| {
        String::from_utf8_lossy(bytes).replace(&folder.display().to_string(), "[folder]")
    };
    format!(
        "exit code {}\n--- stdout\n{}--- stderr\n{}",
        output.status.code().unwrap(),
        text(&output.stdout),
        text(&output.stderr)
    )
}

/// A folder with the example configuration.
fn with_example() -> tempfile::TempDir {
    let root = folder().parent().unwrap();
    let temporary = tempfile::tempdir().unwrap();
    std::fs::create_dir(temporary.path().join("templates")).unwrap();
    for file in ["hookmill.toml", "templates/welcome.html"] {
        std::fs::copy(root.join(file), temporary.path().join(file)).unwrap();
    }
    temporary
}

/// A folder with the example configuration, and with what of this repository is deployed.
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

/// Replaces something in a file of a folder, where it is first.
fn replace(folder: &Path, file: &str, from: &str, to: &str) {
    let path = folder.join(file);
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{file} has {from:?}");
    std::fs::write(&path, text.replacen(from, to, 1)).unwrap();
}

/// `hookmill dev`, until it is dropped.
struct Dev {
    child: Child,
    address: SocketAddr,
}

impl Dev {
    fn start(folder: &Path) -> Self {
        Self::start_at(folder, "127.0.0.1:0")
    }

    fn start_at(folder: &Path, listen: &str) -> Self {
        // What an earlier process wrote here must not be taken for this one's.
        let _ = std::fs::remove_file(folder.join(".hookmill/listening"));
        let child = Command::new(binary())
            .args(["dev", "--listen", listen])
            .current_dir(folder)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let listening = folder.join(".hookmill/listening");
        let address = eventually("dev listens", || {
            let address = std::fs::read_to_string(&listening).ok()?;
            address.parse().ok()
        });
        Self { child, address }
    }

    /// Where its admin API is, and a token for that, as the environment says them.
    fn remote(&self, folder: &Path, role: &str) -> [(&'static str, String); 2] {
        let token = hookmill(folder, &["token", "create", role, "--role", role]).stdout;
        let token = String::from_utf8(token).unwrap().trim().to_owned();
        [("HOOKMILL_URL", format!("http://{}", self.address)), ("HOOKMILL_TOKEN", token)]
    }

    /// Tells it to stop, and waits until it has.
    fn stop(&mut self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn help_lists_the_commands() {
    insta::assert_snapshot!(shown(folder(), &["--help"]), @"
    exit code 0
    --- stdout
    Takes webhooks in, and makes each one take effect once.

    Exit codes: 0 done, 1 failed, 2 the command line was not understood.

    Usage: hookmill <COMMAND>

    Commands:
      init          Write hookmill.toml, .env.example and the wrangler.toml of the Workers for these providers, ready for `check`
      dev           Run the whole pipeline for development, with development secrets where none are set
      serve         Run the whole pipeline on this machine, with secrets from the environment
      check         Check a configuration: its text, its rules against the schema, its presets, the wrangler.toml of the Workers beside it; and run its tests
      schema        Print the JSON Schema of hookmill.toml, by which an editor completes and checks it
      send          Sign a realistic event and post it, as a provider would
      verify        Verify a captured request, and say what is wrong with it
      explain       Say what rules make of an event: which are carried out and why others are not, with what SQL, and what becomes of which rows
      events        Events: list the latest, or tell the whole story of one
      tail          Print events as they take effect, fail, or are refused at the door, until Ctrl-C
      email         Emails: preview a template, list the outbox, send again, and who is not written to
      rejections    List the requests that were refused: how many in the last 24 hours, and the last few of each kind
      dead-letters  Dead letters: list, show, replay or discard
      replays       Replays: plan, run, watch, pause, resume, cancel
      reprocess     Plan to carry out rules again for events that took effect; `hookmill replays run` carries it out
      stats         Show how it is doing: events a minute, lag, dead letters, the outbox, rejections
      token         Tokens for the admin API: create, list, revoke
      migrate       Apply the migrations that the database lacks
      backup        Copy the data folder into a new folder; what runs on it goes on
      restore       Make a data folder from a backup
      help          Print this message or the help of the given subcommand(s)

    Options:
      -h, --help
              Print help (see a summary with '-h')

      -V, --version
              Print version
    --- stderr
    ");
    assert_eq!(hookmill(folder(), &["nonsense"]).status.code(), Some(2));
}

#[test]
fn the_schema_of_the_configuration_is_printed() {
    let output = hookmill(folder(), &["schema"]);
    let schema = folder().parent().unwrap().join("docs/hookmill.schema.json");
    assert_eq!(output.stdout, std::fs::read(schema).unwrap());
}

#[test]
fn the_example_configuration_is_valid() {
    let example = with_example();
    insta::assert_snapshot!(shown(example.path(), &["check"]), @"
    exit code 0
    --- stdout
    --- stderr
    hookmill.toml: 2 sources and 18 rules, no errors
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
    // What is commented out is TOML; what explains is a sentence.
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
    hookmill.toml: 2 sources and 18 rules, no errors
    ");
}

/// The code block of README.md that begins with this line.
fn readme_block(first: &str) -> String {
    let readme = std::fs::read_to_string(folder().parent().unwrap().join("README.md")).unwrap();
    let start = readme.find(&format!("\n{first}\n")).unwrap() + 1;
    readme[start..].split("```").next().unwrap().to_owned()
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
        let (config, errors) = hookmill_core::config::parse("docs/providers.md", &block);
        assert!(errors.is_empty(), "{block}\n{}", errors[0]);
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
    // All of them together, with the sources that they are about.
    let mut blocks = toml_blocks("email.md");
    assert_eq!(blocks.len(), 7);
    // Emails are sent in one way or the other.
    let smtp = blocks.iter().position(|block| block.contains("provider = \"smtp\"")).unwrap();
    let smtp = blocks.remove(smtp);
    let (smtp, errors) = hookmill_core::config::parse(
        "docs/email.md",
        &format!("[sources.a]\nscheme = \"svix\"\nsecrets = [\"env:A\"]\n{smtp}"),
    );
    assert!(errors.is_empty(), "{}", errors[0]);
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
    hookmill.toml: 6 sources and 28 rules, no errors
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
        // What the example says already is said anew.
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

/// Writes the configuration that docs/configuration.md has in pieces, with what is beside it.
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
fn the_tests_in_the_document_pass_and_those_that_fail_say_what_was_found() {
    let example = with_example();
    let path = example.path().join("hookmill.toml");
    let config = documented(example.path());
    insta::assert_snapshot!(shown(example.path(), &["check"]), @"
    exit code 0
    --- stdout
    --- stderr
    hookmill.toml: 4 sources and 29 rules, no errors; 2 tests passed
    ");
    let wrong = config
        .replace("email = \"ada@example.com\", banned = false", "email = \"bob@example.com\", banned = true")
        .replace("to = \"ada@example.com\" } },\n]", "to = \"bob@example.com\" } },\n    { table = \"users\", rows = 2 },\n    { table = \"usrs\", rows = 2 },\n    { outcome = \"recorded\" },\n    { sms = { to = \"+1\" } },\n    \"nothing\",\n]");
    // Where in the file they stand says nothing here.
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
    hookmill.toml:307:5: tests[0].expect[2]: who signs up is a user, and welcome: `users` has 1 row, and not 2
        _deleted = 0
        _event_id = "test_0"
        _precedence = 0
        _version = 1767225600000
        banned = 0
        email = "ada@example.com"
        first_name = "Ada"
        id = "user_1"
        updated_at = 1767225600000
    hookmill.toml:308:5: tests[0].expect[3]: who signs up is a user, and welcome: there is no table `usrs`
      hint: did you mean `users`?
    hookmill.toml:309:5: tests[0].expect[4]: who signs up is a user, and welcome: the event is applied, and not recorded
    hookmill.toml:310:5: tests[0].expect[5]: who signs up is a user, and welcome: no sms is sent
    hookmill.toml:311:5: tests[0].expect[6]: who signs up is a user, and welcome: found in `users`
        _deleted = 0
        _event_id = "test_0"
        _precedence = 0
        _version = 1767225600000
        banned = 0
        email = "ada@example.com"
        first_name = "Ada"
        id = "user_1"
        updated_at = 1767225600000
    7 errors in the configuration
    "#);
}

/// Everything that can be wrong with what is sent.
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
fn what_is_wrong_with_emails_is_found_before_any_is_sent() {
    let temporary = tempfile::tempdir().unwrap();
    std::fs::write(temporary.path().join("hookmill.toml"), FAULTY).unwrap();
    std::fs::write(temporary.path().join("welcome.html"), "{{ name }} {{ link }}").unwrap();
    std::fs::write(temporary.path().join("broken.html"), "<p>\n{% endif %}").unwrap();
    insta::assert_snapshot!(shown(temporary.path(), &["check"]), @r#"
    exit code 1
    --- stdout
    --- stderr
    error: hookmill.toml:9:22: rules[0].email.template: there is no template `welcom`
      hint: did you mean `welcome`?
    hookmill.toml:14:10: rules[1].when.a.: found "a.": expected a name at character 3
      hint: expected a path such as "data.object.status"
    hookmill.toml:14:24: rules[1].when.b: it is not clear what has to hold
      hint: expected a value, a list of values, { not = … }, or { exists = true }; a path with dots stands in quotes
    hookmill.toml:15:38: rules[1].email.to: addresses and paths stand together
      hint: expected a path to an address, or an address, or a list of one kind or the other
    hookmill.toml:15:100: rules[1].email.when: `when` stands beside what a rule does, not in it
      hint: write it below `on`: when = { "data.status" = "active" }
    hookmill.toml:15:119: rules[1].email.delay: found 1year
      hint: expected a duration from 0s to 30d
    hookmill.toml:17:1: rules[2]: a rule does one thing
      hint: let another rule, with a name of its own, do the other
    hookmill.toml:20:38: rules[2].email.to: found "a@b c"
      hint: expected an address, as in "Acme <hello@example.com>"
    hookmill.toml:20:47: rules[2].email: unknown key `dat`
      hint: did you mean `data`?
    hookmill.toml:21:7: rules[2].sms: `body` needs `code`
      hint: say where it is: data = { code = "data.…" }
    hookmill.toml:21:14: rules[2].sms.to: found "+1"
      hint: expected a number with its country, such as "+15550100002"
    hookmill.toml:21:14: rules[2].sms.to: nothing says how SMS are sent
      hint: add [sms] with `account` and `from`
    hookmill.toml:26:14: rules[3].sms.to: nothing says how SMS are sent
      hint: add [sms] with `account` and `from`
    hookmill.toml:26:30: rules[3].sms.body: syntax error: unexpected end of input, expected end of variable block
    hookmill.toml:31:22: rules[4].track.provider: nothing says how posthog is told
      hint: add [tracking.posthog]
    hookmill.toml:36:32: rules[5].outcome.is: found "eaten"
      hint: possible here: `delayed`, `delivered`, `opened`, `clicked`, `failed`, `bounced`, `unsubscribed`, `complained`
    hookmill.toml:41:12: rules[6].suppress: `reason` is missing
      hint: a word or two for the record: reason = "bounced"
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
    hookmill.toml:59:7: email.resend.key: this is not the name of a secret; a secret itself does not belong in this file
      hint: put the secret into an environment variable and name that: "env:RESEND_API_KEY"
    hookmill.toml:60:7: email.resend.url: found "http://api.resend.com"
      hint: expected https://: the key goes with each request
    hookmill.toml:62:7: email.sendgrid.url: a name or a password in a URL does not belong in this file
      hint: `key` names what opens the API
    hookmill.toml:63:1: email.quota: there is neither `day` nor `month`
      hint: say how many emails there may be: month = 3000
    hookmill.toml:64:11: email.quota.warn_at: found 2
      hint: expected a share, above 0 and at most 1
    29 errors in the configuration
    "#);
}

#[test]
fn what_a_template_needs_and_is_not_given_is_found() {
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
    hookmill.toml:117:7: rules[1].sms: `body` needs `code`
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
    hookmill.toml:117:7: rules[1].sms: `body` needs `code`
      hint: say where it is: data = { code = "data.…" }
    4 errors in the configuration
    "#);
}

#[test]
fn an_email_is_shown_in_development_and_listed() {
    let example = with_example();
    let mut dev = Dev::start(example.path());
    let sent = hookmill(example.path(), &["send", "clerk", "user.created"]);
    assert_eq!(sent.status.code(), Some(0));
    let listed = || -> Value {
        let output = hookmill(example.path(), &["email", "list", "--json"]);
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let email = eventually("the email has been shown", || {
        let email = listed()[0].clone();
        (email["state"] == "sent").then_some(email)
    });
    dev.stop();
    assert_eq!((&email["rule"], &email["provider"]), (&"welcome".into(), &"local".into()));
    let file = format!(".hookmill/emails/{}.html", email["id"].as_str().unwrap());
    let html = std::fs::read_to_string(example.path().join(file)).unwrap();
    assert!(html.contains("Hello Inês,"), "{html}");
    let usage = hookmill(example.path(), &["email", "usage", "--json"]);
    let usage: Value = serde_json::from_slice(&usage.stdout).unwrap();
    assert_eq!((&usage[0]["sent"], &usage[0]["provider"]), (&1.into(), &"local".into()));

    // By hand: an address is taken off the list, and what was suppressed for it is sent once more.
    let database = rusqlite::Connection::open(example.path().join(".hookmill/data.db")).unwrap();
    database
        .execute_batch(
            "UPDATE outbox SET state = 'suppressed', error = 'bounced' || char(27) || '[2J', skipped_recipients = 'b@example.com: bounced';
             INSERT INTO suppressions VALUES ('a@example.com', 'bounced', 'resend', 'msg_1', 0);",
        )
        .unwrap();
    let list = shown(example.path(), &["email", "list"]);
    assert!(list.contains(": bounced\u{fffd}[2J; skipped: b@example.com: bounced"), "{list}");
    assert!(list.contains(&email["id"].as_str().unwrap()[..12]), "{list}");
    insta::assert_snapshot!(
        [
            shown(example.path(), &["email", "suppressions"]),
            shown(example.path(), &["email", "unsuppress", "A <A@example.com>", "--reason", "mended"]),
            shown(example.path(), &["email", "unsuppress", "a@example.com", "--reason", "mended"]),
            shown(example.path(), &["email", "suppressions"]),
            shown(example.path(), &["email", "retry", "--state", "suppressed", "--reason", "mended", "--rule", "other"]),
            shown(example.path(), &["email", "retry", "--state", "suppressed", "--reason", "mended"]),
        ]
        .concat(),
        @"
    exit code 0
    --- stdout
     SINCE                     ADDRESS        REASON   EVENT        
     1970-01-01T00:00:00.000Z  a@example.com  bounced  resend:msg_1 
    --- stderr
    exit code 0
    --- stdout
    --- stderr
    A <A@example.com> is written to again; what was suppressed stays so: `hookmill email retry`
    exit code 1
    --- stdout
    --- stderr
    error: Not found: a@example.com is not suppressed
    exit code 0
    --- stdout
    --- stderr
    every address is written to
    exit code 1
    --- stdout
    --- stderr
    error: nothing like that is suppressed; `hookmill email list --state suppressed` shows what is
    exit code 0
    --- stdout
    --- stderr
    to be sent once more: 1
    "
    );
    assert_eq!(listed()[0]["state"], "pending");
}

#[test]
fn every_channel_is_shown_in_development() {
    let example = with_example();
    let path = example.path().join("hookmill.toml");
    let more = r#"
[[rules]]
name = "text"
on = "clerk:user.created"
sms = { to = "+15550100002", body = "Hello" }

[[rules]]
name = "track"
on = "clerk:user.created"
track = { provider = "posthog", event = "Signed up", user = "data.id" }

[sms]
account = "AC11111111111111111111111111111111"
from = "+15550100001"

[tracking.posthog]
wait = "0s"
"#;
    let text = std::fs::read_to_string(&path).unwrap() + more;
    std::fs::write(&path, text.replace("[email]\n", "[email]\nwait = \"0s\"\n")).unwrap();
    let mut dev = Dev::start(example.path());
    for _ in 0..5 {
        let sent = hookmill(example.path(), &["send", "clerk", "user.created"]);
        assert_eq!(sent.status.code(), Some(0));
    }
    eventually("all have been shown", || {
        let output = hookmill(example.path(), &["email", "list", "--state", "sent", "--json"]);
        let sent: Value = serde_json::from_slice(&output.stdout).unwrap();
        (sent.as_array()?.len() == 15).then_some(())
    });
    dev.stop();
    let shown = std::fs::read_dir(example.path().join(".hookmill/emails")).unwrap().count();
    assert_eq!(shown, 5);
}

#[test]
fn what_serve_keeps_is_not_shown_by_dev() {
    let example = with_example();
    std::fs::create_dir(example.path().join(".hookmill")).unwrap();
    std::fs::write(example.path().join(".hookmill/kept-by"), "serve").unwrap();
    insta::assert_snapshot!(shown(example.path(), &["dev", "--listen", "127.0.0.1:0", "--log", "error"]), @"
    exit code 1
    --- stdout
    --- stderr
    error: .hookmill is what `hookmill serve` keeps: `dev` shows what `serve` sends, and each would take what waits for the other; --data names another folder
    ");
}

#[test]
fn a_template_is_previewed() {
    let example = with_example();
    std::fs::write(example.path().join("data.json"), "{\"name\": \"<Inês>\"}").unwrap();
    std::fs::write(example.path().join("list.json"), "[]").unwrap();
    insta::assert_snapshot!(
        [
            shown(example.path(), &["email", "preview", "welcome", "--data", "data.json"]),
            shown(example.path(), &["email", "preview", "welcome", "--json"]),
            shown(example.path(), &["email", "preview", "welcom"]),
            shown(example.path(), &["email", "preview", "welcome", "--data", "list.json"]),
        ]
        .concat(),
        @r#"
    exit code 0
    --- stdout
    Subject: Welcome, <Inês>

    Hello <Inês>,

    your account is ready.

    <!doctype html>
    <html lang="en">
      <body>
        <p>Hello &lt;Inês&gt;,</p>
        <p>your account is ready.</p>
      </body>
    </html>
    --- stderr
    exit code 0
    --- stdout
    {"html":"<!doctype html>\n<html lang=\"en\">\n  <body>\n    <p>Hello,</p>\n    <p>your account is ready.</p>\n  </body>\n</html>","subject":"Welcome","text":"Hello,\r\n\r\nyour account is ready."}
    --- stderr
    exit code 1
    --- stdout
    --- stderr
    error: there is no template `welcom` in hookmill.toml; there: welcome
    exit code 1
    --- stdout
    --- stderr
    error: list.json is not a JSON object, such as { "name": "Inês" }: invalid type: sequence, expected a map at line 1 column 0
    "#
    );
}

#[test]
fn the_tables_of_ones_own_in_the_readme_work() {
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
    hookmill.toml: 2 sources and 19 rules, no errors
    ");
}

#[test]
fn a_configuration_with_errors_is_refused_before_anything_starts() {
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
    hookmill.toml:3:12: sources.a.secrets[0]: this is not the name of a secret; a secret itself does not belong in this file
      hint: put the secret into an environment variable and name that: "env:STRIPE_WEBHOOK_SECRET"
    2 errors in the configuration
    "#);
    insta::assert_snapshot!(shown(temporary.path(), &["check", "--json"]), @r#"
    exit code 1
    --- stdout
    {"errors":[{"column":10,"file":"hookmill.toml","hint":"did you mean `stripe`?","key":"sources.a.scheme","line":2,"problem":"found \"strip\""},{"column":12,"file":"hookmill.toml","hint":"put the secret into an environment variable and name that: \"env:STRIPE_WEBHOOK_SECRET\"","key":"sources.a.secrets[0]","line":3,"problem":"this is not the name of a secret; a secret itself does not belong in this file"}],"valid":false}
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
    error: there is no configuration here; --config names it: cannot read the configuration nowhere.toml: No such file or directory (os error 2)
    ");
}

#[test]
fn a_rate_limit_that_the_worker_lacks_is_found() {
    let example = with_workers();
    let limit = "[sources.stripe]\nrate_limit = { requests = 1000, per = \"10s\" }";
    replace(example.path(), "hookmill.toml", "[sources.stripe]", limit);
    insta::assert_snapshot!(shown(example.path(), &["check"]), @r#"
    exit code 1
    --- stdout
    --- stderr
    error: ingress/worker/wrangler.toml:1:1: the source `stripe` has a rate_limit, and no binding
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
fn workers_that_do_not_fit_together_are_found() {
    let example = with_workers();
    insta::assert_snapshot!(shown(example.path(), &["check"]), @"
    exit code 0
    --- stdout
    --- stderr
    hookmill.toml: 2 sources and 18 rules, no errors
    ");

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
    error: dlq/worker/wrangler.toml:64:15: d1_databases[0].database_id: "10000000-0000-0000-0000-000000000000" here, and "00000000-0000-0000-0000-000000000000" at consumers/worker/wrangler.toml:54:15
      hint: database_id = "00000000-0000-0000-0000-000000000000"
    ingress/worker/wrangler.toml:14:9: queues.producers[0].queue: consumers/worker/wrangler.toml has no consumer of "hookmill-event"
      hint: did you mean `hookmill-events`?
    2 errors in the configuration
    exit code 1
    --- stdout
    {"errors":[{"column":15,"file":"dlq/worker/wrangler.toml","hint":"database_id = \"00000000-0000-0000-0000-000000000000\"","key":"d1_databases[0].database_id","line":64,"problem":"\"10000000-0000-0000-0000-000000000000\" here, and \"00000000-0000-0000-0000-000000000000\" at consumers/worker/wrangler.toml:54:15"},{"column":9,"file":"ingress/worker/wrangler.toml","hint":"did you mean `hookmill-events`?","key":"queues.producers[0].queue","line":14,"problem":"consumers/worker/wrangler.toml has no consumer of \"hookmill-event\""}],"valid":false}
    --- stderr
    error: the configuration is not valid
    "#
    );
    // The places are said as they are seen from here.
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
    note: dlq/worker/wrangler.jsonc is not checked, and neither is what depends on it: only wrangler.toml is read
    error: ingress/worker/wrangler.toml:1:1: there is no such file, and the other Workers have theirs
      hint: all three are deployed; the ingress Worker is described here
    1 error in the configuration
    ");
}

#[test]
fn migrations_that_the_workers_would_not_have_are_found() {
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
    error: consumers/worker/wrangler.toml:57:22: d1_databases[0].migrations_pattern: the migrations in "sql" are not found from here: hookmill.toml:107:14 names them
      hint: wrangler looks in one folder and below it: put them below `migrations`, as migrations/app
    dlq/worker/wrangler.toml:67:22: d1_databases[0].migrations_pattern: the migrations in "sql" are not found from here: hookmill.toml:107:14 names them
      hint: wrangler looks in one folder and below it: put them below `migrations`, as migrations/app
    2 errors in the configuration
    "#);
}

/// What `hookmill check --secrets` says with these in its environment.
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
fn secrets_are_looked_for_if_it_is_asked() {
    let example = with_example();
    // The configuration is one thing, and the machine it will run on another.
    assert_eq!(hookmill(example.path(), &["check"]).status.code(), Some(0));
    let stripe = ("STRIPE_WEBHOOK_SECRET", "whsec_of_stripe");
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
                &[("STRIPE_WEBHOOK_SECRET", "\"in quotes\""), clerk, resend],
            ),
            secrets(example.path(), &["--json"], &[stripe, clerk]),
        ]
        .join("\n"),
        @r#"
    exit code 1
    error: source `clerk`: none of its secrets is set (CLERK_WEBHOOK_SECRET)
    source `stripe`: none of its secrets is set (STRIPE_WEBHOOK_SECRET, STRIPE_WEBHOOK_SECRET_NEXT)
    RESEND_API_KEY is not set: it is the key for resend
    3 errors

    exit code 0
    note: source `stripe`: STRIPE_WEBHOOK_SECRET_NEXT is not set, and another of its secrets is
    hookmill.toml: 2 sources and 18 rules, no errors

    exit code 1
    error: source `clerk`: CLERK_WEBHOOK_SECRET is not a secret of this scheme: `whsec_` and base64
    source `stripe`: STRIPE_WEBHOOK_SECRET is set, and blank
    RESEND_API_KEY holds a blank, a quote or another character that no key has
    source `stripe`: STRIPE_WEBHOOK_SECRET_NEXT is set, and blank
    4 errors

    exit code 0
    note: source `stripe`: STRIPE_WEBHOOK_SECRET_NEXT is not set, and another of its secrets is
    note: STRIPE_WEBHOOK_SECRET is in quotes, which are not a part of it, most likely
    hookmill.toml: 2 sources and 18 rules, no errors

    exit code 1
    {"errors":[{"problem":"RESEND_API_KEY is not set: it is the key for resend"}],"valid":false}
    note: source `stripe`: STRIPE_WEBHOOK_SECRET_NEXT is not set, and another of its secrets is
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
    note: source `stripe`: STRIPE_WEBHOOK_SECRET_NEXT is not set, and another of its secrets is
    error: source `clerk`: `not_after` of every secret has passed; name the secret that is valid now
    ALERT_URL is not set: [alerts] names it
    ALERT_SECRET is not set: [alerts] names it
    3 errors

    exit code 1
    note: source `stripe`: STRIPE_WEBHOOK_SECRET_NEXT is not set, and another of its secrets is
    error: source `clerk`: `not_after` of every secret has passed; name the secret that is valid now
    ALERT_URL does not begin with https://: [alerts] names it
    ALERT_SECRET is not whsec_ and base64 behind it: [alerts] names it
    3 errors
    "
    );
}

#[test]
fn what_was_refused_is_listed() {
    let example = with_example();
    let mut dev = Dev::start(example.path());
    let address = dev.address;
    let refused =
        |path: &str| exchange(address, &request("POST", path, &[], b"{}")).unwrap().status;
    assert_eq!(
        shown(example.path(), &["rejections"]),
        "exit code 0\n--- stdout\n--- stderr\nno request has been refused\n"
    );
    assert_eq!((refused("/webhooks/stripe"), refused("/webhooks/nobody")), (401, 404));
    // At its end as well, what has been counted is written down.
    dev.stop();
    let output = hookmill(example.path(), &["rejections", "--json"]);
    let mut found: Value = serde_json::from_slice(&output.stdout).unwrap();
    for request in found["requests"].as_array_mut().unwrap() {
        assert!(request["at"].is_i64() && request["remote"].as_str().unwrap().len() == 16);
        request["at"] = Value::Null;
        request["remote"] = Value::Null;
    }
    found["requests"].as_array_mut().unwrap().sort_by_key(|request| request["reason"].to_string());
    insta::assert_json_snapshot!(found, @r#"
    {
      "counts": [
        {
          "reason": "unknown_source",
          "requests": 1,
          "source": ""
        },
        {
          "reason": "missing_header",
          "requests": 1,
          "source": "stripe"
        }
      ],
      "requests": [
        {
          "at": null,
          "body_bytes": 2,
          "content_length": 2,
          "detail": "Stripe-Signature is missing",
          "reason": "missing_header",
          "remote": null,
          "source": "stripe"
        },
        {
          "at": null,
          "body_bytes": null,
          "content_length": 2,
          "detail": "no source of this name is configured",
          "reason": "unknown_source",
          "remote": null,
          "source": ""
        }
      ]
    }
    "#);
    let output = hookmill(example.path(), &["rejections", "--source", "stripe"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("missing_header") && !text.contains("unknown_source"), "{text}");
    let output = hookmill(example.path(), &["rejections", "--source", "-"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(!text.contains("missing_header") && text.contains("unknown_source"), "{text}");
}

#[test]
fn a_source_whose_secrets_have_all_expired_takes_nothing() {
    let temporary = tempfile::tempdir().unwrap();
    let config = |end: &str| {
        let text = format!(
            "[sources.stripe]\nscheme = \"stripe\"\nsecrets = [{{ name = \"env:A\", not_after = {end} }}]\n"
        );
        std::fs::write(temporary.path().join("hookmill.toml"), text).unwrap();
    };
    config("2100-01-01T00:00:00Z");
    assert_eq!(hookmill(temporary.path(), &["check"]).status.code(), Some(0));
    config("2020-01-01T00:00:00Z");
    insta::assert_snapshot!(shown(temporary.path(), &["check"]), @"
    exit code 1
    --- stdout
    --- stderr
    error: source `stripe`: `not_after` of every secret has passed; name the secret that is valid now
    ");
    let run = |arguments: &[&str]| {
        let output = Command::new(binary())
            .args(arguments)
            .env("A", hookmill_tests::STRIPE_SECRET)
            .current_dir(temporary.path())
            .output()
            .unwrap();
        (output.status.code(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
    };
    let (code, text) = run(&["serve", "--listen", "127.0.0.1:0"]);
    assert!(code == Some(1) && text.contains("`not_after` of every secret that is set"), "{text}");
    // Whoever looks for the cause finds it.
    let event = hookmill_tests::event::stripe("a", "evt_1", 1, Value::Null);
    std::fs::write(temporary.path().join("body"), &event.body).unwrap();
    let header = event.headers().remove(0);
    let header = format!("{}: {}", header.0, header.1);
    let (code, text) = run(&["verify", "stripe", "--body-file", "body", "--header", &header]);
    let cause = "it was signed with A, which counted until 2020-01-01T00:00:00.000Z";
    assert!(code == Some(1) && text.contains(cause), "{text}");
}

#[test]
fn serve_does_not_start_without_secrets() {
    let example = with_example();
    insta::assert_snapshot!(shown(example.path(), &["serve"]), @"
    exit code 1
    --- stdout
    --- stderr
    error: source `clerk`: none of its secrets is set (CLERK_WEBHOOK_SECRET)
    source `stripe`: none of its secrets is set (STRIPE_WEBHOOK_SECRET, STRIPE_WEBHOOK_SECRET_NEXT)
    RESEND_API_KEY is not set: it is the key for resend
    ");
}

#[test]
fn dev_says_how_to_open_the_dashboard_and_serve_does_not() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path();
    let config = "[sources.stripe]\nscheme = \"stripe\"\nsecrets = [\"env:A\"]\n";
    std::fs::write(folder.join("hookmill.toml"), config).unwrap();
    let ran = |what: &str, data: &str| {
        let arguments = [what, "--listen", "127.0.0.1:0", "--data", data];
        let mut child = command(folder, &arguments)
            .env("A", hookmill_tests::STRIPE_SECRET)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let said = collected(child.stderr.take().unwrap());
        let last = if what == "dev" { "hookmill events" } else { "taking webhooks" };
        let said = eventually("it is ready", || {
            let said = said.lock().unwrap().join("\n");
            said.contains(last).then_some(said)
        });
        let tokens = printed(folder, &["token", "list", "--json", "--data", data]);
        (child, said, tokens)
    };
    // Whether a token counts at an address.
    let counts = |address: &str, token: &str| {
        let environment = [("HOOKMILL_URL", address), ("HOOKMILL_TOKEN", token)];
        command(folder, &["stats"]).envs(environment).output().unwrap().status.success()
    };
    let mut before = None;
    for _ in 0..2 {
        let (mut child, said, tokens) = ran("dev", "one");
        assert_eq!(tokens.as_array().map(Vec::len), Some(1), "{tokens}");
        assert_eq!((&tokens[0]["name"], &tokens[0]["role"]), (&"dev".into(), &"operate".into()));
        let line = said.lines().find(|line| line.ends_with("/admin")).unwrap();
        let address = line.trim().strip_suffix("/admin").unwrap();
        let token = said.split_whitespace().find(|word| word.starts_with("hookmill_")).unwrap();
        assert!(counts(address, token));
        // That of the start before does not any more.
        assert!(before.is_none_or(|before: String| !counts(address, &before)));
        before = Some(token.to_owned());
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let (mut child, said, tokens) = ran("serve", "other");
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(tokens, serde_json::json!([]));
    assert!(!said.contains("hookmill_") && !said.contains("/admin"), "{said}");
}

#[test]
fn dev_keeps_to_loopback() {
    let example = with_example();
    insta::assert_snapshot!(shown(example.path(), &["dev", "--listen", "0.0.0.0:8787"]), @"
    exit code 1
    --- stdout
    --- stderr
    error: dev listens on loopback only, since everybody knows its secrets; `hookmill serve` is for 0.0.0.0:8787
    ");
}

#[test]
fn there_are_no_events_before_there_is_data() {
    let example = with_example();
    insta::assert_snapshot!(shown(example.path(), &["events"]), @"
    exit code 1
    --- stdout
    --- stderr
    error: there is no Hookmill data in .hookmill; `hookmill dev` or `hookmill serve` makes it, --data names it
    ");
}

#[test]
fn a_backup_is_made_while_it_is_in_use_and_restored() {
    let example = with_example();
    let mut dev = Dev::start(example.path());
    for _ in 0..3 {
        assert_eq!(
            hookmill(example.path(), &["send", "stripe", "customer.created"]).status.code(),
            Some(0)
        );
    }
    insta::assert_snapshot!(
        [
            shown(example.path(), &["backup", "copy"]),
            shown(example.path(), &["backup", ".hookmill/copy"]),
            shown(example.path(), &["backup", "copy"]),
            shown(example.path(), &["restore", "copy", "--data", "restored"]),
            shown(example.path(), &["restore", "copy"]),
            shown(example.path(), &["restore", "nothing", "--data", "other"]),
        ]
        .concat(),
        @"
    exit code 0
    --- stdout
    --- stderr
    copy holds what .hookmill held
    exit code 1
    --- stdout
    --- stderr
    error: .hookmill/copy is inside of .hookmill; name a folder elsewhere
    exit code 1
    --- stdout
    --- stderr
    error: copy is there already; name a folder that is not
    exit code 0
    --- stdout
    --- stderr
    restored is as the backup was; `hookmill serve` goes on from there
    exit code 1
    --- stdout
    --- stderr
    error: .hookmill is there already; name a folder that is not
    exit code 1
    --- stdout
    --- stderr
    error: there is no backup in nothing; `hookmill backup` makes one
    "
    );
    dev.stop();
    let events = |data: &str| {
        let output = hookmill(example.path(), &["events", "--json", "--data", data]);
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    assert_eq!(events("restored").as_array().map(Vec::len), Some(3));
    assert_eq!(events("restored"), events(".hookmill"));
    std::fs::write(example.path().join("copy/data.db"), "damaged").unwrap();
    let damaged = hookmill(example.path(), &["restore", "copy", "--data", "other"]);
    assert_eq!(damaged.status.code(), Some(1));
    // Nothing is left of what could not be made, under whatever name.
    let mut left: Vec<_> = std::fs::read_dir(example.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    assert_eq!(left, [".hookmill", "copy", "hookmill.toml", "restored", "templates"]);
}

#[test]
fn what_makes_d1_whole_is_printed_as_sql_and_does_the_same() {
    let example = with_example();
    hookmill(example.path(), &["migrate"]);
    let printed = hookmill(example.path(), &["restore", "--sql"]);
    assert_eq!(printed.status.code(), Some(0), "{printed:?}");
    let sql = String::from_utf8(printed.stdout).unwrap();
    let database = rusqlite::Connection::open(example.path().join(".hookmill/data.db")).unwrap();
    let letter = |state: &str| {
        format!(
            "INSERT INTO dead_letters (id, source, event_id, generation, type, reason, error, fingerprint, attempts,
                first_failed_at, last_failed_at, state, replay, replays, message)
            VALUES ('{state}', 's', 'e', 0, 't', 'refused', 'no', 'f', 1, 0, 0, '{state}', 'r', 1, '')"
        )
    };
    for state in ["replayed", "discarded"] {
        database.execute(&letter(state), []).unwrap();
    }
    database
        .execute_batch(
            "INSERT INTO replays (id, filter, state, total, sent, planned_by, planned_at)
            VALUES ('r', '{\"all\":true}', 'done', 2, 2, 'ines', 0)",
        )
        .unwrap();
    database.execute_batch(&sql).unwrap();
    let states: String = database
        .query_row(
            "SELECT group_concat(state) FROM (SELECT state FROM dead_letters ORDER BY id)",
            [],
            |row| row.get(0),
        )
        .unwrap();
    assert_eq!(states, "discarded,dead");
    let replay: (String, u32) = database
        .query_row("SELECT state, sent FROM replays", [], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap();
    assert_eq!(replay, ("running".to_owned(), 1));
}

#[test]
fn migrate_applies_what_is_missing() {
    let example = with_example();
    insta::assert_snapshot!(shown(example.path(), &["migrate"]), @"
    exit code 0
    --- stdout
    0001_pipeline.sql
    0002_presets.sql
    --- stderr
    ");
    insta::assert_snapshot!(shown(example.path(), &["migrate"]), @"
    exit code 0
    --- stdout
    --- stderr
    the database is up to date
    ");
    insta::assert_snapshot!(shown(example.path(), &["migrate", "--json"]), @r#"
    exit code 0
    --- stdout
    {"applied":[]}
    --- stderr
    "#);
}

#[test]
fn a_migration_that_was_changed_after_it_had_been_applied_is_noticed_at_the_start() {
    let example = with_example();
    let path = example.path().join("hookmill.toml");
    let text = std::fs::read_to_string(&path).unwrap() + &readme_block("[database]");
    std::fs::write(&path, &text).unwrap();
    let migration = example.path().join("migrations/app/1000_refunded_charges.sql");
    std::fs::create_dir_all(migration.parent().unwrap()).unwrap();
    let sql = readme_block("-- migrations/app/1000_refunded_charges.sql");
    std::fs::write(&migration, &sql).unwrap();
    assert_eq!(hookmill(example.path(), &["migrate"]).status.code(), Some(0));
    std::fs::write(&migration, sql.replace("amount", "cents")).unwrap();
    std::fs::write(&path, text.replace("{ amount =", "{ cents =")).unwrap();
    assert_eq!(hookmill(example.path(), &["check"]).status.code(), Some(0));
    insta::assert_snapshot!(shown(example.path(), &["dev"]), @"
    exit code 1
    --- stdout
    --- stderr
    error: the database is not what the migrations make; was one changed after it had been applied? Leave it as it was, and add another: hookmill.toml:122:9: rules[1].set.cents: table `refunded_charges` has no column `cents`
      hint: possible here: `id`, `amount`, `customer_id`
    1 error in the configuration
    ");
}

#[test]
fn the_types_that_can_be_sent_are_listed() {
    let example = with_example();
    insta::assert_snapshot!(shown(example.path(), &["send", "clerk"]), @"
    exit code 0
    --- stdout
    user.created
    user.updated
    user.deleted
    --- stderr
    ");
    insta::assert_snapshot!(shown(example.path(), &["send", "clerk", "user.forgotten"]), @"
    exit code 1
    --- stdout
    --- stderr
    error: there is no sample of `user.forgotten`; there are:
      user.created
      user.updated
      user.deleted
    To send another type, change one of them (--set type=user.forgotten), or send a body of yours (--body FILE)
    ");
    insta::assert_snapshot!(shown(example.path(), &["send", "paddle"]), @"
    exit code 1
    --- stdout
    --- stderr
    error: there is no source `paddle` in the configuration; there are: clerk, stripe
    ");
}

#[test]
fn send_says_that_nobody_is_there() {
    let example = with_example();
    insta::assert_snapshot!(shown(example.path(), &["send", "clerk", "user.created", "--to", "http://127.0.0.1:9"]), @"
    exit code 1
    --- stdout
    --- stderr
    error: cannot reach http://127.0.0.1:9/webhooks/clerk; is the pipeline running? (`hookmill dev`): error sending request for url (http://127.0.0.1:9/webhooks/clerk): client error (Connect): tcp connect error: Connection refused (os error 111)
    ");
}

#[test]
fn an_event_is_sent_and_seen_to_be_applied_once() {
    let example = with_example();
    let _dev = Dev::start(example.path());
    let send = |arguments: &[&str]| {
        let arguments = [&["send"], arguments, &["--json"]].concat();
        let output = hookmill(example.path(), &arguments);
        let lines = String::from_utf8(output.stdout).unwrap();
        let lines: Vec<Value> =
            lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        (output.status.code(), lines)
    };

    let (code, sent) = send(&["stripe", "customer.subscription.updated", "--id", "evt_1"]);
    assert_eq!((code, &sent[0]["status"]), (Some(0), &200.into()));
    assert_eq!(sent[0]["answer"], serde_json::json!({ "accepted": 1 }));
    assert_eq!(
        (&sent[0]["event"]["state"], &sent[0]["duplicate"]),
        (&"applied".into(), &false.into())
    );
    let (_, again) = send(&["stripe", "customer.subscription.updated", "--id", "evt_1"]);
    assert_eq!((&again[0]["event"], &again[0]["duplicate"]), (&sent[0]["event"], &true.into()));
    let shown = hookmill(
        example.path(),
        &["send", "stripe", "customer.subscription.updated", "--id", "evt_1"],
    );
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.starts_with("200 evt_1 applied "), "{shown}");
    assert!(shown.ends_with("that was before, and nothing changed\n"), "{shown}");

    let (_, many) = send(&[
        "clerk",
        "user.created",
        "--count",
        "3",
        "--set",
        "data.id=user_{number}",
        "--set",
        "data.first_name=null",
    ]);
    assert_eq!(many.len(), 3);
    // What the table cannot hold becomes a dead letter, and send says so.
    let (code, refused) =
        send(&["stripe", "customer.created", "--id", "evt_2", "--set", "data.object.balance=many"]);
    assert_eq!((code, &refused[0]["event"]["state"]), (Some(1), &"dead".into()));
    let error = refused[0]["event"]["error"].as_str().unwrap();
    assert!(error.starts_with("rule `stripe-customers`: the store refused:"), "{error}");
    let (code, wrong) = send(&["stripe", "customer.created", "--secret", "whsec_wrong"]);
    assert_eq!((code, &wrong[0]["status"]), (Some(1), &401.into()));
    assert_eq!(wrong[0]["answer"]["reason"], "no_matching_signature");

    let output = hookmill(example.path(), &["events", "--json"]);
    let events: Value = serde_json::from_slice(&output.stdout).unwrap();
    let states: Vec<_> = events
        .as_array()
        .unwrap()
        .iter()
        .map(|event| (event["type"].as_str(), event["state"].as_str()))
        .collect();
    let user = (Some("user.created"), Some("applied"));
    assert_eq!(
        states,
        [
            (Some("customer.created"), Some("dead")),
            user,
            user,
            user,
            (Some("customer.subscription.updated"), Some("applied")),
        ]
    );
    let table = String::from_utf8(hookmill(example.path(), &["events"]).stdout).unwrap();
    assert!(table.lines().next().unwrap().contains("RECEIVED"), "{table}");
    assert_eq!(table.lines().count(), 6, "{table}");

    let database = rusqlite::Connection::open(example.path().join(".hookmill/data.db")).unwrap();
    let row = database.query_row("SELECT id, status, quantity FROM subscriptions", [], |row| {
        Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, i64>(2)?))
    });
    assert_eq!(row.unwrap(), ("sub_HMsample0001".into(), "active".into(), 5));
}

#[test]
fn an_event_is_found_and_its_story_told_wherever_it_is() {
    let example = with_example();
    let mut dev = Dev::start(example.path());
    let remote = dev.remote(example.path(), "read");
    for (source, kind, id) in
        [("stripe", "customer.created", "evt_1"), ("clerk", "user.created", "msg_1")]
    {
        let sent = hookmill(example.path(), &["send", source, kind, "--id", id]);
        assert_eq!(sent.status.code(), Some(0));
    }
    for environment in [&[][..], &remote] {
        let run = |arguments: &[&str]| {
            let environment = environment.iter().map(|(name, value)| (name, value));
            let output = command(example.path(), arguments).envs(environment).output().unwrap();
            (
                output.status.code(),
                String::from_utf8([output.stdout, output.stderr].concat()).unwrap(),
            )
        };
        let found = |arguments: &[&str]| {
            let (_, text) = run(&[&["events"], arguments, &["--json"]].concat());
            let found: Value = serde_json::from_str(&text).unwrap();
            found.as_array().unwrap().iter().map(|event| text_of(&event["id"])).collect::<Vec<_>>()
        };
        assert_eq!(found(&[]), ["msg_1", "evt_1"]);
        assert_eq!(found(&["--limit", "1"]), ["msg_1"]);
        for one in [["--source", "stripe"], ["--type", "customer.*"], ["--id", "evt_1"]] {
            assert_eq!(found(&one), ["evt_1"], "{one:?}");
        }
        assert_eq!(found(&["list", "--state", "recorded"]), Vec::<String>::new());

        let (code, story) = run(&["events", "show", "stripe", "evt_1"]);
        assert_eq!(code, Some(0));
        let lines: Vec<_> = story.lines().map(|line| line.split_whitespace().nth(1)).collect();
        assert_eq!(lines, [Some("WHAT"), Some("received"), Some("applied")], "{story}");
        assert!(story.contains("secret 0, type customer.created"), "{story}");
        assert!(story.contains("wrote customers (id cus_HMsample0001)"), "{story}");
        let (_, story) = run(&["events", "show", "stripe", "evt_1", "--json"]);
        assert_eq!(serde_json::from_str::<Value>(&story).unwrap()["steps"][0]["what"], "received");
        let (_, body) = run(&["events", "show", "stripe", "evt_1", "--body"]);
        assert_eq!(serde_json::from_str::<Value>(&body).unwrap()["id"], "evt_1");
        insta::allow_duplicates! {
            insta::assert_snapshot!(run(&["events", "show", "stripe", "evt_0"]).1, @"error: Not found: nothing is known of this event; it may be on the queue");
        }
    }
    let environment = remote.iter().map(|(name, value)| (name, value));
    let queued = command(example.path(), &["events", "--state", "queued"])
        .envs(environment)
        .output()
        .unwrap();
    insta::assert_snapshot!(String::from_utf8(queued.stderr).unwrap(), @"error: what is queued can be seen where the queue is, in the data folder; from elsewhere `hookmill stats` says how much waits, if that can be told");

    // What waits comes first.
    dev.stop();
    let queue = rusqlite::Connection::open(example.path().join(".hookmill/queue.db")).unwrap();
    let event = hookmill_tests::event::stripe("customer.created", "evt_2", 1, Value::Null);
    hookmill_tests::native::put(&queue, event.message().as_bytes(), 0);
    let events = printed(example.path(), &["events", "--type", "cust*", "--json"]);
    let states = events
        .as_array()
        .unwrap()
        .iter()
        .map(|event| (text_of(&event["id"]), text_of(&event["state"])));
    let states: Vec<_> = states.collect();
    assert_eq!(states, [("evt_2".into(), "queued".into()), ("evt_1".into(), "applied".into())]);
    let queued = printed(example.path(), &["events", "--state", "queued", "--json"]);
    assert_eq!((queued.as_array().unwrap().len(), &queued[0]["settled_at"]), (1, &Value::Null));
}

fn text_of(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// `hookmill tail`, until it is dropped.
struct Tail {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
    said: Arc<Mutex<Vec<String>>>,
}

impl Tail {
    fn start(folder: &Path, environment: &[(&str, String)], arguments: &[&str]) -> Self {
        let environment = environment.iter().map(|(name, value)| (name, value));
        let mut child = command(folder, &[&["tail"], arguments].concat())
            .envs(environment)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = collected(child.stdout.take().unwrap());
        let said = collected(child.stderr.take().unwrap());
        let tail = Self { child, lines, said };
        eventually("tail waits for events", || tail.has_said(1));
        tail
    }

    fn has_said(&self, lines: usize) -> Option<()> {
        (self.said.lock().unwrap().len() == lines).then_some(())
    }

    /// The lines that it has printed, once there are so many.
    fn lines(&self, count: usize) -> Vec<String> {
        eventually("tail prints what has happened", || {
            let lines = self.lines.lock().unwrap();
            (lines.len() >= count).then(|| lines.clone())
        })
    }

    /// What it has printed, as JSON: the states by the events' ids.
    fn states(&self, count: usize) -> BTreeMap<String, String> {
        let lines = self.lines(count);
        let states = lines.iter().map(|line| {
            let event: Value = serde_json::from_str(line).unwrap();
            (text_of(&event["id"]), text_of(&event["state"]))
        });
        let states = states.collect::<BTreeMap<_, _>>();
        assert_eq!(states.len(), lines.len(), "nothing is told twice");
        states
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Lines, as they come.
fn collected(from: impl Read + Send + 'static) -> Arc<Mutex<Vec<String>>> {
    let lines: Arc<Mutex<Vec<_>>> = Arc::default();
    let kept = lines.clone();
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            kept.lock().unwrap().push(line);
        }
    });
    lines
}

/// Events that took effect so many milliseconds ago, all of them at once.
fn took_effect(folder: &Path, ids: &str, count: u32, ago: i64) {
    let database = rusqlite::Connection::open(folder.join(".hookmill/data.db")).unwrap();
    database.busy_timeout(std::time::Duration::from_secs(10)).unwrap();
    let sql = "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < ?2)
        INSERT INTO events (source, id, type, outcome, received_at, applied_at, attempts, secret)
        SELECT 'stripe', ?1 || n, 'made.up' || char(27, 155) || '[2J', 'recorded', ?3, ?3, 1, 0 FROM n";
    let at = hookmill_tests::event::now().millis() - ago;
    database.execute(sql, (ids, count, at)).unwrap();
}

#[cfg(unix)]
#[test]
fn what_happens_is_told_as_it_happens_and_once() {
    let example = with_example();
    let folder = example.path();
    let mut dev = Dev::start(folder);
    let remote = dev.remote(folder, "read");
    assert_eq!(hookmill(folder, &["send", "clerk", "user.created"]).status.code(), Some(0));
    let here = Tail::start(folder, &[], &["--source", "stripe"]);
    let mut there = Tail::start(folder, &remote, &["--json"]);
    let users = Tail::start(folder, &remote, &["--type", "user.*", "--json"]);

    hookmill(folder, &["send", "stripe", "customer.created", "--id", "evt_1"]);
    let bad = ["--id", "evt_2", "--set", "data.object.balance=many"];
    hookmill(folder, &[&["send", "stripe", "customer.created"], &bad[..]].concat());
    hookmill(folder, &["send", "stripe", "customer.created", "--secret", "whsec_wrong"]);
    hookmill(folder, &["send", "clerk", "user.created", "--id", "msg_1"]);
    // More than are on a page, and as many on one millisecond; and some that took effect before them, and are there only now.
    took_effect(folder, "evt_many_", 1200, 0);
    there.lines(1204);
    took_effect(folder, "evt_late_", 2, 1_000);
    let states = there.states(1206);
    let state = |id: &str| states.get(id).map(String::as_str);
    assert_eq!((state("evt_1"), state("evt_2")), (Some("applied"), Some("dead")));
    assert_eq!((state("msg_1"), state("")), (Some("applied"), Some("rejected")));
    assert_eq!((state("evt_many_1200"), state("evt_late_2")), (Some("recorded"), Some("recorded")));
    let control = |line: &String| line.contains(char::is_control);
    assert!(!there.lines(1206).iter().any(control) && !here.lines(1205).iter().any(control));
    assert_eq!(users.states(1).len(), 1);

    let lines = here.lines(1205);
    let line = |what: &str| lines.iter().find(|line| line.contains(what)).unwrap().clone();
    assert!(line("evt_1").ends_with("Z  stripe  evt_1  customer.created  applied"));
    assert!(line("evt_2").contains("  customer.created  dead: rule `stripe-customers`: "));
    assert!(line("rejected").contains("Z  stripe  -  -  rejected: no_matching_signature: "));
    assert!(line("evt_many_7 ").ends_with("made.up\u{fffd}\u{fffd}[2J  recorded"));

    // It is waited for while it is away, and that is said once.
    let address = dev.address.to_string();
    dev.stop();
    eventually("it is said to be away", || there.has_said(2));
    took_effect(folder, "evt_meanwhile_", 1, 0);
    let mut dev = Dev::start_at(folder, &address);
    eventually("it is said to be back", || there.has_said(3));
    assert_eq!(there.states(1207).len(), 1207);
    let said = there.said.lock().unwrap().join("\n");
    assert!(said.contains("does not answer") && said.ends_with("Hookmill is back"), "{said}");

    // Ctrl-C is its end, and no fault.
    let pid = there.child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    assert_eq!(there.child.wait().unwrap().code(), Some(0));
    dev.stop();
}

#[cfg(unix)]
#[test]
fn tail_ends_when_nobody_reads() {
    let example = with_example();
    let mut dev = Dev::start(example.path());
    let mut child = command(example.path(), &["tail"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let said = collected(child.stderr.take().unwrap());
    eventually("tail waits for events", || (said.lock().unwrap().len() == 1).then_some(()));
    // With nothing to print, too.
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(said.lock().unwrap().len(), 1);
    dev.stop();
    // At the beginning, an address at which nobody is may be a wrong one; and a token that does not count never will.
    let away = [("HOOKMILL_URL", "http://127.0.0.1:9"), ("HOOKMILL_TOKEN", "hookmill_none")];
    let output = command(example.path(), &["tail"]).envs(away).output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.starts_with("error: http://127.0.0.1:9 does not answer: "), "{error}");
}

#[test]
fn send_says_no_more_than_can_be_known() {
    let temporary = tempfile::tempdir().unwrap();
    let config = "[sources.stripe]\nscheme = \"stripe\"\nsecrets = [\"env:A\"]\nunmatched = \"ignore\"\n[sources.discord]\nscheme = \"discord\"\nsecrets = [\"env:B\"]\n";
    std::fs::write(temporary.path().join("hookmill.toml"), config).unwrap();
    let _dev = Dev::start(temporary.path());
    let last = |arguments: &[&str]| {
        let output = hookmill(temporary.path(), arguments);
        let text = String::from_utf8(output.stdout).unwrap();
        text.trim().splitn(3, ' ').last().unwrap().to_owned()
    };
    let ignored = last(&["send", "stripe", "invoice.paid"]);
    assert_eq!(ignored, "accepted, and ignored: no rule names it");
    // With a private key alone, nobody here can tell what the event is called there.
    let (config, _) = hookmill_core::config::parse("hookmill.toml", config);
    let source = config.ingress.sources.iter().find(|source| source.name == "discord").unwrap();
    let keys = hookmill_providers::development(source, &source.secrets[0].name);
    let secret = hookmill_core::secret::ExposeSecret::expose_secret(&keys.signing);
    let unknown = last(&["send", "discord", "APPLICATION_AUTHORIZED", "--secret", secret]);
    assert_eq!(unknown, "accepted");
}

#[test]
fn every_sample_of_every_scheme_is_accepted_and_recorded() {
    let temporary = tempfile::tempdir().unwrap();
    let general = ["ecdsa-p256", "ed25519", "hmac", "token"];
    let schemes: Vec<_> =
        hookmill_core::config::scheme_names().filter(|scheme| !general.contains(scheme)).collect();
    let mut config = String::new();
    for scheme in &schemes {
        let name = scheme.to_uppercase().replace('-', "_");
        config +=
            &format!("[sources.{scheme}]\nscheme = \"{scheme}\"\nsecrets = [\"env:{name}\"]\n");
        if ["hubspot", "square", "twilio"].contains(scheme) {
            config += &format!("public_url = \"https://hooks.test/webhooks/{scheme}\"\n");
        }
    }
    std::fs::write(temporary.path().join("hookmill.toml"), config).unwrap();
    let _dev = Dev::start(temporary.path());
    let mut sent = 0;
    for scheme in schemes {
        let types = hookmill(temporary.path(), &["send", scheme]).stdout;
        for kind in String::from_utf8(types).unwrap().lines() {
            let output = hookmill(temporary.path(), &["send", scheme, kind, "--json"]);
            let shown: Value = serde_json::from_slice(&output.stdout).unwrap();
            let status = if scheme == "discord" { 204 } else { 200 };
            assert_eq!(shown["status"], status, "{scheme} {kind}: {shown}");
            assert_eq!(shown["event"]["state"], "recorded", "{scheme} {kind}: {shown}");
            assert_eq!(shown["event"]["type"], kind, "{scheme}");
            sent += 1;
        }
    }
    assert!(sent > 60, "{sent}");
}

/// `hookmill verify` of a request to a source of the contract, captured in a file.
fn verified(source: &str, query: &str, request: &[u8], more: &[&str]) -> String {
    let temporary = tempfile::tempdir().unwrap();
    let config = folder().join("hookmill.toml");
    let mut raw = format!("POST /webhooks/{source}{query} HTTP/1.1\r\n").into_bytes();
    raw.extend_from_slice(request);
    std::fs::write(temporary.path().join("request"), raw).unwrap();
    let config = config.to_str().unwrap();
    let arguments = ["verify", source, "--dev", "--config", config, "--request", "request"];
    shown(temporary.path(), &[&arguments, more].concat())
}

/// The headers and the body of a signed request, as they are in a file.
fn captured(source: &str, kind: &str, query: Option<&str>, body: &[u8]) -> (String, Vec<u8>) {
    let signed = hookmill_tests::event::signed(source, kind, "id-1", query, body);
    let headers: Vec<_> =
        signed.headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    (headers.concat(), signed.body)
}

#[test]
fn a_captured_request_is_verified_and_what_is_wrong_with_it_is_found() {
    let body = b"{\"action\":\"opened\"}\n";
    let (headers, _) = captured("github", "issues.opened", None, body);
    let with = |body: &[u8]| [headers.as_bytes(), b"\r\n", body].concat();
    insta::assert_snapshot!(verified("github", "", &with(body), &[]), @"
    exit code 0
    --- stdout
    valid, by the development secret of TEST_GITHUB_SECRET
      event id-1.7f5afcaadb74a4379117e850aaa23aeb of type issues.opened
      signed is HMAC-SHA256 over `{body}`
      body: 20 bytes, SHA-256 7f5afcaadb74a4379117e850aaa23aeb60296d0fda92e38718e18969ae598078
    --- stderr
    ");
    insta::assert_snapshot!(verified("github", "", &with(body), &["--json"]), @r#"
    exit code 0
    --- stdout
    {"causes":[],"detail":null,"event":{"id":"id-1.7f5afcaadb74a4379117e850aaa23aeb","secret":0,"type":"issues.opened"},"events":[{"id":"id-1.7f5afcaadb74a4379117e850aaa23aeb","type":"issues.opened"}],"handshake":false,"reason":null,"valid":true}
    --- stderr
    "#);
    insta::assert_snapshot!(verified("github", "", &with(&body[..19]), &[]), @"
    exit code 1
    --- stdout
    not valid: no_matching_signature: the request was signed with another secret, or changed on its way
      signed is HMAC-SHA256 over `{body}`
      body: 19 bytes, SHA-256 d592421cfe150deec6c49b8989cc99478e39c7f8cdd4c36f5b1c4cfeff394e24
      likely: the body was changed on its way: the line end at its end was lost
    --- stderr
    error: not valid: no_matching_signature
    ");
    insta::assert_snapshot!(verified("github", "", &with(b"{ \"action\": \"opened\" }\n"), &["--json"]), @r#"
    exit code 1
    --- stdout
    {"causes":["the body was changed on its way: blanks were put into the JSON"],"detail":"the request was signed with another secret, or changed on its way","event":null,"events":null,"handshake":false,"reason":"no_matching_signature","valid":false}
    --- stderr
    error: not valid: no_matching_signature
    "#);
    let twice = [headers.as_bytes(), headers.as_bytes(), b"\r\n", body].concat();
    insta::assert_snapshot!(verified("github", "", &twice, &[]), @"
    exit code 1
    --- stdout
    not valid: malformed_header: X-Hub-Signature-256 was sent more than once
      signed is HMAC-SHA256 over `{body}`
      body: 20 bytes, SHA-256 7f5afcaadb74a4379117e850aaa23aeb60296d0fda92e38718e18969ae598078
      sent more than once: x-github-delivery
      sent more than once: x-github-event
      sent more than once: x-hub-signature-256
    --- stderr
    error: not valid: malformed_header
    ");
}

#[test]
fn a_wrong_public_url_is_found() {
    let (headers, body) = captured("twilio", "", Some("a=1"), b"MessageSid=SM1");
    let request = [headers.as_bytes(), b"\r\n", &body].concat();
    insta::assert_snapshot!(verified("twilio", "?a=1", &request, &[]), @"
    exit code 0
    --- stdout
    valid, by the development secret of TEST_TWILIO_TOKEN
      event SM1 of type message.received
      signed is HMAC-SHA1 over the URL and the sorted fields of the form
      body: 14 bytes, SHA-256 08aa5633689ea1f6d7404c0fd841aa872282c9d830645e8fa85420661b20692c
      URL: https://hooks.test/webhooks/twilio?a=1
    --- stderr
    ");
    let config = std::fs::read_to_string(folder().join("hookmill.toml")).unwrap();
    let temporary = tempfile::tempdir().unwrap();
    let config = config
        .replace("https://hooks.test", "http://hooks.test")
        .replace("[database]\nmigrations = \"migrations\"\n", "");
    let sources = config.split("[[rules]]").next().unwrap();
    std::fs::write(temporary.path().join("hookmill.toml"), sources).unwrap();
    std::fs::write(temporary.path().join("body"), &body).unwrap();
    let arguments: Vec<_> = headers.lines().flat_map(|line| ["--header", line]).collect();
    let parts = ["verify", "twilio", "--body-file", "body", "--dev", "--url"];
    let url = |url| shown(temporary.path(), &[&parts, &[url][..], &arguments].concat());
    insta::assert_snapshot!(url("https://hooks.test/webhooks/twilio?a=1"), @"
    exit code 0
    --- stdout
    valid, by the development secret of TEST_TWILIO_TOKEN
      event SM1 of type message.received
      signed is HMAC-SHA1 over the URL and the sorted fields of the form
      body: 14 bytes, SHA-256 08aa5633689ea1f6d7404c0fd841aa872282c9d830645e8fa85420661b20692c
      URL: https://hooks.test/webhooks/twilio?a=1
      likely: `public_url` is wrong: the provider calls https://hooks.test/webhooks/twilio
    --- stderr
    ");
    insta::assert_snapshot!(url("https://other.test/?a=1"), @"
    exit code 1
    --- stdout
    not valid: no_matching_signature: the request was signed with another auth token or for another URL than `public_url`, or changed on its way
      signed is HMAC-SHA1 over the URL and the sorted fields of the form
      body: 14 bytes, SHA-256 08aa5633689ea1f6d7404c0fd841aa872282c9d830645e8fa85420661b20692c
      URL: https://other.test/?a=1
      likely: the secret is that of another endpoint, or of another mode (test, live)
      likely: the body is not byte for byte what was sent: parsed and written again, or decoded
      likely: `public_url` is not the URL that the provider was told to call
    --- stderr
    error: not valid: no_matching_signature
    ");
    let raw = [b"POST /webhooks/twilio?a=1 HTTP/1.1\r\n", &request[..]].concat();
    std::fs::write(temporary.path().join("request"), raw).unwrap();
    insta::assert_snapshot!(shown(temporary.path(), &["verify", "twilio", "--dev", "--request", "request"]), @"
    exit code 1
    --- stdout
    not valid: no_matching_signature: the request was signed with another auth token or for another URL than `public_url`, or changed on its way
      signed is HMAC-SHA1 over the URL and the sorted fields of the form
      body: 14 bytes, SHA-256 08aa5633689ea1f6d7404c0fd841aa872282c9d830645e8fa85420661b20692c
      URL: http://hooks.test/webhooks/twilio?a=1
      likely: `public_url` is wrong: the provider calls https://hooks.test/webhooks/twilio
    --- stderr
    error: not valid: no_matching_signature
    ");
}

#[test]
fn what_is_wrong_with_a_secret_or_a_body_is_found() {
    let event = hookmill_tests::event::stripe("a", "evt_1", 1, Value::Null);
    let (headers, body) = (event.headers(), event.body);
    let temporary = tempfile::tempdir().unwrap();
    let config = "[sources.stripe]\nscheme = \"stripe\"\nsecrets = [\"env:A\"]\n[sources.github]\nscheme = \"github\"\nsecrets = [\"env:B\"]\n[sources.mailgun]\nscheme = \"mailgun\"\nsecrets = [\"env:C\"]\n";
    std::fs::write(temporary.path().join("hookmill.toml"), config).unwrap();
    std::fs::write(temporary.path().join("body"), &body).unwrap();
    let lines: Vec<_> = headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
    let arguments: Vec<_> = lines.iter().flat_map(|line| ["--header", line]).collect();
    let verify = |a: &str, b: &str, more: &[&str]| {
        let output = Command::new(binary())
            .args(["verify", "stripe", "--body-file", "body"])
            .args(&arguments)
            .args(more)
            .envs([("A", a), ("B", b), ("C", "key")])
            .current_dir(temporary.path())
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let lines =
            text.lines().filter(|line| line.starts_with("not valid") || line.contains("likely"));
        format!("{}\n{}", output.status.code().unwrap(), lines.collect::<Vec<_>>().join("\n"))
    };
    let secret = hookmill_tests::STRIPE_SECRET;
    assert_eq!(verify(secret, "x", &[]), "0\n");
    // A scheme that reads its signature from the body has nothing to do with this one.
    let other = verify("whsec_other", "x", &[]);
    assert!(other.contains("another endpoint") && !other.contains("mailgun"), "{other}");
    for (a, b, cause) in [
        (format!("\"{secret}\""), "x", "A is in quotes"),
        (format!("{secret}\\n"), "x", "A ends with a backslash and an n"),
        (format!("STRIPE_WEBHOOK_SECRET={secret}"), "x", "A holds a name and an equals sign"),
        ("whsec_other".to_owned(), secret, "a secret of the source `github`"),
    ] {
        let found = verify(&a, b, &[]);
        assert!(found.starts_with("1\n") && found.contains(cause), "{cause}: {found}");
        assert!(!found.contains("another endpoint") && !found.contains(secret), "{found}");
    }
    let cut = verify(secret, "x", &["--header", "Content-Length: 99"]);
    assert_eq!(cut, "0\n", "a signature that holds is no reason to look further");
    let cut = verify("whsec_other", "x", &["--header", "Content-Length: 99"]);
    assert!(cut.contains("bytes, and Content-Length says 99"), "{cut}");
    let old = verify(secret, "x", &["--now", "4000000000"]);
    assert!(old.contains("not valid: timestamp_too_old") && old.contains("is off by "), "{old}");
    // What is not understood is no verdict.
    for arguments in [&["verify", "stripe"][..], &["verify", "stripe", "--header", "nocolon"]] {
        assert_eq!(hookmill(temporary.path(), arguments).status.code(), Some(2));
    }
    let output = hookmill(temporary.path(), &["verify", "stripe", "--body-file", "body", "--json"]);
    let shown: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (shown["valid"].as_bool(), shown["reason"].as_str()),
        (Some(false), Some("source_not_ready"))
    );
}

#[test]
fn a_second_process_on_the_same_folder_is_refused() {
    let example = with_example();
    let _dev = Dev::start(example.path());
    insta::assert_snapshot!(shown(example.path(), &["dev", "--log", "error"]), @"
    exit code 1
    --- stdout
    --- stderr
    error: .hookmill is in use by another hookmill; stop that one, or choose another folder with --data
    ");
    insta::assert_snapshot!(shown(example.path(), &["migrate"]), @"
    exit code 1
    --- stdout
    --- stderr
    error: .hookmill is in use by another hookmill; stop that one, or choose another folder with --data
    ");
}

#[cfg(unix)]
#[test]
fn told_to_stop_it_finishes_what_is_in_hand() {
    let example = with_example();
    let mut dev = Dev::start(example.path());
    let sent = hookmill(example.path(), &["send", "clerk", "user.created", "--count", "20"]);
    assert_eq!(sent.status.code(), Some(0));
    dev.stop();
    let output = hookmill(example.path(), &["events", "--json"]);
    let events: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(events.as_array().unwrap().iter().all(|event| event["state"] == "applied"), "{events}");
}

#[test]
fn a_token_is_not_replaced_unasked() {
    let example = with_example();
    let _dev = Dev::start(example.path());
    let create = ["token", "create", "ines", "--role", "read"];
    assert_eq!(hookmill(example.path(), &create).status.code(), Some(0));
    insta::assert_snapshot!(shown(example.path(), &create), @"
    exit code 1
    --- stdout
    --- stderr
    error: there is a token called ines already; `hookmill token revoke ines` ends it
    ");
    assert_eq!(hookmill(example.path(), &["token", "revoke", "ines"]).status.code(), Some(0));
    assert_eq!(hookmill(example.path(), &create).status.code(), Some(0));
}

#[test]
fn a_reprocessing_knows_its_rules_and_times() {
    let example = with_example();
    let _dev = Dev::start(example.path());
    let sent = hookmill(example.path(), &["send", "stripe", "customer.created"]);
    assert_eq!(sent.status.code(), Some(0));
    let planned = |more: &[&str]| {
        let arguments = [&["reprocess", "--source", "stripe"], more].concat();
        let output = hookmill(example.path(), &arguments);
        let line =
            |bytes: &[u8]| String::from_utf8_lossy(bytes).lines().next().map(ToOwned::to_owned);
        line(&output.stderr).or_else(|| line(&output.stdout)).unwrap_or_default()
    };
    insta::assert_snapshot!(planned(&["--rule", "nosuch"]), @"error: there is no rule `nosuch` in hookmill.toml");
    insta::assert_snapshot!(planned(&["--rule", "welcome"]), @"`welcome` counts or sends again what these events have counted or sent already; --before says up to when");
    insta::assert_snapshot!(planned(&["--before", "2026-01-01T00:00:00Z"]), @"no event whose message is kept is meant");
    assert!(planned(&["--since", "2026-01-01T00:00:00Z"]).starts_with("1 events"));
    insta::assert_snapshot!(planned(&["--since", "yesterday"]), @"error: invalid value 'yesterday' for '--since <TIME>': expected a time such as 2026-01-31T00:00:00Z");
}

/// A rule of each kind of answer that `explain` has.
const EXPLAINED: &str = r#"
[sources.shop]
scheme = "svix"
secrets = ["env:A"]

[sources.other]
scheme = "github"
secrets = ["env:B"]

[database]
migrations = "migrations/app"

[retention]
messages = "30d"

[[rules]]
name = "things"
on = ["shop:thing.*"]
table = "things"
key = { id = "id" }
version = "at"
set = { name = "name" }
delete = "thing.deleted"
tombstone = false

[[rules]]
name = "dear-things"
on = ["shop:thing.*"]
when = { price = "dear" }
table = "counts"
key = { id = "id" }
add = { n = 1 }

[[rules]]
name = "parts"
on = ["shop:thing.*"]
each = "parts"
table = "counts"
key = { id = "@.id" }
add = { n = 1 }

[[rules]]
name = "orders"
on = ["shop:orders.*"]
table = "counts"
key = { id = "id" }
add = { n = 1 }

[[rules]]
name = "elsewhere"
on = ["other:*"]
table = "counts"
key = { id = "id" }
add = { n = 1 }
"#;

/// A folder with [`EXPLAINED`], its tables, and bodies.
fn explained() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(folder.path().join("migrations/app")).unwrap();
    std::fs::write(folder.path().join("hookmill.toml"), EXPLAINED).unwrap();
    let sql = "CREATE TABLE things (id TEXT PRIMARY KEY, name TEXT, _version INTEGER NOT NULL, _precedence INTEGER NOT NULL,
        _event_id TEXT NOT NULL, _deleted INTEGER NOT NULL) STRICT, WITHOUT ROWID;
        CREATE TABLE counts (id TEXT PRIMARY KEY, n INTEGER) STRICT, WITHOUT ROWID;";
    std::fs::write(folder.path().join("migrations/app/1000_things.sql"), sql).unwrap();
    let write = |name: &str, body: &str| std::fs::write(folder.path().join(name), body).unwrap();
    write("older.json", r#"{ "type": "thing.updated", "id": "thing_1", "at": 1, "name": "old" }"#);
    let newer =
        r#"{ "type": "thing.updated", "id": "thing_1", "at": 3, "name": "new", "parts": [] }"#;
    write("newer.json", newer);
    write("deleted.json", &newer.replace("updated", "deleted"));
    write("unknown.json", &newer.replace("thing.updated", "unknown"));
    write("odd.json", &newer.replace('3', "\"today\""));
    write("no.json", "no");
    folder
}

#[test]
fn what_rules_make_of_an_event_is_explained() {
    let folder = explained();
    let explain = |file: &str| shown(folder.path(), &["explain", "shop", "evt_2", "--file", file]);
    insta::assert_snapshot!(explain("newer.json"), @r#"
    exit code 0
    --- stdout
    shop: thing.updated evt_2

    rule things is carried out:
        -- rule things
        WITH rows AS MATERIALIZED (SELECT value FROM jsonb_each(?1))
        INSERT INTO "things" ("id", "name", "_version", "_precedence", "_event_id", "_deleted")
        SELECT value ->> 6, value ->> 7, value ->> 3, value ->> 4, value ->> 1, value ->> 5 FROM rows
        WHERE true
        AND NOT EXISTS (SELECT 1 FROM row_guards AS gone WHERE gone.table_name = 'things' AND gone.key = json_array(CAST(value ->> 6 AS TEXT))
        AND (gone.version, gone.precedence, gone.event_id) > (value ->> 3, value ->> 4, value ->> 1))
        ON CONFLICT ("id") DO UPDATE SET "name" = excluded."name", "_version" = excluded."_version", "_precedence" = excluded."_precedence", "_event_id" = excluded."_event_id", "_deleted" = excluded."_deleted"
        WHERE (excluded."_version", excluded."_precedence", excluded."_event_id")
        >= ("things"."_version", "things"."_precedence", "things"."_event_id")

        -- rule things
        WITH rows AS MATERIALIZED (SELECT value FROM jsonb_each(?1))
        INSERT INTO row_guards (table_name, key, version, precedence, event_id)
        SELECT 'things', json_array(CAST("id" AS TEXT)), "_version", "_precedence", "_event_id" FROM "things"
        WHERE "_deleted" = 1 AND ("id") IN (SELECT value ->> 6 FROM rows WHERE value ->> 5 = 1)
        ON CONFLICT (table_name, key) DO UPDATE SET
        version = excluded.version, precedence = excluded.precedence, event_id = excluded.event_id
        WHERE (excluded.version, excluded.precedence, excluded.event_id)
        >= (row_guards.version, row_guards.precedence, row_guards.event_id)

        -- rule things
        WITH rows AS MATERIALIZED (SELECT value FROM jsonb_each(?1))
        DELETE FROM "things" WHERE "_deleted" = 1 AND ("id") IN (SELECT value ->> 6 FROM rows WHERE value ->> 5 = 1)

        ?1 = [["shop","evt_2",0,3,0,0,"thing_1","new"]]

    rule dear-things is not carried out: `when` asks for another value at `price`: there is nothing
    rule parts is not carried out: there is no list, or nothing in it that fulfils its conditions
    rule orders is not carried out: it is for shop:orders.*
    rules of other sources: 1

    things: a new row
      + _deleted = 0
      + _event_id = "evt_2"
      + _precedence = 0
      + _version = 3
      + id = "thing_1"
      + name = "new"

    The event is applied.
    --- stderr
    there is no data folder here: the tables are empty, as far as this is concerned
    "#);

    insta::assert_snapshot!(shown(folder.path(), &["explain", "shop", "evt_9"]), @"
    exit code 1
    --- stdout
    --- stderr
    error: there is no Hookmill data in .hookmill; `hookmill dev` or `hookmill serve` makes it, --data names it
    ");
    insta::assert_snapshot!(shown(folder.path(), &["explain", "shap", "evt_9"]), @"
    exit code 1
    --- stdout
    --- stderr
    error: there is no source `shap` in hookmill.toml
    ");
    insta::assert_snapshot!(explain("no.json"), @"
    exit code 1
    --- stdout
    --- stderr
    error: no.json is no event of `shop`: ingress refuses it: malformed_event: the body is not valid JSON (line 1, column 2)
    ");
}

#[test]
fn what_becomes_of_rows_is_explained_and_nothing_is_written() {
    let folder = explained();
    let dev = Dev::start(folder.path());
    let send = ["send", "shop", "thing.updated", "--id", "evt_1", "--body", "older.json"];
    let sent = hookmill(folder.path(), &send);
    assert_eq!(sent.status.code(), Some(0), "{}", String::from_utf8_lossy(&sent.stderr));
    drop(dev);
    let counts = || {
        let data = folder.path().join(".hookmill/data.db");
        let database = rusqlite::Connection::open(data).unwrap();
        let count = |table: &str| {
            let sql = format!("SELECT count(*), coalesce(max(_version), 0) FROM {table}");
            let sql = if table == "things" { sql } else { sql.replace("max(_version)", "0") };
            database.query_row(&sql, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap()
        };
        ["events", "things", "counts", "row_guards", "dead_letters"].map(count)
    };
    let written: [(i64, i64); 5] = counts();
    assert_eq!(written, [(1, 0), (1, 1), (0, 0), (0, 0), (0, 0)]);
    let changes = |arguments: &[&str]| {
        let all = [&["explain", "shop", "--json"], arguments].concat();
        let output = hookmill(folder.path(), &all);
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        let explained: Value = serde_json::from_slice(&output.stdout).unwrap();
        let event = &explained[0];
        json!([event["outcome"], event["error"], event["rows"]])
    };
    let row = |version: i64, event: &str, name: &str| json!({ "id": "thing_1", "name": name, "_version": version, "_precedence": 0, "_event_id": event, "_deleted": 0 });
    // What was taken in, as if it came for the first time.
    let old = row(1, "evt_1", "old");
    assert_eq!(
        changes(&["evt_1"]),
        json!(["applied", null, [{ "table": "things", "before": old, "after": old }]])
    );
    let of_file = |file: &str| changes(&["evt_2", "--file", file]);
    assert_eq!(
        of_file("newer.json"),
        json!(["applied", null, [{ "table": "things", "before": old, "after": row(3, "evt_2", "new") }]])
    );
    assert_eq!(
        of_file("deleted.json"),
        json!(["applied", null, [{ "table": "things", "before": old, "after": null }]])
    );
    assert_eq!(of_file("unknown.json"), json!(["recorded", null, []]));
    assert_eq!(
        of_file("odd.json"),
        json!(["dead_letter", "unreadable: rule `things`: what is at `at` is no whole number", []])
    );
    assert_eq!(counts(), written);
}

/// The providers that `init` knows.
fn providers() -> Vec<&'static str> {
    let described = ["ecdsa-p256", "ed25519", "hmac", "standard-webhooks", "token"];
    let schemes = hookmill_core::config::scheme_names();
    schemes.filter(|scheme| !described.contains(scheme)).collect()
}

/// A folder with what `init` writes.
fn with_init(providers: &[&str]) -> tempfile::TempDir {
    let temporary = tempfile::tempdir().unwrap();
    let output = hookmill(temporary.path(), &[&["init"], providers].concat());
    assert!(output.status.success(), "{output:?}");
    temporary
}

/// What is commented out in a configuration, as numbers of lines: an option of a source, or what stands below a blank
/// comment until the next blank line.
fn commented(configuration: &str) -> Vec<Range<usize>> {
    let lines: Vec<_> = configuration.lines().collect();
    let is_option = |line: &str| {
        let option = line.strip_prefix("# ").and_then(|line| line.split_once(" = "));
        option.is_some_and(|(key, _)| key.bytes().all(|b| b.is_ascii_lowercase()))
    };
    let (mut blocks, mut first) = (Vec::new(), 0);
    for paragraph in lines.split(|line| line.is_empty()) {
        let end = first + paragraph.len();
        if let Some(blank) = paragraph.iter().position(|line| *line == "#") {
            blocks.push(first + blank + 1..end);
        } else if paragraph.iter().any(|line| line.starts_with("[sources.")) {
            blocks.extend((first..end).filter(|i| is_option(lines[*i])).map(|i| i..i + 1));
        }
        first = end + 1;
    }
    blocks
}

/// The configuration of a folder with these lines no longer commented out; and what their comments say is made as well.
fn uncommented(folder: &Path, configuration: &str, blocks: &[Range<usize>]) -> String {
    let mut lines: Vec<_> = configuration.lines().collect();
    let mut files: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for block in blocks {
        let mut file = None;
        for line in &mut lines[block.clone()] {
            *line = line.strip_prefix("# ").or(line.strip_prefix('#')).unwrap();
            let Some(text) = line.strip_prefix("# ") else { continue };
            if let Some(name) = text.strip_prefix("-- ").or(text.strip_prefix("<!-- ")) {
                file = Some(name.trim_end_matches(" -->"));
            } else if let Some(file) = file {
                files.entry(file).or_default().push(text);
            }
        }
    }
    for (name, text) in files {
        std::fs::create_dir_all(folder.join(name).parent().unwrap()).unwrap();
        std::fs::write(folder.join(name), text.join("\n")).unwrap();
    }
    let opened = lines.join("\n");
    std::fs::write(folder.join("hookmill.toml"), &opened).unwrap();
    let commands = configuration.lines().filter_map(|line| line.strip_prefix("#     "));
    for command in commands {
        let path =
            format!("{}:{}", binary().parent().unwrap().display(), std::env::var("PATH").unwrap());
        let run = Command::new("sh")
            .args(["-ec", command])
            .env("PATH", path)
            .current_dir(folder)
            .status();
        assert!(run.unwrap().success(), "{command}");
    }
    opened
}

#[test]
fn what_init_writes_is_valid_for_every_provider() {
    let all = providers();
    for providers in all.iter().map(std::slice::from_ref).chain([&all[..]]) {
        let made = with_init(providers);
        let checked = shown(made.path(), &["check"]);
        assert!(checked.starts_with("exit code 0"), "{providers:?}: {checked}");
        let text = std::fs::read_to_string(made.path().join("hookmill.toml")).unwrap();
        let (config, _) = hookmill_core::config::parse("hookmill.toml", &text);
        assert_eq!(config.ingress.sources.len(), providers.len());
        for place in ["{source}", "{type}", "{file}"] {
            assert!(!text.contains(place), "{providers:?}: {place}");
        }

        let blocks = commented(&text);
        let opened = uncommented(made.path(), &text, &blocks);
        let checked = shown(made.path(), &["check"]);
        assert!(checked.contains("no errors; 1 test passed"), "{providers:?}: {checked}\n{opened}");

        // Every secret that is named, and no other, is in the file for them.
        let named = opened.split("\"env:").skip(1).map(|rest| rest.split('"').next().unwrap());
        let mut named: Vec<_> = named.chain(["RESEND_API_KEY"]).collect();
        let example = std::fs::read_to_string(made.path().join(".env.example")).unwrap();
        let listed = example.lines().filter_map(|line| line.strip_suffix('='));
        let mut listed: Vec<_> = listed.map(|name| name.trim_start_matches("# ")).collect();
        named.sort_unstable();
        listed.sort_unstable();
        assert_eq!(named, listed, "{providers:?}");
    }
}

#[test]
fn every_example_that_init_writes_is_valid_alone_and_says_the_defaults() {
    let made = with_init(&["stripe", "clerk"]);
    let text = std::fs::read_to_string(made.path().join("hookmill.toml")).unwrap();
    let blocks = commented(&text);
    assert_eq!(blocks.len(), 9);
    for block in &blocks {
        let opened = uncommented(made.path(), &text, std::slice::from_ref(block));
        let checked = shown(made.path(), &["check"]);
        assert!(checked.starts_with("exit code 0"), "{checked}\n{opened}");
    }
    let opened = uncommented(made.path(), &text, &blocks);
    let defaults = [
        "unmatched",
        "body_limit",
        "body_timeout",
        "max_attempts",
        "initial",
        "multiplier",
        "max",
        "jitter",
        "settled",
        "oldest_dead_letter",
        "repeat",
    ];
    let is_default = |line: &&str| {
        let key = line.split_once(" = ").map(|(key, _)| key);
        key.is_some_and(|key| defaults.contains(&key))
    };
    assert_eq!(opened.lines().filter(is_default).count(), defaults.len());
    let without: Vec<_> =
        opened.lines().map(|line| if is_default(&line) { "" } else { line }).collect();
    let parse = |text: &str| hookmill_core::config::parse("hookmill.toml", text);
    assert!(parse(&opened) == parse(&without.join("\n")), "each is the default");
}

#[test]
fn what_init_writes_explains_itself() {
    let made = with_init(&["stripe", "clerk"]);
    let text = |name: &str| std::fs::read_to_string(made.path().join(name)).unwrap();
    insta::assert_snapshot!("init_hookmill_toml", text("hookmill.toml"));
    insta::assert_snapshot!("init_env_example", text(".env.example"));
    let document = folder().parent().unwrap().join("docs/configuration.md");
    let document = std::fs::read_to_string(document).unwrap();
    assert!(document.contains(text("hookmill.toml").lines().next().unwrap()), "the schema");
    // Those of this repository, since it is this that is deployed.
    for stage in ["ingress", "consumers", "dlq"] {
        let file = format!("{stage}/worker/wrangler.toml");
        let own = std::fs::read_to_string(folder().parent().unwrap().join(&file)).unwrap();
        assert_eq!(text(&file), own);
    }

    // The secrets come into the environment as the file says.
    let clerk = "CLERK_WEBHOOK_SECRET='whsec_Y2FuYXJ5LW9mLXRoZS1jbGVyay1zb3VyY2U='\n";
    let filled = text(".env.example")
        .replace("\nSTRIPE_WEBHOOK_SECRET=\n", "\nSTRIPE_WEBHOOK_SECRET=whsec_1\n")
        .replace("CLERK_WEBHOOK_SECRET=\n", clerk);
    std::fs::write(made.path().join(".env"), &filled).unwrap();
    let load = filled.lines().find_map(|line| line.strip_prefix("#     ")).unwrap();
    let script = format!("{load}; {} check --secrets", binary().display());
    let run = Command::new("sh").args(["-ec", &script]).current_dir(made.path()).output().unwrap();
    assert!(run.status.success(), "{run:?}");
}

#[test]
fn init_replaces_nothing_unasked() {
    let made = tempfile::tempdir().unwrap();
    insta::assert_snapshot!(shown(made.path(), &["init", "stripe", "github"]), @r#"
    exit code 0
    --- stdout
    hookmill.toml
    .env.example
    ingress/worker/wrangler.toml
    consumers/worker/wrangler.toml
    dlq/worker/wrangler.toml
    --- stderr

    Next:

      hookmill check
      hookmill dev
      hookmill send stripe customer.subscription.updated    # in another terminal

    `serve` needs the secrets that .env.example names; where to get them: docs/providers.md#stripe, #github
    The Workers are built in a clone of Hookmill: README.md, "Deploy to Cloudflare"
    "#);
    // Once more, there is nothing to write.
    insta::assert_snapshot!(shown(made.path(), &["init", "stripe", "github"]), @r#"
    exit code 0
    --- stdout
    --- stderr
    every file is there already, and says the same

    Next:

      hookmill check
      hookmill dev
      hookmill send stripe customer.subscription.updated    # in another terminal

    `serve` needs the secrets that .env.example names; where to get them: docs/providers.md#stripe, #github
    The Workers are built in a clone of Hookmill: README.md, "Deploy to Cloudflare"
    "#);

    let configuration = made.path().join("hookmill.toml");
    let before = std::fs::read_to_string(&configuration).unwrap();
    std::fs::write(&configuration, "# mine\n").unwrap();
    std::fs::remove_file(made.path().join("dlq/worker/wrangler.toml")).unwrap();
    insta::assert_snapshot!(shown(made.path(), &["init", "stripe", "github"]), @"
    exit code 1
    --- stdout
    --- stderr
    error: hookmill.toml is there already, and has other content; nothing was written. --force replaces it; --into FOLDER writes elsewhere, to copy from
    ");
    assert_eq!(std::fs::read_to_string(&configuration).unwrap(), "# mine\n");
    assert!(!made.path().join("dlq/worker/wrangler.toml").exists(), "nothing was written");
    std::fs::write(made.path().join(".env.example"), "MINE=\n").unwrap();
    let refused = shown(made.path(), &["init", "stripe", "github"]);
    assert!(refused.contains("hookmill.toml, .env.example are there already"), "{refused}");

    let forced = shown(made.path(), &["init", "stripe", "github", "--force"]);
    let written = "--- stdout\nhookmill.toml\n.env.example\ndlq/worker/wrangler.toml\n--- stderr";
    assert!(forced.contains(written), "{forced}");
    assert_eq!(std::fs::read_to_string(&configuration).unwrap(), before);

    // Elsewhere, and where there is something in the way.
    insta::assert_snapshot!(shown(made.path(), &["init", "stripe", "--into", "fresh/folder"]), @r#"
    exit code 0
    --- stdout
    fresh/folder/hookmill.toml
    fresh/folder/.env.example
    fresh/folder/ingress/worker/wrangler.toml
    fresh/folder/consumers/worker/wrangler.toml
    fresh/folder/dlq/worker/wrangler.toml
    --- stderr

    Next:

      cd fresh/folder
      hookmill check
      hookmill dev
      hookmill send stripe customer.subscription.updated    # in another terminal

    `serve` needs the secrets that .env.example names; where to get them: docs/providers.md#stripe
    The Workers are built in a clone of Hookmill: README.md, "Deploy to Cloudflare"
    "#);
    std::fs::write(made.path().join("file"), "").unwrap();
    insta::assert_snapshot!(shown(made.path(), &["init", "stripe", "--into", "file"]), @"
    exit code 1
    --- stdout
    --- stderr
    error: cannot read file/hookmill.toml: Not a directory (os error 20)
    ");
    // One that cannot be written, after the others: a link that leads nowhere is no folder.
    let half = made.path().join("half");
    std::fs::create_dir(&half).unwrap();
    std::os::unix::fs::symlink("nowhere", half.join("dlq")).unwrap();
    let failed = shown(made.path(), &["init", "stripe", "--into", "half"]);
    let error = "error: cannot write half/dlq/worker/wrangler.toml: ";
    assert!(failed.starts_with("exit code 1") && failed.contains(error), "{failed}");
    let files = std::fs::read_dir(&half).unwrap().map(|entry| entry.unwrap().path());
    assert_eq!(files.filter(|path| path.is_file()).count(), 0, "nothing was written");
}

#[test]
fn init_says_which_providers_there_are() {
    let made = tempfile::tempdir().unwrap();
    let said = [
        &["init"][..],
        &["init", "strip"],
        &["init", "hmac"],
        &["init", "paypal"],
        &["init", "stripe", "stripe"],
    ];
    insta::assert_snapshot!(said.map(|arguments| shown(made.path(), arguments)).join("\n"), @"
    exit code 2
    --- stdout
    --- stderr
    error: no provider is named
      [possible values: auth0, clerk, discord, github, hubspot, intercom, lemon-squeezy, linear, mailgun, paddle, paddle-classic, resend, sendgrid, shopify, slack, square, stripe, supabase, svix, twilio, typeform, zendesk]

    exit code 2
    --- stdout
    --- stderr
    error: invalid value 'strip' for '[PROVIDER]...'
      [possible values: auth0, clerk, discord, github, hubspot, intercom, lemon-squeezy, linear, mailgun, paddle, paddle-classic, resend, sendgrid, shopify, slack, square, stripe, supabase, svix, twilio, typeform, zendesk]

      tip: a similar value exists: 'stripe'

    For more information, try '--help'.

    exit code 2
    --- stdout
    --- stderr
    error: `hmac` is a way of signing, and not who signs: describe the provider in a section of hookmill.toml, as docs/providers.md#any-other-provider says

    exit code 2
    --- stdout
    --- stderr
    error: PayPal is not supported; docs/providers.md#paypal says what to do instead

    exit code 2
    --- stdout
    --- stderr
    error: `stripe` is named twice
    ");
    assert_eq!(std::fs::read_dir(made.path()).unwrap().count(), 0, "nothing was written");
}

#[test]
fn what_init_writes_runs() {
    let names = ["stripe", "clerk", "twilio", "github"];
    let made = with_init(&names);
    let _dev = Dev::start(made.path());
    let sent = [
        ("stripe", "customer.subscription.updated", "applied"),
        ("clerk", "user.created", "applied"),
        ("twilio", "message.delivered", "applied"),
        ("github", "issues.opened", "recorded"),
    ];
    for (source, kind, state) in sent {
        let sent = printed(made.path(), &["send", source, kind, "--json"]);
        assert_eq!(
            (&sent["status"], &sent["event"]["state"]),
            (&200.into(), &state.into()),
            "{sent}"
        );
    }
}
