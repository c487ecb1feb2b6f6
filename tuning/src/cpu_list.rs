//! The kernel's list notation for CPUs and nodes: `0-3,8,10-11`.

/// No Linux kernel is built for more CPUs; a longer range is a damaged file, not a machine.
const CPU_ID_MAX: usize = 8191;

/// Reads a list; `None` when it is not one. The kernel writes an empty line for an empty set.
pub fn parse(text: &str) -> Option<Vec<usize>> {
    let text = text.trim();
    let mut ids = Vec::new();
    if text.is_empty() {
        return Some(ids);
    }
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let first: usize = first.trim().parse().ok()?;
        let last: usize = last.trim().parse().ok()?;
        if first > last || last > CPU_ID_MAX {
            return None;
        }
        ids.extend(first..=last);
    }
    ids.sort_unstable();
    ids.dedup();
    Some(ids)
}

/// Writes ids in the same notation; the order given is kept, so that a pin order stays visible.
pub fn format(ids: &[usize]) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut at = 0;
    while at < ids.len() {
        let mut end = at + 1;
        while end < ids.len() && ids[end] == ids[end - 1] + 1 {
            end += 1;
        }
        let (first, last) = (ids[at], ids[end - 1]);
        parts.push(if first == last { first.to_string() } else { format!("{first}-{last}") });
        at = end;
    }
    parts.join(",")
}

#[cfg(test)]
mod tests {
    fn check(text: &str, expect: Option<&[usize]>) {
        assert_eq!(super::parse(text).as_deref(), expect, "{text:?}");
    }

    #[test]
    fn lists_are_read_as_the_kernel_writes_them() {
        check("0-3,8\n", Some(&[0, 1, 2, 3, 8]));
        check("5", Some(&[5]));
        check("", Some(&[]));
        check("2,1,2", Some(&[1, 2]));
        check("3-1", None);
        check("0-99999999", None);
        check("x", None);
        check("1,,2", None);
    }

    #[test]
    fn runs_are_folded_and_order_is_kept() {
        assert_eq!(super::format(&[0, 1, 2, 3, 8]), "0-3,8");
        assert_eq!(super::format(&[4, 2, 3]), "4,2-3");
        assert_eq!(super::format(&[]), "");
    }
}
