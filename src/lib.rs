//! duet: the self-hosted backend of one-to-one video chat, unchanged `socket.io-client` frontends welcome.
//!
//! # The walk of one message
//!
//! The modules below stand in the order in which a message meets them.
//!
//! 1. Bytes arrive on a socket; [`shard`] takes those that [`runtime`] lends and gives them to the connection's
//!    [`conn::Conn`].
//! 2. `Conn` is the protocol state of one client. With the stateless codecs of [`wire`] it turns bytes into a
//!    [`message::ClientEvent`] or an HTTP request, and hands it out of [`conn::Conn::poll`].
//! 3. An event goes to the rules: [`domain::Domain::needs`] names what must be fetched, [`domain::Domain::handle`]
//!    decides, and its [`domain::Effects`] say what is to be done. An HTTP request goes to [`api::handle`].
//! 4. [`shard`] performs the effects: events to this shard's connections, messages to the homes of other users, writes
//!    to the [`store`] over a [`link`].
//! 5. What a client is to hear is a [`message::ServerEvent`], encoded once; `Conn::send` frames it, or a
//!    [`conn::Batch`] once for all who look at the queue, and the connection's task writes it to the socket.
//!
//! Everything up to [`api`] is the core: synchronous or runtime-free, built and tested with `--no-default-features`.
//! The rest is the shell around it. `ARCHITECTURE.md` has the map and the invariants.

pub mod base;
pub mod cache;
pub mod wire;

pub mod message;

pub mod conn;

pub mod domain;

pub mod api;

#[cfg(feature = "server")]
pub mod link;

#[cfg(feature = "server")]
pub mod runtime;

#[cfg(feature = "server")]
pub mod store;

#[cfg(feature = "server")]
pub mod hashing;

#[cfg(feature = "server")]
pub mod telemetry;

#[cfg(feature = "server")]
pub mod shard;

#[cfg(feature = "server")]
pub mod config;

#[cfg(feature = "server")]
pub mod doctor;

#[cfg(feature = "server")]
pub mod boot;
