//! Decides which connections stay open.
//!
//! Any client can open connections and leave them open. So an address has a share of them, and when all are taken, the
//! connection that has done nothing for the longest time is closed for a new one.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use ipnet::IpNet;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::Instant;

/// The maximum number of connections, if there are enough file descriptors; further ones wait.
pub const CONNECTIONS: usize = 1024;
/// The maximum number of connections of one address.
const SHARE: usize = 64;
/// One in this many connections is only for programs on this machine, such as health checks.
const LOCAL: usize = 64;
/// A connection is not closed for another one before it was idle for this long: its request may be on the way.
const PATIENCE: Duration = Duration::from_secs(1);

/// The limits of a server.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The maximum number of connections, at most [`CONNECTIONS`].
    pub connections: usize,
    /// Networks of proxies. All clients of a proxy share its address, so it may have more connections than one client.
    pub proxies: Vec<IpNet>,
}

impl Limits {
    /// Whether one address stands for many clients: that of a configured proxy, of a program on this machine, or of a
    /// private network.
    fn is_proxy(&self, address: IpAddr) -> bool {
        let private = match address {
            IpAddr::V4(v4) => v4.is_private(),
            IpAddr::V6(v6) => v6.is_unique_local() || v6.is_unicast_link_local(),
        };
        is_local(address) || private || self.proxies.iter().any(|net| net.contains(&address))
    }
}

/// Whether a program on this machine connected. It does so from these two addresses unless it names another.
const fn is_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V4(Ipv4Addr::LOCALHOST) | IpAddr::V6(Ipv6Addr::LOCALHOST))
}

/// What belongs to one client: an IPv4 address, or the /64 of an IPv6 address.
fn client(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
    }
}

/// The open connections of a server.
#[derive(Debug)]
pub(super) struct Connections {
    limits: Limits,
    started: Instant,
    open: Mutex<Open>,
    /// Notified when a connection ends.
    ended: Notify,
}

#[derive(Debug, Default)]
struct Open {
    /// By number, in the order of their beginnings.
    connections: BTreeMap<u64, Arc<Connection>>,
    counts: HashMap<IpAddr, usize>,
    next: u64,
}

/// An open connection.
#[derive(Debug)]
pub(super) struct Connection {
    client: IpAddr,
    started: Instant,
    /// When it began, or its last request arrived, or its last answer was sent, in milliseconds after `started`.
    active_at: AtomicU64,
    /// Whether the server has a complete request of it.
    working: AtomicBool,
    task: OnceLock<AbortHandle>,
}

/// Why there is no place for a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Full {
    /// The address has its share.
    Share,
    /// All are in use.
    All,
}

/// The result of a new connection.
#[derive(Debug)]
pub(super) struct Admitted {
    pub(super) place: Place,
    /// Whether another connection was closed for it.
    pub(super) closed: bool,
}

impl Connections {
    pub(super) fn new(limits: Limits) -> Self {
        let (started, open, ended) = (Instant::now(), Mutex::default(), Notify::new());
        Self { limits, started, open, ended }
    }

    /// Waits until a connection has ended, or can be closed.
    pub(super) async fn changed(&self) {
        let _ = tokio::time::timeout(PATIENCE / 10, self.ended.notified()).await;
    }

    /// Finds a place for a connection.
    pub(super) fn admit(self: &Arc<Self>, address: IpAddr) -> Result<Admitted, Full> {
        let address = address.to_canonical();
        let client = client(address);
        let now = Instant::now();
        let mut open = self.lock();
        let mut closed = false;
        let share = open.counts.get(&client).copied().unwrap_or_default();
        if share >= SHARE && !self.limits.is_proxy(address) {
            closed = open.close_idle(now, |other| other.client == client);
            if !closed {
                return Err(Full::Share);
            }
        }
        let reserved = if is_local(address) { 0 } else { self.limits.connections.div_ceil(LOCAL) };
        if open.connections.len() >= self.limits.connections - reserved {
            closed = open.close_idle(now, |_| true);
            if !closed {
                return Err(Full::All);
            }
        }
        let number = open.next;
        open.next += 1;
        let connection = Arc::new(Connection {
            client,
            started: self.started,
            active_at: AtomicU64::default(),
            working: AtomicBool::new(false),
            task: OnceLock::new(),
        });
        connection.active();
        open.connections.insert(number, connection.clone());
        *open.counts.entry(client).or_default() += 1;
        Ok(Admitted { place: Place { of: self.clone(), number, connection }, closed })
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    /// Closes the connection that has been idle for the longest time. Returns false if none is idle.
    fn close_idle(&mut self, now: Instant, which: impl Fn(&Connection) -> bool) -> bool {
        let idle = self.connections.iter().filter(|(_, connection)| {
            !connection.working.load(Ordering::Relaxed) && which(connection)
        });
        let longest = idle.min_by_key(|(_, connection)| connection.idle_since());
        let Some((number, connection)) = longest else { return false };
        if now.saturating_duration_since(connection.idle_since()) < PATIENCE {
            return false;
        }
        if let Some(task) = connection.task.get() {
            task.abort();
        }
        self.remove(*number);
        true
    }

    fn remove(&mut self, number: u64) {
        let Some(connection) = self.connections.remove(&number) else { return };
        if let Some(count) = self.counts.get_mut(&connection.client) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&connection.client);
            }
        }
    }
}

impl Connection {
    /// Notes that a request has arrived, or an answer has been sent.
    pub(super) fn active(&self) {
        let since = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.active_at.store(since, Ordering::Relaxed);
    }

    /// Notes whether the server works for it, or waits for the client. It is not closed while the server works.
    pub(super) fn set_working(&self, working: bool) {
        self.working.store(working, Ordering::Relaxed);
    }

    fn idle_since(&self) -> Instant {
        self.started + Duration::from_millis(self.active_at.load(Ordering::Relaxed))
    }
}

/// The place of a connection, free again when dropped.
#[derive(Debug)]
pub(super) struct Place {
    of: Arc<Connections>,
    number: u64,
    pub(super) connection: Arc<Connection>,
}

impl Place {
    /// Runs a connection's task, which holds the place.
    pub(super) fn run(self, task: impl Future<Output = ()> + Send + 'static) {
        let connection = self.connection.clone();
        let task = tokio::spawn(async move {
            task.await;
            drop(self);
        });
        let _ = connection.task.set(task.abort_handle());
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.of.lock().remove(self.number);
        self.of.ended.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    fn connections(count: usize) -> Arc<Connections> {
        let proxies = vec!["192.0.2.0/28".parse().unwrap()];
        Arc::new(Connections::new(Limits { connections: count, proxies }))
    }

    /// A connection that stays open until it is closed.
    fn opened(connections: &Arc<Connections>, address: &str) -> Result<Arc<Connection>, Full> {
        let Admitted { place, .. } = connections.admit(address.parse().unwrap())?;
        let connection = place.connection.clone();
        place.run(std::future::pending());
        Ok(connection)
    }

    fn is_open(connections: &Connections, connection: &Arc<Connection>) -> bool {
        connections.lock().connections.values().any(|other| Arc::ptr_eq(other, connection))
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_has_a_share() {
        for (address, neighbour, limited) in [
            ("198.51.100.1", "198.51.100.2", true),
            ("::ffff:198.51.100.1", "::ffff:198.51.100.2", true),
            ("2001:db8::1", "2001:db8:0:1::1", true),
            ("127.0.0.2", "127.0.0.3", true),
            ("127.0.0.1", "127.0.0.1", false),
            ("::1", "::1", false),
            ("::ffff:127.0.0.1", "::1", false),
            ("10.1.2.3", "10.1.2.4", false),
            ("fd00::1", "fd00::2", false),
            ("192.0.2.15", "192.0.2.1", false),
        ] {
            let connections = connections(500);
            let first = opened(&connections, address).unwrap();
            for _ in 1..SHARE {
                opened(&connections, address).unwrap();
            }
            let another = opened(&connections, address);
            assert_eq!(another.err(), limited.then_some(Full::Share), "{address}");
            assert!(opened(&connections, neighbour).is_ok(), "{address}");
            // When they have been idle for a while, a new one replaces the first.
            advance(PATIENCE).await;
            assert!(opened(&connections, address).is_ok(), "{address}");
            assert_eq!(is_open(&connections, &first), !limited, "{address}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn addresses_of_one_network_share() {
        let connections = connections(500);
        for n in 0..SHARE {
            opened(&connections, &format!("2001:db8::{n}:1")).unwrap();
        }
        assert_eq!(opened(&connections, "2001:db8::ffff:ffff").err(), Some(Full::Share));
    }

    #[tokio::test(start_paused = true)]
    async fn the_longest_idle_connection_is_closed_for_a_new_one() {
        let connections = connections(10);
        let mut all = Vec::new();
        // One place is for local programs.
        for n in 0..9 {
            all.push(opened(&connections, &format!("198.51.100.{n}")).unwrap());
            advance(Duration::from_millis(1)).await;
        }
        let new = || opened(&connections, "203.0.113.1");
        assert_eq!(new().err(), Some(Full::All), "their requests may be on the way");
        assert!(opened(&connections, "127.0.0.1").is_ok());
        assert_eq!(opened(&connections, "127.0.0.1").err(), Some(Full::All));
        advance(PATIENCE).await;
        all[0].set_working(true);
        all[1].active();
        assert!(new().is_ok());
        let open: Vec<_> = all.iter().map(|one| is_open(&connections, one)).collect();
        assert_eq!(open, [true, true, false, true, true, true, true, true, true]);
        // One more than for strangers is open, so none of them is left for another stranger.
        for one in &all {
            one.set_working(true);
        }
        assert_eq!(new().err(), Some(Full::All));
    }

    #[tokio::test(start_paused = true)]
    async fn a_place_is_free_after_its_connection() {
        let connections = connections(64);
        for _ in 0..1000 {
            let admitted = connections.admit("198.51.100.1".parse().unwrap()).unwrap();
            assert!(!admitted.closed);
        }
        let open = connections.lock();
        assert!(open.connections.is_empty() && open.counts.is_empty());
    }
}
