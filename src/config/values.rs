//! Settings judged against the table of keys: known, of the right kind, inside the range.

use std::collections::HashMap;

use tuning::plan::{Numa, Pin};

use super::keys::{self, Key, Kind};
use super::source::{EMPTY_SECTION, Setting, Value};
use super::units::{format_bytes, parse_bytes, parse_percent};
use super::{Address, Budget, Place, Places, Problem};

/// A value of the kind its key asks for.
#[derive(Clone, Debug, PartialEq)]
pub enum Typed {
    Integer(i64),
    Bytes(u64),
    Auto,
    Bool(bool),
    Text(String),
    Address(Option<Address>),
    Budget(Budget),
    Pin(Pin),
    Numa(Numa),
}

/// The value and the place of every known key.
pub struct Values {
    by_path: HashMap<&'static str, (Typed, Place)>,
}

impl Values {
    /// Every key has a value afterwards: the last valid one given, else its default.
    pub fn judge(settings: &[Setting], problems: &mut Vec<Problem>) -> Values {
        let mut by_path = HashMap::new();
        for key in keys::KEYS {
            let default =
                Setting::parse(&format!("{}={}", key.path, key.default)).map(|setting| setting.value);
            let typed = default.ok().and_then(|value| typed(key, &value).ok());
            by_path
                .insert(key.path, (typed.expect("defaults are valid: a test judges each"), Place::Default));
        }
        for setting in settings {
            match judge(setting) {
                Ok(Some((path, typed))) => {
                    by_path.insert(path, (typed, setting.place.clone()));
                }
                Ok(None) => {}
                Err(message) => problems.push(Problem { place: setting.place.clone(), message }),
            }
        }
        Values { by_path }
    }

    /// The value of a key of the table.
    pub fn get(&self, path: &str) -> &Typed {
        &self.entry(path).0
    }

    pub fn place(&self, path: &str) -> &Place {
        &self.entry(path).1
    }

    /// Of every key that was given.
    pub fn places(&self) -> Places {
        let given = self.by_path.iter().filter(|(_, (_, place))| *place != Place::Default);
        Places(given.map(|(path, (_, place))| (*path, place.clone())).collect())
    }

    pub fn is_given(&self, path: &str) -> bool {
        self.entry(path).1 != Place::Default
    }

    fn entry(&self, path: &str) -> &(Typed, Place) {
        self.by_path.get(path).expect("only keys of the table are asked for: a test reads all")
    }
}

fn judge(setting: &Setting) -> Result<Option<(&'static str, Typed)>, String> {
    let path = &setting.path;
    if setting.value == Value::Other(EMPTY_SECTION) && keys::SECTIONS.iter().any(|(name, _)| name == path) {
        return Ok(None);
    }
    let Some(key) = keys::find(path) else {
        return Err(unknown(path));
    };
    let value = match (&setting.place, &setting.value, key.kind) {
        // On the command line there are no quotes to say that a number is meant as text.
        (Place::Argument(_), Value::Integer(number), Kind::Text) => Value::Text(number.to_string()),
        (Place::Argument(_), Value::Bool(value), Kind::Text) => Value::Text(value.to_string()),
        (Place::Argument(_), Value::Text(text), Kind::Integer { .. }) => {
            text.parse().map_or(Value::Text(text.clone()), Value::Integer)
        }
        (_, value, _) => value.clone(),
    };
    typed(key, &value).map(|typed| Some((key.path, typed))).map_err(|wanted| {
        let given = match &value {
            Value::Integer(number) => number.to_string(),
            Value::Bool(value) => value.to_string(),
            Value::Text(text) => format!("{text:?}"),
            Value::List(_) | Value::Other(_) => value.type_name().to_string(),
        };
        format!("{path} is {given}, but takes {wanted}; the default is {}", key.default)
    })
}

fn unknown(path: &str) -> String {
    let section = keys::SECTIONS.iter().find(|(name, _)| *name == path);
    if section.is_some() {
        return format!("{path} is a section, not a key: write [{path}] and its keys below it");
    }
    match keys::nearest(path) {
        Some(near) => format!("{path} is not a key that Corelog knows; did you mean {near}?"),
        None => {
            format!("{path} is not a key that Corelog knows; `corelog config example` prints all there are")
        }
    }
}

/// The value as its kind, or what the key takes instead.
fn typed(key: &Key, value: &Value) -> Result<Typed, String> {
    let auto = matches!(value, Value::Text(text) if text == "auto");
    match key.kind {
        Kind::Integer { min, max } => integer(value, min, max),
        Kind::IntegerOrAuto { .. } | Kind::BytesOrAuto { .. } if auto => Ok(Typed::Auto),
        Kind::IntegerOrAuto { min, max } => {
            integer(value, min, max).map_err(|wanted| format!("\"auto\" or {wanted}"))
        }
        Kind::Bytes { min, max } => bytes(value, min, max).map(Typed::Bytes),
        Kind::BytesOrAuto { min, max } => {
            bytes(value, min, max).map(Typed::Bytes).map_err(|wanted| format!("\"auto\" or {wanted}"))
        }
        Kind::BytesOrShare { min, max } => budget(value, min, max),
        Kind::Bool => match value {
            Value::Bool(value) => Ok(Typed::Bool(*value)),
            Value::Integer(_) | Value::Text(_) | Value::List(_) | Value::Other(_) => {
                Err("true or false".to_string())
            }
        },
        Kind::Choice(choices) => match value {
            Value::Text(text) if choices.contains(&text.as_str()) => Ok(Typed::Text(text.clone())),
            Value::Text(_) | Value::Integer(_) | Value::Bool(_) | Value::List(_) | Value::Other(_) => {
                Err(format!("one of \"{}\"", choices.join("\", \"")))
            }
        },
        Kind::Text => match value {
            Value::Text(text) if !text.contains('\0') => Ok(Typed::Text(text.clone())),
            Value::Text(_) => Err("a text without NUL characters".to_string()),
            Value::Integer(_) | Value::Bool(_) | Value::List(_) | Value::Other(_) => {
                Err("a text in quotes".to_string())
            }
        },
        Kind::Address { optional } => address(value, optional),
        Kind::Pin => pin(value),
        Kind::Numa => match value {
            Value::Text(text) if text == "auto" => Ok(Typed::Numa(Numa::Auto)),
            Value::Text(text) if text == "spread" => Ok(Typed::Numa(Numa::Spread)),
            other => usize_of(other)
                .map(|node| Typed::Numa(Numa::Node(node)))
                .ok_or_else(|| "\"auto\", \"spread\" or the number of a NUMA node".to_string()),
        },
    }
}

fn integer(value: &Value, min: i64, max: i64) -> Result<Typed, String> {
    match value {
        Value::Integer(number) if (min..=max).contains(number) => Ok(Typed::Integer(*number)),
        Value::Integer(_) | Value::Bool(_) | Value::Text(_) | Value::List(_) | Value::Other(_) => {
            if max == i64::MAX {
                Err(format!("a number from {min} on"))
            } else {
                Err(format!("a number from {min} to {max}"))
            }
        }
    }
}

fn bytes(value: &Value, min: u64, max: u64) -> Result<u64, String> {
    let number = match value {
        Value::Integer(number) => u64::try_from(*number).ok(),
        Value::Text(text) => parse_bytes(text),
        Value::Bool(_) | Value::List(_) | Value::Other(_) => None,
    };
    let (low, high) = (format_bytes(min), format_bytes(max));
    number
        .filter(|number| (min..=max).contains(number))
        .ok_or_else(|| format!("a size from {low} to {high}, such as {min} or \"{low}\""))
}

fn budget(value: &Value, min: u64, max: u64) -> Result<Typed, String> {
    if let Value::Text(text) = value
        && let Some(percent) = parse_percent(text)
    {
        return Ok(Typed::Budget(Budget::Share(percent)));
    }
    let size =
        bytes(value, min, max).map_err(|wanted| format!("a share from \"1%\" to \"100%\", or {wanted}"))?;
    Ok(Typed::Budget(Budget::Bytes(size)))
}

fn address(value: &Value, optional: bool) -> Result<Typed, String> {
    let wanted = || "\"HOST:PORT\", such as \"127.0.0.1:9092\" or \"[::1]:9092\"".to_string();
    match value {
        Value::Text(text) if text.is_empty() && optional => Ok(Typed::Address(None)),
        Value::Text(text) => {
            Address::parse(text).map(|address| Typed::Address(Some(address))).ok_or_else(wanted)
        }
        Value::Integer(_) | Value::Bool(_) | Value::List(_) | Value::Other(_) => Err(wanted()),
    }
}

fn pin(value: &Value) -> Result<Typed, String> {
    let wanted =
        || "\"auto\", \"off\" or a list of CPU numbers, one for each shard, such as [2, 3]".to_string();
    match value {
        Value::Text(text) if text == "auto" => Ok(Typed::Pin(Pin::Auto)),
        Value::Text(text) if text == "off" => Ok(Typed::Pin(Pin::Off)),
        Value::List(items) => {
            let cpus: Option<Vec<usize>> = items.iter().map(usize_of).collect();
            cpus.map(|cpus| Typed::Pin(Pin::List(cpus))).ok_or_else(wanted)
        }
        Value::Text(_) | Value::Integer(_) | Value::Bool(_) | Value::Other(_) => Err(wanted()),
    }
}

fn usize_of(value: &Value) -> Option<usize> {
    match value {
        Value::Integer(number) => usize::try_from(*number).ok(),
        Value::Bool(_) | Value::Text(_) | Value::List(_) | Value::Other(_) => None,
    }
}
