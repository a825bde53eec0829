//! Arbitrary text and values as a configuration: a task, or an error that names the field.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::{AsyncMapTask, KNOWN_FIELDS, MapTaskConfig, from_json, from_toml};

fn fields() -> Vec<&'static str> {
    KNOWN_FIELDS.split('`').skip(1).step_by(2).collect()
}

/// Numbers, texts and lists, with many that are nearly a value of a field.
fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<i64>().prop_map(Value::from),
        (0_u64..10).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        (-0.5..1.5).prop_map(|ratio: f64| ratio.into()),
        any::<bool>().prop_map(Value::from),
        "[0-9]{0,20} ?(ns|us|ms|s|m|min|h|d|w|M|y|x)?( 5s)?".prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        Just(Value::Null),
        prop::collection::vec(any::<i8>(), 0..3).prop_map(Value::from),
        Just(json!({})),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn a_field_with_any_value_is_a_setting_or_an_error_that_names_it(
        field in prop::sample::select(fields()),
        value in value(),
    ) {
        let text = Map::from_iter([(field.to_owned(), value)]);
        match from_json(&Value::from(text).to_string()) {
            Ok(config) => {
                if let Err(error) = AsyncMapTask::try_from(config) {
                    prop_assert_eq!(error.field(), field);
                }
            }
            Err(message) => prop_assert!(message.contains(field), "{}: {}", field, message),
        }
    }

    #[test]
    fn any_fields_are_settings_or_an_error(fields in prop::collection::hash_map(
        prop_oneof![prop::sample::select(fields()).prop_map(str::to_owned), any::<String>()], value(), 0..6,
    )) {
        let text = Value::from(Map::from_iter(fields.clone()));
        match serde_json::from_value::<MapTaskConfig>(text) {
            Ok(config) => {
                if let Err(error) = AsyncMapTask::try_from(config) {
                    prop_assert!(fields.contains_key(error.field()), "{}", error);
                }
            }
            Err(error) => prop_assert!(!error.to_string().is_empty()),
        }
    }

    #[test]
    fn any_text_is_a_configuration_or_an_error(text in any::<String>()) {
        for parsed in [from_toml(&text), from_json(&text)] {
            match parsed.map(AsyncMapTask::try_from) {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => prop_assert!(text.contains(error.field()), "{}", error),
                Err(message) => prop_assert!(!message.is_empty()),
            }
        }
    }
}
