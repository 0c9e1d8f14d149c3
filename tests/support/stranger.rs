//! Clients that hold connections and complete nothing.

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};

use tokio::net::TcpSocket;
use tokio::runtime::Builder;

use crate::event::now;
use crate::http::request;

/// A connection that stays open. The server may have closed it.
pub struct Stranger {
    /// `None` if the server did not take it.
    _stream: Option<TcpStream>,
}

impl Stranger {
    /// Connects from 127.0.0.`from` and, depending on `kind`, reads no answers, does not finish its headers, or holds back
    /// the last byte of a body.
    pub fn connected(to: SocketAddr, from: u8, kind: usize) -> Self {
        let connect = async {
            let socket = TcpSocket::new_v4()?;
            socket.set_recv_buffer_size(2048)?;
            socket.bind(SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, from)), 0))?;
            socket.connect(to).await?.into_std()
        };
        let runtime = Builder::new_current_thread().enable_io().build().expect("a runtime starts");
        let stream = runtime.block_on(connect).ok();
        let bytes = match kind % 3 {
            0 => b"GET /admin/app.js HTTP/1.1\r\nHost: hooks.test\r\n\r\n".repeat(400),
            1 => b"POST /webhooks/stripe HTTP/1.1\r\nHost: hooks.test\r\nX-Long: ".to_vec(),
            _ => {
                let value = format!("t={},v1=00", now().seconds());
                let headers = [("Stripe-Signature".to_owned(), value)];
                let mut whole = request("POST", "/webhooks/stripe", &headers, &[b' '; 1000]);
                whole.pop();
                whole
            }
        };
        // It does not wait for the server to read.
        if let Some(mut stream) = stream.as_ref() {
            let _ = stream.write(&bytes);
        }
        Self { _stream: stream }
    }
}
