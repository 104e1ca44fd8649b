//! What stands between two users: cooldowns (contract 4.2) and reports, which hide both ways (D40). On the store's thread.
//!
//! A cooldown belongs to an unordered pair, kept smaller id first. The users need not exist: a cooldown outlives an
//! account for its hours and is swept.

use rusqlite::{Connection, OptionalExtension as _, Result, Row, ToSql, named_params};

use super::sessions::SWEEP_ROWS_MAX;
use crate::base::{Time, UserId};
use crate::message::store::{Pair, Relations, Reply};

/// Entries of each list of [`Relations`]; of more, the cooldowns that end last and the newest reports are told.
const RELATIONS_MAX: usize = 4_096;

/// The cooldowns of a user: any, and those that end last first.
const COOLDOWNS: [&str; 2] = [
    "SELECT higher_id AS other, expires_at FROM cooldowns WHERE lower_id = :user AND expires_at > :now
     UNION ALL SELECT lower_id, expires_at FROM cooldowns WHERE higher_id = :user AND expires_at > :now",
    "SELECT higher_id AS other, expires_at FROM cooldowns WHERE lower_id = :user AND expires_at > :now
     UNION ALL SELECT lower_id, expires_at FROM cooldowns WHERE higher_id = :user AND expires_at > :now
     ORDER BY expires_at DESC",
];
/// Whom a user reported and who reported him: any, and those of the newest reports first.
const HIDDEN: [&str; 2] = [
    "SELECT reported_id FROM reports WHERE reporter_id = :user
     UNION ALL SELECT reporter_id FROM reports WHERE reported_id = :user",
    "SELECT other FROM (
         SELECT reported_id AS other, created_at FROM reports WHERE reporter_id = :user
         UNION ALL SELECT reporter_id, created_at FROM reports WHERE reported_id = :user)
     GROUP BY other ORDER BY max(created_at) DESC",
];

/// The cooldowns of `user` that run at `now`, and whom he must not meet.
///
/// All who look at the queue ask it, so that the usual statements only walk indexes: to order or to group, SQLite makes
/// a table at each use, of pages from the system.
pub(super) fn relations(connection: &Connection, user: UserId, now: Time) -> Result<Reply> {
    let running = named_params! { ":user": user, ":now": now };
    let cooldowns = few(connection, COOLDOWNS, running, |row| Ok((row.get(0)?, row.get(1)?)))?;
    let mut hidden: Vec<UserId> = few(connection, HIDDEN, named_params! { ":user": user }, |row| row.get(0))?;
    hidden.sort_unstable();
    hidden.dedup();
    Ok(Reply::Relations(Box::new(Relations { cooldowns, hidden })))
}

/// The rows of the first statement; if those are more than [`RELATIONS_MAX`], so many of the second.
fn few<T>(
    connection: &Connection,
    [any, best]: [&str; 2],
    parameters: &[(&str, &dyn ToSql)],
    read: impl Fn(&Row) -> Result<T>,
) -> Result<Vec<T>> {
    let rows = |sql, max| -> Result<Vec<T>> {
        connection.prepare_cached(sql)?.query_map(parameters, &read)?.take(max).collect()
    };
    let all = rows(any, RELATIONS_MAX + 1)?;
    if all.len() <= RELATIONS_MAX { Ok(all) } else { rows(best, RELATIONS_MAX) }
}

/// What an invite from `caller` to `callee` depends on; `None` when there is no such callee.
pub(super) fn pair(connection: &Connection, caller: UserId, callee: UserId, now: Time) -> Result<Reply> {
    let (lower, higher) = ordered((caller, callee));
    let sql = "SELECT
             (SELECT expires_at FROM cooldowns
                 WHERE lower_id = :lower AND higher_id = :higher AND expires_at > :now) AS cooldown_until,
             EXISTS (SELECT 1 FROM reports WHERE reporter_id = :lower AND reported_id = :higher)
                 OR EXISTS (SELECT 1 FROM reports WHERE reporter_id = :higher AND reported_id = :lower) AS hidden,
             ban_status IN ('temporary', 'permanent') AS banned
         FROM users WHERE user_id = :callee";
    let pair = connection.prepare_cached(sql)?.query_row(
        named_params! { ":lower": lower, ":higher": higher, ":now": now, ":callee": callee },
        |row| {
            Ok(Pair {
                cooldown_until: row.get("cooldown_until")?,
                hidden: row.get("hidden")?,
                banned: row.get("banned")?,
            })
        },
    );
    pair.optional().map(Reply::Pair)
}

/// Sets the end of the cooldown, whatever it was.
pub(super) fn set_cooldown(connection: &Connection, pair: (UserId, UserId), until: Time) -> Result<()> {
    let (lower, higher) = ordered(pair);
    let sql = "INSERT INTO cooldowns (lower_id, higher_id, expires_at) VALUES (?1, ?2, ?3)
         ON CONFLICT DO UPDATE SET expires_at = excluded.expires_at";
    connection.prepare_cached(sql)?.execute((lower, higher, until))?;
    Ok(())
}

/// Removes at most [`SWEEP_ROWS_MAX`] cooldowns that are over, longest ago first.
pub(super) fn sweep(connection: &Connection, now: Time) -> Result<()> {
    let sql = "DELETE FROM cooldowns WHERE (lower_id, higher_id) IN
         (SELECT lower_id, higher_id FROM cooldowns WHERE expires_at <= ?1 ORDER BY expires_at LIMIT ?2)";
    connection.prepare_cached(sql)?.execute((now, SWEEP_ROWS_MAX))?;
    Ok(())
}

/// The pair as it is kept: SQLite compares ids as `UserId` does, byte by byte.
fn ordered((one, other): (UserId, UserId)) -> (UserId, UserId) {
    if one <= other { (one, other) } else { (other, one) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Random;
    use crate::store::sqlite::schema::MIGRATIONS;

    const NOW: Time = Time(1_761_000_000_000);

    fn database() -> Connection {
        let connection = Connection::open_in_memory().unwrap();
        MIGRATIONS.iter().for_each(|sql| connection.execute_batch(sql).unwrap());
        connection
    }

    fn report(connection: &Connection, random: &mut Random, reporter: UserId, reported: UserId, at: u64) {
        let sql = "INSERT INTO reports (report_id, reporter_id, reporter_name, reporter_address, reported_id,
             reported_name, reason, created_at) VALUES (?1, ?2, '', '', ?3, '', '', ?4)";
        let parameters = (UserId::draw(random), reporter, reported, Time(at));
        connection.prepare_cached(sql).unwrap().execute(parameters).unwrap();
    }

    fn relations_of(connection: &Connection, user: UserId) -> Relations {
        match relations(connection, user, NOW).unwrap() {
            Reply::Relations(relations) => *relations,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_usual_statements_only_walk_indexes() {
        let connection = database();
        for sql in [COOLDOWNS[0], HIDDEN[0]] {
            let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
            let rows = statement.raw_query().mapped(|row| row.get(3));
            let steps: Vec<String> = rows.map(Result::unwrap).collect();
            let walks = steps.iter().filter(|step| step.starts_with("SEARCH") && step.contains(" USING ")).count();
            assert_eq!(walks, 2, "{steps:?}");
            assert!(!steps.iter().any(|step| step.contains("TEMP") || step.starts_with("SCAN")), "{steps:?}");
        }
    }

    #[test]
    fn of_too_many_those_that_matter_longest_are_told() {
        let (connection, mut random) = (database(), Random::from_seed(1));
        let user = UserId::draw(&mut random);
        let extra = 3;
        for n in 0..RELATIONS_MAX + extra {
            let others = [UserId::draw(&mut random), UserId::draw(&mut random)];
            set_cooldown(&connection, (user, others[0]), NOW + 1 + n as u64).unwrap();
            report(&connection, &mut random, user, others[1], n as u64);
            if n < RELATIONS_MAX / 2 {
                report(&connection, &mut random, others[1], user, n as u64);
            }
        }
        let told = relations_of(&connection, user);
        assert_eq!((told.cooldowns.len(), told.hidden.len()), (RELATIONS_MAX, RELATIONS_MAX));
        assert!(told.cooldowns.iter().all(|(_, until)| *until > NOW + extra as u64));
        let newest = "SELECT reported_id FROM reports ORDER BY created_at DESC, report_id LIMIT 1";
        let newest: UserId = connection.query_row(newest, [], |row| row.get(0)).unwrap();
        assert!(told.hidden.contains(&newest));
    }
}
