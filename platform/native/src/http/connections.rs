//! Decides which connections stay open.
//!
//! Any client can open connections and leave them open. So an address has a share of them. When all are taken, a new one
//! replaces one that has been idle for long, of an address that has many.
//!
//! Strangers can make the server decide often, and all others wait for the decision. So it takes a few steps in ordered
//! sets, however many connections there are. Requests do not touch the sets: a connection is moved to its right place when
//! it is the first of a set.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
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

/// A client: whether it is a proxy, and its IPv4 address, or the /64 of its IPv6 address.
type Client = (bool, IpAddr);

fn network(address: IpAddr) -> IpAddr {
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
    /// By number, in the order of their beginnings. With each, since when it counts as idle in `idle`.
    connections: BTreeMap<u64, (Arc<Connection>, u64)>,
    /// The connections of each client: since when they are idle, and their numbers.
    idle: HashMap<Client, BTreeSet<(u64, u64)>>,
    /// The first connection of each client.
    first: BTreeSet<First>,
    next: u64,
}

/// The longest idle connection of a client, in the order of decisions.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct First {
    is_proxy: bool,
    /// The number of the client's connections. A proxy's belong to many clients, so each counts as one.
    count: usize,
    since: u64,
    number: u64,
}

/// An open connection.
#[derive(Debug)]
pub(super) struct Connection {
    client: Client,
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
        let is_proxy = self.limits.is_proxy(address);
        let client = (is_proxy, network(address));
        let now = millis_since(self.started);
        let mut open = self.lock();
        let mut closed = false;
        let count = open.idle.get(&client).map_or(0, BTreeSet::len);
        if count >= SHARE && !is_proxy {
            let first = open.first_of(client, now).filter(|first| first.is_patient(now));
            closed = open.close(first);
            if !closed {
                return Err(Full::Share);
            }
        }
        let reserved = if is_local(address) { 0 } else { self.limits.connections.div_ceil(LOCAL) };
        if open.connections.len() >= self.limits.connections - reserved {
            // A client that has fewer connections than another need not wait for it.
            let prior = is_proxy || count == 0;
            let idle = open.longest_idle(now, |first| {
                first.is_patient(now) || !first.is_proxy && (prior || first.count > count + 1)
            });
            closed = open.close(idle);
            if !closed {
                return Err(if prior { Full::All } else { Full::Share });
            }
        }
        let connection = Arc::new(Connection {
            client,
            started: self.started,
            active_at: AtomicU64::new(now),
            working: AtomicBool::new(false),
            task: OnceLock::new(),
        });
        let number = open.next;
        open.next += 1;
        open.connections.insert(number, (connection.clone(), now));
        open.change(client, |idle| idle.insert((now, number)));
        Ok(Admitted { place: Place { of: self.clone(), number, connection }, closed })
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl First {
    fn of(client: Client, idle: &BTreeSet<(u64, u64)>) -> Option<Self> {
        let (is_proxy, _) = client;
        let count = if is_proxy { 1 } else { idle.len() };
        idle.first().map(|&(since, number)| Self { is_proxy, count, since, number })
    }

    const fn idle(&self, now: u64) -> u64 {
        now.saturating_sub(self.since)
    }

    fn is_patient(&self, now: u64) -> bool {
        Duration::from_millis(self.idle(now)) >= PATIENCE
    }
}

impl Open {
    /// The idle connection with the largest product of its idle time and the number of its client's connections, of those
    /// that `which` allows. Connections that were idle for [`PATIENCE`] come first.
    fn longest_idle(&mut self, now: u64, which: impl Fn(&First) -> bool) -> Option<First> {
        let mut found: Option<First> = None;
        let mut from = First { is_proxy: false, count: 0, since: 0, number: 0 };
        // Of the clients with the same number of connections, only the first matters. Numbers are at most `SHARE`.
        while let Some(&first) = self.first.range(from..).next() {
            let Some((connection, _)) = self.connections.get(&first.number) else { break };
            self.first_of(connection.client, now);
            if !self.first.contains(&first) {
                // The connection was active meanwhile, and has moved.
                continue;
            }
            let weight = |first: &First| {
                let weight = first.idle(now).saturating_mul(first.count as u64);
                (first.is_patient(now), weight, Reverse(first.number))
            };
            if first.since <= now
                && which(&first)
                && found.is_none_or(|found| weight(&first) > weight(&found))
            {
                found = Some(first);
            }
            from = First { is_proxy: first.is_proxy, count: first.count + 1, since: 0, number: 0 };
        }
        found
    }

    /// The longest idle connection of a client, unless the server works for all of them.
    fn first_of(&mut self, client: Client, now: u64) -> Option<First> {
        loop {
            let first = First::of(client, self.idle.get(&client)?)?;
            let (connection, since) = self.connections.get_mut(&first.number)?;
            let active_at = connection.idle_since(now);
            if active_at <= first.since {
                return Some(first).filter(|first| first.since <= now);
            }
            *since = active_at;
            self.change(client, |idle| {
                idle.remove(&(first.since, first.number));
                idle.insert((active_at, first.number))
            });
        }
    }

    /// Closes a connection, if there is one.
    fn close(&mut self, first: Option<First>) -> bool {
        let Some(connection) = first.and_then(|first| self.remove(first.number)) else {
            return false;
        };
        if let Some(task) = connection.task.get() {
            task.abort();
        }
        true
    }

    fn remove(&mut self, number: u64) -> Option<Arc<Connection>> {
        let (connection, since) = self.connections.remove(&number)?;
        self.change(connection.client, |idle| idle.remove(&(since, number)));
        Some(connection)
    }

    /// Changes a client's connections.
    fn change(&mut self, client: Client, change: impl FnOnce(&mut BTreeSet<(u64, u64)>) -> bool) {
        let idle = self.idle.entry(client).or_default();
        if let Some(before) = First::of(client, idle) {
            self.first.remove(&before);
        }
        change(idle);
        match First::of(client, idle) {
            Some(after) => {
                self.first.insert(after);
            }
            None => {
                self.idle.remove(&client);
            }
        }
    }
}

/// Whole milliseconds.
fn millis_since(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX)
}

impl Connection {
    /// Notes that a request has arrived, or an answer has been sent.
    pub(super) fn active(&self) {
        self.active_at.store(millis_since(self.started), Ordering::Relaxed);
    }

    /// Notes whether the server works for it, or waits for the client. It is not closed while the server works.
    pub(super) fn set_working(&self, working: bool) {
        self.working.store(working, Ordering::Relaxed);
    }

    /// In the future while the server works for it.
    fn idle_since(&self, now: u64) -> u64 {
        if self.working.load(Ordering::Relaxed) {
            now.saturating_add(1)
        } else {
            self.active_at.load(Ordering::Relaxed)
        }
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
        connections.lock().connections.values().any(|(other, _)| Arc::ptr_eq(other, connection))
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
        for (connection, _) in connections.lock().connections.values() {
            connection.set_working(true);
        }
        assert_eq!(opened(&connections, "10.0.0.1").err(), Some(Full::All));
        assert_eq!(opened(&connections, "203.0.113.9").err(), Some(Full::All));
    }

    /// The sets find what a look at all connections would find.
    #[tokio::test(start_paused = true)]
    async fn the_closed_connection_has_the_largest_product() {
        let connections = connections(40);
        let mut open: Vec<Arc<Connection>> = Vec::new();
        let mut random = 1_u32;
        let mut below = |bound: usize| {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            usize::from((random >> 16) as u16) % bound
        };
        let mut closed = 0;
        for _ in 0..5_000 {
            advance(Duration::from_millis(below(40) as u64)).await;
            for _ in 0..below(4) {
                let Some(connection) = open.get(below(40)) else { continue };
                connection.active();
                connection.set_working(below(4) == 0);
            }
            let network = ["198.51.100", "198.51.100", "203.0.113", "10.0.0"][below(4)];
            let (address, now) =
                (format!("{network}.{}", below(5)), millis_since(connections.started));
            let before = open.clone();
            let another = opened(&connections, &address);
            let refused = another.is_err();
            open.extend(another);
            open.retain(|connection| is_open(&connections, connection));
            let weight = |of: &Arc<Connection>| {
                let count = before.iter().filter(|other| other.client == of.client).count();
                let idle = now - of.active_at.load(Ordering::Relaxed);
                let product = idle * if of.client.0 { 1 } else { count as u64 };
                (Duration::from_millis(idle) >= PATIENCE, product)
            };
            let waiting = |of: &&Arc<Connection>| !of.working.load(Ordering::Relaxed);
            assert!(!refused || !before.iter().filter(waiting).any(|other| weight(other).0));
            for gone in before.iter().filter(|one| !is_open(&connections, one)) {
                let (patient, product) = weight(gone);
                assert!(waiting(&gone));
                if patient {
                    let most = before.iter().filter(waiting).map(weight).max();
                    assert_eq!(most, Some((patient, product)));
                } else {
                    assert!(!before.iter().filter(waiting).any(|other| weight(other).0));
                }
                closed += 1;
            }
        }
        assert!(closed > 500, "{closed}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_place_is_free_after_its_connection() {
        let connections = connections(64);
        for _ in 0..1000 {
            let admitted = connections.admit("198.51.100.1".parse().unwrap()).unwrap();
            assert!(!admitted.closed);
        }
        let open = connections.lock();
        assert!(open.connections.is_empty() && open.idle.is_empty() && open.first.is_empty());
    }
}
