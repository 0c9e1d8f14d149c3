//! Email through an SMTP server with TLS: the certificate is verified, and only then are the password and the email sent.

use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use hookmill_tests::{CLERK_SECRET, eventually};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::Value;

use crate::command;

/// An SMTP server for one host name. It records what it reads over TLS.
struct Server {
    port: u16,
    /// The certificate of its issuer, as PEM.
    issuer: String,
    read: Arc<Mutex<String>>,
}

impl Server {
    /// `implicit`: the connection is encrypted from the start; otherwise, after STARTTLS.
    fn start(implicit: bool) -> Self {
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let names = vec!["localhost".to_owned()];
        let certificate =
            CertificateParams::new(names).unwrap().signed_by(&key, &issuer).unwrap().der().clone();
        let config =
            ServerConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(
                    vec![certificate],
                    PrivateKeyDer::Pkcs8(key.serialize_der().into()),
                )
                .unwrap();
        let config = Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let read: Arc<Mutex<String>> = Arc::default();
        let record = read.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                // A client that rejects the certificate ends the connection.
                let _ = serve(stream, implicit, &config, &record);
            }
        });
        Self { port, issuer: issuer.pem(), read }
    }

    /// The commands and the message that arrived over TLS.
    fn read(&self) -> String {
        self.read.lock().unwrap().clone()
    }
}

fn serve(
    mut stream: TcpStream,
    implicit: bool,
    config: &Arc<ServerConfig>,
    record: &Mutex<String>,
) -> std::io::Result<()> {
    if !implicit {
        stream.write_all(b"220 localhost ESMTP\r\n")?;
        let mut lines = BufReader::new(stream.try_clone()?).lines();
        while let Some(line) = lines.next().transpose()? {
            if line.starts_with("EHLO") {
                stream.write_all(b"250-localhost\r\n250 STARTTLS\r\n")?;
            } else {
                assert_eq!(line, "STARTTLS", "nothing else is sent without encryption");
                stream.write_all(b"220 ready\r\n")?;
                break;
            }
        }
    }
    let connection = ServerConnection::new(config.clone()).map_err(std::io::Error::other)?;
    let mut stream = BufReader::new(StreamOwned::new(connection, stream));
    if implicit {
        stream.get_mut().write_all(b"220 localhost ESMTP\r\n")?;
    }
    dialogue(&mut stream, record)
}

fn dialogue(
    stream: &mut BufReader<impl Read + Write>,
    record: &Mutex<String>,
) -> std::io::Result<()> {
    let mut in_message = false;
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 {
            return Ok(());
        }
        record.lock().unwrap().push_str(&line);
        let command = line.trim_end();
        let reply: &[u8] = match command.split(' ').next().unwrap_or_default() {
            "." if in_message => {
                in_message = false;
                b"250 queued as message-1\r\n"
            }
            _ if in_message => continue,
            "EHLO" => b"250-localhost\r\n250-AUTH PLAIN\r\n250 8BITMIME\r\n",
            "AUTH" => b"235 authenticated\r\n",
            "DATA" => {
                in_message = true;
                b"354 go ahead\r\n"
            }
            "QUIT" => b"221 bye\r\n",
            _ => b"250 ok\r\n",
        };
        stream.get_mut().write_all(reply)?;
    }
}

/// Runs `serve` with this server and this certificate authority, sends an event, and returns the email in the outbox once `done`
/// accepts it.
fn email(
    folder: &Path,
    server: &Server,
    tls: &str,
    trust: &str,
    done: fn(&Value) -> bool,
) -> Value {
    let config = format!(
        r#"
[sources.clerk]
scheme = "clerk"
secrets = ["env:CLERK_WEBHOOK_SECRET"]

[[rules]]
name = "welcome"
on = ["clerk:user.created"]
email = {{ template = "welcome", to = "Ada <ada@example.com>" }}

[templates.welcome]
subject = "Welcome"
html = "welcome.html"

[email]
provider = "smtp"
from = "Acme <hello@example.com>"
wait = "0s"

[email.smtp]
host = "localhost"
port = {}
tls = "{tls}"
user = "user"
password = "env:PASSWORD"
"#,
        server.port
    );
    std::fs::write(folder.join("hookmill.toml"), config).unwrap();
    std::fs::write(folder.join("welcome.html"), "<p>Hello</p>").unwrap();
    std::fs::write(folder.join("authority.pem"), trust).unwrap();
    let variables = [
        ("CLERK_WEBHOOK_SECRET", CLERK_SECRET),
        ("PASSWORD", "correct horse"),
        ("SSL_CERT_FILE", "authority.pem"),
    ];
    let run = |arguments: &[&str]| {
        let mut command = command(folder, arguments);
        command.envs(variables);
        command
    };
    let mut serve =
        run(&["serve", "--listen", "127.0.0.1:0"]).stderr(Stdio::null()).spawn().unwrap();
    eventually("serve listens", || folder.join(".hookmill/listening").exists().then_some(()));
    let sent = run(&["send", "clerk", "user.created"]).output().unwrap();
    assert!(sent.status.success(), "{sent:?}");
    let email = eventually("the email has been tried", || {
        let listed = run(&["email", "list", "--json"]).output().unwrap();
        let listed: Value = serde_json::from_slice(&listed.stdout).ok()?;
        let email = listed.get(0)?.clone();
        done(&email).then_some(email)
    });
    serve.kill().unwrap();
    serve.wait().unwrap();
    email
}

#[test]
fn an_email_is_sent_over_tls() {
    for (tls, implicit) in [("implicit", true), ("starttls", false)] {
        let folder = tempfile::tempdir().unwrap();
        let server = Server::start(implicit);
        let email =
            email(folder.path(), &server, tls, &server.issuer, |email| email["state"] == "sent");
        assert!(email["provider_id"].as_str().unwrap().contains("message-1"), "{email}");
        let read = server.read();
        assert!(read.contains("AUTH PLAIN") && read.contains("Subject: Welcome"), "{tls}: {read}");
    }
}

#[test]
fn a_server_with_an_untrusted_certificate_gets_neither_password_nor_email() {
    for (tls, implicit) in [("implicit", true), ("starttls", false)] {
        let folder = tempfile::tempdir().unwrap();
        let server = Server::start(implicit);
        let other = Server::start(implicit);
        let email = email(folder.path(), &server, tls, &other.issuer, |email| {
            email["error"].as_str().is_some_and(|error| error.contains("certificate"))
        });
        assert_eq!((&email["state"], server.read().as_str()), (&"sealed".into(), ""), "{email}");
    }
}
