//! The payloads of stations as they are read: a tree that borrows its texts from the frame.
//!
//! What a station says is looked at once and then dropped. [`serde_json::Value`] would copy each key and each text for that, and keep each object as
//! a sorted map: more time than all the rest of what is done with a meter value.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Under this key serde_json hands out the text of a number that is no whole one of 64 bits (`arbitrary_precision`).
const NUMBER: &str = "$serde_json::private::Number";

/// A JSON value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Json<'a> {
    Null,
    Bool(bool),
    Whole(i64),
    /// Any other number, as it is written.
    Number(String),
    Text(Cow<'a, str>),
    List(Vec<Json<'a>>),
    /// The fields in the order of the text.
    Object(Vec<Field<'a>>),
}

/// A field of an object.
pub(super) type Field<'a> = (Cow<'a, str>, Json<'a>);

impl Json<'_> {
    /// The text, if it is one.
    pub(super) fn as_str(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    /// The same without borrowing, for what is shown or handed on.
    fn to_value(&self) -> Value {
        match self {
            Self::Null => Value::Null,
            Self::Bool(flag) => Value::from(*flag),
            Self::Whole(number) => Value::from(*number),
            Self::Number(text) => text.parse::<Number>().map_or(Value::Null, Value::Number),
            Self::Text(text) => Value::from(text.as_ref()),
            Self::List(items) => Value::Array(items.iter().map(Json::to_value).collect()),
            Self::Object(fields) => {
                let fields = fields.iter().map(|(key, value)| (key.clone().into_owned(), value.to_value()));
                Value::Object(fields.collect::<Map<_, _>>())
            }
        }
    }
}

impl fmt::Display for Json<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_value().fmt(f)
    }
}

impl<'de> Deserialize<'de> for Json<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Json<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any valid JSON value")
    }

    fn visit_unit<E>(self) -> Result<Json<'de>, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json<'de>, E> {
        Ok(Json::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json<'de>, E> {
        Ok(Json::Whole(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json<'de>, E> {
        Ok(i64::try_from(value).map_or_else(|_| Json::Number(value.to_string()), Json::Whole))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Json<'de>, E> {
        Ok(Number::from_f64(value).map_or(Json::Null, |number| Json::Number(number.to_string())))
    }

    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Json<'de>, E> {
        Ok(Json::Text(Cow::Borrowed(value)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Json<'de>, E> {
        Ok(Json::Text(Cow::Owned(value.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Json<'de>, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Json::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json<'de>, A::Error> {
        let mut fields: Vec<Field<'de>> = Vec::new();
        while let Some(key) = map.next_key_seed(Key)? {
            if fields.is_empty() && key == NUMBER {
                return map.next_value().map(Json::Number);
            }
            if fields.is_empty() {
                // Most objects of OCPP have some fields, and few have more.
                fields.reserve(8);
            }
            fields.push((key, map.next_value()?));
        }
        Ok(Json::Object(fields))
    }
}

/// A key: borrowed unless it has escapes.
struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Cow<'de, str>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Key {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_borrowed_str<E>(self, key: &'de str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Borrowed(key))
    }

    fn visit_str<E>(self, key: &str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Owned(key.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_what_serde_json_reads() {
        for text in [
            r#"{"b":[1,-2,0.50,1e3,-0,18446744073709551615,12345678901234567890123],"a":{"x":null,"y":true},"t":"a\"ö\u00e9"}"#,
            r#"{"a":1,"a":2}"#,
            r#"{"\u0061":{}}"#,
            "[]",
            "7.25",
            r#""text""#,
        ] {
            let value: Value = serde_json::from_str(text).expect("JSON");
            let json: Json<'_> = serde_json::from_str(text).expect("JSON");
            assert_eq!(json.to_string(), value.to_string());
        }
        for text in ["", "{", r#"{"a":1}x"#, r#"{"a" 1}"#, "[1,]", "nul"] {
            let of_value = serde_json::from_str::<Value>(text).unwrap_err().to_string();
            assert_eq!(serde_json::from_str::<Json<'_>>(text).unwrap_err().to_string(), of_value);
        }
    }
}
