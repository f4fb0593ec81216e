//! The little that is asked of a database: the same statements go to SQLite and to PostgreSQL.

/// A value of a parameter or a column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Datum {
    /// NULL.
    Null,
    /// BIGINT.
    Number(i64),
    /// TEXT.
    Text(String),
    /// BYTEA; SQLite calls it a blob.
    Bytes(Vec<u8>),
}

impl Datum {
    /// The number; 0 where there is none.
    #[must_use]
    pub const fn number(&self) -> i64 {
        if let Self::Number(number) = self { *number } else { 0 }
    }

    /// The text; empty where there is none.
    #[must_use]
    pub fn text(&self) -> &str {
        if let Self::Text(text) = self { text } else { "" }
    }
}

impl From<i64> for Datum {
    fn from(number: i64) -> Self {
        Self::Number(number)
    }
}

impl From<&str> for Datum {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<Option<i64>> for Datum {
    fn from(number: Option<i64>) -> Self {
        number.map_or(Self::Null, Self::Number)
    }
}

impl From<Option<&str>> for Datum {
    fn from(text: Option<&str>) -> Self {
        text.map_or(Self::Null, Self::from)
    }
}

impl From<&[u8]> for Datum {
    fn from(bytes: &[u8]) -> Self {
        Self::Bytes(bytes.to_vec())
    }
}

/// A statement that failed. Nothing of its transaction is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SqlError {
    /// The database's words.
    pub text: String,
    /// The connection is of no use any more.
    pub lost: bool,
}

/// A connection to a database. Parameters are `$1`, `$2` … in the order in which they first stand in the statement.
pub trait Sql {
    /// Carries a statement out; how many rows it changed.
    ///
    /// # Errors
    /// If the database refuses.
    fn execute(&mut self, sql: &str, parameters: &[Datum]) -> Result<u64, SqlError>;

    /// Asks.
    ///
    /// # Errors
    /// If the database refuses.
    fn query(&mut self, sql: &str, parameters: &[Datum]) -> Result<Vec<Vec<Datum>>, SqlError>;

    /// Carries out statements without parameters.
    ///
    /// # Errors
    /// If the database refuses.
    fn batch(&mut self, sql: &str) -> Result<(), SqlError>;

    /// Begins a transaction that writes.
    fn begin(&self) -> &'static str;

    /// What locks the rows that a query reads, where that must be said.
    fn for_update(&self) -> &'static str;

    /// Its size, in bytes.
    ///
    /// # Errors
    /// If the database refuses.
    fn size(&mut self) -> Result<i64, SqlError>;
}

/// Opens `postgres://…`, or the SQLite file of that name.
///
/// # Errors
/// If that is not possible, in words.
pub fn open(place: &str) -> Result<Box<dyn Sql>, String> {
    if place.starts_with("postgres://") || place.starts_with("postgresql://") {
        Ok(Box::new(super::postgres::Postgres::open(place)?))
    } else {
        Ok(Box::new(super::sqlite::Sqlite::open(place)?))
    }
}
