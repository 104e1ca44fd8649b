//! How values of the domain stand in columns: ids as uuid, hashes as bytea, times as ms, words as text, JSON as json.
//!
//! Used on the store's thread. What a column holds is never trusted: text that does not decode is an error of the one
//! request that read it.

use std::error::Error as StdError;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio_postgres::Row;
use tokio_postgres::types::private::BytesMut;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};

use super::connection::Result;
use crate::base::{CallId, Time, TokenHash, UserId};
use crate::message::PaidStatus;
use crate::message::model::{AccountType, Card, Gender, Introduction, Metrics};

/// Columns that [`card`] needs, to be listed in a SELECT.
pub(super) const CARD: &str = "users.user_id, name, gender, selfie_url, video_url, introduced_to, introduced_by_name";

type Converted<T> = std::result::Result<T, Box<dyn StdError + Sync + Send>>;

/// The public card in a row that has the columns [`CARD`].
pub(super) fn card(row: &Row) -> Result<Card> {
    let introduction = match (row.try_get("introduced_to")?, row.try_get("introduced_by_name")?) {
        (Some(target), Some(introducer)) => Some(Introduction { target, introducer }),
        _ => None,
    };
    Ok(Card {
        user_id: row.try_get("user_id")?,
        name: row.try_get("name")?,
        gender: row.try_get("gender")?,
        selfie_url: row.try_get("selfie_url")?,
        video_url: row.try_get("video_url")?,
        introduction,
    })
}

/// The account type in a row that has the column `email`.
pub(super) fn account_type(row: &Row) -> Result<AccountType> {
    let email: Option<&str> = row.try_get("email")?;
    Ok(if email.is_some() { AccountType::Permanent } else { AccountType::Guest })
}

/// The totals in a row that has their three columns.
pub(super) fn metrics(row: &Row) -> Result<Metrics> {
    Ok(Metrics {
        timer_total_seconds: row.try_get::<_, Count>("timer_total_seconds")?.0,
        session_count: row.try_get::<_, Count>("session_count")?.0,
        last_sessions: row.try_get::<_, Json<_>>("last_sessions")?.0,
    })
}

/// A number that is never negative: Postgres has only signed ones. The largest that a column holds stands for all
/// that are larger.
#[derive(Debug)]
pub(super) struct Count(pub u64);

/// A value kept as JSON.
#[derive(Debug)]
pub(super) struct Json<T>(pub T);

/// JSON that is passed on as it was stored.
pub(super) struct JsonText(pub String);

impl ToSql for Count {
    fn to_sql(&self, kind: &Type, out: &mut BytesMut) -> Converted<IsNull> {
        i64::try_from(self.0).unwrap_or(i64::MAX).to_sql(kind, out)
    }

    fn accepts(kind: &Type) -> bool {
        <i64 as ToSql>::accepts(kind)
    }

    to_sql_checked!();
}

impl<'a> FromSql<'a> for Count {
    fn from_sql(kind: &Type, raw: &'a [u8]) -> Converted<Self> {
        Ok(Self(u64::try_from(i64::from_sql(kind, raw)?)?))
    }

    fn accepts(kind: &Type) -> bool {
        <i64 as FromSql<'_>>::accepts(kind)
    }
}

/// Milliseconds since the epoch.
impl ToSql for Time {
    fn to_sql(&self, kind: &Type, out: &mut BytesMut) -> Converted<IsNull> {
        Count(self.0).to_sql(kind, out)
    }

    fn accepts(kind: &Type) -> bool {
        <i64 as ToSql>::accepts(kind)
    }

    to_sql_checked!();
}

impl<'a> FromSql<'a> for Time {
    fn from_sql(kind: &Type, raw: &'a [u8]) -> Converted<Self> {
        Count::from_sql(kind, raw).map(|count| Self(count.0))
    }

    fn accepts(kind: &Type) -> bool {
        <i64 as FromSql<'_>>::accepts(kind)
    }
}

impl<T: Serialize + std::fmt::Debug> ToSql for Json<T> {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Converted<IsNull> {
        out.extend_from_slice(&serde_json::to_vec(&self.0)?);
        Ok(IsNull::No)
    }

    fn accepts(kind: &Type) -> bool {
        *kind == Type::JSON
    }

    to_sql_checked!();
}

impl<'a, T: DeserializeOwned> FromSql<'a> for Json<T> {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Converted<Self> {
        Ok(Self(serde_json::from_slice(raw)?))
    }

    fn accepts(kind: &Type) -> bool {
        *kind == Type::JSON
    }
}

impl<'a> FromSql<'a> for JsonText {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Converted<Self> {
        Ok(Self(std::str::from_utf8(raw)?.to_owned()))
    }

    fn accepts(kind: &Type) -> bool {
        *kind == Type::JSON
    }
}

impl ToSql for UserId {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Converted<IsNull> {
        out.extend_from_slice(self.as_bytes());
        Ok(IsNull::No)
    }

    fn accepts(kind: &Type) -> bool {
        *kind == Type::UUID
    }

    to_sql_checked!();
}

impl<'a> FromSql<'a> for UserId {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Converted<Self> {
        Ok(Self::from_bytes(raw.try_into()?))
    }

    fn accepts(kind: &Type) -> bool {
        *kind == Type::UUID
    }
}

impl ToSql for CallId {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Converted<IsNull> {
        out.extend_from_slice(self.as_bytes());
        Ok(IsNull::No)
    }

    fn accepts(kind: &Type) -> bool {
        *kind == Type::UUID
    }

    to_sql_checked!();
}

impl<'a> FromSql<'a> for CallId {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Converted<Self> {
        Ok(Self::from_bytes(raw.try_into()?))
    }

    fn accepts(kind: &Type) -> bool {
        *kind == Type::UUID
    }
}

/// The 32 bytes of the SHA-256.
impl ToSql for TokenHash {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Converted<IsNull> {
        out.extend_from_slice(&self.0);
        Ok(IsNull::No)
    }

    fn accepts(kind: &Type) -> bool {
        *kind == Type::BYTEA
    }

    to_sql_checked!();
}

impl<'a> FromSql<'a> for TokenHash {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Converted<Self> {
        Ok(Self(raw.try_into()?))
    }

    fn accepts(kind: &Type) -> bool {
        *kind == Type::BYTEA
    }
}

/// The wire's word.
impl<'a> FromSql<'a> for Gender {
    fn from_sql(kind: &Type, raw: &'a [u8]) -> Converted<Self> {
        Self::decode(<&str>::from_sql(kind, raw)?).ok_or_else(|| "unknown gender".into())
    }

    fn accepts(kind: &Type) -> bool {
        <&str as FromSql<'_>>::accepts(kind)
    }
}

/// The wire's word; reading an unknown one gives no access.
impl<'a> FromSql<'a> for PaidStatus {
    fn from_sql(kind: &Type, raw: &'a [u8]) -> Converted<Self> {
        <&str>::from_sql(kind, raw).map(Self::decode)
    }

    fn accepts(kind: &Type) -> bool {
        <&str as FromSql<'_>>::accepts(kind)
    }
}
