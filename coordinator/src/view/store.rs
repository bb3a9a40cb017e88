//! The view's SQL store: rows and consumed offsets, always in one transaction, so that a crash loses and doubles nothing.
//!
//! Nothing in it is worth saving: a file of another schema, of other partitions, or one that is damaged is thrown away, and
//! the reader begins anew. Every call blocks: not for async threads.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use relay_log::port::LogRecord;
use relay_protocol::record::HEADER_TENANT;
use relay_protocol::{Event, JobId};
use rusqlite::types::Value;
use rusqlite::{Connection, ErrorCode, OptionalExtension, Transaction, params, params_from_iter};

use super::projection::JobRow;
use super::query::{Cursor, Listed, Query};
use crate::metrics;

/// Rises with every change of the tables or of a row's JSON.
const SCHEMA_VERSION: u32 = 1;
/// How long one connection waits for the other's lock.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

const SCHEMA: &str = "
CREATE TABLE jobs (
    job_id BLOB NOT NULL, tenant TEXT NOT NULL, submitted_at INTEGER NOT NULL, last_at INTEGER NOT NULL,
    terminal INTEGER NOT NULL, state TEXT NOT NULL, task TEXT, body TEXT NOT NULL,
    PRIMARY KEY (job_id, tenant)
) WITHOUT ROWID;
CREATE INDEX jobs_by_time ON jobs (submitted_at, tenant, job_id);
CREATE INDEX jobs_by_tenant ON jobs (tenant, submitted_at, job_id);
CREATE INDEX jobs_by_state ON jobs (state, submitted_at, tenant, job_id);
CREATE INDEX jobs_by_age ON jobs (last_at);
CREATE TABLE offsets (partition INTEGER PRIMARY KEY, next INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE source (partitions INTEGER NOT NULL);
";

/// What the store may hold.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Jobs at most; beyond it those go whose last event is oldest.
    pub rows_max: u64,
    /// Jobs whose last event is older go, in milliseconds: as long as the topic keeps events.
    pub retention_ms: u64,
    /// Partitions of the events' topic.
    pub partitions: u32,
}

/// Why the store did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The file is damaged: the reader throws it away.
    #[error("the job view's file is damaged: {0}")]
    Damaged(String),
    /// It cannot be read or written now: a full disk, say. Try again.
    #[error("the job view's file cannot be used: {0}")]
    Failed(String),
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::Error::{FromSqlConversionFailure, IntegralValueOutOfRange, InvalidColumnType};
        let damaged = match &error {
            FromSqlConversionFailure(..) | IntegralValueOutOfRange(..) | InvalidColumnType(..) => true,
            error => matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)),
        };
        if damaged { Self::Damaged(error.to_string()) } else { Self::Failed(error.to_string()) }
    }
}

/// What one transaction takes in: records, and how far each partition was read.
#[derive(Debug, Default)]
pub struct Batch {
    /// Records of the events' topic.
    pub records: Vec<LogRecord>,
    /// The next offset of each partition that was read on.
    pub offsets: BTreeMap<u32, u64>,
}

/// The store: one connection writes, one reads beside it.
pub struct Store {
    file: PathBuf,
    limits: Limits,
    writer: Mutex<Writer>,
    reader: Mutex<Connection>,
    damaged: AtomicBool,
}

struct Writer {
    connection: Connection,
    rows: u64,
}

impl Store {
    /// Opens `file`, or makes it anew if it is of no use.
    ///
    /// # Errors
    /// [`StoreError::Failed`]: the file cannot be read or written.
    pub fn open(file: PathBuf, limits: Limits) -> Result<Self, StoreError> {
        let (writer, reader) = open_or_make(&file, limits)?;
        metrics::view_rows(writer.rows);
        let (writer, reader) = (Mutex::new(writer), Mutex::new(reader));
        Ok(Self { file, limits, writer, reader, damaged: AtomicBool::new(false) })
    }

    /// Whether a damage was met since the store was opened or thrown away.
    pub fn is_damaged(&self) -> bool {
        self.damaged.load(Ordering::Relaxed)
    }

    /// Throws everything away; the next [`offsets`](Self::offsets) are none.
    ///
    /// # Errors
    /// [`StoreError::Failed`]: the file cannot be removed or made.
    pub fn throw_away(&self, reason: &'static str) -> Result<(), StoreError> {
        let (mut writer, mut reader) = (self.writer(), lock(&self.reader));
        // Both let go of the file before it goes.
        writer.connection = Connection::open_in_memory()?;
        *reader = Connection::open_in_memory()?;
        thrown_away(&self.file, reason, "")?;
        let (fresh_writer, fresh_reader) = open(&self.file, self.limits)?;
        (*writer, *reader) = (fresh_writer, fresh_reader);
        metrics::view_rows(0);
        self.damaged.store(false, Ordering::Relaxed);
        Ok(())
    }

    /// The next offset of each partition that was read before.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn offsets(&self) -> Result<BTreeMap<u32, u64>, StoreError> {
        self.watched(|| {
            let writer = self.writer();
            let mut statement = writer.connection.prepare_cached("SELECT partition, next FROM offsets")?;
            let found = statement.query_map([], |row| Ok((row.get(0)?, row.get::<_, i64>(1)? as u64)))?;
            Ok(found.collect::<Result<_, _>>()?)
        })
    }

    /// Takes in a batch, and drops what is too old at `now_ms` or too much: all of it or, on an error, nothing.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn apply(&self, batch: &Batch, now_ms: u64) -> Result<(), StoreError> {
        let told = told_by(&batch.records);
        self.watched(|| {
            let mut writer = self.writer();
            let rows = writer.rows;
            let transaction = writer.connection.transaction()?;
            let added = told.into_values().map(|row| upsert(&transaction, row)).sum::<Result<u64, StoreError>>()?;
            for (partition, next) in &batch.offsets {
                transaction
                    .prepare_cached("INSERT OR REPLACE INTO offsets (partition, next) VALUES (?1, ?2)")?
                    .execute(params![partition, integer(*next)])?;
            }
            let old = drop_old(&transaction, now_ms.saturating_sub(self.limits.retention_ms))?;
            let rows = (rows + added).saturating_sub(old);
            let excess = rows.saturating_sub(self.limits.rows_max);
            let surplus = if excess > 0 { drop_oldest(&transaction, excess)? } else { 0 };
            transaction.commit()?;
            writer.rows = rows - surplus;
            metrics::view_dropped(old, surplus);
            metrics::view_rows(writer.rows);
            metrics::view_events(batch.records.len() as u64);
            Ok(())
        })
    }

    /// Answers `query`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn list(&self, query: &Query) -> Result<Listed, StoreError> {
        let (sql, values) = select(query);
        let mut jobs = self.watched(|| {
            let reader = lock(&self.reader);
            let mut statement = reader.prepare_cached(&sql)?;
            let found = statement.query_map(params_from_iter(values), |row| row.get::<_, String>(0))?;
            found.map(|body| parse(&body?)).collect::<Result<Vec<_>, _>>()
        })?;
        let more = jobs.len() > query.limit;
        jobs.truncate(query.limit);
        let next = jobs.last().filter(|_| more).map(Cursor::of);
        Ok(Listed { jobs, next })
    }

    /// The job `id` of `tenant`; without one the first tenant's that has it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn get(&self, id: JobId, tenant: Option<&str>) -> Result<Option<JobRow>, StoreError> {
        self.watched(|| {
            let reader = lock(&self.reader);
            let sql = "SELECT body FROM jobs WHERE job_id = ?1 AND (?2 IS NULL OR tenant = ?2) ORDER BY tenant LIMIT 1";
            let mut statement = reader.prepare_cached(sql)?;
            let body = statement.query_row(params![&id.as_bytes()[..], tenant], |row| row.get::<_, String>(0));
            body.optional()?.map(|body| parse(&body)).transpose()
        })
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        lock(&self.writer)
    }

    fn watched<T>(&self, work: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
        let done = work();
        if let Err(StoreError::Damaged(_)) = &done {
            self.damaged.store(true, Ordering::Relaxed);
        }
        done
    }
}

/// A thread that panicked left no half-done transaction behind: SQLite rolled it back.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the records say, job by job; those that are no events are counted and passed over.
fn told_by(records: &[LogRecord]) -> HashMap<(JobId, String), JobRow> {
    let mut told: HashMap<(JobId, String), JobRow> = HashMap::new();
    for record in records {
        let tenant = record.header(HEADER_TENANT).and_then(|tenant| std::str::from_utf8(tenant).ok());
        let event = record.value.as_deref().and_then(|value| serde_json::from_slice::<Event>(value).ok());
        let (Some(tenant), Some(event)) = (tenant, event) else {
            metrics::view_unreadable();
            tracing::debug!(at = %record.at, offset = record.offset, "a record of the events' topic is no event");
            continue;
        };
        let Some(row) = JobRow::of(tenant, &event) else { continue };
        match told.entry((row.job_id, row.tenant.clone())) {
            std::collections::hash_map::Entry::Occupied(mut known) => known.get_mut().merge(row),
            std::collections::hash_map::Entry::Vacant(place) => _ = place.insert(row),
        }
    }
    told
}

/// Merges `row` into what is known of the job; 1 if nothing was.
fn upsert(transaction: &Transaction<'_>, mut row: JobRow) -> Result<u64, StoreError> {
    let key = row.job_id.as_bytes().to_vec();
    let known: Option<String> = transaction
        .prepare_cached("SELECT body FROM jobs WHERE job_id = ?1 AND tenant = ?2")?
        .query_row(params![key, row.tenant], |found| found.get(0))
        .optional()?;
    if let Some(known) = &known {
        let mut known = parse(known)?;
        let before = known.clone();
        known.merge(row);
        if known == before {
            return Ok(0);
        }
        row = known;
    }
    let body = serde_json::to_string(&row).map_err(|error| StoreError::Failed(error.to_string()))?;
    let task = row.card().map(|card| card.task.name());
    let times = (integer(row.submitted_at()), integer(row.last_at));
    transaction
        .prepare_cached(
            "INSERT OR REPLACE INTO jobs (job_id, tenant, submitted_at, last_at, terminal, state, task, body)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?
        .execute(params![key, row.tenant, times.0, times.1, row.newest.terminal, row.state(), task, body])?;
    Ok(u64::from(known.is_none()))
}

fn drop_old(transaction: &Transaction<'_>, before_ms: u64) -> Result<u64, StoreError> {
    let mut statement = transaction.prepare_cached("DELETE FROM jobs WHERE last_at < ?1")?;
    Ok(statement.execute([integer(before_ms)])? as u64)
}

fn drop_oldest(transaction: &Transaction<'_>, count: u64) -> Result<u64, StoreError> {
    let mut statement = transaction.prepare_cached(
        "DELETE FROM jobs WHERE (job_id, tenant) IN
         (SELECT job_id, tenant FROM jobs ORDER BY last_at, job_id, tenant LIMIT ?1)",
    )?;
    Ok(statement.execute([integer(count)])? as u64)
}

/// The statement for `query`, and what its marks stand for; one job more than the page, to know whether there is one.
fn select(query: &Query) -> (String, Vec<Value>) {
    let mut wanted: Vec<&str> = Vec::new();
    let mut values: Vec<Value> = Vec::new();
    let mut want = |sql, given: Option<Value>| {
        if let Some(value) = given {
            wanted.push(sql);
            values.push(value);
        }
    };
    want("state = ?", query.state.map(|state| state.to_owned().into()));
    want("terminal = ?", query.open_only.then_some(Value::Integer(0)));
    want("task = ?", query.task.map(|task| task.name().to_owned().into()));
    want("tenant = ?", query.tenant.clone().map(Into::into));
    want("submitted_at >= ?", query.since.map(|since| integer(since).into()));
    if let Some(Cursor { submitted_at, tenant, job_id }) = &query.after {
        wanted.push("(submitted_at, tenant, job_id) < (?, ?, ?)");
        values.extend([integer(*submitted_at).into(), tenant.clone().into(), job_id.as_bytes().to_vec().into()]);
    }
    let condition = if wanted.is_empty() { String::new() } else { format!("WHERE {}", wanted.join(" AND ")) };
    values.push(integer(query.limit as u64 + 1).into());
    (format!("SELECT body FROM jobs {condition} ORDER BY submitted_at DESC, tenant DESC, job_id DESC LIMIT ?"), values)
}

fn parse(body: &str) -> Result<JobRow, StoreError> {
    serde_json::from_str(body).map_err(|error| StoreError::Damaged(format!("a row cannot be read: {error}")))
}

/// SQLite's integers have a sign; what does not fit lies further off than any time or offset.
fn integer(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn open_or_make(file: &Path, limits: Limits) -> Result<(Writer, Connection), StoreError> {
    match open(file, limits) {
        Err(StoreError::Damaged(cause)) => {
            thrown_away(file, "damaged", &cause)?;
            open(file, limits)
        }
        opened => opened,
    }
}

fn open(file: &Path, limits: Limits) -> Result<(Writer, Connection), StoreError> {
    let mut connection = connect(file)?;
    let found: u32 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    let tables: u32 = connection.query_row("SELECT count(*) FROM sqlite_master", [], |row| row.get(0))?;
    if tables == 0 {
        make(&mut connection, limits.partitions)?;
    } else if found != SCHEMA_VERSION {
        return Err(StoreError::Damaged(format!("schema version {found} instead of {SCHEMA_VERSION}")));
    }
    let sound: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if sound != "ok" {
        return Err(StoreError::Damaged(sound));
    }
    let partitions: Option<u32> =
        connection.query_row("SELECT partitions FROM source", [], |row| row.get(0)).optional()?;
    if partitions != Some(limits.partitions) {
        return Err(StoreError::Damaged(format!("made of {partitions:?} partitions, not {}", limits.partitions)));
    }
    let rows: u64 = connection.query_row("SELECT count(*) FROM jobs", [], |row| row.get::<_, i64>(0))? as u64;
    Ok((Writer { connection, rows }, connect(file)?))
}

fn connect(file: &Path) -> Result<Connection, StoreError> {
    let connection = Connection::open(file)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get::<_, String>(0))?;
    // A crash of the machine may undo the last transactions, whole: their events are read again.
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

fn make(connection: &mut Connection, partitions: u32) -> Result<(), StoreError> {
    let transaction = connection.transaction()?;
    transaction.execute_batch(SCHEMA)?;
    transaction.execute("INSERT INTO source (partitions) VALUES (?1)", [partitions])?;
    transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
    Ok(transaction.commit()?)
}

fn thrown_away(file: &Path, reason: &'static str, cause: &str) -> Result<(), StoreError> {
    tracing::warn!(file = %file.display(), reason, cause, "the job view is thrown away and read anew from the events");
    metrics::view_rebuilt(reason);
    for suffix in ["", "-wal", "-shm"] {
        let mut name = file.as_os_str().to_owned();
        name.push(suffix);
        match std::fs::remove_file(PathBuf::from(name)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(StoreError::Failed(format!("{}: {error}", file.display())));
            }
            _ => {}
        }
    }
    Ok(())
}
