//! Patterns of file names as `include` takes them: `*`, `?`, `[a-z]`, `{a,b}`.

/// Most alternatives that braces may give.
const MOST: usize = 1000;

/// Whether a name has to be looked for.
pub(super) fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?', '[', '{'])
}

/// Every alternative of braces, in order; none if there are too many.
pub(super) fn alternatives(text: &str) -> Option<Vec<String>> {
    let mut done = Vec::new();
    let mut todo = vec![text.to_string()];
    while let Some(text) = todo.pop() {
        let Some((before, choices, after)) = braces(&text) else {
            done.push(text);
            continue;
        };
        for choice in choices.iter().rev() {
            todo.push(format!("{before}{choice}{after}"));
        }
        if done.len() + todo.len() > MOST {
            return None;
        }
    }
    Some(done)
}

/// The first `{a,b}` of a text, with what stands around it.
fn braces(text: &str) -> Option<(&str, Vec<&str>, &str)> {
    let open = text.find('{')?;
    let mut depth = 0usize;
    let mut from = open + 1;
    let mut choices = Vec::new();
    for (at, c) in text[open..].char_indices().map(|(at, c)| (open + at, c)) {
        match c {
            '{' => depth += 1,
            ',' if depth == 1 => {
                choices.push(&text[from..at]);
                from = at + 1;
            }
            '}' if depth == 1 => {
                choices.push(&text[from..at]);
                return Some((&text[..open], choices, &text[at + 1..]));
            }
            '}' => depth -= 1,
            _ => {}
        }
    }
    None
}

/// Whether one component of a path fits a pattern without braces. A leading dot has to be written.
pub(super) fn fits(pattern: &str, name: &str) -> bool {
    if name.starts_with('.') && !pattern.starts_with('.') {
        return false;
    }
    let pattern: Vec<char> = pattern.chars().collect();
    let name: Vec<char> = name.chars().collect();
    let (mut p, mut n) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        if pattern.get(p) == Some(&'*') {
            star = Some((p, n));
            p += 1;
            continue;
        }
        match one(&pattern, p, name[n]) {
            Some(next) => (p, n) = (next, n + 1),
            None => match star {
                Some((at, taken)) => {
                    star = Some((at, taken + 1));
                    (p, n) = (at + 1, taken + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|&c| c == '*')
}

/// The place behind the part of the pattern at `p` that stands for `c`, if it does.
fn one(pattern: &[char], p: usize, c: char) -> Option<usize> {
    match *pattern.get(p)? {
        '?' => Some(p + 1),
        '[' => {
            let end = p + 2 + pattern.get(p + 2..)?.iter().position(|&c| c == ']')?;
            let mut set = &pattern[p + 1..end];
            let negated = matches!(set.first(), Some('!' | '^'));
            if negated {
                set = &set[1..];
            }
            let mut found = false;
            let mut i = 0;
            while i < set.len() {
                if i + 2 < set.len() && set[i + 1] == '-' {
                    found |= set[i] <= c && c <= set[i + 2];
                    i += 3;
                } else {
                    found |= set[i] == c;
                    i += 1;
                }
            }
            (found != negated).then_some(end + 1)
        }
        exact => (exact == c).then_some(p + 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_fit_patterns() {
        for (pattern, name, expected) in [
            ("*.conf", "a.conf", true),
            ("*.conf", "a.conf.bak", false),
            ("*.conf", ".conf", false),
            (".*", ".conf", true),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXbY", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("[a-c]x[!0-9]", "bxy", true),
            ("[a-c]x[!0-9]", "bx7", false),
            ("[]]", "]", true),
            ("[", "[", false),
            ("*", "", true),
        ] {
            assert_eq!(fits(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn braces_give_alternatives() {
        let all = |text| alternatives(text).unwrap();
        assert_eq!(all("a"), ["a"]);
        assert_eq!(
            all("{foo/{,cat,dog},bar}"),
            ["foo/", "foo/cat", "foo/dog", "bar"]
        );
        assert_eq!(all("x{a,b}y{1,2}"), ["xay1", "xay2", "xby1", "xby2"]);
        assert_eq!(all("{a"), ["{a"]);
        assert_eq!(alternatives(&"{a,b}".repeat(20)), None);
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(pattern in "[a{},*?\\[\\]!^-]{0,12}", name in "[a.!-]{0,8}") {
            let _ = fits(&pattern, &name);
            let _ = alternatives(&pattern);
        }
    }
}
