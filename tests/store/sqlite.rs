//! The suite on SQLite, and the facts about its files, its lock, crashes and full disks.
//!
//! Crashes and full disks happen to a child: this same test binary, told to run one of the ignored tests below, which
//! reads its folder from standard input and reports each reply as a line.

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;

use duet::base::{Random, UserId};
use duet::link::LinkError;
use duet::message::store::{Reply, Request};
use duet::store::sqlite::Settings;
use duet::store::{self, Handle, OpenError};
use futures_lite::future::block_on;
use rusqlite::Connection;
use rusqlite::types::Value;

use super::schema;
use super::suite::FACTS;
use super::world::{Fact, Folder, NOW, Person, World};

fn try_open(folder: &Path) -> Result<Handle, OpenError> {
    store::open(&store::Settings::Sqlite(Settings::new(folder)), Arc::new(|| NOW))
}

fn open(folder: &Path) -> Handle {
    try_open(folder).unwrap_or_else(|error| panic!("{error}"))
}

fn refusal(folder: &Path) -> OpenError {
    try_open(folder).err().expect("it must not open")
}

fn database(folder: &Path) -> Connection {
    Connection::open(folder.join("duet.db")).unwrap()
}

fn plant(folder: &Path, fact: Fact) {
    let database = database(folder);
    let bytes = |user: UserId| *user.as_bytes();
    let changed = match fact {
        Fact::Referral { code, target, creator } => database.execute(
            "INSERT INTO referral_codes VALUES (?1, ?2, 'Target', ?3, 'Introducer', 0)",
            (code, bytes(target), bytes(creator)),
        ),
        Fact::InviteCode { code, uses, active } => database.execute(
            "INSERT INTO invite_codes VALUES (?1, ?2, ?3, ?4, ?5, NULL, 'Admin', 0)",
            (code, if uses.is_some() { "user" } else { "admin" }, uses.map(|_| 4), uses, active),
        ),
        Fact::Report { reporter, reported } => database.execute(
            "INSERT INTO reports VALUES (randomblob(16), ?1, 'Ann', '::1', ?2, 'Bob', NULL, NULL, 'rude', NULL, 0)",
            (bytes(reporter), bytes(reported)),
        ),
        Fact::Ban { user } => {
            database.execute("UPDATE users SET ban_status = 'temporary' WHERE user_id = ?1", [bytes(user)])
        }
        Fact::Gone { user } => {
            database.execute_batch("PRAGMA foreign_keys = ON").unwrap();
            database.execute("DELETE FROM users WHERE user_id = ?1", [bytes(user)])
        }
        Fact::Restored { user } => {
            let sql = "INSERT INTO chat_history SELECT * FROM chat_history_archive WHERE user_id = ?1";
            assert_eq!(database.execute(sql, [bytes(user)]), Ok(1));
            database.execute("DELETE FROM chat_history_archive WHERE user_id = ?1", [bytes(user)])
        }
    };
    assert_eq!(changed, Ok(1));
}

fn world<'a>(handle: &Handle, plant: &'a dyn Fn(Fact)) -> World<'a> {
    World { link: handle.link(), random: Random::from_seed(7), plant }
}

#[test]
fn sqlite_obeys_the_suite() {
    for (name, fact) in FACTS {
        println!("{name}");
        let folder = Folder::new();
        let handle = open(folder.path());
        fact(&mut world(&handle, &|fact| plant(folder.path(), fact)));
        handle.stop();
    }
}

#[test]
fn a_store_that_was_stopped_and_reopened_keeps_everything() {
    let folder = Folder::new();
    let handle = open(folder.path());
    let mut before = world(&handle, &|_| ());
    let (ann, bob) = (before.permanent("ann@example.org"), before.guest());
    let call = before.call(ann, bob);
    let finished = before.finished(&call);
    handle.stop();
    assert!(!folder.path().join("duet.db-wal").exists(), "the log has moved into the database");
    let handle = open(folder.path());
    let after = world(&handle, &|_| ());
    assert_eq!(after.finished(&call), finished);
    assert_eq!(after.session(ann.token).unwrap().account, duet::message::model::AccountType::Permanent);
    for person in [ann, bob] {
        let history = after.ask(Request::History { user: person.id, limit: 9 });
        assert!(matches!(history, Reply::History(entries) if entries.len() == 1));
    }
}

#[test]
fn stop_serves_what_was_accepted_and_refuses_the_rest() {
    let folder = Folder::new();
    let handle = open(folder.path());
    let (link, mut random) = (handle.link(), Random::from_seed(7));
    let people: Vec<_> = (0..500).map(|_| Person::draw(&mut random)).collect();
    let pending: Vec<_> = people.iter().map(|person| link.ask(Request::SignUp(Box::new(person.sign_up())))).collect();
    handle.stop();
    let refused = link.ask(Request::Profile { user: people[0].id });
    assert_eq!(block_on(refused).err(), Some(LinkError::Closed));
    assert!(pending.into_iter().all(|reply| matches!(block_on(reply), Ok(Reply::SignedUp(_)))));
    let handle = open(folder.path());
    assert!(people.iter().all(|person| world(&handle, &|_| ()).session(person.token).is_some()));
}

#[test]
fn only_one_store_opens_a_folder() {
    let folder = Folder::new();
    let handle = open(folder.path());
    assert!(matches!(refusal(folder.path()), OpenError::InUse { .. }));
    let mut child = Running::start("child_signs_up_until_killed", folder.path());
    let line = child.line();
    assert!(line.starts_with("refused another duet is running on this data folder: "), "{line}");
    handle.stop();
    open(folder.path()).stop();
}

#[test]
fn a_folder_that_cannot_be_written_is_refused_in_one_line() {
    let folder = Folder::new();
    std::fs::write(folder.path().join("file"), "x").unwrap();
    let error = refusal(&folder.path().join("file/data"));
    assert!(matches!(error, OpenError::NotWritable { .. }), "{error:?}");
    assert_eq!(error.to_string().lines().count(), 1);
}

#[test]
fn a_file_that_is_no_database_is_refused_and_left_as_it_is() {
    let folder = Folder::new();
    let text = "not a database ".repeat(400);
    std::fs::write(folder.path().join("duet.db"), &text).unwrap();
    let error = refusal(folder.path());
    assert!(matches!(error, OpenError::NotADatabase { .. }), "{error:?}");
    assert_eq!(std::fs::read_to_string(folder.path().join("duet.db")).unwrap(), text);
}

#[test]
fn a_newer_schema_is_refused() {
    let folder = Folder::new();
    open(folder.path()).stop();
    database(folder.path()).pragma_update(None, "user_version", 99).unwrap();
    let error = refusal(folder.path());
    assert!(matches!(error, OpenError::NewerSchema { found: 99, .. }), "{error:?}");
}

/// All that is in the tables of schema 1.
fn dump(folder: &Path) -> Vec<String> {
    let database = database(folder);
    let row = |row: &rusqlite::Row<'_>| {
        (0..row.as_ref().column_count()).map(|column| row.get(column)).collect::<Result<Vec<Value>, _>>()
    };
    let rows = |table| {
        let mut statement = database.prepare(&format!("SELECT * FROM {table} ORDER BY 1, 2")).unwrap();
        let rows: Vec<_> = statement.query_map([], row).unwrap().map(Result::unwrap).collect();
        assert!(!rows.is_empty(), "{table} is empty");
        format!("{table}: {rows:?}")
    };
    schema::TABLES.into_iter().map(rows).collect()
}

#[test]
fn a_database_of_schema_1_is_migrated_with_all_that_is_in_it() {
    let folder = Folder::new();
    let older = database(folder.path());
    older.execute_batch(include_str!("../../migrations/sqlite/0001_start.sql")).unwrap();
    let bytes = |byte: u8, count| format!("X'{}'", format!("{byte:02x}").repeat(count));
    older.execute_batch(&schema::rows(|number| bytes(number, 16), &bytes(7, 32), "1")).unwrap();
    older.pragma_update(None, "user_version", 1).unwrap();
    drop(older);
    let before = dump(folder.path());
    let handle = open(folder.path());
    assert_eq!(dump(folder.path()), before);
    assert!(database(folder.path()).query_row("PRAGMA user_version", [], |row| row.get::<_, u32>(0)).unwrap() > 1);
    schema::serves(&world(&handle, &|_| ()));
    handle.stop();
}

/// Fills the history with calls that ended at the times 1, 2 and so on.
fn fill_history(folder: &Path, rows: u32) {
    let sql = "WITH RECURSIVE number (n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM number WHERE n < ?1)
         INSERT INTO chat_history
         SELECT 'session-' || n, user_id, user_id, 'Bob', user_id, n, 60, '[' || printf('%1000d', n) || ']', n
         FROM number, users";
    assert_eq!(database(folder).execute(sql, [rows]), Ok(rows as usize));
}

/// Rows of history that are there exactly once, archived or not; and all of them.
fn kept(folder: &Path) -> (u32, u32) {
    let sql = "SELECT count(DISTINCT session_id || messages), count(*) FROM (
             SELECT session_id, messages FROM chat_history
             UNION ALL SELECT session_id, messages FROM chat_history_archive)";
    database(folder).query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap()
}

#[test]
fn an_archiving_that_is_killed_loses_nothing_and_doubles_nothing() {
    const ROWS: u32 = 10_000;
    let folder = Folder::new();
    let handle = open(folder.path());
    world(&handle, &|_| ()).guest();
    handle.stop();
    fill_history(folder.path(), ROWS);
    for round in 1..=4 {
        let mut child = Running::start("child_archives_until_killed", folder.path());
        (0..round).for_each(|_| drop(child.line()));
        child.kill();
        assert_eq!(kept(folder.path()), (ROWS, ROWS), "in round {round}");
    }
    let archived = database(folder.path()).query_row("SELECT count(*) FROM chat_history_archive", [], |row| row.get(0));
    let archived: u32 = archived.unwrap();
    assert!((1_000..ROWS).contains(&archived), "it was killed in the middle: {archived}");
    let handle = open(folder.path());
    assert_eq!(world(&handle, &|_| ()).archive(NOW), u64::from(ROWS - archived));
    assert_eq!(kept(folder.path()), (ROWS, ROWS));
    handle.stop();
}

#[test]
fn an_archive_that_takes_no_row_leaves_all_where_they_are() {
    let folder = Folder::new();
    let handle = open(folder.path());
    let mut world = world(&handle, &|_| ());
    world.guest();
    fill_history(folder.path(), 50);
    let outside = database(folder.path());
    let refuse = "CREATE TRIGGER refuse AFTER INSERT ON chat_history_archive WHEN new.session_id = 'session-40'
         BEGIN SELECT raise(FAIL, 'no'); END";
    outside.execute_batch(refuse).unwrap();
    assert!(matches!(world.ask(Request::Archive { before: NOW }), Reply::Failed(_)));
    let left = |table| outside.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0));
    assert_eq!((left("chat_history"), left("chat_history_archive")), (Ok(50), Ok(0)));
    outside.execute_batch("DROP TRIGGER refuse").unwrap();
    assert_eq!(world.archive(NOW), 50);
    handle.stop();
}

#[test]
fn a_sweep_is_bounded_and_the_next_goes_on() {
    let folder = Folder::new();
    let handle = open(folder.path());
    let sql = "WITH RECURSIVE number (n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM number WHERE n < 2500)
         INSERT INTO cooldowns SELECT zeroblob(16), CAST(printf('%016d', n) AS BLOB), n FROM number";
    assert_eq!(database(folder.path()).execute(sql, []), Ok(2500));
    for left in [500, 0] {
        assert!(matches!(world(&handle, &|_| ()).ask(Request::Sweep { now: NOW }), Reply::Done));
        let count = database(folder.path()).query_row("SELECT count(*) FROM cooldowns", [], |row| row.get(0));
        assert_eq!(count, Ok(left));
    }
}

#[test]
fn a_lock_held_from_outside_fails_writes_but_not_reads_and_passes() {
    let folder = Folder::new();
    let handle = open(folder.path());
    let mut world = world(&handle, &|_| ());
    let ann = world.guest();
    let outside = database(folder.path());
    outside.execute_batch("BEGIN IMMEDIATE").unwrap();
    let bob = world.person();
    let write = world.link.ask(Request::SignUp(Box::new(bob.sign_up())));
    let read = world.link.ask(Request::Session { user: ann.id, token: ann.token });
    assert!(matches!(block_on(write), Ok(Reply::Failed(_))));
    assert!(matches!(block_on(read), Ok(Reply::Session(Some(_)))));
    outside.execute_batch("ROLLBACK").unwrap();
    world.signed_up(bob.sign_up());
}

#[test]
fn a_killed_process_loses_nothing_it_has_acknowledged() {
    let folder = Folder::new();
    let mut people = Vec::new();
    for round in 1..=5 {
        let mut child = Running::start("child_signs_up_until_killed", folder.path());
        let mut lines: VecDeque<_> = (0..round * 70).map(|_| child.line()).collect();
        lines.extend(child.kill());
        people.extend(lines.iter().map(|line| decode(line.strip_prefix("ack ").expect(line))));
        assert!(people.len() >= round * 70);
        let handle = open(folder.path());
        let world = world(&handle, &|_| ());
        assert!(people.iter().all(|user| world.profile(*user).card.user_id == *user), "in round {round}");
        handle.stop();
    }
    let verdict: String = database(folder.path()).query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(verdict, "ok");
}

#[test]
fn a_full_disk_fails_writes_whole_and_passes_when_there_is_room() {
    let folder = Folder::new();
    let mut child = Running::start("child_signs_up_until_killed", folder.path());
    let mut lines: Vec<_> = (0..64).map(|_| child.line()).collect();
    assert!(lines.iter().all(|line| line.starts_with("ack ")), "{lines:?}");
    child.limit_files("300000");
    let mut await_next = |prefix: &str, child: &mut Running| {
        let mut seen = 0;
        for _ in 0..20_000 {
            lines.push(child.line());
            seen += usize::from(lines[lines.len() - 1].starts_with(prefix));
            if seen == 200 {
                return;
            }
        }
        panic!("only {seen} lines begin with {prefix}");
    };
    await_next("failed ", &mut child);
    await_next("readable ", &mut child);
    child.limit_files("unlimited");
    await_next("ack ", &mut child);
    lines.extend(child.kill());
    let handle = open(folder.path());
    let world = world(&handle, &|_| ());
    for line in lines {
        let (outcome, user) = line.split_once(' ').unwrap();
        let stored = match world.ask(Request::Profile { user: decode(user) }) {
            Reply::Profile(profile) => profile.is_some(),
            other => panic!("{other:?}"),
        };
        assert_eq!(stored, outcome != "failed", "{line}");
    }
}

fn decode(text: &str) -> UserId {
    UserId::decode(text).unwrap_or_else(|| panic!("not an id: {text}"))
}

/// A child that runs one test of this binary.
struct Running {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Running {
    fn start(test: &str, folder: &Path) -> Self {
        let binary = std::env::current_exe().unwrap();
        // The shell ignores SIGXFSZ for the child, so that a file at its limit is an error and not the end.
        let mut child = Command::new("sh")
            .args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""])
            .arg(binary)
            .args(["--exact", &format!("sqlite::{test}"), "--ignored", "--nocapture", "--test-threads=1"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        writeln!(child.stdin.take().unwrap(), "{}", folder.display()).unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// The next line that the child reports; the test harness writes others.
    fn line(&mut self) -> String {
        self.reports().next().expect("the child reports")
    }

    fn reports(&mut self) -> impl Iterator<Item = String> + '_ {
        let reported =
            |line: &String| ["ack ", "failed ", "readable ", "refused "].iter().any(|prefix| line.starts_with(prefix));
        self.lines.by_ref().map(Result::unwrap).filter(reported)
    }

    /// SIGKILL; what it had still reported. A last line that was cut short is no report.
    fn kill(mut self) -> Vec<String> {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        let mut rest: Vec<_> = self.reports().collect();
        rest.pop_if(|line| line.split_once(' ').is_none_or(|(_, id)| id.len() != 36));
        rest
    }

    /// Sets the size, bytes, over which the child can write no file.
    fn limit_files(&self, soft: &str) {
        let limits = format!("--fsize={soft}:");
        let status = Command::new("prlimit").args(["--pid", &self.child.id().to_string(), &limits]).status();
        assert!(status.unwrap().success());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Signs people up for ever, some at a time, and reports the fate of each.
#[test]
#[ignore = "run by the tests of crashes and full disks, with a folder on standard input"]
fn child_signs_up_until_killed() {
    let mut folder = String::new();
    std::io::stdin().read_line(&mut folder).unwrap();
    if folder.trim_end().is_empty() {
        return;
    }
    let handle = match try_open(Path::new(folder.trim_end())) {
        Ok(handle) => handle,
        Err(error) => return println!("\nrefused {error}"),
    };
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).unwrap();
    let (link, mut random) = (handle.link(), Random::from_entropy(seed));
    let mut pending = VecDeque::new();
    let mut known = None;
    println!();
    loop {
        let person = Person::draw(&mut random);
        pending.push_back((person, link.ask(Request::SignUp(Box::new(person.sign_up())))));
        if pending.len() < 32 {
            continue;
        }
        let (person, reply) = pending.pop_front().unwrap();
        match block_on(reply).unwrap() {
            Reply::SignedUp(_) => {
                known = Some(person);
                println!("ack {}", person.id);
            }
            Reply::Failed(_) => {
                println!("failed {}", person.id);
                let known = known.expect("the first sign-ups have room");
                let read = block_on(link.ask(Request::Session { user: known.id, token: known.token }));
                assert!(matches!(read, Ok(Reply::Session(Some(_)))));
                println!("readable {}", known.id);
            }
            other => panic!("{other:?}"),
        }
    }
}

/// Archives for ever, and reports each reply.
#[test]
#[ignore = "run by the test of a killed archiving, with a folder on standard input"]
fn child_archives_until_killed() {
    let mut folder = String::new();
    std::io::stdin().read_line(&mut folder).unwrap();
    if folder.trim_end().is_empty() {
        return;
    }
    let handle = open(Path::new(folder.trim_end()));
    println!();
    loop {
        match block_on(handle.link().ask(Request::Archive { before: NOW })) {
            Ok(Reply::Archived { rows }) => println!("ack {rows}"),
            other => panic!("{other:?}"),
        }
    }
}
