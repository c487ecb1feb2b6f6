//! From the text of a file and from `--set key=value` to settings: dotted path, value, and where it was written.
//!
//! Nothing is judged here but the syntax. `[topics]` with `num.partitions = 3`, with `"num.partitions" = 3` and with
//! `num = { partitions = 3 }` are one and the same path.

use std::fmt;

use toml::de::{DeTable, DeValue};

use super::Problem;

/// Where a setting was written, for error messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    Line {
        file: String,
        line: usize,
    },
    /// `--set`, `--listen` and the like.
    Argument(String),
    Default,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Line { file, line } => write!(f, "{file}:{line}"),
            Place::Argument(argument) => write!(f, "{argument}"),
            Place::Default => write!(f, "default"),
        }
    }
}

/// A section without keys still has to have a known name.
pub const EMPTY_SECTION: &str = "an empty section";

/// A TOML value without its spans, and how to name its type in a message.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Integer(i64),
    Bool(bool),
    Text(String),
    List(Vec<Value>),
    /// Floats, dates and integers past 64 bits: no key takes them.
    Other(&'static str),
}

impl Value {
    pub fn type_name(&self) -> &'static str {
        match self {
            Value::Integer(_) => "a number",
            Value::Bool(_) => "true or false",
            Value::Text(_) => "a text",
            Value::List(_) => "a list",
            Value::Other(name) => name,
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Setting {
    pub path: String,
    pub value: Value,
    pub place: Place,
}

impl Setting {
    /// A value given by an option of its own, such as `--data DIR`.
    pub fn argument(option: &str, path: &str, value: &str) -> Setting {
        let place = Place::Argument(option.to_string());
        Setting { path: path.to_string(), value: Value::Text(value.to_string()), place }
    }

    /// `key=value`. The value is TOML where it reads as such, else plain text, so that paths and addresses need no
    /// quotes within the shell's.
    pub fn parse(text: &str) -> Result<Setting, Problem> {
        let place = Place::Argument(format!("--set {text}"));
        let Some((path, value)) = text.split_once('=') else {
            let message = "is not of the form key=value; for example --set cores.count=4".to_string();
            return Err(Problem { place, message });
        };
        let value = value.trim();
        let parsed = match DeValue::parse(value) {
            Ok(parsed) => convert(parsed.get_ref()),
            Err(_) => Value::Text(value.to_string()),
        };
        let parsed = match parsed {
            Value::Other(_) => Value::Text(value.to_string()),
            other => other,
        };
        Ok(Setting { path: path.trim().to_string(), value: parsed, place })
    }
}

/// All settings of a file, in the order of their lines; syntax errors come back with their line.
pub fn parse_file(name: &str, text: &str) -> (Vec<Setting>, Vec<Problem>) {
    let (table, errors) = DeTable::parse_recoverable(text);
    let problem = |error: &toml::de::Error| Problem {
        place: Place::Line {
            file: name.to_string(),
            line: line_of(text, error.span().map_or(0, |span| span.start)),
        },
        message: format!("is not valid TOML: {}", error.message()),
    };
    let problems = errors.iter().map(problem).collect();
    let mut settings = Vec::new();
    flatten(name, text, "", table.get_ref(), &mut settings);
    settings.sort_by_key(|setting| match setting.place {
        Place::Line { line, .. } => line,
        Place::Argument(_) | Place::Default => 0,
    });
    (settings, problems)
}

fn flatten(file: &str, text: &str, prefix: &str, table: &DeTable<'_>, out: &mut Vec<Setting>) {
    for (key, value) in table.iter() {
        let name = key.get_ref();
        let path = if prefix.is_empty() { name.to_string() } else { format!("{prefix}.{name}") };
        match value.get_ref() {
            DeValue::Table(inner) if !inner.is_empty() => flatten(file, text, &path, inner, out),
            other => {
                let line = line_of(text, key.span().start);
                let place = Place::Line { file: file.to_string(), line };
                out.push(Setting { path, value: convert(other), place });
            }
        }
    }
}

fn convert(value: &DeValue<'_>) -> Value {
    match value {
        DeValue::Integer(number) => {
            let digits = number.as_str();
            i64::from_str_radix(digits, number.radix())
                .map_or(Value::Other("a number past 64 bits"), Value::Integer)
        }
        DeValue::Boolean(value) => Value::Bool(*value),
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Array(items) => Value::List(items.iter().map(|item| convert(item.get_ref())).collect()),
        DeValue::Float(_) => Value::Other("a number with a fraction"),
        DeValue::Datetime(_) => Value::Other("a date"),
        DeValue::Table(_) => Value::Other(EMPTY_SECTION),
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    let before = text.as_bytes().get(..offset).unwrap_or(text.as_bytes());
    before.iter().filter(|byte| **byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_ways_to_write_a_dotted_key_are_one() {
        let check = |text: &str| {
            let (settings, problems) = parse_file("f", text);
            assert_eq!(problems, []);
            let seen: Vec<_> =
                settings.iter().map(|setting| (setting.path.as_str(), &setting.value)).collect();
            assert_eq!(seen, [("topics.num.partitions", &Value::Integer(3))], "{text}");
        };
        check("[topics]\nnum.partitions = 3");
        check("[topics]\n\"num.partitions\" = 3");
        check("topics = { num = { partitions = 3 } }");
    }

    #[test]
    fn arguments_are_toml_or_plain_text() {
        let check = |text: &str, path: &str, value: Value| {
            let setting = Setting::parse(text).expect("key=value");
            assert_eq!((setting.path.as_str(), setting.value), (path, value), "{text}");
        };
        check("cores.count=4", "cores.count", Value::Integer(4));
        check("cores.pin=[2, 3]", "cores.pin", Value::List(vec![Value::Integer(2), Value::Integer(3)]));
        check("data.dir=/var/lib/a=b", "data.dir", Value::Text("/var/lib/a=b".into()));
        check("listeners.kafka=127.0.0.1:0", "listeners.kafka", Value::Text("127.0.0.1:0".into()));
        check("memory.budget = \"1GiB\"", "memory.budget", Value::Text("1GiB".into()));
        check("data.dir=", "data.dir", Value::Text(String::new()));
        assert!(Setting::parse("cores.count").is_err());
    }

    #[test]
    fn a_syntax_error_keeps_its_line() {
        let (_, problems) = parse_file("corelog.toml", "[cores]\ncount = \n");
        assert_eq!(problems[0].place, Place::Line { file: "corelog.toml".into(), line: 2 });
    }
}
