//! SQLite, in this process and one file.

use std::time::Duration;

use rusqlite::types::{Value, ValueRef};
use rusqlite::{Connection, Params, params_from_iter};

use super::sql::{Datum, Sql, SqlError};

/// How long another process may hold the file before it is said.
const BUSY: Duration = Duration::from_secs(5);

/// An open file.
#[derive(Debug)]
pub(super) struct Sqlite {
    connection: Connection,
}

impl Sqlite {
    pub(super) fn open(path: &str) -> Result<Self, String> {
        let told = |error: rusqlite::Error| format!("database {path}: {error}");
        let connection = Connection::open(path).map_err(told)?;
        connection.busy_timeout(BUSY).map_err(told)?;
        // A commit survives a power cut: what is acknowledged to the broker must not be gone afterwards.
        let setting = |name: &str, value: &str| connection.pragma_update(None, name, value).map_err(told);
        setting("journal_mode", "wal")?;
        setting("synchronous", "full")?;
        connection.set_prepared_statement_cache_capacity(64);
        Ok(Self { connection })
    }

    fn rows(&self, sql: &str, parameters: impl Params) -> rusqlite::Result<Vec<Vec<Datum>>> {
        let mut statement = self.connection.prepare_cached(sql)?;
        let columns = statement.column_count();
        let mut rows = statement.query(parameters)?;
        let mut all = Vec::new();
        while let Some(row) = rows.next()? {
            let read = |column| row.get_ref(column).map(datum);
            all.push((0..columns).map(read).collect::<rusqlite::Result<_>>()?);
        }
        Ok(all)
    }
}

impl Sql for Sqlite {
    fn execute(&mut self, sql: &str, parameters: &[Datum]) -> Result<u64, SqlError> {
        let mut statement = self.connection.prepare_cached(sql).map_err(told)?;
        let changed = statement.execute(params_from_iter(parameters.iter().map(value))).map_err(told)?;
        Ok(u64::try_from(changed).unwrap_or(u64::MAX))
    }

    fn query(&mut self, sql: &str, parameters: &[Datum]) -> Result<Vec<Vec<Datum>>, SqlError> {
        self.rows(sql, params_from_iter(parameters.iter().map(value))).map_err(told)
    }

    fn batch(&mut self, sql: &str) -> Result<(), SqlError> {
        self.connection.execute_batch(sql).map_err(told)
    }

    fn begin(&self) -> &'static str {
        // Takes the one lock for writing at once: no other process can come between reading and writing.
        "BEGIN IMMEDIATE"
    }

    fn for_update(&self) -> &'static str {
        ""
    }

    fn size(&mut self) -> Result<i64, SqlError> {
        let rows = self.query("SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()", &[])?;
        Ok(rows.first().and_then(|row| row.first()).map_or(0, Datum::number))
    }
}

// A file does not go away: what fails now may work later on the same connection.
#[expect(clippy::needless_pass_by_value, reason = "so that it can be given to map_err")]
fn told(error: rusqlite::Error) -> SqlError {
    SqlError { text: error.to_string(), lost: false }
}

fn value(datum: &Datum) -> Value {
    match datum {
        Datum::Null => Value::Null,
        Datum::Number(number) => Value::Integer(*number),
        Datum::Text(text) => Value::Text(text.clone()),
        Datum::Bytes(bytes) => Value::Blob(bytes.clone()),
    }
}

fn datum(value: ValueRef<'_>) -> Datum {
    match value {
        // No column of ours has fractions.
        ValueRef::Null | ValueRef::Real(_) => Datum::Null,
        ValueRef::Integer(number) => Datum::Number(number),
        ValueRef::Text(text) => Datum::Text(String::from_utf8_lossy(text).into_owned()),
        ValueRef::Blob(bytes) => Datum::Bytes(bytes.to_vec()),
    }
}
