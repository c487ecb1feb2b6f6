//! Which names a topic may have. The texts are Kafka's.

/// Room for "-", a partition number and a suffix within 255 bytes of a file name, as Kafka reserves it.
pub const NAME_BYTES_MAX: usize = 249;

/// Raft's own topic in Kafka: no client may create it.
pub const CLUSTER_METADATA: &str = "__cluster_metadata";

/// What Kafka says of an invalid name.
pub fn validate(name: &str) -> Result<(), String> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    let why = if name.is_empty() {
        "the empty string is not allowed".to_owned()
    } else if name == "." || name == ".." {
        format!("'{name}' is not allowed")
    } else if name.encode_utf16().count() > NAME_BYTES_MAX {
        format!("the length of '{name}' is longer than the max allowed length {NAME_BYTES_MAX}")
    } else if !name.bytes().all(legal) {
        format!("'{name}' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'")
    } else {
        return Ok(());
    };
    Err(format!("Topic name is invalid: {why}"))
}

/// Whether a topic may have that name.
pub fn is_legal(name: &str) -> bool {
    validate(name).is_ok()
}

/// Names that differ only in `.` and `_` collide: metrics cannot tell them apart. `None` where nothing can collide.
pub fn collision_key(name: &str) -> Option<String> {
    name.contains(['.', '_']).then(|| name.replace('.', "_"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, expect: Option<&str>) {
        assert_eq!(validate(name).err().as_deref(), expect, "{name}");
    }

    #[test]
    fn names() {
        check("a", None);
        check("A-b_c.9", None);
        check("...", None);
        check(&"x".repeat(249), None);
        check("", Some("Topic name is invalid: the empty string is not allowed"));
        check(".", Some("Topic name is invalid: '.' is not allowed"));
        check("..", Some("Topic name is invalid: '..' is not allowed"));
        for bad in ["a b", "a/b", "ä", "a\0"] {
            let why = format!(
                "'{bad}' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'"
            );
            check(bad, Some(&format!("Topic name is invalid: {why}")));
        }
        let long = "x".repeat(250);
        let why = format!("the length of '{long}' is longer than the max allowed length 249");
        check(&long, Some(&format!("Topic name is invalid: {why}")));
    }

    #[test]
    fn collisions() {
        assert_eq!(collision_key("a.b"), collision_key("a_b"));
        assert_eq!(collision_key("a-b"), None);
    }
}
