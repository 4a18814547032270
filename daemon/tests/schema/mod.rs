//! As much of JSON Schema as docs/schema uses. A keyword that is not understood is a panic, never a silent success.

use regex_lite::Regex;
use serde_json::Value;

/// What of `document` violates `schema`: a line a violation, with its place.
pub(crate) fn violations(schema: &Value, document: &Value) -> Vec<String> {
    let mut found = Vec::new();
    check(schema, document, "", &mut found);
    found
}

fn check(schema: &Value, value: &Value, place: &str, found: &mut Vec<String>) {
    if let Some(is_allowed) = schema.as_bool() {
        if !is_allowed {
            found.push(format!("{place}: is not allowed"));
        }
        return;
    }
    let keywords = schema.as_object().expect("a schema is an object");
    for (keyword, argument) in keywords {
        let is_met = match keyword.as_str() {
            "$schema" | "$id" | "title" | "description" => true,
            "const" => value == argument,
            "type" => has_type(value, argument.as_str().expect("one type")),
            "pattern" => {
                let pattern = Regex::new(argument.as_str().expect("a text")).expect("a pattern");
                value.as_str().is_none_or(|text| pattern.is_match(text))
            }
            "minimum" => value.as_f64().is_none_or(|value| value >= number(argument)),
            "maximum" => value.as_f64().is_none_or(|value| value <= number(argument)),
            "minLength" => length(value).is_none_or(|length| length >= number(argument)),
            "maxLength" => length(value).is_none_or(|length| length <= number(argument)),
            "minItems" => count(value).is_none_or(|count| count >= number(argument)),
            "maxItems" => count(value).is_none_or(|count| count <= number(argument)),
            "required" => value.as_object().is_none_or(|object| {
                let keys = argument.as_array().expect("a list").iter();
                keys.map(|key| key.as_str().expect("a key"))
                    .all(|key| object.contains_key(key))
            }),
            "properties" => {
                for (key, schema) in argument.as_object().expect("schemas by key") {
                    if let Some(inner) = value.get(key) {
                        check(schema, inner, &format!("{place}/{key}"), found);
                    }
                }
                true
            }
            "items" => {
                for (index, inner) in value.as_array().into_iter().flatten().enumerate() {
                    check(argument, inner, &format!("{place}/{index}"), found);
                }
                true
            }
            // A reader is to take further ones, which this daemon does not write.
            "examples" => argument.as_array().expect("values").contains(value),
            "enum" => argument.as_array().expect("values").contains(value),
            "additionalProperties" => {
                let known = schema.get("properties").and_then(Value::as_object);
                for (key, inner) in value.as_object().into_iter().flatten() {
                    if known.is_none_or(|known| !known.contains_key(key)) {
                        check(argument, inner, &format!("{place}/{key}"), found);
                    }
                }
                true
            }
            "allOf" => {
                for schema in argument.as_array().expect("schemas") {
                    check(schema, value, place, found);
                }
                true
            }
            "if" => {
                if violations(argument, value).is_empty() {
                    check(&schema["then"], value, place, found);
                }
                true
            }
            // Belongs to `if`.
            "then" => true,
            unknown => panic!("{place}: this checker does not know the keyword {unknown:?}"),
        };
        if !is_met {
            found.push(format!("{place}: {value} violates {keyword}: {argument}"));
        }
    }
}

fn has_type(value: &Value, name: &str) -> bool {
    match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "number" => value.is_number(),
        "integer" => value.is_i64() || value.is_u64(),
        "boolean" => value.is_boolean(),
        unknown => panic!("unknown type {unknown:?}"),
    }
}

fn number(argument: &Value) -> f64 {
    argument.as_f64().expect("a number")
}

fn length(value: &Value) -> Option<f64> {
    value.as_str().map(|text| text.chars().count() as f64)
}

fn count(value: &Value) -> Option<f64> {
    value.as_array().map(|items| items.len() as f64)
}
