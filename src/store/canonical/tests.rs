use std::collections::{BTreeMap, HashMap};

use serde::Serialize;

use super::*;

fn form(value: &(impl Serialize + ?Sized)) -> Vec<u8> {
    Canonical::of(value, Lists::AsTheyAre).unwrap().bytes
}

fn sorted(value: &(impl Serialize + ?Sized)) -> Vec<u8> {
    Canonical::of(value, Lists::Sorted).unwrap().bytes
}

fn loss(value: &(impl Serialize + ?Sized)) -> Option<String> {
    Canonical::of(value, Lists::AsTheyAre).unwrap().loss
}

#[derive(Serialize)]
struct Unit;

#[derive(Serialize)]
struct Newtype<T>(T);

#[derive(Serialize)]
struct Pair(u8, u8);

#[derive(Serialize)]
struct Point {
    y: u8,
    x: u8,
}

#[derive(Serialize)]
enum Shape {
    Unit,
    Newtype(u8),
    Tuple(u8, u8),
    Struct { y: u8, x: u8 },
}

#[derive(Serialize)]
struct Flattened {
    a: u8,
    #[serde(flatten)]
    rest: BTreeMap<&'static str, u8>,
}

struct Bytes<'a>(&'a [u8]);

impl Serialize for Bytes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

/// A map with its entries in the given order, including duplicate keys.
struct Entries<K, V>(Vec<(K, V)>);

impl<K: Serialize, V: Serialize> Serialize for Entries<K, V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(key, value)| (key, value)))
    }
}

/// A number as `serde_json` gives it when it is built with `arbitrary_precision`.
struct Digits(&'static str);

impl Serialize for Digits {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;
        let mut number = serializer.serialize_struct(NUMBER, 1)?;
        number.serialize_field(NUMBER, self.0)?;
        number.end()
    }
}

/// All shapes of the data model, with the bytes of their forms. The bytes must never change.
#[test]
fn each_shape_has_its_form() {
    let table: &[(Vec<u8>, &[u8])] = &[
        (form(&false), b"0"),
        (form(&true), b"1"),
        (form(&0_u8), b"+\x00"),
        (form(&5_i8), b"+\x01\x05"),
        (form(&-5_i16), b"-\x01\x05"),
        (form(&i32::MIN), b"-\x04\0\0\0\x80"),
        (form(&-1_i64), b"-\x01\x01"),
        (form(&i128::MIN), b"-\x10\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x80"),
        (form(&256_u16), b"+\x02\0\x01"),
        (form(&u32::MAX), b"+\x04\xff\xff\xff\xff"),
        (form(&u64::MAX), b"+\x08\xff\xff\xff\xff\xff\xff\xff\xff"),
        (form(&(1_u128 << 64)), b"+\x09\0\0\0\0\0\0\0\0\x01"),
        (form(&1.5_f32), b"f\x3f\xc0\0\0"),
        (form(&1.5_f64), b"d\x3f\xf8\0\0\0\0\0\0"),
        (form(&'\u{e9}'), b"t\x01\x02\xc3\xa9"),
        (form("ab\0"), b"t\x01\x03ab\0"),
        (form(""), b"t\x00"),
        (form(&Bytes(&[0, 255])), b"b\x01\x02\0\xff"),
        (form(&None::<u8>), b"n"),
        (form(&Some(7)), b"+\x01\x07"),
        (form(&()), b"u"),
        (form(&Unit), b"u"),
        (form(&Shape::Unit), b"t\x01\x04Unit"),
        (form(&Newtype(true)), b"1"),
        (form(&Shape::Newtype(1)), b"{t\x01\x07Newtype+\x01\x01}"),
        (form(&[1, 2][..]), b"[+\x01\x01+\x01\x02]"),
        (form(&(1, "a")), b"[+\x01\x01t\x01\x01a]"),
        (form(&Pair(1, 2)), b"[+\x01\x01+\x01\x02]"),
        (form(&Shape::Tuple(1, 2)), b"{t\x01\x05Tuple[+\x01\x01+\x01\x02]}"),
        (form(&BTreeMap::from([(1, 2)])), b"{+\x01\x01+\x01\x02}"),
        (form(&Point { y: 2, x: 1 }), b"{t\x01\x01x+\x01\x01t\x01\x01y+\x01\x02}"),
        (form(&Shape::Struct { y: 2, x: 1 }), b"{t\x01\x06Struct{t\x01\x01x+\x01\x01t\x01\x01y+\x01\x02}}"),
        (form(&[0_u8; 0]), b"[]"),
        (form(&BTreeMap::<u8, u8>::new()), b"{}"),
    ];
    for (form, expected) in table {
        assert_eq!(form, expected, "{} is not {}", form.escape_ascii(), expected.escape_ascii());
    }
}

#[test]
fn values_that_differ_have_forms_that_differ() {
    let entries = |entries: &[(&'static str, u8)]| form(&Entries(entries.to_vec()));
    let forms = [
        form(&f64::NAN),
        form(&f64::INFINITY),
        form(&f64::NEG_INFINITY),
        form(&f32::NAN),
        form(&f32::INFINITY),
        form(&0.0),
        form(&-0.0),
        form(&0),
        form(&u64::MAX),
        form(&(u128::from(u64::MAX) + 1)),
        form(&u128::MAX),
        form(&i128::MIN),
        form(&"0"),
        form(&None::<u8>),
        form(&Some(None::<u8>)),
        form(&Some(Some(None::<u8>))),
        form(&()),
        form(&""),
        form(&Bytes(b"")),
        form(&["ab", ""]),
        form(&["a", "b"]),
        form(&[["a"], ["b"]]),
        form(&[vec!["a", "b"]]),
        form(&[vec!["a", "b"], vec![]]),
        entries(&[("a", 1), ("a", 2)]),
        entries(&[("a", 2), ("a", 1)]),
        entries(&[("a", 1)]),
        entries(&[("a", 2)]),
        entries(&[("ab", 1)]),
        form(&Entries(vec![("1", 1)])),
        form(&Entries(vec![(1, 1)])),
        form(&Digits("1.10")),
        form(&Digits("1e999")),
        form(&Digits("-0")),
    ];
    for (at, form) in forms.iter().enumerate() {
        let same = forms.iter().position(|other| other == form);
        assert_eq!(same, Some(at), "{}", form.escape_ascii());
    }
}

#[test]
fn the_order_of_keys_the_width_of_integers_and_some_do_not_count() {
    let many: Vec<(String, u32)> = (0..100).map(|n| (format!("key {n}"), n)).collect();
    let expected = form(&many.iter().cloned().collect::<BTreeMap<_, _>>());
    assert_eq!(form(&many.iter().cloned().collect::<HashMap<_, _>>()), expected);
    assert_eq!(form(&Entries(many.into_iter().rev().collect())), expected);

    let point = form(&Point { y: 2, x: 1 });
    assert_eq!(form(&BTreeMap::from([("x", 1), ("y", 2)])), point);
    assert_eq!(form(&Entries(vec![("y", 2_i128), ("x", 1)])), point);
    assert_eq!(form(&Entries(vec![("y", Some(2)), ("x", Some(1))])), point);
    assert_eq!(form(&-7_i8), form(&-7_i128));
    assert_eq!(form(&7_u8), form(&7_i128));
    assert_eq!(form(&'a'), form("a"));
    assert_eq!(form(&-f64::NAN), form(&f64::NAN));
    assert_eq!(form(&-f32::NAN), form(&f32::NAN));
}

/// Only `serde_json::Value` depends on the build of the crate. Its form is the same with and without `preserve_order`. With
/// and without `arbitrary_precision` it is the same if that does not change the number.
#[test]
fn the_build_of_serde_json_does_not_count() {
    let value: serde_json::Value = serde_json::from_str(
        r#"{"b": [1, -1, 1.5, 1e300], "a": 18446744073709551615, "c": {"z": 0, "y": 1}}"#,
    )
    .unwrap();
    let same = Entries(vec![
        ("a", form(&u64::MAX)),
        ("b", [&b"["[..], &form(&1), &form(&-1), &form(&1.5), &form(&1e300), b"]"].concat()),
        ("c", form(&BTreeMap::from([("y", 1), ("z", 0)]))),
    ]);
    let body: Vec<u8> = same.0.into_iter().flat_map(|(key, value)| [form(key), value].concat()).collect();
    assert_eq!(form(&value), [&b"{"[..], &body, b"}"].concat());

    for (digits, expected) in [
        ("0", form(&0)),
        ("-5", form(&-5)),
        ("340282366920938463463374607431768211455", form(&u128::MAX)),
        ("-170141183460469231731687303715884105728", form(&i128::MIN)),
        ("1.5", form(&1.5)),
        ("1.0", form(&1.0)),
        ("-0.0", form(&-0.0)),
        ("1.1", form(&1.1)),
    ] {
        assert_eq!(form(&Digits(digits)), expected, "{digits}");
        assert_eq!(form(&[Digits(digits)]), [b"[", &*expected, b"]"].concat(), "{digits}");
    }
}

/// A set gives its elements in any order, a tuple in its own order.
#[test]
fn lists_can_be_compared_as_sets() {
    assert_ne!(form(&[3, 1, 2]), form(&[1, 2, 3]));
    assert_eq!(sorted(&vec![3, 1, 2]), sorted(&vec![1, 2, 3]));
    assert_eq!(sorted(&vec![vec![3, 1], vec![2]]), sorted(&vec![vec![2], vec![1, 3]]));
    assert_ne!(sorted(&vec![1, 1, 2]), sorted(&vec![1, 2, 2]));
    assert_ne!(sorted(&(1, 2)), sorted(&(2, 1)));
    assert_ne!(sorted(&Pair(1, 2)), sorted(&Pair(2, 1)));
}

#[test]
fn what_json_cannot_express_is_named() {
    #[derive(Serialize)]
    struct Outer<T> {
        inner: Vec<Inner<T>>,
    }
    #[derive(Serialize)]
    struct Inner<T> {
        weight: T,
    }
    let outer = |weight| Outer { inner: vec![Inner { weight: 1.0 }, Inner { weight }] };
    let in_flattened =
        |rest: &[(&'static str, u8)]| loss(&Flattened { a: 1, rest: rest.iter().copied().collect() });
    for (loss, expected) in [
        (loss(&outer(f64::NAN)), Some("the field `inner.weight` contains NaN, which JSON writes as null")),
        (
            loss(&Outer { inner: vec![Inner { weight: f32::NEG_INFINITY }] }),
            Some("the field `inner.weight` contains -inf, which JSON writes as null"),
        ),
        (loss(&f64::INFINITY), Some("inf, which JSON writes as null")),
        (loss(&Some(None::<u8>)), Some("a Some(..) that JSON writes as null, like None")),
        (loss(&Some(())), Some("a Some(..) that JSON writes as null, like None")),
        (in_flattened(&[("a", 2)]), Some("the key `a` more than once")),
        (loss(&Entries(vec![("b", 1), ("", 2), ("", 3)])), Some("the key `` more than once")),
        (loss(&Entries(vec![(1, 1), (1, 1)])), Some("a key more than once")),
        (in_flattened(&[("b", 2)]), None),
        (loss(&outer(1.0)), None),
        (loss(&(None::<u8>, (), Some(0), u128::MAX, vec![1, 1])), None),
    ] {
        assert_eq!(loss.as_deref(), expected);
    }
}

#[test]
fn an_error_of_the_value_is_given_on() {
    struct Refuses;
    impl Serialize for Refuses {
        fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(serde::ser::Error::custom("not today"))
        }
    }
    let error = Canonical::of(&BTreeMap::from([("a", Some(Refuses))]), Lists::AsTheyAre).unwrap_err();
    assert_eq!(error.to_string(), "not today");
}
