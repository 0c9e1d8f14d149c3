//! A client's stream with deadlines.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use super::connections::Connection;

/// The maximum time for the client to take an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// The maximum time, and number of bytes, that are read and dropped after the last answer. A socket that is closed with
/// unread bytes loses what the client has not read of the answer.
const LINGER: Duration = Duration::from_secs(2);
/// See [`LINGER`].
const LINGER_BYTES: usize = 1024 * 1024;

/// A stream that fails if the client does not take an answer in time, and tells its connection when it has one.
pub(super) struct Guarded<S> {
    stream: S,
    connection: Arc<Connection>,
    /// Whether there are bytes of an answer that is not complete.
    writing: bool,
    /// Set while the server waits for the client.
    deadline: Option<Pin<Box<Sleep>>>,
    lingered: usize,
}

impl<S> Guarded<S> {
    pub(super) const fn new(stream: S, connection: Arc<Connection>) -> Self {
        Self { stream, connection, writing: false, deadline: None, lingered: 0 }
    }

    /// Whether the wait has ended, which begins with the first call.
    fn poll_deadline(&mut self, context: &mut Context<'_>, timeout: Duration) -> Poll<()> {
        self.deadline.get_or_insert_with(|| Box::pin(sleep(timeout))).as_mut().poll(context)
    }

    fn written(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        self.writing = true;
        if written.is_pending() {
            ready!(self.poll_deadline(context, ANSWER_TIMEOUT));
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        written
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.written(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.written(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// hyper flushes when it has written all that it has.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(context))?;
        if self.writing {
            self.writing = false;
            self.deadline = None;
            self.connection.active();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_shutdown(context))?;
        let mut space = [0; 8192];
        while self.lingered < LINGER_BYTES {
            let mut buffer = ReadBuf::new(&mut space);
            match Pin::new(&mut self.stream).poll_read(context, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                    self.lingered += buffer.filled().len();
                }
                Poll::Ready(_) => break,
                Poll::Pending => {
                    ready!(self.poll_deadline(context, LINGER));
                    break;
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}
