//! Subscriptions by regular expression.
//!
//! A pattern is matched against whole topic names, in linear time, with bounds on the pattern and on the machine that is
//! made of it: clients write patterns. The dialect is that of the `regex` crate, which is RE2's but for
//! `\C`; the `\Q..\E` that Java writes around names is turned into what it stands for.
//!
//! A shard never looks at all topics: it asks for that by an effect, since it takes long, and since it does not know
//! what the member may see.

use super::settings::REGEX_BYTES_MAX;

/// The most memory that a compiled pattern may take.
const PROGRAM_BYTES_MAX: usize = 1 << 20;

/// A pattern that can be matched.
pub struct Pattern(regex::Regex);

impl Pattern {
    /// The reason, for the client, if it is not a pattern.
    pub fn new(pattern: &str) -> Result<Pattern, String> {
        if pattern.len() > REGEX_BYTES_MAX {
            return Err(format!("The regular expression is longer than {REGEX_BYTES_MAX} bytes."));
        }
        let build = |pattern: &str| {
            let mut builder = regex::RegexBuilder::new(pattern);
            builder.size_limit(PROGRAM_BYTES_MAX).dfa_size_limit(PROGRAM_BYTES_MAX).build()
        };
        let plain = unquoted(pattern);
        // By itself first: "a)|(b" would close the brackets that are put around it.
        let built = build(&plain).and_then(|_| build(&format!("^(?:{plain})$")));
        let refused = |_| format!("SubscribedTopicRegex `{pattern}` is not a valid regular expression.");
        built.map(Pattern).map_err(refused)
    }

    pub fn matches(&self, topic: &str) -> bool {
        self.0.is_match(topic)
    }
}

/// The pattern with what stands between `\Q` and `\E`, or the end, escaped.
fn unquoted(pattern: &str) -> String {
    let (mut out, mut rest) = (String::new(), pattern);
    while let Some(at) = rest.find('\\') {
        let (before, escape) = rest.split_at(at);
        out.push_str(before);
        if let Some(quoted) = escape.strip_prefix(r"\Q") {
            let (text, behind) = quoted.split_once(r"\E").unwrap_or((quoted, ""));
            out.push_str(&regex::escape(text));
            rest = behind;
        } else {
            // An escaped backslash does not escape what follows it.
            let end = escape.char_indices().nth(2).map_or(escape.len(), |(end, _)| end);
            out.push_str(&escape[..end]);
            rest = &escape[end..];
        }
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_names() {
        let cases = [
            ("foo", "foo", true),
            ("foo", "foobar", false),
            ("foo|bar", "xbar", false),
            ("foo.*", "foo", true),
            ("(?i)FOO", "foo", true),
            (r"t-\d{2}", "t-42", true),
            ("", "", true),
            ("", "a", false),
            (r"\Qa.b\E.*", "a.b-1", true),
            (r"\Qa.b\E.*", "axb-1", false),
            (r"x|\Qa+(", "a+(", true),
            (r"\\Qa", r"\Qa", true),
            (r"\Q\E", "", true),
        ];
        for (pattern, topic, expect) in cases {
            assert_eq!(Pattern::new(pattern).expect(pattern).matches(topic), expect, "{pattern} {topic}");
        }
    }

    #[test]
    fn what_is_no_pattern_or_too_large_is_refused() {
        let long = "a".repeat(REGEX_BYTES_MAX + 1);
        for pattern in ["[", "(", "a)|(b", "(?=x)", r"(a)\1", r"a\E", r"a\", "(a{1000}){1000}", &long] {
            assert!(Pattern::new(pattern).is_err(), "{pattern}");
        }
    }
}
