//! `hookmill init`: its files are valid, explain themselves, and run.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::process::Command;

use hookmill_tests::folder;
use hookmill_tests::native::binary;

use crate::{Dev, hookmill, printed, shown};

/// The providers that `init` knows.
fn providers() -> Vec<&'static str> {
    let described = ["ecdsa-p256", "ed25519", "hmac", "standard-webhooks", "token"];
    let schemes = hookmill_config::scheme_names();
    schemes.filter(|scheme| !described.contains(scheme)).collect()
}

/// A folder with the files of `init`.
fn with_init(providers: &[&str]) -> tempfile::TempDir {
    let temporary = tempfile::tempdir().unwrap();
    let output = hookmill(temporary.path(), &[&["init"], providers].concat());
    assert!(output.status.success(), "{output:?}");
    temporary
}

/// The commented blocks of a configuration, as line numbers: an option of a source, or the lines between a blank comment
/// and the next blank line.
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

/// The configuration of a folder with these blocks uncommented, and the files that their comments mention.
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
fn the_files_of_init_are_valid_for_every_provider() {
    let all = providers();
    for providers in all.iter().map(std::slice::from_ref).chain([&all[..]]) {
        let made = with_init(providers);
        let checked = shown(made.path(), &["check"]);
        assert!(checked.starts_with("exit code 0"), "{providers:?}: {checked}");
        let text = std::fs::read_to_string(made.path().join("hookmill.toml")).unwrap();
        let config = hookmill_config::parse("hookmill.toml", &text).unwrap();
        assert_eq!(config.ingress.sources.len(), providers.len());
        for place in ["{source}", "{type}", "{file}"] {
            assert!(!text.contains(place), "{providers:?}: {place}");
        }

        let blocks = commented(&text);
        let opened = uncommented(made.path(), &text, &blocks);
        let checked = shown(made.path(), &["check"]);
        assert!(checked.contains("no errors; 1 test passed"), "{providers:?}: {checked}\n{opened}");

        // .env.example contains every named secret, and no other.
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
fn every_example_of_init_is_valid_alone_and_gives_the_defaults() {
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
    let parse = |text: &str| hookmill_config::parse("hookmill.toml", text);
    assert!(parse(&opened) == parse(&without.join("\n")), "each is the default");
}

#[test]
fn the_files_of_init_explain_themselves() {
    let made = with_init(&["stripe", "clerk"]);
    let text = |name: &str| std::fs::read_to_string(made.path().join(name)).unwrap();
    insta::assert_snapshot!("hookmill_toml", text("hookmill.toml"));
    insta::assert_snapshot!("env_example", text(".env.example"));
    let document = folder().parent().unwrap().join("docs/configuration.md");
    let document = std::fs::read_to_string(document).unwrap();
    assert!(document.contains(text("hookmill.toml").lines().next().unwrap()), "the schema");
    // The Workers of this repository, since they would be deployed.
    for stage in ["ingress", "consumers", "dlq"] {
        let file = format!("{stage}/worker/wrangler.toml");
        let own = std::fs::read_to_string(folder().parent().unwrap().join(&file)).unwrap();
        assert_eq!(text(&file), own);
    }

    // The environment is set as the file says.
    let clerk = "CLERK_WEBHOOK_SECRET='whsec_Y2FuYXJ5LW9mLXRoZS1jbGVyay1zb3VyY2U='\n";
    let filled = text(".env.example")
        .replace("\nSTRIPE_WEBHOOK_SECRET=\n", "\nSTRIPE_WEBHOOK_SECRET=whsec_0123456789\n")
        .replace("CLERK_WEBHOOK_SECRET=\n", clerk);
    std::fs::write(made.path().join(".env"), &filled).unwrap();
    let load = filled.lines().find_map(|line| line.strip_prefix("#     ")).unwrap();
    let script = format!("{load}; {} check --secrets", binary().display());
    let run = Command::new("sh").args(["-ec", &script]).current_dir(made.path()).output().unwrap();
    assert!(run.status.success(), "{run:?}");
}

#[test]
fn init_replaces_nothing_without_force() {
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

    `serve` needs the secrets that .env.example lists; docs/providers.md#stripe, #github says where to find them
    The Workers are built in a clone of Hookmill: README.md, "Deploy to Cloudflare"
    "#);
    // The second time, there is nothing to write.
    insta::assert_snapshot!(shown(made.path(), &["init", "stripe", "github"]), @r#"
    exit code 0
    --- stdout
    --- stderr
    all files already exist with the same content

    Next:

      hookmill check
      hookmill dev
      hookmill send stripe customer.subscription.updated    # in another terminal

    `serve` needs the secrets that .env.example lists; docs/providers.md#stripe, #github says where to find them
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
    error: hookmill.toml already exists with other content; nothing was written. --force replaces it; --into FOLDER writes to another folder, to copy from
    ");
    assert_eq!(std::fs::read_to_string(&configuration).unwrap(), "# mine\n");
    assert!(!made.path().join("dlq/worker/wrangler.toml").exists(), "nothing was written");
    std::fs::write(made.path().join(".env.example"), "MINE=\n").unwrap();
    let refused = shown(made.path(), &["init", "stripe", "github"]);
    assert!(refused.contains("hookmill.toml, .env.example already exist"), "{refused}");

    let forced = shown(made.path(), &["init", "stripe", "github", "--force"]);
    let written = "--- stdout\nhookmill.toml\n.env.example\ndlq/worker/wrangler.toml\n--- stderr";
    assert!(forced.contains(written), "{forced}");
    assert_eq!(std::fs::read_to_string(&configuration).unwrap(), before);

    // In another folder, and with a conflicting file.
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

    `serve` needs the secrets that .env.example lists; docs/providers.md#stripe says where to find them
    The Workers are built in a clone of Hookmill: README.md, "Deploy to Cloudflare"
    "#);
    std::fs::write(made.path().join("file"), "").unwrap();
    insta::assert_snapshot!(shown(made.path(), &["init", "stripe", "--into", "file"]), @"
    exit code 1
    --- stdout
    --- stderr
    error: cannot read file/hookmill.toml: Not a directory (os error 20)
    ");
    // A file that cannot be written, after the others: a broken link is not a folder.
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
fn init_lists_the_providers() {
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
    error: no provider given
      [possible values: auth0, clerk, discord, github, hubspot, intercom, lemon-squeezy, linear, mailgun, meta, paddle, paddle-classic, resend, sendgrid, shopify, slack, square, stripe, supabase, svix, twilio, typeform, zendesk, zoom]

    exit code 2
    --- stdout
    --- stderr
    error: invalid value 'strip' for '[PROVIDER]...'
      [possible values: auth0, clerk, discord, github, hubspot, intercom, lemon-squeezy, linear, mailgun, meta, paddle, paddle-classic, resend, sendgrid, shopify, slack, square, stripe, supabase, svix, twilio, typeform, zendesk, zoom]

      tip: a similar value exists: 'stripe'

    For more information, try '--help'.

    exit code 2
    --- stdout
    --- stderr
    error: `hmac` is a signature scheme, not a provider; describe the provider in hookmill.toml: docs/providers.md#any-other-provider

    exit code 2
    --- stdout
    --- stderr
    error: PayPal is not supported; docs/providers.md#paypal describes an alternative

    exit code 2
    --- stdout
    --- stderr
    error: `stripe` is listed twice
    ");
    assert_eq!(std::fs::read_dir(made.path()).unwrap().count(), 0, "nothing was written");
}

#[test]
fn the_configuration_of_init_runs() {
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
