//! Lists and maps: their entries, and the order of the entries.

use serde::ser::{
    Serialize, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple,
    SerializeTupleStruct, SerializeTupleVariant,
};
use serde_json::Error;

use super::{Canonical, Lists};

/// A list or a map that is being written.
pub(in crate::store) struct Compound<'a> {
    form: &'a mut Canonical,
    kind: Kind,
    /// The position after the opening tag.
    start: usize,
    /// The positions of the entries, if they are sorted at the end.
    entries: Vec<Entry>,
    closes: &'static [u8],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    List,
    /// A list with sorted elements.
    Set,
    Map,
    /// The single field of a number that is stored as text.
    Number,
}

/// An entry of a map or an element of a set.
#[derive(Debug, Clone, Copy)]
struct Entry {
    start: usize,
    /// The end of the part by which it is sorted.
    key_end: usize,
    end: usize,
}

impl<'a> Compound<'a> {
    pub(super) fn list(form: &'a mut Canonical, closes: &'static [u8]) -> Self {
        let kind = if form.lists == Lists::Sorted { Kind::Set } else { Kind::List };
        form.bytes.push(b'[');
        Self::new(form, kind, closes)
    }

    pub(super) fn tuple(form: &'a mut Canonical, closes: &'static [u8]) -> Self {
        form.bytes.push(b'[');
        Self::new(form, Kind::List, closes)
    }

    pub(super) fn map(form: &'a mut Canonical, closes: &'static [u8]) -> Self {
        form.bytes.push(b'{');
        Self::new(form, Kind::Map, closes)
    }

    pub(super) fn number(form: &'a mut Canonical) -> Self {
        Self::new(form, Kind::Number, b"")
    }

    fn new(form: &'a mut Canonical, kind: Kind, closes: &'static [u8]) -> Self {
        Self { start: form.bytes.len(), form, kind, entries: Vec::new(), closes }
    }

    fn element(&mut self, value: &(impl Serialize + ?Sized)) -> Result<(), Error> {
        if self.kind == Kind::Set { self.key(value) } else { value.serialize(&mut *self.form) }
    }

    fn key(&mut self, key: &(impl Serialize + ?Sized)) -> Result<(), Error> {
        let start = self.form.bytes.len();
        key.serialize(&mut *self.form)?;
        let end = self.form.bytes.len();
        self.entries.push(Entry { start, key_end: end, end });
        Ok(())
    }

    fn value(&mut self, value: &(impl Serialize + ?Sized)) -> Result<(), Error> {
        value.serialize(&mut *self.form)?;
        if let Some(entry) = self.entries.last_mut() {
            entry.end = self.form.bytes.len();
        }
        Ok(())
    }

    fn field(&mut self, name: &'static str, value: &(impl Serialize + ?Sized)) -> Result<(), Error> {
        if self.kind == Kind::Number {
            return self.value(value);
        }
        self.key(name)?;
        self.form.path.push(name);
        self.value(value)?;
        self.form.path.pop();
        Ok(())
    }

    fn close(mut self) {
        if self.kind == Kind::Number {
            let written = self.form.bytes.split_off(self.start);
            return self.form.number(text_of(&written).unwrap_or_default());
        }
        self.sort();
        self.form.bytes.extend_from_slice(self.closes);
    }

    /// Sorts the entries by their keys. The sort is stable.
    fn sort(&mut self) {
        let Self { form, kind, start, entries, .. } = self;
        let bytes = &form.bytes;
        let key = |entry: &Entry| bytes.get(entry.start..entry.key_end).unwrap_or_default();
        let was_sorted = entries.is_sorted_by_key(key);
        if !was_sorted {
            entries.sort_by_key(key);
        }
        let mut neighbours = entries.iter().zip(entries.iter().skip(1));
        let twice = neighbours.find(|(one, next)| *kind == Kind::Map && key(one) == key(next));
        let twice = twice.map(|(one, _)| match text_of(key(one)) {
            Some(text) => format!("the key `{text}` more than once"),
            None => "a key more than once".to_owned(),
        });
        if !was_sorted {
            let mut sorted = Vec::with_capacity(bytes.len() - *start);
            for entry in entries {
                sorted.extend_from_slice(bytes.get(entry.start..entry.end).unwrap_or_default());
            }
            form.bytes.truncate(*start);
            form.bytes.append(&mut sorted);
        }
        if let Some(twice) = twice {
            form.lose(twice);
        }
    }
}

/// Returns the text of a form, if it is the form of a text.
fn text_of(form: &[u8]) -> Option<&str> {
    let [b't', count, rest @ ..] = form else { return None };
    std::str::from_utf8(rest.get(usize::from(*count)..)?).ok()
}

macro_rules! lists {
    ($($of:ident $method:ident),*) => {$(
        impl $of for Compound<'_> {
            type Ok = ();
            type Error = Error;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
                self.element(value)
            }

            fn end(self) -> Result<(), Error> {
                self.close();
                Ok(())
            }
        }
    )*};
}

lists! {
    SerializeSeq serialize_element,
    SerializeTuple serialize_element,
    SerializeTupleStruct serialize_field,
    SerializeTupleVariant serialize_field
}

macro_rules! structs {
    ($($of:ident),*) => {$(
        impl $of for Compound<'_> {
            type Ok = ();
            type Error = Error;

            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                name: &'static str,
                value: &T,
            ) -> Result<(), Error> {
                self.field(name, value)
            }

            fn end(self) -> Result<(), Error> {
                self.close();
                Ok(())
            }
        }
    )*};
}

structs!(SerializeStruct, SerializeStructVariant);

impl SerializeMap for Compound<'_> {
    type Ok = ();
    type Error = Error;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Error> {
        self.key(key)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        self.value(value)
    }

    fn end(self) -> Result<(), Error> {
        self.close();
        Ok(())
    }
}
