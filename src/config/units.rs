//! Sizes as people write them, and as they are shown.

const UNITS: &[(&str, u64)] = &[
    ("tib", 1 << 40),
    ("gib", 1 << 30),
    ("mib", 1 << 20),
    ("kib", 1 << 10),
    ("tb", 1_000_000_000_000),
    ("gb", 1_000_000_000),
    ("mb", 1_000_000),
    ("kb", 1_000),
    ("b", 1),
];

/// `"256MiB"`, `"1.5 GiB"`, `"4096"`. `None` when it is no size or does not fit.
pub fn parse_bytes(text: &str) -> Option<u64> {
    let lower = text.trim().to_ascii_lowercase();
    let unit = UNITS.iter().find_map(|(suffix, factor)| Some((lower.strip_suffix(suffix)?, *factor)));
    let (number, factor) = unit.unwrap_or((&lower, 1));
    let (whole, fraction) = number.trim().split_once('.').unwrap_or((number.trim(), ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) || fraction.len() > 9 {
        return None;
    }
    let scale = 10u128.pow(u32::try_from(fraction.len()).ok()?);
    let number: u128 = format!("{whole}{fraction}").parse().ok()?;
    let bytes = number.checked_mul(u128::from(factor))?.checked_div(scale)?;
    u64::try_from(bytes).ok()
}

/// `"30%"` as 30; only 1 to 100.
pub fn parse_percent(text: &str) -> Option<u8> {
    let percent: u8 = text.trim().strip_suffix('%')?.trim().parse().ok()?;
    (1..=100).contains(&percent).then_some(percent)
}

/// `256 MiB`, `1.5 GiB`, `1000 B`: three digits at most say enough in a banner.
pub fn format_bytes(bytes: u64) -> String {
    for (name, shift) in [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)] {
        let unit = 1u64 << shift;
        if bytes >= unit {
            let (whole, tenths) = (bytes / unit, (bytes % unit).saturating_mul(10) / unit);
            return if tenths == 0 || whole >= 100 {
                format!("{whole} {name}")
            } else {
                format!("{whole}.{tenths} {name}")
            };
        }
    }
    format!("{bytes} B")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_and_without_units() {
        let check = |text: &str, expect: Option<u64>| assert_eq!(parse_bytes(text), expect, "{text:?}");
        check("4096", Some(4096));
        check("256MiB", Some(256 << 20));
        check("256 mib", Some(256 << 20));
        check("1.5GiB", Some(3 << 29));
        check("10 MB", Some(10_000_000));
        check("0B", Some(0));
        check("", None);
        check("MiB", None);
        check("-1", None);
        check("1e3", None);
        check("99999999999 TiB", None);
        check("1.2.3", None);
    }

    #[test]
    fn shares_and_display() {
        assert_eq!(parse_percent("30%"), Some(30));
        assert_eq!(parse_percent("0%"), None);
        assert_eq!(parse_percent("101%"), None);
        assert_eq!(format_bytes(256 << 20), "256 MiB");
        assert_eq!(format_bytes((3 << 29) + 5), "1.5 GiB");
        assert_eq!(format_bytes(1000), "1000 B");
    }
}
