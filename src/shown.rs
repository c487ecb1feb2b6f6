//! Text that others chose, for the operator to read.

/// As a line of a terminal may hold it: without control characters.
pub fn shown(text: &str) -> String {
    let escaped = |character: char| match character.is_control() {
        true => character.escape_default().collect::<String>(),
        false => character.to_string(),
    };
    text.chars().map(escaped).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_chose_moves_no_cursor() {
        assert_eq!(shown("bill\u{1b}[31m\n\tß"), "bill\\u{1b}[31m\\n\\tß");
    }
}
