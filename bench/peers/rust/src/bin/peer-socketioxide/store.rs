//! Users, sessions, cooldowns and history in Postgres, users and sessions behind caches.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use deadpool_postgres::{Manager, Pool, PoolError, Transaction};
use moka::sync::Cache;
use serde::Serialize;
use serde_json::{Value, json};
use tokio_postgres::types::{Json, ToSql};
use tokio_postgres::{NoTls, Row};
use uuid::Uuid;

const CONNECTIONS: usize = 20;
const USERS: u64 = 200;
const SESSIONS: u64 = 300;
const CACHED: Duration = Duration::from_secs(5 * 60);
const GUEST_SESSION_MS: i64 = 7 * 24 * 3600 * 1000;

/// What failed; the caller can do nothing about it but say so.
pub type Result<T> = std::result::Result<T, PoolError>;

type Values<'a> = &'a [&'a (dyn ToSql + Sync)];

pub struct Store {
    pool: Pool,
    users: Cache<Uuid, User>,
    /// Whose session it is, and when it ends.
    sessions: Cache<Uuid, (Uuid, i64)>,
}

#[derive(Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct User {
    #[serde(flatten)]
    pub card: Card,
    account_type: String,
    email: Option<String>,
    socials: Value,
    paid_status: String,
    created_at: i64,
    #[serde(flatten)]
    totals: Totals,
    streak_days: Option<i64>,
}

/// What others may know of a user.
#[derive(Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Card {
    pub user_id: Uuid,
    pub name: String,
    pub gender: String,
    pub selfie_url: Option<String>,
    pub video_url: Option<String>,
}

#[derive(Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Totals {
    timer_total_seconds: i64,
    session_count: i64,
    last_sessions: Value,
}

/// A call that has ended.
pub struct Finished {
    pub session_id: Uuid,
    pub room_id: Uuid,
    pub participants: [(Uuid, String); 2],
    pub started_at: i64,
    pub duration: i64,
    pub messages: Vec<Value>,
}

impl Store {
    pub async fn open(url: String) -> std::result::Result<Self, Box<dyn std::error::Error>> {
        let pool = Pool::builder(Manager::new(url.parse()?, NoTls)).max_size(CONNECTIONS).build()?;
        pool.get().await?.batch_execute(include_str!("../../../../schema.sql")).await?;
        let users = Cache::builder().max_capacity(USERS).time_to_live(CACHED).build();
        let sessions = Cache::builder().max_capacity(SESSIONS).time_to_live(CACHED).build();
        Ok(Self { pool, users, sessions })
    }

    async fn query(&self, sql: &str, values: Values<'_>) -> Result<Vec<Row>> {
        let client = self.pool.get().await?;
        let statement = client.prepare_cached(sql).await?;
        Ok(client.query(&statement, values).await?)
    }

    async fn query_one(&self, sql: &str, values: Values<'_>) -> Result<Option<Row>> {
        Ok(self.query(sql, values).await?.into_iter().next())
    }

    /// A new guest and his session's token.
    pub async fn create_guest(&self, name: &str, gender: &str) -> Result<(Uuid, Uuid)> {
        let (user_id, token, now) = (Uuid::new_v4(), Uuid::new_v4(), now_ms());
        let mut client = self.pool.get().await?;
        let transaction = client.transaction().await?;
        let user = "INSERT INTO users (user_id, name, gender, created_at) VALUES ($1, $2, $3, $4)";
        query_in(&transaction, user, &[&user_id, &name, &gender, &now]).await?;
        let session = "INSERT INTO sessions (session_token, user_id, created_at, expires_at) VALUES ($1, $2, $3, $4)";
        query_in(&transaction, session, &[&token, &user_id, &now, &(now + GUEST_SESSION_MS)]).await?;
        transaction.commit().await?;
        Ok((user_id, token))
    }

    /// Whose session this is, if it is valid.
    pub async fn user_of_session(&self, token: &str) -> Result<Option<Uuid>> {
        let Ok(token) = Uuid::parse_str(token) else { return Ok(None) };
        let mut session = self.sessions.get(&token);
        if session.is_none() {
            let select = "SELECT user_id, expires_at FROM sessions WHERE session_token = $1 AND is_active";
            session = self.query_one(select, &[&token]).await?.map(|row| (row.get(0), row.get(1)));
            if let Some(session) = session {
                self.sessions.insert(token, session);
            }
        }
        Ok(session.filter(|(_, expires_at)| *expires_at > now_ms()).map(|(user_id, _)| user_id))
    }

    pub async fn user(&self, user_id: Uuid) -> Result<Option<User>> {
        if let Some(user) = self.users.get(&user_id) {
            return Ok(Some(user));
        }
        let user =
            self.query_one("SELECT * FROM users WHERE user_id = $1", &[&user_id]).await?.as_ref().map(User::from);
        if let Some(user) = &user {
            self.users.insert(user_id, user.clone());
        }
        Ok(user)
    }

    /// When the cooldown of this pair ends, if there is one.
    pub async fn cooldown(&self, one: Uuid, other: Uuid) -> Result<Option<i64>> {
        let select = "SELECT expires_at FROM cooldowns WHERE lower_id = $1 AND higher_id = $2 AND expires_at > $3";
        let row = self.query_one(select, &[&one.min(other), &one.max(other), &now_ms()]).await?;
        Ok(row.map(|row| row.get(0)))
    }

    /// The profiles of these users, in this order, each with the end of its cooldown with `me`.
    pub async fn profiles(&self, me: Uuid, users: &[Uuid]) -> Result<Vec<(Card, Option<i64>)>> {
        let select = "SELECT user_id, name, gender, selfie_url, video_url, c.expires_at AS cooldown
            FROM unnest($2::uuid[]) WITH ORDINALITY AS listed (id, place)
            JOIN users ON user_id = id
            LEFT JOIN cooldowns c ON lower_id = least(id, $1) AND higher_id = greatest(id, $1) AND c.expires_at > $3
            ORDER BY place";
        let rows = self.query(select, &[&me, &users, &now_ms()]).await?;
        Ok(rows.iter().map(|row| (Card::from(row), row.get("cooldown"))).collect())
    }

    pub async fn set_cooldown(&self, one: Uuid, other: Uuid, ms: i64) -> Result<()> {
        self.query(SET_COOLDOWN, &[&one.min(other), &one.max(other), &(now_ms() + ms)]).await?;
        Ok(())
    }

    /// Stores a finished call: history and totals of both, their cooldown. Gives each one's new totals.
    pub async fn finish(&self, call: &Finished, cooldown_ms: i64) -> Result<Vec<(Uuid, Totals)>> {
        let [(caller, caller_name), (callee, callee_name)] = &call.participants;
        let Finished { session_id, room_id, started_at, duration, .. } = call;
        let messages = Json(&call.messages);
        let mut client = self.pool.get().await?;
        let transaction = client.transaction().await?;
        for (me, partner, name) in [(caller, callee, callee_name), (callee, caller, caller_name)] {
            let insert = "INSERT INTO chat_history VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
            let row: Values = &[session_id, me, partner, name, room_id, started_at, duration, &messages];
            query_in(&transaction, insert, row).await?;
        }
        let pair: Values = &[caller.min(callee), caller.max(callee), &(now_ms() + cooldown_ms)];
        query_in(&transaction, SET_COOLDOWN, pair).await?;
        let last = json!({ "at": started_at, "duration": duration });
        let rows = query_in(&transaction, ADD_TOTALS, &[&[caller, callee].as_slice(), duration, &last]).await?;
        transaction.commit().await?;
        self.users.invalidate(caller);
        self.users.invalidate(callee);
        Ok(rows.iter().map(|row| (row.get("user_id"), Totals::from(row))).collect())
    }

    pub async fn history(&self, user_id: Uuid) -> Result<Vec<Value>> {
        let select = "SELECT session_id, room_id, partner_id, partner_name, started_at, duration, messages
            FROM chat_history WHERE user_id = $1 ORDER BY started_at DESC LIMIT 200";
        Ok(self.query(select, &[&user_id]).await?.iter().map(history_item).collect())
    }
}

async fn query_in(transaction: &Transaction<'_>, sql: &str, values: Values<'_>) -> Result<Vec<Row>> {
    let statement = transaction.prepare_cached(sql).await?;
    Ok(transaction.query(&statement, values).await?)
}

const SET_COOLDOWN: &str = "INSERT INTO cooldowns VALUES ($1, $2, $3)
    ON CONFLICT (lower_id, higher_id) DO UPDATE SET expires_at = excluded.expires_at";

/// Takes both rows in one order, so that two calls of the same people cannot lock each other.
const ADD_TOTALS: &str =
    "UPDATE users SET timer_total_seconds = timer_total_seconds + $2, session_count = session_count + 1,
        last_sessions = jsonb_path_query_array(last_sessions || $3::jsonb, '$[last - 9 to last]')
    WHERE user_id IN (SELECT user_id FROM users WHERE user_id = ANY($1) ORDER BY user_id FOR UPDATE)
    RETURNING user_id, timer_total_seconds, session_count, last_sessions";

fn history_item(row: &Row) -> Value {
    json!({
        "sessionId": row.get::<_, Uuid>("session_id"),
        "roomId": row.get::<_, Uuid>("room_id"),
        "partnerId": row.get::<_, Uuid>("partner_id"),
        "partnerName": row.get::<_, String>("partner_name"),
        "startedAt": row.get::<_, i64>("started_at"),
        "duration": row.get::<_, i64>("duration"),
        "messages": row.get::<_, Value>("messages"),
    })
}

impl From<&Row> for Card {
    fn from(row: &Row) -> Self {
        Self {
            user_id: row.get("user_id"),
            name: row.get("name"),
            gender: row.get("gender"),
            selfie_url: row.get("selfie_url"),
            video_url: row.get("video_url"),
        }
    }
}

impl From<&Row> for Totals {
    fn from(row: &Row) -> Self {
        Self {
            timer_total_seconds: row.get("timer_total_seconds"),
            session_count: row.get("session_count"),
            last_sessions: row.get("last_sessions"),
        }
    }
}

impl From<&Row> for User {
    fn from(row: &Row) -> Self {
        Self {
            card: row.into(),
            account_type: row.get("account_type"),
            email: row.get("email"),
            socials: row.get("socials"),
            paid_status: row.get("paid_status"),
            created_at: row.get("created_at"),
            totals: row.into(),
            streak_days: None,
        }
    }
}

/// ms since the epoch.
pub fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970").as_millis() as i64
}
