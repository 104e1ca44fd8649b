//! One connection: its prepared statements, transactions, and what an error says about what was stored.
//!
//! Requests that are under way together are pipelined. A connection that somebody gave up waiting for, or whose
//! statements no longer fit the schema, is retired: it serves nobody again. Bound: a statement for each text of ours.

use std::cell::{Cell, RefCell};
use std::error::Error as _;
use std::fmt;
use std::rc::Rc;

use futures_lite::future::zip;
use tokio::sync::Notify;
use tokio_postgres::error::{Severity, SqlState};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row, Statement};

use crate::base::collections::Map;

pub(super) type Result<T> = std::result::Result<T, Error>;
pub(super) type Parameters<'a> = [&'a (dyn ToSql + Sync)];

/// Why a request failed.
#[derive(Debug)]
pub(super) enum Error {
    Database(tokio_postgres::Error),
    /// What the database holds does not allow it.
    Refused(&'static str),
    /// A commit was sent, and no answer came.
    Uncertain(tokio_postgres::Error),
}

/// An open connection; `retired` ends it.
pub(super) struct Connection {
    client: Client,
    statements: RefCell<Map<String, Statement>>,
    is_retired: Cell<bool>,
    retired: Rc<Notify>,
}

impl Connection {
    /// Around a client whose driver runs elsewhere, until `retired` is notified.
    pub fn new(client: Client, retired: Rc<Notify>) -> Self {
        Self { client, statements: RefCell::default(), is_retired: Cell::new(false), retired }
    }

    /// Whether it may serve the next.
    pub fn is_usable(&self) -> bool {
        !self.is_retired.get() && !self.client.is_closed()
    }

    /// Makes it serve nobody again.
    pub fn retire(&self) {
        self.is_retired.set(true);
        self.retired.notify_one();
    }

    /// All rows of a statement that may be prepared already.
    pub async fn rows(&self, sql: &str, parameters: &Parameters<'_>) -> Result<Vec<Row>> {
        let statement = self.statement(sql).await?;
        self.checked(self.client.query(&statement, parameters).await)
    }

    /// The row of a statement that gives at most one.
    pub async fn row(&self, sql: &str, parameters: &Parameters<'_>) -> Result<Option<Row>> {
        let mut rows = self.rows(sql, parameters).await?;
        assert!(rows.len() <= 1, "a statement of ours gave more rows than it can");
        Ok(rows.pop())
    }

    /// How many rows a statement changed.
    pub async fn execute(&self, sql: &str, parameters: &Parameters<'_>) -> Result<u64> {
        let statement = self.statement(sql).await?;
        self.checked(self.client.execute(&statement, parameters).await)
    }

    /// Runs statements without parameters or rows.
    pub async fn run(&self, sql: &str) -> Result<()> {
        self.checked(self.client.batch_execute(sql).await)
    }

    /// Runs `work` in a transaction, which an error rolls back. Nobody else may use the connection meanwhile.
    pub async fn transaction<T>(&self, work: impl AsyncFnOnce() -> Result<T>) -> Result<T> {
        // One round trip for the first two: what is sent second is not waited for by what is sent first.
        let (begun, done) = zip(self.client.batch_execute("BEGIN"), work()).await;
        if let Err(error) = begun {
            self.retire();
            return Err(Error::Uncertain(error));
        }
        match done {
            Ok(done) => {
                self.client.batch_execute("COMMIT").await.map_err(Error::Uncertain)?;
                Ok(done)
            }
            Err(error) => {
                if self.client.batch_execute("ROLLBACK").await.is_err() {
                    self.retire();
                }
                Err(error)
            }
        }
    }

    /// Sees to it that the next use of a statement is sent at once, ahead of what is sent after it.
    pub async fn prepare(&self, sql: &str) -> Result<()> {
        self.statement(sql).await.map(drop)
    }

    async fn statement(&self, sql: &str) -> Result<Statement> {
        if let Some(statement) = self.statements.borrow().get(sql) {
            return Ok(statement.clone());
        }
        let statement = self.client.prepare(sql).await?;
        self.statements.borrow_mut().insert(sql.to_owned(), statement.clone());
        Ok(statement)
    }

    /// Retires the connection when its statements are of an older schema, or its server takes no more writes.
    fn checked<T>(&self, result: std::result::Result<T, tokio_postgres::Error>) -> Result<T> {
        let is_of_the_past = |error: &tokio_postgres::Error| {
            matches!(error.code(), Some(&SqlState::FEATURE_NOT_SUPPORTED | &SqlState::READ_ONLY_SQL_TRANSACTION))
        };
        if result.as_ref().is_err_and(is_of_the_past) {
            self.retire();
        }
        Ok(result?)
    }
}

impl Error {
    /// Whether it is certain that nothing was stored: the server said so, or it was never asked to.
    pub fn is_certain(&self) -> bool {
        let refused = |error: &tokio_postgres::Error| {
            error.as_db_error().is_some_and(|error| error.parsed_severity() == Some(Severity::Error))
        };
        match self {
            Self::Refused(_) => true,
            Self::Database(error) | Self::Uncertain(error) => refused(error),
        }
    }

    /// Whether it is a row that the unique index `name` forbids.
    pub fn violates(&self, name: &str) -> bool {
        let Self::Database(error) = self else { return false };
        error
            .as_db_error()
            .is_some_and(|error| error.code() == &SqlState::UNIQUE_VIOLATION && error.constraint() == Some(name))
    }
}

impl From<tokio_postgres::Error> for Error {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Database(error)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Database(error) => f.write_str(&words(error)),
            Self::Refused(why) => f.write_str(why),
            Self::Uncertain(error) => write!(f, "whether it was stored is not known: {}", words(error)),
        }
    }
}

/// One line that says the cause. It names neither values nor the password.
pub(super) fn words(error: &tokio_postgres::Error) -> String {
    if let Some(error) = error.as_db_error() {
        return format!("{} (SQLSTATE {})", error.message(), error.code().code());
    }
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text.replace('\n', " ")
}
