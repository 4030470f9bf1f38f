//! Lists of words with aliases, understood in any case, and the nearest word to a misspelled one.

use crate::error::ModelError;

/// One word of a list: what it means, its usual name, and its other names.
pub type Word<T> = (T, &'static str, &'static [&'static str]);

/// Finds `value` in `list`, by name or alias, in any case.
pub fn find<T: Copy>(list: &[Word<T>], value: &str) -> Option<T> {
    list.iter()
        .find(|(_, name, aliases)| {
            name.eq_ignore_ascii_case(value)
                || aliases.iter().any(|a| a.eq_ignore_ascii_case(value))
        })
        .map(|&(meaning, _, _)| meaning)
}

/// The usual name of `meaning`.
pub fn name<T: Copy + PartialEq>(list: &[Word<T>], meaning: T) -> &'static str {
    list.iter()
        .find(|(m, _, _)| *m == meaning)
        .map_or("?", |&(_, name, _)| name)
}

/// `name (alias)` of every word, separated by commas.
pub fn all<T>(list: &[Word<T>]) -> String {
    let words: Vec<String> = list
        .iter()
        .map(|(_, name, aliases)| match aliases {
            [] => (*name).to_string(),
            _ => format!("{name} ({})", aliases.join(", ")),
        })
        .collect();
    one_of(&words)
}

/// `a`, `a or b`, `a, b or c`.
pub fn one_of<S: AsRef<str>>(words: &[S]) -> String {
    match words {
        [] => String::new(),
        [one] => one.as_ref().to_string(),
        [first @ .., last] => {
            let first: Vec<&str> = first.iter().map(AsRef::as_ref).collect();
            format!("{} or {}", first.join(", "), last.as_ref())
        }
    }
}

/// Finds `value` in `list` or says which words there are.
///
/// # Errors
/// [`ModelError::UnknownWord`] with the nearest word.
pub fn parse<T: Copy>(list: &[Word<T>], field: &'static str, value: &str) -> Result<T, ModelError> {
    find(list, value).ok_or_else(|| {
        let known = list
            .iter()
            .flat_map(|(_, name, aliases)| std::iter::once(*name).chain(aliases.iter().copied()));
        ModelError::UnknownWord {
            field,
            value: value.to_string(),
            allowed: all(list),
            suggestion: nearest(value, known),
        }
    })
}

/// The word that `value` was most probably meant to be: at most one mistake for every three letters, and at most
/// three.
pub fn nearest<'a>(value: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let letters = value.chars().count();
    let allowed = letters.div_ceil(3).min(3);
    // Most words need no closer look; and a value may be megabytes of spite.
    let mut known = known
        .into_iter()
        .filter(|word| word.chars().count().abs_diff(letters) <= allowed)
        .peekable();
    known.peek()?;
    let value = value.to_ascii_lowercase();
    known
        .map(|word| (distance(&value, &word.to_ascii_lowercase()), word))
        .filter(|&(distance, word)| distance <= allowed && distance < word.chars().count())
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, word)| word.to_string())
}

/// Number of letters to insert, delete, replace or swap with the next one to turn `a` into `b` (the restricted
/// Damerau–Levenshtein distance).
pub fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().collect();
    let b: Vec<char> = b.chars().collect();
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let replace = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = replace.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_counts_single_mistakes_once() {
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("rule", "rule"), 0);
        assert_eq!(distance("rlue", "rule"), 1);
        assert_eq!(distance("rul", "rule"), 1);
        assert_eq!(distance("kitten", "sitting"), 3);
    }

    #[test]
    fn nearest_is_near_or_nothing() {
        let known = ["roundrobin", "hash-ip", "hash-ip-port"];
        assert_eq!(nearest("Roundrobbin", known).as_deref(), Some("roundrobin"));
        assert_eq!(nearest("hash_ip", known).as_deref(), Some("hash-ip"));
        assert_eq!(nearest("zebra", known), None);
        assert_eq!(nearest("x", ["d", "n", "h"]), None);
        assert_eq!(nearest(&"hash-ip".repeat(1 << 20), known), None);
    }

    #[test]
    fn lists_read_like_a_sentence() {
        assert_eq!(one_of(&["a"]), "a");
        assert_eq!(one_of(&["a", "b"]), "a or b");
        assert_eq!(one_of(&["a", "b", "c"]), "a, b or c");
    }
}
