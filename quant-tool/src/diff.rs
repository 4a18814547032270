//! In what two bundles differ, for people: what their manifests say, and how many of each layer's weights are others.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use serde_json::Value;
use ternwatch_bundle::model::ModelLayer;

use crate::cli::Diff;
use crate::files::{self, Opened};
use crate::tell::out;

/// A longer value is not shown.
const VALUE_CHARS_MAX: usize = 60;

/// Checks both bundles and prints the differences.
pub fn print(args: &Diff) -> Result<()> {
    let (before, after) = (
        read(&args.before, &args.key)?,
        read(&args.after, &args.key)?,
    );
    let lines = compare(&before, &after)?;
    lines.iter().for_each(|line| out!("{line}"));
    if lines.is_empty() {
        out!("no difference in manifest and weights");
    }
    Ok(())
}

fn read(path: &Path, keys: &[std::path::PathBuf]) -> Result<Opened> {
    let keys = if keys.is_empty() {
        vec![files::public_key(&path.with_file_name("default.pub"))?]
    } else {
        keys.iter()
            .map(|key| files::public_key(key))
            .collect::<Result<_>>()?
    };
    files::open(path, keys)
}

/// A line a difference.
fn compare(before: &Opened, after: &Opened) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    let fields = |opened: &Opened| -> Result<BTreeMap<String, String>> {
        let mut fields = BTreeMap::new();
        flatten("", &serde_json::to_value(&opened.manifest)?, &mut fields);
        // Where parameters lie says nothing of the model.
        fields.retain(|key, _| !key.ends_with(".offset"));
        Ok(fields)
    };
    let (old, new) = (fields(before)?, fields(after)?);
    let keys: std::collections::BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    for key in keys {
        match (old.get(key), new.get(key)) {
            (Some(a), Some(b)) if a == b => {}
            (a, b) => lines.push(format!("{key}: {} -> {}", short(a), short(b))),
        }
    }
    for layer in before.model.layers() {
        let same_name = |other: &&ModelLayer| other.name() == layer.name();
        let other = after.model.layers().iter().find(same_name);
        if let (ModelLayer::Conv(a), Some(ModelLayer::Conv(b))) = (layer, other) {
            if a.trits.len() != b.trits.len() {
                continue; // The shapes were told above.
            }
            let differ = a.trits.iter().zip(&b.trits).filter(|(a, b)| a != b).count();
            let part = 100.0 * differ as f64 / a.trits.len() as f64;
            if differ > 0 || a.bias != b.bias || a.epilogue != b.epilogue {
                lines.push(format!(
                    "layer {}: {differ} of {} weights differ ({part:.1} %), biases {}, scales {}",
                    layer.name(),
                    a.trits.len(),
                    same(a.bias == b.bias),
                    same(a.epilogue == b.epilogue),
                ));
            }
        }
    }
    Ok(lines)
}

fn same(is_same: bool) -> &'static str {
    if is_same { "the same" } else { "differ" }
}

fn short(value: Option<&String>) -> String {
    match value {
        None => "(not there)".into(),
        Some(value) if value.chars().count() > VALUE_CHARS_MAX => {
            let head: String = value.chars().take(VALUE_CHARS_MAX).collect();
            format!("{head}...")
        }
        Some(value) => value.clone(),
    }
}

/// The leaves of a document by their paths; a list's items by their names, or else their places.
fn flatten(path: &str, value: &Value, fields: &mut BTreeMap<String, String>) {
    let join = |key: &str| {
        if path.is_empty() {
            key.into()
        } else {
            format!("{path}.{key}")
        }
    };
    match value {
        Value::Object(entries) => {
            for (key, value) in entries {
                flatten(&join(key), value, fields);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                let name = item.get("name").and_then(Value::as_str);
                let name = name.map_or_else(|| index.to_string(), Into::into);
                flatten(&join(&name), item, fields);
            }
        }
        leaf => {
            fields.insert(path.into(), leaf.to_string());
        }
    }
}
