//! The IDs of requirements, `TURN-045`, and the lists of them that people write.

use std::fmt;

/// Names a requirement: the table's prefix and the row's number in it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RowId {
    /// In capitals.
    pub(super) table: String,
    /// From 1 to 999.
    pub(super) number: u16,
}

impl RowId {
    /// The ID that `text` is.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (table, number) = text.split_once('-')?;
        let is_prefix = table.len() >= 2 && table.bytes().all(|byte| byte.is_ascii_uppercase());
        is_prefix.then(|| Some(Self { table: table.to_owned(), number: row_number(number)? }))?
    }
}

impl fmt::Display for RowId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:03}", self.table, self.number)
    }
}

/// The number that three digits are.
pub(super) fn row_number(text: &str) -> Option<u16> {
    (text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok())?
}

/// The IDs at the beginning of `text`, and what follows them: `TURN-036 to TURN-039, STUN-001 and STUN-003: …`.
pub(super) fn leading_list(text: &str) -> (Vec<RowId>, &str) {
    let mut ids: Vec<RowId> = Vec::new();
    let mut rest = text;
    let mut follows_to = false;
    loop {
        let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '-')).unwrap_or(rest.len());
        let Some(id) = RowId::parse(&rest[..end]) else { return (ids, rest) };
        rest = &rest[end..];
        match ids.last().filter(|_| follows_to) {
            Some(first) if first.table == id.table && first.number < id.number => {
                let between = first.number + 1..=id.number;
                ids.extend(between.map(|number| RowId { table: id.table.clone(), number }));
            }
            _ => ids.push(id),
        }
        let separators = [(", ", false), (" and ", false), (" to ", true)];
        let separator =
            separators.iter().find_map(|&(words, is_to)| Some((rest.strip_prefix(words)?, is_to)));
        let Some((after, is_to)) = separator else { return (ids, rest) };
        (rest, follows_to) = (after, is_to);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str) -> (String, &str) {
        let (ids, rest) = leading_list(text);
        (ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "), rest)
    }

    #[test]
    fn id_is_a_prefix_and_three_digits() {
        assert_eq!(RowId::parse("TURN-045").map(|id| id.to_string()).as_deref(), Some("TURN-045"));
        for text in ["TURN-45", "TURN-0450", "turn-045", "T-045", "TURN045", "TURN-04x", "-045", ""] {
            assert_eq!(RowId::parse(text), None, "{text}");
        }
    }

    #[test]
    fn lists_have_commas_ranges_and_an_end() {
        assert_eq!(list("TURN-176, TURN-188"), ("TURN-176 TURN-188".to_owned(), ""));
        assert_eq!(list("TURN-036 to TURN-039"), ("TURN-036 TURN-037 TURN-038 TURN-039".to_owned(), ""));
        assert_eq!(
            list("STUN-001 and MUX-003 to MUX-004, DP-010: why"),
            ("STUN-001 MUX-003 MUX-004 DP-010".to_owned(), ": why")
        );
        assert_eq!(list("VEC-001, as printed"), ("VEC-001".to_owned(), "as printed"));
        assert_eq!(list("Unlike TURN-001, this"), (String::new(), "Unlike TURN-001, this"));
    }

    #[test]
    fn range_that_is_none_is_two_ids() {
        assert_eq!(list("TURN-039 to TURN-036").0, "TURN-039 TURN-036");
        assert_eq!(list("TURN-001 to STUN-003").0, "TURN-001 STUN-003");
    }
}
