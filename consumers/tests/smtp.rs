//! Sending by SMTP from a real SQLite, to a server on loopback that refuses, defers, and breaks connections.

// Outside #[test] functions, clippy does not know that this is a test.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hookmill_config::{Api, Consumers, Emails, Limits, OnUncertain, Retry, Sending};
use hookmill_consumers::outbox::{OutboxChannel, Round, Sent, rounds};
use hookmill_core::email::TemplateText;
use hookmill_core::outbound::Provider;
use hookmill_core::params;
use hookmill_core::secret::{Secret, SecretName};
use hookmill_core::store::{Param, Row, Statement, Store as _};
use hookmill_core::time::Timestamp;
use hookmill_native::{DataFolder, HttpClient, Sqlite};
use hookmill_rules::Program;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// The server's behavior in the next dialogue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mood {
    Accepts,
    /// It greets with this.
    Greets(&'static str),
    /// It replies with this to AUTH.
    Login(&'static str),
    /// It replies with this to MAIL.
    Sender(&'static str),
    /// It replies with this to RCPT of an address that begins so.
    Recipient(&'static str, &'static str),
    /// It replies with this to the message.
    Message(&'static str),
    /// It breaks the connection instead of replying to this command.
    Breaks(&'static str),
    /// It breaks the connection after the message, which it has accepted or not.
    BreaksAfter {
        takes: bool,
    },
    /// It does not offer STARTTLS.
    NoTls,
}

/// What the server has received.
#[derive(Default)]
struct Seen {
    moods: Vec<Mood>,
    /// The commands of all dialogues.
    commands: Vec<String>,
    /// The messages that it has accepted.
    messages: Vec<String>,
}

/// Runs dialogues, one after the other, until the test ends.
async fn serve(listener: TcpListener, seen: Arc<Mutex<Seen>>) {
    while let Ok((stream, _)) = listener.accept().await {
        let mood = seen.lock().unwrap().moods.pop().unwrap_or(Mood::Accepts);
        // A client that disconnects ends its dialogue only.
        let _ = dialogue(stream, mood, &seen).await;
    }
}

async fn dialogue(stream: TcpStream, mood: Mood, seen: &Mutex<Seen>) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let greeting = match mood {
        Mood::Greets(words) => words,
        _ => "220 mail.example.com ESMTP",
    };
    stream.write_all(format!("{greeting}\r\n").as_bytes()).await?;
    let mut line = String::new();
    loop {
        line.clear();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        let command = line.trim_end().to_owned();
        seen.lock().unwrap().commands.push(command.clone());
        let verb = command.split([' ', ':']).next().unwrap_or_default().to_uppercase();
        let reply = match (verb.as_str(), mood) {
            ("EHLO", _) => "250-mail.example.com\r\n250-8BITMIME\r\n250 AUTH PLAIN LOGIN",
            ("AUTH", Mood::Login(words)) | ("MAIL", Mood::Sender(words)) => words,
            ("AUTH", _) => "235 2.7.0 Authentication successful",
            ("RCPT", Mood::Recipient(begins, words)) if command.contains(&format!("<{begins}")) => {
                words
            }
            ("MAIL" | "RCPT", _) => "250 2.1.0 Ok",
            ("DATA", _) => "354 End data with <CR><LF>.<CR><LF>",
            ("QUIT", _) => "221 2.0.0 Bye",
            _ => "502 5.5.2 Command not recognized",
        };
        if matches!(mood, Mood::Breaks(at) if at == verb) {
            return Ok(());
        }
        stream.write_all(format!("{reply}\r\n").as_bytes()).await?;
        if verb == "QUIT" {
            return Ok(());
        }
        if verb != "DATA" {
            continue;
        }
        let mut message = String::new();
        while !message.ends_with("\r\n.\r\n") {
            if stream.read_line(&mut message).await? == 0 {
                return Ok(());
            }
        }
        let reply = match mood {
            Mood::Message(words) => words,
            _ => "250 2.0.0 Ok: queued as 4SkQ6h1Wz",
        };
        if reply.starts_with("250") && mood != (Mood::BreaksAfter { takes: false }) {
            seen.lock().unwrap().messages.push(message);
        }
        if matches!(mood, Mood::BreaksAfter { .. }) {
            return Ok(());
        }
        stream.write_all(format!("{reply}\r\n").as_bytes()).await?;
    }
}

struct World {
    store: Sqlite,
    config: Consumers,
    client: HttpClient,
    seen: Arc<Mutex<Seen>>,
    _folder: tempfile::TempDir,
    _data: DataFolder,
}

impl World {
    /// A world with this number of emails, for `0@example.com` and so on, and a server.
    async fn new(emails: usize, moods: &[Mood]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = DataFolder::lock(folder.path()).unwrap();
        let store = data.store(&hookmill_migrations::own()).unwrap().store;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let scheme = if moods.contains(&Mood::NoTls) { "smtp+starttls" } else { "smtp" };
        let url = format!("{scheme}://127.0.0.1:{}", listener.local_addr().unwrap().port());
        // Moods are popped from the end.
        let moods = moods.iter().rev().copied().collect();
        let seen = Arc::new(Mutex::new(Seen { moods, ..Seen::default() }));
        tokio::spawn(serve(listener, seen.clone()));
        let text = TemplateText {
            subject: "Olá, {{ name }}".into(),
            html: "<p>Olá, {{ name }}</p>".into(),
            text: None,
        };
        let key = SecretName("SMTP_PASSWORD".into());
        let user = Some("somebody".to_owned());
        let api = Api { provider: Provider::Smtp, key, url, rate: 10, user };
        let sending = Sending {
            apis: vec![api],
            failover_after: 3,
            wait: Duration::ZERO,
            on_uncertain: OnUncertain::Hold,
            quota: None,
        };
        let config = Consumers {
            program: Program::default(),
            apis: BTreeMap::new(),
            api_versions: BTreeMap::new(),
            sweeps: BTreeMap::new(),
            reconciliations: BTreeMap::new(),
            limits: Limits::default(),
            keep_messages: false,
            alerts: None,
            retry: Retry {
                max_attempts: 3,
                initial: Duration::from_secs(1),
                multiplier: 1.0,
                max: Duration::from_secs(1),
                jitter: 0.0,
            },
            emails: Some(Emails {
                sending,
                from: "Acme <hello@example.com>".parse().unwrap(),
                reply_to: Some("help@example.com".parse().unwrap()),
                per_hour: 1000,
            }),
            sms: None,
            tracking: Vec::new(),
            templates: BTreeMap::from([("welcome".to_owned(), text)]),
        };
        let client = HttpClient::new().unwrap();
        let world = Self { store, config, client, seen, _folder: folder, _data: data };
        for n in 0..emails {
            world.write(n, &json!([format!("{n}@example.com")]), &json!([])).await;
        }
        world
    }

    /// Writes an email into the outbox.
    async fn write(&self, n: usize, to: &Value, cc: &Value) {
        let content = json!({ "template": "welcome", "to": to, "cc": cc, "data": { "name": n } });
        let sql = "INSERT INTO outbox (id, source, event_id, generation, rule, channel, content, due_at, created_at) \
            VALUES ('id_' || ?1, 's', 'evt_' || ?1, 0, 'welcome', 'email', ?2, 0, 0)";
        self.sql(sql, params![n.to_string(), content.to_string()]).await;
    }

    async fn sql(&self, sql: &str, params: Vec<Param>) -> Vec<Vec<Option<String>>> {
        let rows = self.store.execute(vec![Statement::new(sql, params)]).await.unwrap().remove(0);
        rows.iter().map(Row::texts).collect()
    }

    /// Each email in the outbox: state, error, the provider's id, and skipped recipients.
    async fn outbox(&self) -> Vec<[String; 4]> {
        let sql =
            "SELECT state, error, provider_id, skipped_recipients FROM outbox ORDER BY event_id";
        let rows = self.sql(sql, Vec::new()).await;
        let text = |row: &Vec<Option<String>>, n: usize| row[n].clone().unwrap_or_default();
        rows.iter().map(|row| [0, 1, 2, 3].map(|n| text(row, n))).collect()
    }

    async fn states(&self) -> Vec<String> {
        self.outbox().await.into_iter().map(|[state, ..]| state).collect()
    }

    async fn round(&self, now: i64) -> Round {
        let password = |_: &SecretName| Some(Secret::from("pass \"word\"\n"));
        let channel = OutboxChannel::all(&self.config, password).unwrap().remove(0);
        let clock = || Timestamp::from_millis(now);
        rounds(&self.store, &self.client, &[channel], clock).await.unwrap().remove(0)
    }

    /// Runs rounds, each when the previous one is due, until no work is left.
    async fn until_done(&self) -> Sent {
        let (mut now, mut all) = (1_000, Sent::default());
        for _ in 0..100 {
            let Round { sent, next } = self.round(now).await;
            all.accepted += sent.accepted;
            all.unsent.extend(sent.unsent);
            all.problems.extend(sent.problems);
            match next {
                Some(next) => now = next.millis(),
                None => return all,
            }
        }
        panic!("it does not end")
    }

    fn commands(&self) -> Vec<String> {
        self.seen.lock().unwrap().commands.clone()
    }

    /// The Message-IDs of the messages that the server has accepted, in order.
    fn message_ids(&self) -> Vec<String> {
        let seen = self.seen.lock().unwrap();
        let id = |message: &String| {
            let mut lines = message.lines();
            lines.find_map(|line| line.strip_prefix("Message-ID: ")).unwrap().to_owned()
        };
        seen.messages.iter().map(id).collect()
    }
}

#[tokio::test]
async fn an_email_is_sent_with_all_parts_and_the_outbox_has_its_id() {
    let world = World::new(0, &[]).await;
    let to = json!(["Bea <b@example.com>"]);
    world.write(0, &to, &json!(["c@example.com"])).await;
    assert_eq!(world.until_done().await.accepted, 1);
    let expected = ["sent", "", "4SkQ6h1Wz", ""].map(str::to_owned);
    assert_eq!(world.outbox().await, [expected]);
    insta::assert_debug_snapshot!(world.commands(), @r#"
    [
        "EHLO example.com",
        "AUTH PLAIN AHNvbWVib2R5AHBhc3MgIndvcmQi",
        "MAIL FROM:<hello@example.com>",
        "RCPT TO:<b@example.com>",
        "RCPT TO:<c@example.com>",
        "DATA",
        "QUIT",
    ]
    "#);
    let message = world.seen.lock().unwrap().messages[0].clone();
    let message: Vec<_> = message.lines().filter(|line| !line.starts_with("Date: ")).collect();
    insta::assert_snapshot!(message.join("\n"), @r#"
    Message-ID: <id_0@example.com>
    From: Acme <hello@example.com>
    Subject: =?utf-8?b?T2zDoSw=?= 0
    To: Bea <b@example.com>
    Cc: c@example.com
    Reply-To: help@example.com
    MIME-Version: 1.0
    Content-Type: multipart/alternative; boundary="hookmill-id_0"

    --hookmill-id_0
    Content-Type: text/plain; charset=utf-8
    Content-Transfer-Encoding: quoted-printable

    Ol=C3=A1, 0
    --hookmill-id_0
    Content-Type: text/html; charset=utf-8
    Content-Transfer-Encoding: quoted-printable

    <p>Ol=C3=A1, 0</p>
    --hookmill-id_0--

    .
    "#);
    let usage = world.sql("SELECT sent FROM outbox_usage WHERE period = '1970-01'", vec![]).await;
    assert_eq!(usage, [[Some("2".to_owned())]]);
}

#[tokio::test]
async fn a_refused_recipient_does_not_affect_the_others() {
    let refuses = Mood::Recipient("1@", "550 5.1.1 No such user");
    let world = World::new(3, &[refuses; 3]).await;
    let sent = world.until_done().await;
    assert_eq!(sent.states(), BTreeMap::from([("refused", 1), ("sent", 2)]));
    let outbox = world.outbox().await;
    assert_eq!(outbox[1][0], "refused");
    assert_eq!(outbox[1][1], "SMTP answered 550: [recipient]: 550 5.1.1 No such user");

    // Of several recipients, those that are not suppressed and that the server accepts get the email.
    let world = World::new(0, &[Mood::Recipient("b@", "550 5.1.1 No such user")]).await;
    let suppress = "INSERT INTO suppressions (address, reason, source, event_id, version, created_at) \
        VALUES ('c@example.com', 'complained', 's', 'e', 0, 0)";
    world.sql(suppress, Vec::new()).await;
    world.write(0, &json!(["a@example.com", "b@example.com"]), &json!(["c@example.com"])).await;
    assert_eq!(world.until_done().await.accepted, 1);
    let [state, error, _, left_out] = world.outbox().await.remove(0);
    assert_eq!((state.as_str(), error.as_str()), ("sent", ""));
    assert_eq!(left_out, "c@example.com: complained, b@example.com: 550 5.1.1 No such user");
    assert!(!world.commands().contains(&"RCPT TO:<c@example.com>".to_owned()));
}

#[tokio::test]
async fn a_deferred_email_is_sent_later_and_delays_no_other() {
    for defers in [
        Mood::Recipient("", "450 4.2.1 Greylisted, try again"),
        Mood::Message("452 4.3.1 Insufficient system storage"),
    ] {
        let world = World::new(2, &[defers, Mood::Accepts, Mood::Accepts]).await;
        let first = world.round(1_000).await;
        assert_eq!(first.sent.accepted, 0, "{defers:?}");
        // The other is sent before the first one is retried.
        let next = first.next.unwrap().millis();
        assert!(next < 2_000, "{defers:?}: {next}");
        assert_eq!(world.round(next).await.sent.accepted, 1, "{defers:?}");
        let states: BTreeSet<_> = world.states().await.into_iter().collect();
        assert_eq!(states, BTreeSet::from(["sealed".into(), "sent".into()]), "{defers:?}");
        world.until_done().await;
        assert_eq!(world.states().await, ["sent", "sent"], "{defers:?}");
        let ids: BTreeSet<_> = world.message_ids().into_iter().collect();
        let both = ["<id_0@example.com>", "<id_1@example.com>"].map(str::to_owned);
        assert_eq!(ids, BTreeSet::from(both), "{defers:?}");
    }
}

#[tokio::test]
async fn no_recipient_gets_an_email_while_one_is_deferred() {
    let world = World::new(0, &[Mood::Recipient("b@", "450 4.2.1 Greylisted")]).await;
    world.write(0, &json!(["a@example.com", "b@example.com"]), &json!([])).await;
    assert_eq!(world.round(1_000).await.sent.accepted, 0);
    assert_eq!(world.message_ids(), Vec::<String>::new());
    world.until_done().await;
    assert_eq!(world.outbox().await, [["sent", "", "4SkQ6h1Wz", ""].map(str::to_owned)]);
    assert_eq!(world.message_ids().len(), 1);
}

#[tokio::test]
async fn a_busy_or_unavailable_server_is_retried_later() {
    for mood in [
        Mood::Greets("421 4.3.2 Too many concurrent connections"),
        Mood::Login("454 4.7.0 Temporary authentication failure"),
        Mood::Sender("451 4.3.0 Temporary service failure"),
        Mood::Message("454 Throttling failure: Maximum sending rate exceeded."),
        // The server cannot have accepted a message that it was not sent.
        Mood::Breaks("RCPT"),
        Mood::Breaks("DATA"),
    ] {
        let world = World::new(1, &[mood]).await;
        let first = world.round(1_000).await;
        assert_eq!((first.sent.accepted, first.sent.problems.len()), (0, 1), "{mood:?}");
        assert_eq!(first.next.unwrap().millis(), 2_000, "{mood:?}");
        world.until_done().await;
        assert_eq!(world.states().await, ["sent"], "{mood:?}");
        assert_eq!(world.message_ids().len(), 1, "{mood:?}");
    }
}

#[tokio::test]
async fn a_permanent_error_is_recorded_with_the_servers_words() {
    for (mood, words) in [
        (
            Mood::Login("535 Authentication Credentials Invalid"),
            "535: Authentication Credentials Invalid",
        ),
        (Mood::Sender("553 5.7.1 Sender not verified"), "553: 5.7.1 Sender not verified"),
        (
            Mood::Message("554 Message rejected: Email address is not verified."),
            "554: Message rejected: Email address is not verified.",
        ),
        // If the server quotes the password, it is not stored.
        (Mood::Login("535 not pass \"word\""), "535: not [key]"),
        (Mood::Login("501 not AHNvbWVib2R5AHBhc3MgIndvcmQi"), "501: not [key]"),
    ] {
        let world = World::new(1, &[mood]).await;
        world.until_done().await;
        let [state, error, ..] = world.outbox().await.remove(0);
        assert_eq!((state, error), ("refused".to_owned(), format!("SMTP answered {words}")));
        assert!(world.message_ids().is_empty());
    }
}

#[tokio::test]
async fn a_connection_that_breaks_after_the_message_leaves_delivery_uncertain() {
    for takes in [true, false] {
        let world = World::new(1, &[Mood::BreaksAfter { takes }]).await;
        world.until_done().await;
        let [state, error, ..] = world.outbox().await.remove(0);
        assert_eq!(state, "uncertain");
        assert!(error.starts_with("delivery is uncertain: no response: "), "{error}");
        assert_eq!(world.message_ids().len(), usize::from(takes));
    }
}

#[tokio::test]
async fn a_retried_uncertain_email_has_the_same_message_id() {
    let mut world = World::new(1, &[Mood::BreaksAfter { takes: true }]).await;
    world.config.emails.as_mut().unwrap().sending.on_uncertain = OnUncertain::Retry;
    world.until_done().await;
    assert_eq!(world.states().await, ["sent"]);
    assert_eq!(world.message_ids(), ["<id_0@example.com>"; 2]);
}

#[tokio::test]
async fn without_tls_neither_password_nor_email_is_sent() {
    let world = World::new(1, &[Mood::NoTls]).await;
    let first = world.round(1_000).await;
    assert_eq!(first.sent.problems.len(), 1);
    assert!(first.sent.problems[0].contains("STARTTLS is not supported"), "{first:?}");
    assert_eq!(world.states().await, ["sealed"]);
    let sent = world.commands();
    assert!(
        sent.iter().all(|command| command.starts_with("EHLO") || command == "QUIT"),
        "{sent:?}"
    );
}

#[tokio::test]
async fn an_unreachable_server_has_accepted_nothing() {
    let mut world = World::new(1, &[]).await;
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let url = |world: &mut World, url: String| {
        let apis = &mut world.config.emails.as_mut().unwrap().sending.apis;
        std::mem::replace(&mut apis[0].url, url)
    };
    let there = url(&mut world, format!("smtp://{closed}"));
    let first = world.round(1_000).await;
    assert!(first.sent.problems[0].starts_with("no connection: "), "{first:?}");
    assert_eq!(world.states().await, ["sealed"]);
    url(&mut world, there);
    world.until_done().await;
    assert_eq!(world.message_ids(), ["<id_0@example.com>"]);
}
