//! HTTP as bytes: a test must be able to send requests that no well-behaved client would.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

/// A response.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Response {
    /// The status code; 0 if the connection was closed without a response.
    pub status: u16,
    /// The headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: String,
}

impl Response {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The body as JSON; `null` if it is not JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_default()
    }

    /// The `reason` of problem details; blank if there is none.
    pub fn reason(&self) -> String {
        self.json()["reason"].as_str().unwrap_or_default().to_owned()
    }
}

/// Writes a request. `Host` and `Connection: close` are added.
pub fn request(method: &str, path: &str, headers: &[(String, String)], body: &[u8]) -> Vec<u8> {
    let mut bytes =
        format!("{method} {path} HTTP/1.1\r\nHost: hooks.test\r\nConnection: close\r\n")
            .into_bytes();
    for (name, value) in headers {
        bytes.extend(format!("{name}: {value}\r\n").into_bytes());
    }
    if method == "POST" || !body.is_empty() {
        bytes.extend(format!("Content-Length: {}\r\n", body.len()).into_bytes());
    }
    bytes.extend(b"\r\n");
    bytes.extend(body);
    bytes
}

/// A connection for several requests.
pub struct Connection(BufReader<TcpStream>);

impl Connection {
    /// Opens a connection.
    ///
    /// # Errors
    ///
    /// If no server listens at the address.
    pub fn open(address: SocketAddr) -> std::io::Result<Self> {
        TcpStream::connect(address).map(|stream| Self(BufReader::new(stream)))
    }

    /// Posts a body, and returns the status of the response.
    ///
    /// # Errors
    ///
    /// If the connection was closed.
    pub fn post(
        &mut self,
        path: &str,
        headers: &[(String, String)],
        body: &[u8],
    ) -> std::io::Result<u16> {
        let bytes = String::from_utf8(request("POST", path, headers, b"")).unwrap_or_default();
        let bytes = bytes.replace("Connection: close\r\n", "");
        let bytes = bytes.replace("Content-Length: 0", &format!("Content-Length: {}", body.len()));
        self.0.get_mut().write_all(&[bytes.as_bytes(), body].concat())?;
        let (mut status, mut length) = (0, 0);
        loop {
            let mut line = String::new();
            if self.0.read_line(&mut line)? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            let line = line.trim_end().to_lowercase();
            if let Some(rest) = line.strip_prefix("http/1.1 ") {
                status = rest.split(' ').next().and_then(|code| code.parse().ok()).unwrap_or(0);
            } else if let Some(value) = line.strip_prefix("content-length: ") {
                length = value.parse().unwrap_or(0);
            } else if line.is_empty() {
                break;
            }
        }
        self.0.read_exact(&mut vec![0; length])?;
        Ok(status)
    }
}

/// Sends bytes and reads the response to its end.
///
/// # Errors
///
/// If no server listens at the address.
pub fn exchange(address: SocketAddr, bytes: &[u8]) -> std::io::Result<Response> {
    exchange_parts(address, &[bytes], Duration::ZERO)
}

/// Sends parts with a pause after each. An early response is read too.
///
/// # Errors
///
/// If no server listens at the address.
pub fn exchange_parts(
    address: SocketAddr,
    parts: &[&[u8]],
    pause: Duration,
) -> std::io::Result<Response> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    stream.set_nodelay(true)?;
    for part in parts {
        if stream.write_all(part).is_err() {
            break;
        }
        std::thread::sleep(pause);
    }
    let mut bytes = Vec::new();
    // A reset after the response is an end too.
    let _ = stream.read_to_end(&mut bytes);
    Ok(parse(&bytes))
}

fn parse(bytes: &[u8]) -> Response {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").unwrap_or(bytes.len());
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok()).unwrap_or(0);
    let headers: Vec<_> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()))
        .collect();
    let mut body = bytes.get(end + 4..).unwrap_or_default().to_vec();
    if headers.iter().any(|(name, value)| name == "transfer-encoding" && value == "chunked") {
        body = unchunked(&body);
    }
    Response { status, headers, body: String::from_utf8_lossy(&body).into_owned() }
}

fn unchunked(mut bytes: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(end) = bytes.windows(2).position(|window| window == b"\r\n") {
        let size = usize::from_str_radix(&String::from_utf8_lossy(&bytes[..end]), 16).unwrap_or(0);
        let Some(part) = bytes.get(end + 2..end + 2 + size).filter(|part| !part.is_empty()) else {
            break;
        };
        body.extend(part);
        bytes = bytes.get(end + 4 + size..).unwrap_or_default();
    }
    body
}
