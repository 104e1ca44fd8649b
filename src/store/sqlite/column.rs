//! How values of the domain stand in columns: ids and hashes as their bytes, times as ms, words and JSON as text.
//!
//! Used on the store's thread. What a column holds is never trusted: text that does not decode is an error of the one
//! request that read it.

use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef};
use rusqlite::{Error, Result, Row};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::base::{CallId, Time, TokenHash, UserId};
use crate::message::model::{AccountType, Card, Gender, Introduction, Metrics, PaidStatus};

/// Columns that [`card`] needs, to be listed in a SELECT.
pub(super) const CARD: &str = "users.user_id, name, gender, selfie_url, video_url, introduced_to, introduced_by_name";

/// The public card in a row that has the columns [`CARD`].
pub(super) fn card(row: &Row<'_>) -> Result<Card> {
    let introduction = match (row.get("introduced_to")?, row.get("introduced_by_name")?) {
        (Some(target), Some(introducer)) => Some(Introduction { target, introducer }),
        _ => None,
    };
    Ok(Card {
        user_id: row.get("user_id")?,
        name: row.get("name")?,
        gender: row.get("gender")?,
        selfie_url: row.get("selfie_url")?,
        video_url: row.get("video_url")?,
        introduction,
    })
}

/// The account type in a row that has the column `email`.
pub(super) fn account_type(row: &Row<'_>) -> Result<AccountType> {
    let email: Option<String> = row.get("email")?;
    Ok(if email.is_some() { AccountType::Permanent } else { AccountType::Guest })
}

/// The totals in a row that has their three columns.
pub(super) fn metrics(row: &Row<'_>) -> Result<Metrics> {
    Ok(Metrics {
        timer_total_seconds: row.get::<_, Count>("timer_total_seconds")?.0,
        session_count: row.get::<_, Count>("session_count")?.0,
        last_sessions: row.get::<_, Json<_>>("last_sessions")?.0,
    })
}

/// A number that is never negative: SQLite has only signed ones. The largest that a column holds stands for all that are larger.
pub(super) struct Count(pub u64);

/// A value kept as JSON text.
pub(super) struct Json<T>(pub T);

impl ToSql for Count {
    fn to_sql(&self) -> Result<ToSqlOutput<'_>> {
        Ok(i64::try_from(self.0).unwrap_or(i64::MAX).into())
    }
}

impl FromSql for Count {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let number = value.as_i64()?;
        u64::try_from(number).map(Self).map_err(|_| FromSqlError::OutOfRange(number))
    }
}

/// Milliseconds since the epoch.
impl ToSql for Time {
    fn to_sql(&self) -> Result<ToSqlOutput<'_>> {
        Ok(i64::try_from(self.0).unwrap_or(i64::MAX).into())
    }
}

impl FromSql for Time {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        Count::column_result(value).map(|count| Self(count.0))
    }
}

impl<T: Serialize> ToSql for Json<T> {
    fn to_sql(&self) -> Result<ToSqlOutput<'_>> {
        let text = serde_json::to_string(&self.0).map_err(|error| Error::ToSqlConversionFailure(Box::new(error)))?;
        Ok(text.into())
    }
}

impl<T: DeserializeOwned> FromSql for Json<T> {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        serde_json::from_str(value.as_str()?).map(Self).map_err(FromSqlError::other)
    }
}

/// The 16 bytes of the UUID.
impl ToSql for UserId {
    fn to_sql(&self) -> Result<ToSqlOutput<'_>> {
        Ok(self.as_bytes().as_slice().into())
    }
}

impl FromSql for UserId {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        <[u8; 16]>::column_result(value).map(Self::from_bytes)
    }
}

/// The 16 bytes of the UUID.
impl ToSql for CallId {
    fn to_sql(&self) -> Result<ToSqlOutput<'_>> {
        Ok(self.as_bytes().as_slice().into())
    }
}

impl FromSql for CallId {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        <[u8; 16]>::column_result(value).map(Self::from_bytes)
    }
}

/// The 32 bytes of the SHA-256.
impl ToSql for TokenHash {
    fn to_sql(&self) -> Result<ToSqlOutput<'_>> {
        Ok(self.0.as_slice().into())
    }
}

impl FromSql for TokenHash {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        <[u8; 32]>::column_result(value).map(Self)
    }
}

/// The wire's word.
impl ToSql for Gender {
    fn to_sql(&self) -> Result<ToSqlOutput<'_>> {
        Ok(self.as_str().into())
    }
}

impl FromSql for Gender {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        Self::decode(value.as_str()?).ok_or_else(|| FromSqlError::Other("unknown gender".into()))
    }
}

/// The wire's word; reading an unknown one gives no access.
impl ToSql for PaidStatus {
    fn to_sql(&self) -> Result<ToSqlOutput<'_>> {
        Ok(self.as_str().into())
    }
}

impl FromSql for PaidStatus {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        value.as_str().map(Self::decode)
    }
}
