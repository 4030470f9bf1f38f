//! Files of commands, a line each: `#` begins a comment, a `\` at the end continues the line, words may be quoted as in a
//! shell.

/// A line with its words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Where it begins, counted from 1.
    pub number: usize,
    /// At least one.
    pub words: Vec<String>,
}

/// A quote that is opened and not closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unclosed {
    /// The line with the opening quote.
    pub line: usize,
    /// Which of both.
    pub quote: char,
}

/// Splits a file. Quotes may span lines, which become spaces of a word.
///
/// # Errors
/// [`Unclosed`].
pub fn split(text: &str) -> Result<Vec<Line>, Unclosed> {
    let mut reader = Reader {
        rest: text
            .strip_prefix('\u{feff}')
            .unwrap_or(text)
            .chars()
            .peekable(),
        number: 1,
    };
    let mut lines = Vec::new();
    while let Some(line) = reader.line()? {
        if !line.words.is_empty() {
            lines.push(line);
        }
    }
    Ok(lines)
}

struct Reader<'a> {
    rest: std::iter::Peekable<std::str::Chars<'a>>,
    number: usize,
}

impl Reader<'_> {
    fn next(&mut self) -> Option<char> {
        let c = self.rest.next();
        self.number += usize::from(c == Some('\n'));
        c
    }

    /// The next line, without words if it is empty; none at the end.
    fn line(&mut self) -> Result<Option<Line>, Unclosed> {
        if self.rest.peek().is_none() {
            return Ok(None);
        }
        let mut number = self.number;
        let mut words: Vec<String> = Vec::new();
        let mut word: Option<String> = None;
        loop {
            let begun = word.is_some();
            let Some(c) = self.next() else { break };
            match c {
                '\n' => break,
                '#' if !begun => {
                    self.comment();
                    // A comment between continued lines does not end them.
                    if words.is_empty() {
                        number = self.number;
                    }
                    break;
                }
                c if c.is_whitespace() => {
                    words.extend(word.take());
                    if words.is_empty() {
                        number = self.number;
                    }
                }
                '\\' if self.continues() => {
                    words.extend(word.take());
                    while self.comment_line() {}
                }
                '\\' => {
                    let next = self.next();
                    word.get_or_insert_default().extend(next);
                }
                '\'' | '"' => self.quoted(c, word.get_or_insert_default())?,
                c => word.get_or_insert_default().push(c),
            }
        }
        words.extend(word);
        Ok(Some(Line { number, words }))
    }

    /// Reads up to the end of the line.
    fn comment(&mut self) {
        while self.next().is_some_and(|c| c != '\n') {}
    }

    /// After a backslash: whether nothing but space stands before the end of the line, which is read then.
    fn continues(&mut self) -> bool {
        let mut ahead = self.rest.clone();
        let end = ahead.find(|&c| c == '\n' || !c.is_whitespace());
        if !matches!(end, Some('\n') | None) {
            return false;
        }
        self.comment();
        true
    }

    /// Reads a whole line if it is a comment.
    fn comment_line(&mut self) -> bool {
        let mut ahead = self.rest.clone();
        let first = ahead.find(|&c| c == '\n' || !c.is_whitespace());
        if first != Some('#') {
            return false;
        }
        self.comment();
        true
    }

    fn quoted(&mut self, quote: char, word: &mut String) -> Result<(), Unclosed> {
        let unclosed = Unclosed {
            line: self.number,
            quote,
        };
        loop {
            match self.next().ok_or(unclosed)? {
                c if c == quote => return Ok(()),
                '\n' => word.push(' '),
                '\\' if quote == '"' => match self.next().ok_or(unclosed)? {
                    '\n' => {}
                    c if "\"\\$`".contains(c) => word.push(c),
                    c => word.extend(['\\', c]),
                },
                c => word.push(c),
            }
        }
    }
}

/// A word as [`split`] and a shell read it: quoted if it has to be.
pub fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.,:=/@%+[]".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_string(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn words(text: &str) -> Vec<(usize, Vec<String>)> {
        let lines = split(text).unwrap();
        lines.into_iter().map(|l| (l.number, l.words)).collect()
    }

    #[test]
    fn files_of_commands_are_split_into_words() {
        for (text, expected) in [
            ("", vec![]),
            ("  \n\t\n", vec![]),
            ("a b\nc", vec![(1, vec!["a", "b"]), (2, vec!["c"])]),
            ("# one\n a # two\n", vec![(2, vec!["a"])]),
            ("a#b 'c # d'\n", vec![(1, vec!["a#b", "c # d"])]),
            (
                "a \\\n  b \\ \n c\nd",
                vec![(1, vec!["a", "b", "c"]), (4, vec!["d"])],
            ),
            ("a \\\n# not the end\n b\n", vec![(1, vec!["a", "b"])]),
            ("a=1,\\\nb=2\n", vec![(1, vec!["a=1,", "b=2"])]),
            ("a\\", vec![(1, vec!["a"])]),
            (
                r#"a\ b "c \"d\" \x" 'e "f'"#,
                vec![(1, vec!["a b", r#"c "d" \x"#, "e \"f"])],
            ),
            ("a ''\n", vec![(1, vec!["a", ""])]),
            (
                "\"a\nb\" c\nd\n",
                vec![(1, vec!["a b", "c"]), (3, vec!["d"])],
            ),
            ("\r\na\r\nb\r\n", vec![(2, vec!["a"]), (3, vec!["b"])]),
            ("\u{feff}a\n", vec![(1, vec!["a"])]),
        ] {
            let expected: Vec<(usize, Vec<String>)> = expected
                .into_iter()
                .map(|(n, w)| (n, w.into_iter().map(String::from).collect()))
                .collect();
            assert_eq!(words(text), expected, "{text:?}");
        }
    }

    #[test]
    fn an_open_quote_is_named() {
        let unclosed = |line, quote| Err(Unclosed { line, quote });
        assert_eq!(split("a\n'b\nc"), unclosed(2, '\''));
        assert_eq!(split("\"\\"), unclosed(1, '"'));
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(text in "[a-z#'\"\\\\ \t\n=,]{0,80}") {
            let _ = split(&text);
        }

        #[test]
        fn what_is_quoted_is_read_back(all in prop::collection::vec("[^\n\r]{0,12}", 1..5)) {
            let line: Vec<String> = all.iter().map(|word| quote(word)).collect();
            prop_assert_eq!(words(&line.join(" ")), vec![(1, all)]);
        }
    }
}
