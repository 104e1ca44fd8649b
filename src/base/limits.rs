//! Every fixed bound in one place, with its unit in its name and its source beside it. Settings override some.

/// Largest message from a client, bytes (contract 3.1, `maxPayload`).
pub const MESSAGE_BYTES_MAX: usize = 1_000_000;
/// Most that a compressed message may grow by, in times its payload. DEFLATE reaches 1032, but only by repeating a few
/// bytes; JSON gets to 5 or 20, and very uniform records to 50. So a client pays for what it makes a shard parse.
pub const INFLATE_RATIO_MAX: usize = 200;
/// Up to here a message may grow by any factor: the work is small, and short honest messages can repeat themselves.
pub const INFLATE_UNRATED_BYTES: usize = 64 * 1024;
/// Least payload and message together, bytes, of a block in a compressed message, on average: each costs its decoder
/// up to 3 us for tables, which makes a megabyte of empty blocks 80 ms of work. Those of honest compressors are larger,
/// even if they flush every 256 bytes.
pub const INFLATE_BLOCK_BYTES_MIN: usize = 128;
/// Blocks that are not counted.
pub const INFLATE_UNRATED_BLOCKS: usize = 64;
/// Largest HTTP request head, bytes; over it 431 (RFC 6585 5).
pub const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Longest block of a PROXY header, bytes; its own field allows 65,535. All additions that are known fit, a client's
/// certificate of usual size too; over it the connection is dropped.
pub const PROXY_BLOCK_BYTES_MAX: usize = 4 * 1024;
/// Time for a whole PROXY header, from the accept; what is lost once on the way has come again by then.
pub const PROXY_TIMEOUT_MS: u64 = 5_000;
/// Most header fields of a request; over it 431.
pub const HEADERS_MAX: usize = 64;
/// Longest name of a request that is taken over, bytes; a longer one is replaced.
pub const REQUEST_NAME_BYTES_MAX: usize = 64;
/// Largest JSON body, bytes (contract 2.1); over it 413.
pub const BODY_BYTES_MAX: usize = 100 * 1024;
/// Time to receive a whole request head from its first byte, or from the accept; over it 408.
pub const HEAD_TIMEOUT_MS: u64 = 10_000;
/// Time to receive a whole request body; over it 408.
pub const BODY_TIMEOUT_MS: u64 = 20_000;
/// An idle keep-alive connection is closed after this.
pub const IDLE_TIMEOUT_MS: u64 = 75_000;
/// Bytes that wait to be written to one client; over it the client is closed as a slow reader.
pub const OUTBOX_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Level at which responses are compressed (contract 2.1).
pub const COMPRESSION_LEVEL: u8 = 6;
/// Smallest response body that is compressed (contract 2.1).
pub const COMPRESSED_BYTES_MIN: usize = 1024;
/// Largest response body that is compressed at the level that is set; a larger one is at the fastest.
pub const FULLY_COMPRESSED_BYTES_MAX: usize = 1024 * 1024;
/// Largest response body that is compressed at all.
pub const COMPRESSED_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Response bodies that a shard compresses at the same time, each with 0.4 to 3.9 MB for its encoder; further ones wait.
pub const COMPRESSIONS_MAX: usize = 4;
/// Response bodies that wait for a turn of the shard's loop to be compressed in; a list of the queue has some 50 KB. Those that
/// come while so many wait are compressed at once.
pub const COMPRESSIONS_WAITING_MAX: usize = 64;

/// Refused clients that a shard waits for to end their connections, each with a descriptor; further ones are cut off.
pub const FAREWELLS_MAX: usize = 64;
/// With so many bytes waiting a client is spared changes of presence and queue: it hears the newest once it has read.
/// Small, because when a network stalls all clients have it at the same time.
pub const DIFFS_BACKLOG_BYTES_MAX: usize = 4 * 1024;
/// Changes told together, as one chunk that clients for whom nothing waits share; with so many, further ones are told after
/// them. A client that stops reading keeps one such chunk from being freed.
pub const BATCH_BYTES_MAX: usize = 16 * 1024;
/// Changes that a shard remembers for such clients, 64 bytes each; older ones they do not hear of. As many may wait, encoded,
/// until all have been told.
pub const CHANGES_KEPT: usize = 16_384;

/// Heartbeat period (contract 3.1, `pingInterval`).
pub const PING_INTERVAL_MS: u64 = 25_000;
/// Time to answer a heartbeat (contract 3.1, `pingTimeout`).
pub const PING_TIMEOUT_MS: u64 = 60_000;
/// A connection that has not authenticated by then is closed (contract 8, D16).
pub const UNBOUND_TIMEOUT_MS: u64 = 30_000;
/// Level of permessage-deflate (contract 3.1 asks for compression, the reference design for 6).
pub const DEFLATE_LEVEL: u8 = 6;
/// Shorter messages of the server are not compressed, bytes (contract 3.1).
pub const DEFLATE_BYTES_MIN: usize = 1024;
/// Longer ones are not either, so that none keeps a shard busy for more than some 2 ms.
pub const DEFLATE_BYTES_MAX: usize = 128 * 1024;
/// Time from a WebSocket that wants to take a session over to its taking over (engine.io, `upgradeTimeout`).
pub const UPGRADE_TIMEOUT_MS: u64 = 10_000;
/// Attachments of one Socket.IO packet; more are a malformed packet (the clients' own parser allows 10).
pub const ATTACHMENTS_MAX: usize = 10;
/// Time for all attachments of a packet to come.
pub const ATTACHMENTS_TIMEOUT_MS: u64 = 10_000;
/// Time for the peer to answer a WebSocket close frame before the socket is closed anyway (RFC 6455 7.1.1).
pub const CLOSE_TIMEOUT_MS: u64 = 2_000;
/// Events of a connection that set picture and sound up: per second in the long run, and at once (contract 8, D39). A
/// browser has some dozens of candidates for each offer. Over it they are refused, and at last the connection.
pub const SIGNALS: (u32, u32) = (100, 500);
/// The same of chat and socials: people type slower.
pub const CHAT: (u32, u32) = (10, 100);
/// The same of all about invites.
pub const INVITES: (u32, u32) = (5, 50);
/// The same of all other events.
pub const OTHER_EVENTS: (u32, u32) = (100, 500);
/// Living connections of one user (contract 4.5); over it the oldest is told and closed.
pub const USER_CONNECTIONS_MAX: usize = 2;

/// Shortest and longest wanted duration of a call, seconds (contract 4.1); 1..59 are raised (Decided 2).
pub const CALL_SECONDS_MIN: u32 = 60;
/// See [`CALL_SECONDS_MIN`].
pub const CALL_SECONDS_MAX: u32 = 1800;
/// Allowance for setting up media, added to the agreed time before the server ends a call (D38).
pub const CALL_ALLOWANCE_MS: u64 = 120_000;
/// A shorter call that ends by disconnect leaves no trace; a shorter one that ends otherwise no history (contract 4.3).
pub const CALL_RECORDED_SECONDS_MIN: u64 = 5;
/// From this length a call counts as completed (contract 4.3).
pub const CALL_COMPLETED_SECONDS_MIN: u64 = 30;
/// Time in which a lost connection may come back without consequences (contract 3.5, D6).
pub const GRACE_MS: u64 = 5_000;
/// Time for both to come back into a call after a restart, unless it is set otherwise: what socket.io-client, with the
/// five attempts of the contract (3.1), takes at most, and some for the start itself.
pub const RESUME_MS: u64 = 30_000;
/// Running calls read from the store at a time; each may have a whole log.
pub const RUNNING_PAGE: usize = 32;
/// What happens in calls is kept for the next process after so long: what a process that is killed loses of the chat.
pub const CALL_KEEP_MS: u64 = 250;
/// A process with running calls notes so often that it is alive.
pub const CALL_ALIVE_MS: u64 = 5_000;
/// How often a process looks for calls of others that share its store, while there are others, and while there are none.
pub const OWNERS_LOOK_MS: u64 = 250;
/// See [`OWNERS_LOOK_MS`].
pub const OWNERS_LOOK_ALONE_MS: u64 = 5_000;
/// Looks in a row in which the owner of calls is missed before they are taken from him: he may be on his way back, as all
/// are after a restart of their database.
pub const OWNER_MISSED_LOOKS: u32 = 24;
/// A user whose call another process still has is kept waiting so long at most: longer than that one takes to stop, or to
/// be missed.
pub const HANDOVER_WAIT_MS: u64 = 15_000;
/// While he waits it is looked so often whether there still is such a call.
pub const HANDOVER_LOOK_MS: u64 = 1_000;
/// Lines of chat, and joins, that are kept in one write; further ones wait for the next.
pub const KEEP_ENTRIES_MAX: usize = 512;
/// Signals, chat and socials held for a participant who is not in the room yet; over it further ones are dropped (D37).
pub const HELD_MAX: usize = 256;
/// Bytes of the same.
pub const HELD_BYTES_MAX: usize = 512 * 1024;
/// Chat and social messages kept of one call; over it the sender is refused.
pub const CHAT_LOG_MAX: usize = 2_000;
/// Longest chat text, Unicode scalar values (contract 4.5); longer is cut.
pub const CHAT_CHARS_MAX: usize = 500;
/// For how long the participants of an ended call can ask for its end again (D9).
pub const RECENT_CALL_MS: u64 = 600_000;
/// How many (participant, ended call) pairs a shard remembers for that; over it the oldest is forgotten.
pub const RECENT_CALLS_MAX: usize = 16_384;

/// Time to live of an invite as told to the callee, and what each "keep waiting" adds (contract 4.1).
pub const INVITE_TTL_MS: u64 = 20_000;
/// Slack before the server ends an unanswered invite itself (D5).
pub const INVITE_SLACK_MS: u64 = 15_000;
/// Most "keep waiting" per invite (D39).
pub const INVITE_EXTENSIONS_MAX: u32 = 5;
/// Invites one user may have open at once; over it `error`.
pub const INVITES_OUTGOING_MAX: usize = 4;
/// Invites that may ring at one user at once; over it the caller hears `busy`.
pub const INVITES_INCOMING_MAX: usize = 16;
/// Time for the caller's home to answer an accept before the callee is free again.
pub const ACCEPT_TIMEOUT_MS: u64 = 5_000;

/// Cooldown after a decline, after a call, and after a disconnect in a call (contract 4.2).
pub const COOLDOWN_LONG_MS: u64 = 24 * 3_600_000;
/// Cooldown after a rescinded or unanswered invite, or when the caller went away (contract 4.2, Decided 1).
pub const COOLDOWN_SHORT_MS: u64 = 3_600_000;

/// Clients told of changes in one turn of a shard's loop: their writes take about half a millisecond.
pub const WRITES_AT_ONCE_MAX: usize = 64;
/// Changes told in one turn, where many were published together; each costs about 0.2 µs where they are told one by one.
pub const TOLD_AT_ONCE_MAX: usize = 2_048;
/// Presence changes are gathered for this long, then published once per user (D15).
pub const PUBLISH_TICK_MS: u64 = 10;
/// And for this long, µs, since the last, times those who look at the queue on all shards. To tell one of them costs some
/// 2 to 5 µs, so a shard spends less than a tenth of its time on it however much changes.
pub const PUBLISH_VIEWER_US: u64 = 100;
/// But no longer than this.
pub const PUBLISH_PAUSE_MAX_MS: u64 = 2_000;
/// Least time between two announcements of `presence:join` by one user (contract 3.3).
pub const PRESENCE_INTERVAL_MS: u64 = 2_000;
/// Least time between two announcements that one user is available (D15).
pub const QUEUE_INTERVAL_MS: u64 = 1_000;
/// Users in one published batch.
pub const PUBLISH_BATCH_MAX: usize = 512;
/// Writes to the store that a shard keeps retrying while it fails; over it the oldest is counted as lost.
pub const WRITES_PENDING_MAX: usize = 4_096;
/// Pause before a failed write is tried again.
pub const WRITE_RETRY_MS: u64 = 500;

/// Session lifetimes (contract 4.4).
pub const GUEST_SESSION_MS: u64 = 7 * 24 * 3_600_000;
/// See [`GUEST_SESSION_MS`].
pub const PERMANENT_SESSION_MS: u64 = 30 * 24 * 3_600_000;
/// Longest name, characters (D34).
pub const NAME_CHARS_MAX: usize = 100;
/// Entries in a socials object, and characters of each key and value (D34).
pub const SOCIALS_MAX: usize = 10;
/// See [`SOCIALS_MAX`].
pub const SOCIAL_CHARS_MAX: usize = 100;
/// Password length, characters (D26); the upper bound keeps hashing cheap to refuse.
pub const PASSWORD_CHARS_MIN: usize = 8;
/// See [`PASSWORD_CHARS_MIN`].
pub const PASSWORD_CHARS_MAX: usize = 128;
/// Longest e-mail address, bytes (RFC 5321 4.5.3.1.3, less the angle brackets).
pub const EMAIL_BYTES_MAX: usize = 254;
/// Longest User-Agent that is stored, bytes; longer is cut.
pub const DEVICE_BYTES_MAX: usize = 256;
/// People listed by `/room/queue`; of more a sample is.
pub const QUEUE_LIST_MAX: usize = 200;
/// As many as may be set: with cards of usual length it keeps an answer below 1 MB.
pub const QUEUE_LIST_TOP: usize = 2_000;
/// Calls listed by `/room/history`, newest first.
pub const HISTORY_LIST_MAX: usize = 200;
/// Rows of history that are archived in one transaction, so that nobody waits long behind it.
pub const ARCHIVE_ROWS_MAX: usize = 100;
/// Bytes of chat after which no further row is; a row may hold megabytes.
pub const ARCHIVE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Pause between two such transactions.
pub const ARCHIVE_PAUSE_MS: u64 = 50;
/// Entries of `lastSessions` (contract 2.6).
pub const LAST_SESSIONS_MAX: usize = 10;

/// Messages waiting in a shard's inbox; over it the sender keeps them in its overflow.
pub const INBOX_MAX: usize = 8_192;
/// Messages a shard keeps for another whose inbox is full; over it the message is shed and counted.
pub const OVERFLOW_MAX: usize = 65_536;
/// Requests waiting for the store; over it they are refused as unavailable.
pub const STORE_QUEUE_MAX: usize = 16_384;
/// Connections to the metrics that are served at the same time; further ones wait in the kernel.
pub const METRICS_CONNECTIONS_MAX: usize = 8;
/// Largest request head there, bytes; over it the connection is closed.
pub const METRICS_HEAD_BYTES_MAX: usize = 8 * 1024;
/// Time for one scrape, from the accept to the last byte; over it the connection is closed.
pub const METRICS_SCRAPE_MS_MAX: u64 = 10_000;
/// Time for all shards, and for the store, to answer a scrape; who does not is told as he was before.
pub const METRICS_ANSWER_MS_MAX: u64 = 1_000;
/// Rate-limit counters per shard; over it the one that ends first makes room.
pub const RATE_COUNTERS_MAX: usize = 65_536;

const _: () = assert!(OWNER_MISSED_LOOKS as u64 * OWNERS_LOOK_MS + OWNERS_LOOK_ALONE_MS < HANDOVER_WAIT_MS);
const _: () = assert!(HANDOVER_WAIT_MS < UNBOUND_TIMEOUT_MS, "who is kept waiting is not closed for it");
const _: () = assert!(MESSAGE_BYTES_MAX < OUTBOX_BYTES_MAX, "one message must fit an outbox");
const _: () = assert!(FULLY_COMPRESSED_BYTES_MAX < COMPRESSED_BYTES_MAX);
const _: () = assert!(INFLATE_UNRATED_BYTES <= MESSAGE_BYTES_MAX);
const _: () = assert!(DIFFS_BACKLOG_BYTES_MAX < BATCH_BYTES_MAX && BATCH_BYTES_MAX < OUTBOX_BYTES_MAX);
const _: () = assert!(QUEUE_LIST_MAX <= QUEUE_LIST_TOP);
const _: () = assert!(CALL_SECONDS_MIN < CALL_SECONDS_MAX);
const _: () = assert!(CALL_RECORDED_SECONDS_MIN <= CALL_COMPLETED_SECONDS_MIN);
const _: () = assert!(HELD_BYTES_MAX < OUTBOX_BYTES_MAX, "held messages must fit an outbox when they are let go");
const _: () = assert!(PUBLISH_BATCH_MAX < INBOX_MAX);
