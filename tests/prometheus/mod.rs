//! The Prometheus text format (0.0.4), read strictly: what its description does not allow is an error here, even where
//! real scrapers are lenient.

use std::collections::{BTreeMap, BTreeSet};

pub type Labels = BTreeMap<String, String>;

/// Every sample of a page.
#[derive(Default)]
pub struct Page {
    samples: BTreeMap<(String, Labels), f64>,
}

impl Page {
    /// The sum of all samples of this name whose labels hold these.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let fits = |have: &Labels| {
            labels.iter().all(|(key, value)| have.get(*key).is_some_and(|have| have.as_str() == *value))
        };
        let found = self.samples.iter().filter(|((of, have), _)| of == name && fits(have));
        found.map(|(_, value)| value).sum()
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &Labels, f64)> {
        self.samples.iter().map(|((name, labels), value)| (name.as_str(), labels, *value))
    }
}

/// Names of families with their type.
struct Families {
    kinds: BTreeMap<String, String>,
    helped: BTreeSet<String>,
    /// The family that samples belong to now; one that has ended may not come again.
    current: String,
}

pub fn parse(text: &str) -> Result<Page, String> {
    if !text.ends_with('\n') {
        return Err("the last line has no end".to_owned());
    }
    let mut page = Page::default();
    let mut families = Families { kinds: BTreeMap::new(), helped: BTreeSet::new(), current: String::new() };
    for line in text.lines() {
        let wrong = |why: &str| format!("{why}: {line}");
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, _) = rest.split_once(' ').ok_or_else(|| wrong("no help"))?;
            if !families.helped.insert(name.to_owned()) {
                return Err(wrong("helped twice"));
            }
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').ok_or_else(|| wrong("no type"))?;
            if !["counter", "gauge", "histogram"].contains(&kind) || !is_name(name) {
                return Err(wrong("no such type"));
            }
            if families.kinds.insert(name.to_owned(), kind.to_owned()).is_some() {
                return Err(wrong("typed twice"));
            }
            families.current = name.to_owned();
        } else {
            let (name, labels, value) = sample(line).map_err(|why| wrong(&why))?;
            families.check(&name).map_err(|why| wrong(&why))?;
            if page.samples.insert((name, labels), value).is_some() {
                return Err(wrong("the same sample twice"));
            }
        }
    }
    for name in families.kinds.keys() {
        if !families.helped.contains(name) {
            return Err(format!("{name} has no help"));
        }
    }
    for (name, _) in families.kinds.iter().filter(|(_, kind)| *kind == "histogram") {
        histograms(&page, name)?;
    }
    Ok(page)
}

impl Families {
    fn check(&self, name: &str) -> Result<(), String> {
        let kind = self.kinds.get(&self.current).ok_or("a sample without a type")?;
        let expected: Vec<String> = match kind.as_str() {
            "histogram" => ["_bucket", "_sum", "_count"].map(|end| format!("{}{end}", self.current)).into(),
            _ => vec![self.current.clone()],
        };
        if expected.iter().any(|expected| expected == name) {
            Ok(())
        } else {
            Err(format!("this is no sample of {}", self.current))
        }
    }
}

/// Each histogram's buckets rise with their limits, end in +Inf, and that is its count.
fn histograms(page: &Page, name: &str) -> Result<(), String> {
    let mut series: BTreeMap<Labels, Vec<(f64, f64)>> = BTreeMap::new();
    for (_, labels, value) in page.iter().filter(|(of, ..)| *of == format!("{name}_bucket")) {
        let mut labels = labels.clone();
        let limit = labels.remove("le").ok_or("a bucket without a limit")?;
        let limit = if limit == "+Inf" { f64::INFINITY } else { number(&limit)? };
        series.entry(labels).or_default().push((limit, value));
    }
    for (labels, mut buckets) in series {
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        let rises = buckets.windows(2).all(|pair| pair[0].1 <= pair[1].1);
        let last = *buckets.last().ok_or("no bucket")?;
        let count = page.samples.get(&(format!("{name}_count"), labels.clone()));
        let sum = page.samples.get(&(format!("{name}_sum"), labels.clone()));
        if !rises || last.0 != f64::INFINITY || count != Some(&last.1) || sum.is_none() {
            return Err(format!("{name}{labels:?} is no histogram: {buckets:?}, {count:?}"));
        }
    }
    Ok(())
}

/// `name{label="value",...} number`
fn sample(line: &str) -> Result<(String, Labels, f64), String> {
    let end = line.find(['{', ' ']).ok_or("no value")?;
    let (name, mut rest) = line.split_at(end);
    if !is_name(name) {
        return Err("no name".to_owned());
    }
    let mut labels = Labels::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        while !rest.starts_with('}') {
            let (label, behind) = rest.split_once("=\"").ok_or("a label without a value")?;
            if !is_name(label) || label.contains(':') {
                return Err(format!("{label:?} is no label"));
            }
            let (value, behind) = quoted(behind)?;
            if labels.insert(label.to_owned(), value).is_some() {
                return Err(format!("{label} twice"));
            }
            rest = behind.strip_prefix(',').unwrap_or(behind);
        }
        rest = &rest[1..];
    }
    let value = rest.strip_prefix(' ').ok_or("no space before the value")?;
    Ok((name.to_owned(), labels, number(value)?))
}

/// What stands before the closing quote, unescaped, and what is behind it.
fn quoted(text: &str) -> Result<(String, &str), String> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, char)) = chars.next() {
        match char {
            '"' => return Ok((value, &text[at + 1..])),
            '\\' => value.push(match chars.next().map(|(_, char)| char) {
                Some('n') => '\n',
                Some(char @ ('"' | '\\')) => char,
                _ => return Err("no such escape".to_owned()),
            }),
            _ => value.push(char),
        }
    }
    Err("a label value has no end".to_owned())
}

fn number(text: &str) -> Result<f64, String> {
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    text.parse().ok().filter(|_| plain).ok_or_else(|| format!("{text:?} is no number"))
}

fn is_name(text: &str) -> bool {
    let first = text.chars().next().is_some_and(|char| char.is_ascii_alphabetic() || char == '_');
    first && text.chars().all(|char| char.is_ascii_alphanumeric() || char == '_' || char == ':')
}
