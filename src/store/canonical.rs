//! A canonical form of values, independent of their serializer. Item hashes are computed from it. An output is compared with
//! the value read back from its JSON.
//!
//! Two values have the same form only if this table gives them the same one. So the order of a map's keys, the width of an
//! integer and the names of types do not count. Neither does the build of `serde_json`. No form is a prefix of another.
//!
//! | value | form |
//! | --- | --- |
//! | `None` | `n` |
//! | `Some(value)` | the value, with `s` before it if that begins with `n` or `s` |
//! | unit | `u` |
//! | bool | `0` or `1` |
//! | integer | `+` or `-`, and its magnitude |
//! | `f32`, `f64` | `f` or `d`, and its bits in big endian; every NaN is the same |
//! | text, char, variant without content | `t`, length, UTF-8 |
//! | bytes | `b`, length, bytes |
//! | list, tuple | `[`, elements, `]` |
//! | map, struct | `{`, keys and values, sorted by the forms of the keys, equal keys in their own order, `}` |
//! | variant with content | a map of its name to the content |
//! | number of `serde_json` that is none of these | `x`, length, digits |
//!
//! A magnitude or a length is written as the number of its bytes, and then the bytes in little endian without trailing
//! zeros.

mod compound;
#[cfg(test)]
mod tests;

use std::fmt::Display;

use serde::ser::{Serialize, Serializer};
use serde_json::Error;

use self::compound::Compound;

/// The name that `serde_json` gives to a number when it is built to store numbers as text (`arbitrary_precision`).
const NUMBER: &str = "$serde_json::private::Number";

/// The order of a list's elements in its form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lists {
    /// The order of the list.
    AsTheyAre,
    /// The order of the elements' forms, because the elements of a set have no fixed order.
    Sorted,
}

/// The canonical form of a value.
#[derive(Debug)]
pub(super) struct Canonical {
    pub(super) bytes: Vec<u8>,
    /// The first part of the value that JSON cannot express.
    pub(super) loss: Option<String>,
    lists: Lists,
    /// The fields that contain the value that is being written.
    path: Vec<&'static str>,
}

impl Canonical {
    /// Returns the canonical form of a value.
    ///
    /// # Errors
    ///
    /// The error of the value's own `Serialize`.
    pub(super) fn of(value: &(impl Serialize + ?Sized), lists: Lists) -> Result<Self, Error> {
        let mut form = Self { bytes: Vec::new(), loss: None, lists, path: Vec::new() };
        value.serialize(&mut form)?;
        Ok(form)
    }

    fn integer(&mut self, is_negative: bool, magnitude: u128) {
        self.bytes.push(if is_negative { b'-' } else { b'+' });
        self.magnitude(magnitude);
    }

    fn magnitude(&mut self, number: u128) {
        let count = size_of::<u128>() - number.leading_zeros() as usize / 8;
        self.bytes.push(count as u8);
        self.bytes.extend(number.to_le_bytes().iter().take(count));
    }

    fn sized(&mut self, tag: u8, bytes: &[u8]) {
        self.bytes.push(tag);
        self.magnitude(bytes.len() as u128);
        self.bytes.extend_from_slice(bytes);
    }

    fn text(&mut self, text: &str) {
        self.sized(b't', text.as_bytes());
    }

    fn float(&mut self, float: f64) {
        let float = if float.is_nan() { f64::NAN } else { float };
        if !float.is_finite() {
            self.lose(format_args!("{float}, which JSON writes as null"));
        }
        self.bytes.push(b'd');
        self.bytes.extend(float.to_bits().to_be_bytes());
    }

    /// Writes a number that `serde_json` stores as text. If another build of `serde_json` writes the number as the same
    /// text, the form is the one of that build.
    fn number(&mut self, text: &str) {
        if let Some(integer) = text.parse::<i128>().ok().filter(|integer| integer.to_string() == text) {
            return self.integer(integer < 0, integer.unsigned_abs());
        }
        if let Some(integer) = text.parse::<u128>().ok().filter(|integer| integer.to_string() == text) {
            return self.integer(false, integer);
        }
        let is_written_so = |float: &f64| serde_json::to_string(float).is_ok_and(|written| written == text);
        match text.parse::<f64>().ok().filter(is_written_so) {
            Some(float) => self.float(float),
            None => self.sized(b'x', text.as_bytes()),
        }
    }

    /// Notes that JSON cannot express the value that is being written.
    fn lose(&mut self, what: impl Display) {
        let path = &self.path;
        self.loss.get_or_insert_with(|| match path.as_slice() {
            [] => what.to_string(),
            path => format!("the field `{}` contains {what}", path.join(".")),
        });
    }

    /// Begins a map from a variant's name to its content.
    fn variant(&mut self, name: &str) -> &mut Self {
        self.bytes.push(b'{');
        self.text(name);
        self
    }
}

macro_rules! integers {
    ($($method:ident($integer:ty) $is_negative:expr, $magnitude:expr;)*) => {$(
        fn $method(self, integer: $integer) -> Result<(), Error> {
            self.integer($is_negative(integer), $magnitude(integer));
            Ok(())
        }
    )*};
}

impl<'a> Serializer for &'a mut Canonical {
    type Ok = ();
    type Error = Error;
    type SerializeSeq = Compound<'a>;
    type SerializeTuple = Compound<'a>;
    type SerializeTupleStruct = Compound<'a>;
    type SerializeTupleVariant = Compound<'a>;
    type SerializeMap = Compound<'a>;
    type SerializeStruct = Compound<'a>;
    type SerializeStructVariant = Compound<'a>;

    integers! {
        serialize_i8(i8) |n| n < 0, |n: i8| n.unsigned_abs().into();
        serialize_i16(i16) |n| n < 0, |n: i16| n.unsigned_abs().into();
        serialize_i32(i32) |n| n < 0, |n: i32| n.unsigned_abs().into();
        serialize_i64(i64) |n| n < 0, |n: i64| n.unsigned_abs().into();
        serialize_i128(i128) |n| n < 0, |n: i128| n.unsigned_abs();
        serialize_u8(u8) |_| false, u128::from;
        serialize_u16(u16) |_| false, u128::from;
        serialize_u32(u32) |_| false, u128::from;
        serialize_u64(u64) |_| false, u128::from;
        serialize_u128(u128) |_| false, |n| n;
    }

    fn serialize_bool(self, is_true: bool) -> Result<(), Error> {
        self.bytes.push(if is_true { b'1' } else { b'0' });
        Ok(())
    }

    fn serialize_f32(self, float: f32) -> Result<(), Error> {
        let float = if float.is_nan() { f32::NAN } else { float };
        if !float.is_finite() {
            self.lose(format_args!("{float}, which JSON writes as null"));
        }
        self.bytes.push(b'f');
        self.bytes.extend(float.to_bits().to_be_bytes());
        Ok(())
    }

    fn serialize_f64(self, float: f64) -> Result<(), Error> {
        self.float(float);
        Ok(())
    }

    fn serialize_char(self, char: char) -> Result<(), Error> {
        self.text(char.encode_utf8(&mut [0; 4]));
        Ok(())
    }

    fn serialize_str(self, text: &str) -> Result<(), Error> {
        self.text(text);
        Ok(())
    }

    fn serialize_bytes(self, bytes: &[u8]) -> Result<(), Error> {
        self.sized(b'b', bytes);
        Ok(())
    }

    fn serialize_none(self) -> Result<(), Error> {
        self.bytes.push(b'n');
        Ok(())
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Error> {
        let start = self.bytes.len();
        value.serialize(&mut *self)?;
        let tag = self.bytes.get(start).copied();
        if let Some(b'n' | b's') = tag {
            self.bytes.insert(start, b's');
        }
        if let Some(b'n' | b's' | b'u') = tag {
            self.lose("a Some(..) that JSON writes as null, like None");
        }
        Ok(())
    }

    fn serialize_unit(self) -> Result<(), Error> {
        self.bytes.push(b'u');
        Ok(())
    }

    fn serialize_unit_struct(self, _name: &'static str) -> Result<(), Error> {
        self.serialize_unit()
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Result<(), Error> {
        self.serialize_str(variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _name: &'static str,
        value: &T,
    ) -> Result<(), Error> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<(), Error> {
        value.serialize(&mut *self.variant(variant))?;
        self.bytes.push(b'}');
        Ok(())
    }

    fn serialize_seq(self, _length: Option<usize>) -> Result<Compound<'a>, Error> {
        Ok(Compound::list(self, b"]"))
    }

    fn serialize_tuple(self, _length: usize) -> Result<Compound<'a>, Error> {
        Ok(Compound::tuple(self, b"]"))
    }

    fn serialize_tuple_struct(self, _name: &'static str, _length: usize) -> Result<Compound<'a>, Error> {
        Ok(Compound::tuple(self, b"]"))
    }

    fn serialize_tuple_variant(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        _length: usize,
    ) -> Result<Compound<'a>, Error> {
        Ok(Compound::tuple(self.variant(variant), b"]}"))
    }

    fn serialize_map(self, _length: Option<usize>) -> Result<Compound<'a>, Error> {
        Ok(Compound::map(self, b"}"))
    }

    fn serialize_struct(self, name: &'static str, _length: usize) -> Result<Compound<'a>, Error> {
        Ok(if name == NUMBER { Compound::number(self) } else { Compound::map(self, b"}") })
    }

    fn serialize_struct_variant(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        _length: usize,
    ) -> Result<Compound<'a>, Error> {
        Ok(Compound::map(self.variant(variant), b"}}"))
    }
}
