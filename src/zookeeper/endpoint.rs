//! The listener for ZooKeeper's clients, and when it is open: while a tree is being brought here
//! from an ensemble, its clients are still there.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, watch};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::config::{Config, TICK};
use super::connection::Socket;
use super::expiry::{Door, Expiry};
use super::hub::{Hub, HubEvent, Surroundings};
use super::tls::{TlsError, identity};
use crate::clock::SharedClock;
use crate::consensus::{Consensus, Leadership};
use crate::limits::{ZK_CONNECTIONS_MAX, ZK_EVENTS_MAX, ZK_FIRST_FRAME_WAIT_MS, ZK_IN_BYTES_MAX};
use crate::net::{Connection, Listener};
use crate::observe::metrics::Metrics;
use crate::rpc::v1::zoo_keeper_server::ZooKeeperServer;
use crate::state::State;
use crate::state::znodes::ZkImportPhase;

/// Pause before a port is tried again that somebody else still has.
const BIND_AGAIN: Duration = Duration::from_millis(50);

/// Why clients of ZooKeeper are kept away, if they are: the name of the migration, and how far it
/// is.
pub fn held_by(state: &State) -> Option<(&str, ZkImportPhase)> {
    use ZkImportPhase::{CatchingUp, Copying, Following, Stopped};
    state.zk_imports().find_map(|(name, import)| {
        let phase = import.status.phase;
        let holds = matches!(phase, Copying | CatchingUp | Following | Stopped);
        let holds = (import.status.live && holds) || import.status.keeps_closed;
        holds.then_some((name, phase))
    })
}

/// Starts the endpoint, if there is to be one, and what looks after sessions, which any leader
/// must do; what other servers need to reach of it comes back. `leadership` is to name no leader
/// that has no majority. It works until `stop`.
///
/// # Errors
/// If the files for encrypted connections can't be used.
pub fn start(
    consensus: Consensus,
    leadership: watch::Receiver<Leadership>,
    config: Option<Config>,
    clock: SharedClock,
    metrics: Metrics,
    stop: CancellationToken,
) -> Result<ZooKeeperServer<Door>, TlsError> {
    let tls = match config.as_ref().and_then(|config| config.tls.as_ref()) {
        Some((addr, files)) => Some((*addr, super::tls::acceptor(files)?)),
        None => None,
    };
    let (heard, here) = mpsc::channel(4);
    let (contact_sender, contact) = watch::channel(true);
    let tick = config.as_ref().map_or(TICK, |config| config.tick);
    let (expiry, door) =
        Expiry::new(consensus.clone(), leadership.clone(), tick, here, contact_sender);
    tokio::spawn(expiry.run(stop.clone()));
    let Some(config) = config.map(Arc::new) else { return Ok(door) };
    let around = Surroundings {
        consensus: consensus.clone(),
        leadership,
        clock,
        config: config.clone(),
        metrics,
        heard,
        contact,
    };
    let (hub, events) = mpsc::channel(ZK_EVENTS_MAX);
    tokio::spawn(Hub::new(around).run(events, stop.clone()));
    let room = Arc::new(Semaphore::new(ZK_IN_BYTES_MAX));
    tokio::spawn(Endpoint { consensus, config, tls, hub, room }.run(stop));
    Ok(door)
}

struct Endpoint {
    consensus: Consensus,
    config: Arc<Config>,
    tls: Option<(SocketAddr, TlsAcceptor)>,
    hub: mpsc::Sender<HubEvent>,
    room: Arc<Semaphore>,
}

impl Endpoint {
    async fn run(self, stop: CancellationToken) {
        let mut views = self.consensus.views();
        let mut next_id = 0;
        loop {
            let open = tokio::select! {
                () = stop.cancelled() => return,
                open = views.wait_for(|view| held_by(&view.state).is_none()) => open.is_ok(),
            };
            if !open {
                return;
            }
            let doors = stop.child_token();
            tokio::select! {
                () = stop.cancelled() => return,
                held = views.wait_for(|view| held_by(&view.state).is_some()) => {
                    // This server has failed: nothing comes of its views any more.
                    if held.is_err() {
                        return;
                    }
                    tracing::info!("ZooKeeper's clients are kept away: their tree is elsewhere");
                }
                () = self.listen(&doors, &mut next_id) => {}
            }
            doors.cancel();
        }
    }

    /// Takes connections until dropped.
    async fn listen(&self, doors: &CancellationToken, next_id: &mut u64) {
        let tls_addr = self.tls.as_ref().map(|(addr, _)| *addr);
        let (mut plain, mut encrypted) =
            tokio::join!(self.bind(self.config.addr), self.bind(tls_addr));
        let crowd = Crowd::default();
        loop {
            let (accepted, is_encrypted) = tokio::select! {
                accepted = accept(plain.as_mut()) => (accepted, false),
                accepted = accept(encrypted.as_mut()) => (accepted, true),
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!("can't take a connection: {error}");
                    tokio::time::sleep(BIND_AGAIN).await;
                    continue;
                }
            };
            let most = self.config.max_connections_per_address;
            let Some(place) = crowd.enter(peer.ip(), most) else {
                tracing::warn!(%peer, "closed: too many connections from this address ({most})");
                continue;
            };
            *next_id += 1;
            let tls = self.tls.as_ref().filter(|_| is_encrypted).map(|(_, tls)| tls.clone());
            self.serve(*next_id, stream, peer, place, tls, doors);
        }
    }

    /// Listens, as soon as nobody else does.
    async fn bind(&self, addr: Option<SocketAddr>) -> Option<Listener> {
        let addr = addr?;
        let mut told = false;
        loop {
            match self.consensus.ground().net.listen(addr).await {
                Ok(listener) => {
                    tracing::info!(%addr, "open for ZooKeeper's clients");
                    return Some(listener);
                }
                Err(error) if !told => {
                    told = true;
                    tracing::warn!(
                        "can't listen on {addr} for ZooKeeper's clients yet: {error}; trying on"
                    );
                }
                Err(_) => {}
            }
            tokio::time::sleep(BIND_AGAIN).await;
        }
    }

    fn serve(
        &self,
        id: u64,
        stream: Connection,
        peer: SocketAddr,
        place: Place,
        tls: Option<TlsAcceptor>,
        doors: &CancellationToken,
    ) {
        let mut socket = Socket {
            id,
            peer,
            ids: Vec::new(),
            config: self.config.clone(),
            hub: self.hub.clone(),
            room: self.room.clone(),
            stop: doors.clone(),
        };
        tokio::spawn(async move {
            match tls {
                None => socket.serve(stream).await,
                Some(tls) => {
                    let wait = Duration::from_millis(ZK_FIRST_FRAME_WAIT_MS);
                    match tokio::time::timeout(wait, tls.accept(stream)).await {
                        Ok(Ok(stream)) => {
                            socket.ids = identity(stream.get_ref().1);
                            socket.serve(stream).await;
                        }
                        Ok(Err(error)) => tracing::info!(%peer, "closed: TLS failed: {error}"),
                        Err(_) => tracing::info!(%peer, "closed: TLS took too long"),
                    }
                }
            }
            drop(place);
        });
    }
}

async fn accept(listener: Option<&mut Listener>) -> std::io::Result<(Connection, SocketAddr)> {
    match listener {
        Some(listener) => listener.accept().await,
        None => std::future::pending().await,
    }
}

/// How many connections there are from where; clones count together.
#[derive(Debug, Clone, Default)]
struct Crowd(Arc<Mutex<(usize, BTreeMap<IpAddr, usize>)>>);

/// A connection's place; given back when it is dropped.
#[derive(Debug)]
struct Place {
    crowd: Crowd,
    from: IpAddr,
}

impl Crowd {
    fn enter(&self, from: IpAddr, most: usize) -> Option<Place> {
        let mut crowd = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let here = crowd.1.get(&from).copied().unwrap_or(0);
        if crowd.0 >= ZK_CONNECTIONS_MAX || (most > 0 && here >= most) {
            return None;
        }
        crowd.0 += 1;
        crowd.1.insert(from, here + 1);
        Some(Place { crowd: self.clone(), from })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut crowd = self.crowd.0.lock().unwrap_or_else(PoisonError::into_inner);
        crowd.0 = crowd.0.saturating_sub(1);
        if let Some(here) = crowd.1.get_mut(&self.from) {
            *here -= 1;
            if *here == 0 {
                crowd.1.remove(&self.from);
            }
        }
    }
}
