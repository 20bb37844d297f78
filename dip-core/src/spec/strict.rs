//! Reads TOML and JSON in which every object is written as an object.
//!
//! A derived `Deserialize` also reads a struct from an array of its fields in order, such as `parallel = [1, 1, 2]`. [`Strict`]
//! wraps a deserializer and refuses that, at any depth.

use std::fmt;

use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, Error, MapAccess, SeqAccess,
    Unexpected, VariantAccess, Visitor,
};

use crate::spec::error::SpecError;
use crate::spec::suggestion::with_suggestion;

/// Reads a value from TOML.
///
/// # Errors
/// [`SpecError::Syntax`] with the parser's message, which names line, column and field.
pub fn from_toml<T: DeserializeOwned>(text: &str) -> Result<T, SpecError> {
    let syntax = |error: toml::de::Error| SpecError::Syntax(with_suggestion(error.to_string()));
    T::deserialize(Strict(toml::Deserializer::parse(text).map_err(syntax)?)).map_err(syntax)
}

/// Reads a value from JSON.
///
/// # Errors
/// [`SpecError::Syntax`] with the parser's message, which names line, column and field.
pub fn from_json<T: DeserializeOwned>(text: &str) -> Result<T, SpecError> {
    let syntax = |error: serde_json::Error| SpecError::Syntax(with_suggestion(error.to_string()));
    let mut reader = serde_json::Deserializer::from_str(text);
    let value = T::deserialize(Strict(&mut reader)).map_err(syntax)?;
    reader.end().map_err(syntax)?;
    Ok(value)
}

/// Wraps a deserializer, a seed or an access of serde. Structs below it must be objects.
struct Strict<T>(T);

/// A visitor of any value.
struct ValueVisitor<V>(V);

/// A visitor of a struct.
struct ObjectVisitor<V>(V);

macro_rules! forward_deserialize {
    ($($method:ident($($argument:ident: $type:ty),*) $visitor:ident;)+) => {
        $(fn $method<V: Visitor<'de>>(self, $($argument: $type,)* visitor: V) -> Result<V::Value, D::Error> {
            self.0.$method($($argument,)* $visitor(visitor))
        })+
    };
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Strict<D> {
    type Error = D::Error;

    forward_deserialize! {
        deserialize_any() ValueVisitor;
        deserialize_bool() ValueVisitor;
        deserialize_i8() ValueVisitor;
        deserialize_i16() ValueVisitor;
        deserialize_i32() ValueVisitor;
        deserialize_i64() ValueVisitor;
        deserialize_i128() ValueVisitor;
        deserialize_u8() ValueVisitor;
        deserialize_u16() ValueVisitor;
        deserialize_u32() ValueVisitor;
        deserialize_u64() ValueVisitor;
        deserialize_u128() ValueVisitor;
        deserialize_f32() ValueVisitor;
        deserialize_f64() ValueVisitor;
        deserialize_char() ValueVisitor;
        deserialize_str() ValueVisitor;
        deserialize_string() ValueVisitor;
        deserialize_bytes() ValueVisitor;
        deserialize_byte_buf() ValueVisitor;
        deserialize_option() ValueVisitor;
        deserialize_unit() ValueVisitor;
        deserialize_unit_struct(name: &'static str) ValueVisitor;
        deserialize_newtype_struct(name: &'static str) ValueVisitor;
        deserialize_seq() ValueVisitor;
        deserialize_tuple(len: usize) ValueVisitor;
        deserialize_tuple_struct(name: &'static str, len: usize) ValueVisitor;
        deserialize_map() ValueVisitor;
        deserialize_struct(name: &'static str, fields: &'static [&'static str]) ObjectVisitor;
        deserialize_enum(name: &'static str, variants: &'static [&'static str]) ValueVisitor;
        deserialize_identifier() ValueVisitor;
        deserialize_ignored_any() ValueVisitor;
    }

    fn is_human_readable(&self) -> bool {
        self.0.is_human_readable()
    }
}

macro_rules! forward_visit {
    ($($method:ident: $type:ty;)+) => {
        $(fn $method<E: Error>(self, value: $type) -> Result<V::Value, E> {
            self.0.$method(value)
        })+
    };
}

impl<'de, V: Visitor<'de>> Visitor<'de> for ValueVisitor<V> {
    type Value = V::Value;

    forward_visit! {
        visit_bool: bool;
        visit_i64: i64;
        visit_i128: i128;
        visit_u64: u64;
        visit_u128: u128;
        visit_f64: f64;
        visit_str: &str;
        visit_borrowed_str: &'de str;
        visit_string: String;
        visit_bytes: &[u8];
        visit_borrowed_bytes: &'de [u8];
        visit_byte_buf: Vec<u8>;
    }

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.expecting(f)
    }

    fn visit_none<E: Error>(self) -> Result<V::Value, E> {
        self.0.visit_none()
    }

    fn visit_unit<E: Error>(self) -> Result<V::Value, E> {
        self.0.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        self.0.visit_some(Strict(deserializer))
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(
        self,
        deserializer: D,
    ) -> Result<V::Value, D::Error> {
        self.0.visit_newtype_struct(Strict(deserializer))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<V::Value, A::Error> {
        self.0.visit_seq(Strict(seq))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<V::Value, A::Error> {
        self.0.visit_map(Strict(map))
    }

    fn visit_enum<A: EnumAccess<'de>>(self, data: A) -> Result<V::Value, A::Error> {
        self.0.visit_enum(Strict(data))
    }
}

impl<'de, V: Visitor<'de>> Visitor<'de> for ObjectVisitor<V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with named fields")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<V::Value, A::Error> {
        Err(A::Error::invalid_type(Unexpected::Seq, &self))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<V::Value, A::Error> {
        self.0.visit_map(Strict(map))
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Strict<S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<S::Value, D::Error> {
        self.0.deserialize(Strict(deserializer))
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Strict<A> {
    type Error = A::Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, A::Error> {
        self.0.next_element_seed(Strict(seed))
    }

    fn size_hint(&self) -> Option<usize> {
        self.0.size_hint()
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Strict<A> {
    type Error = A::Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, A::Error> {
        self.0.next_key_seed(seed)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        self.0.next_value_seed(Strict(seed))
    }

    fn size_hint(&self) -> Option<usize> {
        self.0.size_hint()
    }
}

impl<'de, A: EnumAccess<'de>> EnumAccess<'de> for Strict<A> {
    type Error = A::Error;
    type Variant = Strict<A::Variant>;

    fn variant_seed<S: DeserializeSeed<'de>>(
        self,
        seed: S,
    ) -> Result<(S::Value, Self::Variant), A::Error> {
        let (value, variant) = self.0.variant_seed(seed)?;
        Ok((value, Strict(variant)))
    }
}

impl<'de, A: VariantAccess<'de>> VariantAccess<'de> for Strict<A> {
    type Error = A::Error;

    fn unit_variant(self) -> Result<(), A::Error> {
        self.0.unit_variant()
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, A::Error> {
        self.0.newtype_variant_seed(Strict(seed))
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, A::Error> {
        self.0.tuple_variant(len, ValueVisitor(visitor))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        self.0.struct_variant(fields, ObjectVisitor(visitor))
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Outer {
        list: Vec<Inner>,
        kind: Variant,
        #[serde(default)]
        option: Option<Inner>,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        a: u32,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename_all = "snake_case", deny_unknown_fields)]
    enum Variant {
        Unit,
        Fields { b: u32 },
        Wrapped(Inner),
    }

    #[test]
    fn objects_are_read_at_any_depth() {
        let text = r#"{"list": [{"a": 1}], "kind": {"fields": {"b": 2}}, "option": {"a": 3}}"#;
        let value: Outer = from_json(text).unwrap();
        let expected = Outer {
            list: vec![Inner { a: 1 }],
            kind: Variant::Fields { b: 2 },
            option: Some(Inner { a: 3 }),
        };
        assert_eq!(value, expected);
        let text = "kind = 'unit'\nlist = [{ a = 1 }]\n[option]\na = 3";
        assert_eq!(from_toml::<Outer>(text).unwrap(), Outer { kind: Variant::Unit, ..expected });
    }

    #[test]
    fn an_array_in_place_of_an_object_is_refused_at_any_depth() {
        for text in [
            r#"[[{"a": 1}], "unit", null]"#,
            r#"{"list": [[1]], "kind": "unit"}"#,
            r#"{"list": [], "kind": {"fields": [2]}}"#,
            r#"{"list": [], "kind": {"wrapped": [2]}}"#,
            r#"{"list": [], "kind": "unit", "option": [3]}"#,
        ] {
            let error = from_json::<Outer>(text).unwrap_err().to_string();
            assert!(error.contains("expected an object with named fields"), "{text}: {error}");
        }
        for text in ["list = [[1]]\nkind = 'unit'", "list = []\nkind = { fields = [2] }"] {
            let error = from_toml::<Outer>(text).unwrap_err().to_string();
            assert!(error.contains("line "), "{text}: {error}");
            assert!(error.contains("expected an object with named fields"), "{text}: {error}");
        }
    }

    #[test]
    fn a_mistyped_name_is_answered_with_its_line_and_the_right_one() {
        let error = |text: &str| from_toml::<Outer>(text).unwrap_err().to_string();
        let field = error("kind = 'unit'\nlsit = []");
        assert!(field.contains("line 2") && field.contains("did you mean `list`?"), "{field}");
        assert!(error("list = []\nkind = 'untt'").contains("did you mean `unit`?"));
        let field = error("list = []\nkind = { fields = { c = 1 } }");
        assert!(field.contains("available keys: b"), "{field}");
        assert!(!error("list = []\nnothing_like_it = 1").contains("did you mean"));
        let error = from_json::<Inner>(r#"{"A": 1}"#).unwrap_err().to_string();
        assert!(error.contains("did you mean `a`?"), "{error}");
    }

    #[test]
    fn nothing_may_follow_the_value() {
        assert!(from_json::<Inner>(r#"{"a": 1} 2"#).is_err());
    }
}
