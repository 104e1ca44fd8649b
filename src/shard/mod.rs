//! One core: its connections, its users' state, its caches. Everything here runs on the shard's own thread.
//!
//! A shard is an `Rc<Shard>` with a `RefCell` per field; no borrow is held across an await. One task serves each
//! connection ([`connection`]), one reads the inbox ([`inbox`]), one wakes what is due ([`timers`]), one accepts
//! ([`accept`]), one tells the many of changes ([`fan_out`]). What the rules decide is performed by [`apply`]. Shards share
//! nothing but their inboxes' senders and the count of places ([`places`]).

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::{Receiver, Sender};
use tokio::sync::{Notify, Semaphore};

use crate::base::limits::FAREWELLS_MAX;
use crate::base::placement::Placement;
use crate::base::{Random, ShardId, Time};
use crate::domain::addresses::Addresses;
use crate::domain::rate::Rates;
use crate::domain::{self, Domain, Input, Resumed};
use crate::runtime::{Listener, Scratch, spawn_local};
use crate::wire::encoding::Spare;
use crate::{api, conn, wire};

mod accept;
mod admission;
mod apply;
pub mod clock;
mod connection;
mod contained;
mod counters;
mod describe;
mod diffs;
mod drain;
mod encoding;
mod fan_out;
mod flights;
mod handover;
mod host;
mod inbox;
mod names;
mod pace;
mod places;
mod polling;
mod sample;
mod slots;
mod store;
mod sweep;
mod timers;

pub use contained::abort_on_shared_panic;
pub use describe::describe;
pub use inbox::{Envelope, inboxes};
pub use places::Places;
pub use sample::Sample;

use clock::Clock;
use counters::Counters;
use diffs::Changes;
use encoding::Encodings;
use fan_out::FanOuts;
use handover::Handover;
use inbox::Mesh;
use polling::Sessions;
use slots::Slots;
use store::Stores;
use timers::Timers;

pub use store::Links;

/// What a shard is started with.
pub struct Start {
    pub id: ShardId,
    pub placement: Placement,
    pub clock: Clock,
    pub seed: [u8; 32],
    /// Ways to all inboxes, in the shards' order.
    pub senders: Vec<Sender<Envelope>>,
    pub inbox: Receiver<Envelope>,
    pub listener: std::net::TcpListener,
    pub links: Links,
    pub settings: Settings,
    /// Running calls of an earlier process, of which a participant lives here.
    pub resumed: Vec<Resumed>,
    /// Other processes share the store.
    pub has_others: bool,
    /// Of the whole process.
    pub places: Arc<Places>,
}

/// How all shards are set; others may come while they run ([`Envelope::Settings`]).
#[derive(Clone)]
pub struct Settings {
    pub conn: Arc<conn::Settings>,
    pub domain: domain::Settings,
    pub api: api::Settings,
    pub encoding: wire::encoding::Settings,
    /// Connections that all shards together accept per second; 0: any number.
    pub accept_rate: u32,
    /// Of one address, on all shards; 0: any number.
    pub address_connections_max: usize,
    /// Cache lines of one shard.
    pub user_cache_max: usize,
    /// Cache lines of one shard.
    pub session_cache_max: usize,
    /// Pause between two sweeps.
    pub sweep: Duration,
    /// How long an ended call stays in the users' history, milliseconds; `None`: for ever.
    pub history_keep_ms: Option<u64>,
    /// Time that an orderly stop may take, milliseconds.
    pub drain_ms: u64,
}

/// The state of one core.
pub(crate) struct Shard {
    id: ShardId,
    placement: Placement,
    clock: Clock,
    settings: RefCell<Rc<Settings>>,
    random: RefCell<Random>,
    slots: RefCell<Slots>,
    changes: RefCell<Changes>,
    fan_outs: FanOuts,
    sessions: Sessions,
    domain: RefCell<Domain>,
    rates: RefCell<Rates>,
    /// Those whose home is here.
    addresses: RefCell<Addresses>,
    timers: Timers,
    stores: Stores,
    mesh: Mesh,
    scratch: Scratch,
    encodings: Encodings,
    /// Leave to wait for a client that was refused.
    farewells: Semaphore,
    /// For the next body.
    spare: RefCell<Spare>,
    places: Arc<Places>,
    /// Connections that have ended, by reason.
    closed: RefCell<BTreeMap<&'static str, u64>>,
    counters: Rc<Counters>,
    handover: Handover,
    stopping: Cell<bool>,
    stopped: Notify,
}

/// Runs a shard until it is told to stop. Ends at once, and so closes its inbox, if it cannot listen.
pub async fn run(start: Start) {
    let mut random = Random::from_entropy(start.seed);
    let settings = start.settings;
    let domain_random = Random::from_entropy(random.bytes());
    let domain = Domain::new(start.id, start.placement, settings.domain.clone(), domain_random);
    let counters = Rc::new(Counters::default());
    let maxima = (settings.user_cache_max, settings.session_cache_max);
    let shard = Rc::new(Shard {
        id: start.id,
        placement: start.placement,
        clock: start.clock,
        random: RefCell::new(random),
        slots: RefCell::new(Slots::new(start.id)),
        changes: RefCell::default(),
        fan_outs: FanOuts::default(),
        sessions: Sessions::default(),
        domain: RefCell::new(domain),
        rates: RefCell::default(),
        addresses: RefCell::default(),
        timers: Timers::default(),
        stores: Stores::new(start.links, maxima, start.clock, counters.clone()),
        mesh: Mesh::new(start.senders),
        scratch: Scratch::new(),
        encodings: Encodings::default(),
        farewells: Semaphore::new(FAREWELLS_MAX),
        spare: RefCell::default(),
        places: start.places,
        closed: RefCell::default(),
        counters,
        handover: Handover::new(start.has_others),
        stopping: Cell::new(false),
        stopped: Notify::new(),
        settings: RefCell::new(Rc::new(settings)),
    });
    shard.mesh.run_overflows();
    // Before anybody can come.
    shard.handle(Input::Resume(start.resumed));
    spawn_local(timers::run(shard.clone()));
    spawn_local(fan_out::run(shard.clone()));
    spawn_local(sweep::run(shard.clone()));
    match Listener::new(start.listener) {
        Ok(listener) => spawn_local(accept::run(shard.clone(), listener)),
        Err(error) => return tracing::error!(%error, "shard cannot listen"),
    }
    inbox::run(shard, start.inbox).await;
}

impl Shard {
    fn now(&self) -> Time {
        self.clock.now()
    }

    /// As they are now; what has begun with them may end with them.
    fn settings(&self) -> Rc<Settings> {
        self.settings.borrow().clone()
    }

    /// Goes on with other settings, and so do its connections. Caches keep their size.
    fn set(self: &Rc<Self>, settings: Settings) {
        self.handle(Input::Settings(settings.domain.clone()));
        self.slots.borrow_mut().entries().for_each(|entry| entry.conn.set(settings.conn.clone()));
        self.settings.replace(Rc::new(settings));
    }
}
