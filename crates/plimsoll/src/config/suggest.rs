//! "Did you mean": the known word nearest to what was written.

/// The word among `known` that `written` was probably meant to be.
pub(super) fn nearest<'k>(written: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let written = written.to_lowercase().replace('-', "_");
    let far = (written.chars().count() / 3).clamp(1, 3);
    let closest = known
        .into_iter()
        .map(|word| (distance(&written, &word.to_lowercase()), word))
        .min_by_key(|(far, _)| *far)?;
    (closest.0 <= far).then_some(closest.1)
}

/// Edits (insert, delete, change, swap of neighbours) from one word to the other.
fn distance(from: &str, to: &str) -> usize {
    let (from, to): (Vec<char>, Vec<char>) = (from.chars().take(64).collect(), to.chars().take(64).collect());
    let mut rows = vec![vec![0; to.len() + 1]; from.len() + 1];
    for (row, cells) in rows.iter_mut().enumerate() {
        cells[0] = row;
    }
    rows[0] = (0..=to.len()).collect();
    for row in 1..=from.len() {
        for column in 1..=to.len() {
            let changed = usize::from(from[row - 1] != to[column - 1]);
            let step = rows[row - 1][column].min(rows[row][column - 1]) + 1;
            let mut best = step.min(rows[row - 1][column - 1] + changed);
            let swapped =
                row > 1 && column > 1 && from[row - 1] == to[column - 2] && from[row - 2] == to[column - 1];
            if swapped {
                best = best.min(rows[row - 2][column - 2] + 1);
            }
            rows[row][column] = best;
        }
    }
    rows[from.len()][to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [&str; 4] = ["memory", "recovery", "stop_grace", "for"];

    #[test]
    fn slips_of_the_hand_find_their_word() {
        for (written, meant) in [
            ("memroy", "memory"),
            ("Memory", "memory"),
            ("stop-grace", "stop_grace"),
            ("recoverry", "recovery"),
        ] {
            assert_eq!(nearest(written, KNOWN), Some(meant), "{written}");
        }
    }

    #[test]
    fn an_unrelated_word_is_not_explained_away() {
        assert_eq!(nearest("colour", KNOWN), None);
        assert_eq!(nearest("x", KNOWN), None);
        assert_eq!(nearest("memory", []), None);
    }
}
