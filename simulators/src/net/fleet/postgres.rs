//! PostgreSQL, over its own protocol and without TLS: beside the database, or through a tunnel.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;

use postgres::types::private::BytesMut;
use postgres::types::{FromSql, IsNull, ToSql, Type};
use postgres::{Client, NoTls, Statement};

use super::sql::{Datum, Sql, SqlError};

/// Statements that are kept prepared; there are fewer.
const PREPARED: usize = 64;

/// A connection.
pub(super) struct Postgres {
    client: Client,
    prepared: BTreeMap<String, Statement>,
}

impl fmt::Debug for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Postgres").finish_non_exhaustive()
    }
}

impl Postgres {
    pub(super) fn open(url: &str) -> Result<Self, String> {
        // The URL may hold a password: it is not repeated.
        let client =
            Client::connect(url, NoTls).map_err(|error| format!("the PostgreSQL database: {}", words(&error)))?;
        Ok(Self { client, prepared: BTreeMap::new() })
    }

    fn prepared(&mut self, sql: &str) -> Result<Statement, SqlError> {
        if let Some(statement) = self.prepared.get(sql) {
            return Ok(statement.clone());
        }
        let statement = self.client.prepare(sql).map_err(|error| self.told(&error))?;
        if self.prepared.len() >= PREPARED {
            self.prepared.clear();
        }
        self.prepared.insert(sql.to_owned(), statement.clone());
        Ok(statement)
    }

    fn told(&self, error: &postgres::Error) -> SqlError {
        SqlError { text: words(error), lost: self.client.is_closed() || error.is_closed() }
    }
}

impl Sql for Postgres {
    fn execute(&mut self, sql: &str, parameters: &[Datum]) -> Result<u64, SqlError> {
        let statement = self.prepared(sql)?;
        self.client.execute(&statement, &references(parameters)).map_err(|error| self.told(&error))
    }

    fn query(&mut self, sql: &str, parameters: &[Datum]) -> Result<Vec<Vec<Datum>>, SqlError> {
        let statement = self.prepared(sql)?;
        let rows = self.client.query(&statement, &references(parameters)).map_err(|error| self.told(&error))?;
        let row = |row: postgres::Row| {
            (0..row.len())
                .map(|column| row.try_get::<_, Read>(column).map(|read| read.0))
                .collect::<Result<Vec<_>, _>>()
        };
        rows.into_iter().map(row).collect::<Result<Vec<_>, _>>().map_err(|error| self.told(&error))
    }

    fn batch(&mut self, sql: &str) -> Result<(), SqlError> {
        self.client.batch_execute(sql).map_err(|error| self.told(&error))
    }

    fn begin(&self) -> &'static str {
        "BEGIN"
    }

    fn for_update(&self) -> &'static str {
        " FOR UPDATE"
    }

    fn size(&mut self) -> Result<i64, SqlError> {
        let rows = self.query("SELECT pg_database_size(current_database())", &[])?;
        Ok(rows.first().and_then(|row| row.first()).map_or(0, Datum::number))
    }
}

/// The server's own words; the library says only "db error".
fn words(error: &postgres::Error) -> String {
    let detail = error.as_db_error().map(|error| error.message().to_owned());
    detail.or_else(|| error.source().map(|source| format!("{error}: {source}"))).unwrap_or_else(|| error.to_string())
}

fn references(parameters: &[Datum]) -> Vec<&(dyn ToSql + Sync)> {
    parameters.iter().map(|datum| -> &(dyn ToSql + Sync) { datum }).collect()
}

type Failed = Box<dyn Error + Sync + Send>;

impl ToSql for Datum {
    fn to_sql(&self, kind: &Type, out: &mut BytesMut) -> Result<IsNull, Failed> {
        match self {
            Self::Null => Ok(IsNull::Yes),
            Self::Number(number) => number.to_sql(kind, out),
            Self::Text(text) => text.to_sql(kind, out),
            Self::Bytes(bytes) => bytes.to_sql(kind, out),
        }
    }

    fn accepts(kind: &Type) -> bool {
        matches!(*kind, Type::INT8 | Type::TEXT | Type::BYTEA)
    }

    postgres::types::to_sql_checked!();
}

/// A column as it was read.
struct Read(Datum);

impl<'a> FromSql<'a> for Read {
    fn from_sql(kind: &Type, raw: &'a [u8]) -> Result<Self, Failed> {
        Ok(Self(match *kind {
            Type::INT8 => Datum::Number(i64::from_sql(kind, raw)?),
            Type::BYTEA => Datum::Bytes(raw.to_vec()),
            _ => Datum::Text(String::from_sql(kind, raw)?),
        }))
    }

    fn from_sql_null(_: &Type) -> Result<Self, Failed> {
        Ok(Self(Datum::Null))
    }

    fn accepts(kind: &Type) -> bool {
        matches!(*kind, Type::INT8 | Type::TEXT | Type::BYTEA)
    }
}
