//! JSON as docs/command-line.md shows it, and whether what the binary says has that form.

use serde_json::Value;

const PAGE: &str = include_str!("../../docs/command-line.md");

/// The example of a command: the block that begins with "```json COMMAND".
pub fn example(command: &str) -> Value {
    let start = format!("```json {command}\n");
    let block = PAGE.split_once(&start).unwrap_or_else(|| panic!("{command} has no example")).1;
    let text = block.split_once("```").unwrap().0;
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{command}: {error}: {text}"))
}

/// What was said has every key of the example and no other, and values of the same kind. A null is as good as any value,
/// and a list may be empty.
#[track_caller]
pub fn has_form(command: &str, said: &Value) {
    if let Err(difference) = compare(&example(command), said) {
        panic!("{command}: {difference} is not as docs/command-line.md has it: {said:#}");
    }
}

/// Says where they differ.
pub fn compare(example: &Value, said: &Value) -> Result<(), String> {
    match (example, said) {
        (Value::Null, _) | (_, Value::Null) => Ok(()),
        (Value::Object(example), Value::Object(said)) => {
            for (key, value) in said {
                let shown = example.get(key).ok_or_else(|| format!(".{key}"))?;
                compare(shown, value).map_err(|at| format!(".{key}{at}"))?;
            }
            match example.keys().find(|key| !said.contains_key(*key)) {
                Some(missing) => Err(format!(".{missing} (missing)")),
                None => Ok(()),
            }
        }
        (Value::Array(example), Value::Array(said)) => {
            let Some(shown) = example.first() else { return Ok(()) };
            said.iter().try_for_each(|value| compare(shown, value)).map_err(|at| format!("[]{at}"))
        }
        (Value::Bool(_), Value::Bool(_))
        | (Value::Number(_), Value::Number(_))
        | (Value::String(_), Value::String(_)) => Ok(()),
        _ => Err(" (kind)".to_owned()),
    }
}
