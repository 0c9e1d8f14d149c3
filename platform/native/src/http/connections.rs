//! Decides which connections stay open.
//!
//! Any client can open connections and leave them open. So an address has a share of them. When all are taken, a new one
//! replaces one that has been idle for long, of an address that has many.

use std::cmp::Reverse;
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
/// A connection that was idle for less than this is closed only for a client that has fewer: its request may be on the
/// way.
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
    is_proxy: bool,
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
    /// The client has its share.
    Share,
    /// All are in use for now.
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
        let (client, is_proxy) = (client(address), self.limits.is_proxy(address));
        let now = Instant::now();
        let mut open = self.lock();
        let mut closed = false;
        let count = open.counts.get(&client).copied().unwrap_or_default();
        if count >= SHARE && !is_proxy {
            closed = open.close_idle(now, PATIENCE, |other, _| other.client == client);
            if !closed {
                return Err(Full::Share);
            }
        }
        let reserved = if is_local(address) { 0 } else { self.limits.connections.div_ceil(LOCAL) };
        if open.connections.len() >= self.limits.connections - reserved {
            // A client that has fewer connections than another need not wait for it.
            let prior = is_proxy || count == 0;
            closed = open.close_idle(now, PATIENCE, |_, _| true)
                || open.close_idle(now, Duration::ZERO, |other, others| {
                    !other.is_proxy && (prior || others > count + 1)
                });
            if !closed {
                return Err(if prior { Full::All } else { Full::Share });
            }
        }
        let number = open.next;
        open.next += 1;
        let connection = Arc::new(Connection {
            client,
            is_proxy,
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
    /// Closes an idle connection: the one with the largest product of its idle time and the number of its client's
    /// connections, which `which` gets too. A proxy's connections belong to many clients, so each counts as one. Returns
    /// false without such a connection, or if it was idle for less than `patience`.
    fn close_idle(
        &mut self,
        now: Instant,
        patience: Duration,
        which: impl Fn(&Connection, usize) -> bool,
    ) -> bool {
        let idle = self.connections.iter().filter_map(|(number, connection)| {
            let count = match self.counts.get(&connection.client) {
                Some(count) if !connection.is_proxy => *count,
                _ => 1,
            };
            let idle = now.saturating_duration_since(connection.active_at());
            let closable = !connection.working.load(Ordering::Relaxed)
                && idle >= patience
                && which(connection, count);
            closable.then_some((idle.as_millis() * count as u128, *number, connection))
        });
        let Some((_, number, connection)) =
            idle.max_by_key(|(weight, number, _)| (*weight, Reverse(*number)))
        else {
            return false;
        };
        if let Some(task) = connection.task.get() {
            task.abort();
        }
        self.remove(number);
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

    fn active_at(&self) -> Instant {
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
        assert!(opened(&connections, "127.0.0.1").is_ok());
        advance(PATIENCE).await;
        all[0].set_working(true);
        all[1].active();
        assert!(opened(&connections, "198.51.100.1").is_ok());
        let open: Vec<_> = all.iter().map(|one| is_open(&connections, one)).collect();
        assert_eq!(open, [true, true, false, true, true, true, true, true, true]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_client_replaces_a_connection_of_one_with_more() {
        let connections = connections(10);
        let mut all = Vec::new();
        for address in ["198.51.100.2", "198.51.100.2", "198.51.100.1", "198.51.100.3"] {
            all.push(opened(&connections, address).unwrap());
            advance(Duration::from_millis(1)).await;
        }
        for _ in 0..5 {
            opened(&connections, "10.0.0.1").unwrap();
        }
        // Their requests may be on the way.
        assert_eq!(opened(&connections, "198.51.100.2").err(), Some(Full::Share));
        assert_eq!(opened(&connections, "198.51.100.1").err(), Some(Full::Share));
        all[0].set_working(true);
        assert!(opened(&connections, "203.0.113.1").is_ok());
        let open: Vec<_> = all.iter().map(|one| is_open(&connections, one)).collect();
        assert_eq!(open, [true, false, true, true]);
        // Local programs have a place of their own, and then come before strangers.
        assert!(opened(&connections, "127.0.0.1").is_ok());
        assert!(is_open(&connections, &all[2]));
        assert!(opened(&connections, "127.0.0.1").is_ok());
        assert!(!is_open(&connections, &all[2]));
        // A proxy's new connections wait for its old ones.
        for connection in connections.lock().connections.values() {
            connection.set_working(true);
        }
        assert_eq!(opened(&connections, "10.0.0.1").err(), Some(Full::All));
        assert_eq!(opened(&connections, "203.0.113.9").err(), Some(Full::All));
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
