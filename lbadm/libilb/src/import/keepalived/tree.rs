//! From lines to directives and blocks.

use super::super::Failure;
use super::super::report::Place;
use super::source::Line;

/// How deep blocks may lie in each other. keepalived needs five.
const MAX_DEPTH: usize = 32;

/// A directive: words, and a block if one follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Statement {
    pub place: Place,
    /// Without quotes and escapes. Empty only for a block that nothing stands before.
    pub words: Vec<String>,
    pub block: Option<Vec<Statement>>,
}

impl Statement {
    /// The first word.
    pub fn key(&self) -> &str {
        self.words.first().map_or("", String::as_str)
    }

    /// The words behind the first.
    pub fn values(&self) -> &[String] {
        self.words.get(1..).unwrap_or_default()
    }

    /// The word behind the first.
    pub fn value(&self) -> Option<&str> {
        self.values().first().map(String::as_str)
    }

    /// All words, as they may be written.
    pub fn what(&self) -> String {
        let mut text = self.words.join(" ");
        if self.block.is_some() {
            text.push_str(" {…}");
        }
        text
    }

    /// What stands in the block.
    pub fn inner(&self) -> &[Statement] {
        self.block.as_deref().unwrap_or_default()
    }
}

/// What a line consists of.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Word(String),
    Open,
    Close,
}

/// Reads all lines.
///
/// # Errors
/// [`Failure::Structure`] for braces that have no counterpart; [`Failure::TooMuch`].
pub(super) fn parse(lines: &[Line]) -> Result<Vec<Statement>, Failure> {
    let mut top: Vec<Statement> = Vec::new();
    // Open blocks, outermost first, with their statements.
    let mut open: Vec<Statement> = Vec::new();
    for line in lines {
        let structure = |problem: &str| Failure::Structure {
            place: line.place.clone(),
            problem: problem.to_string(),
        };
        let mut words: Vec<String> = Vec::new();
        for token in tokens(&line.text) {
            match token {
                Token::Word(word) => words.push(word),
                Token::Open => {
                    if open.len() >= MAX_DEPTH {
                        return Err(Failure::TooMuch {
                            place: line.place.clone(),
                            what: "the depth of blocks",
                            limit: format!("{MAX_DEPTH} at most"),
                        });
                    }
                    let siblings = siblings(&mut top, &mut open);
                    // The brace may stand on a line of its own.
                    let before = siblings.pop_if(|last| words.is_empty() && last.block.is_none());
                    let mut block = before.unwrap_or_else(|| Statement {
                        place: line.place.clone(),
                        words: std::mem::take(&mut words),
                        block: None,
                    });
                    block.block = Some(Vec::new());
                    open.push(block);
                }
                Token::Close => {
                    end(&mut words, line, siblings(&mut top, &mut open));
                    let block = open
                        .pop()
                        .ok_or_else(|| structure("there is no block that } could end"))?;
                    siblings(&mut top, &mut open).push(block);
                }
            }
        }
        end(&mut words, line, siblings(&mut top, &mut open));
    }
    match open.pop() {
        None => Ok(top),
        Some(block) => Err(Failure::Structure {
            problem: format!(
                "the block '{}' that begins here has no }}",
                block.words.join(" ")
            ),
            place: block.place,
        }),
    }
}

/// Where the next statement goes.
fn siblings<'a>(top: &'a mut Vec<Statement>, open: &'a mut [Statement]) -> &'a mut Vec<Statement> {
    match open.last_mut() {
        Some(block) => block.block.get_or_insert_default(),
        None => top,
    }
}

/// Ends a statement, if one has begun.
fn end(words: &mut Vec<String>, line: &Line, siblings: &mut Vec<Statement>) {
    if !words.is_empty() {
        siblings.push(Statement {
            place: line.place.clone(),
            words: std::mem::take(words),
            block: None,
        });
    }
}

/// Splits a line. Braces that begin or end a word are on their own, but for those of `${NAME}` and of lists in a word.
fn tokens(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = text.chars().peekable();
    while let Some(&c) = rest.peek() {
        if c.is_whitespace() {
            rest.next();
            continue;
        }
        let mut word = String::new();
        // Braces in the word, and whether it was quoted or escaped somewhere.
        let (mut depth, mut literal) = (0usize, false);
        while let Some(&c) = rest.peek() {
            match c {
                c if c.is_whitespace() => break,
                '{' if word.is_empty() && !literal => {
                    rest.next();
                    tokens.push(Token::Open);
                    break;
                }
                '}' if depth == 0 => {
                    if word.is_empty() && !literal {
                        rest.next();
                        tokens.push(Token::Close);
                    }
                    break;
                }
                '{' if !word.ends_with('$') && opens(&rest) => break,
                '"' | '\'' => {
                    literal = true;
                    quoted(&mut rest, &mut word);
                }
                '\\' => {
                    literal = true;
                    rest.next();
                    escaped(&mut rest, &mut word);
                }
                c => {
                    depth += usize::from(c == '{');
                    depth -= usize::from(c == '}');
                    word.push(c);
                    rest.next();
                }
            }
        }
        if !word.is_empty() || literal {
            tokens.push(Token::Word(word));
        }
    }
    tokens
}

type Chars<'a> = std::iter::Peekable<std::str::Chars<'a>>;

/// Whether a brace within a word ends it: nothing but space follows.
fn opens(rest: &Chars<'_>) -> bool {
    let mut ahead = rest.clone();
    ahead.next();
    ahead.next().is_none_or(char::is_whitespace)
}

/// Reads a quoted part. Without closing quote it goes to the end of the line, as with keepalived.
fn quoted(rest: &mut Chars<'_>, word: &mut String) {
    let quote = rest.next();
    while let Some(c) = rest.next() {
        match c {
            c if Some(c) == quote => return,
            '\\' => escaped(rest, word),
            c => word.push(c),
        }
    }
}

/// What a backslash stands for, which is read already.
fn escaped(rest: &mut Chars<'_>, word: &mut String) {
    let digits = |rest: &mut Chars<'_>, radix: u32, most: usize| {
        let mut value = 0u32;
        for _ in 0..most {
            let Some(digit) = rest.peek().and_then(|c| c.to_digit(radix)) else {
                break;
            };
            rest.next();
            value = value.wrapping_mul(radix).wrapping_add(digit);
        }
        char::from(value as u8)
    };
    if rest.peek().is_some_and(|c| ('0'..='7').contains(c)) {
        word.push(digits(rest, 8, 3));
        return;
    }
    let Some(c) = rest.next() else { return };
    word.push(match c {
        'a' => '\x07',
        'b' => '\x08',
        'E' => '\x1b',
        'f' => '\x0c',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'v' => '\x0b',
        'x' if rest.peek().is_some_and(char::is_ascii_hexdigit) => digits(rest, 16, usize::MAX),
        'c' => match rest.next() {
            Some(c) => char::from(c as u8 & 0x1f),
            None => return,
        },
        c => c,
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<Statement>, Failure> {
        let lines: Vec<Line> = text
            .lines()
            .zip(1..)
            .map(|(text, line)| Line {
                place: Place {
                    file: "k".into(),
                    line,
                },
                text: text.to_string(),
            })
            .collect();
        parse(&lines)
    }

    /// A tree on one line: words joined by `_`, blocks in brackets.
    fn shown(all: &[Statement]) -> String {
        let one = |s: &Statement| match &s.block {
            Some(block) => format!("{}[{}]", s.words.join("_"), shown(block)),
            None => s.words.join("_"),
        };
        all.iter().map(one).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn directives_and_blocks_make_a_tree() {
        for (text, expected) in [
            ("a b\nc", "a_b c"),
            ("a b {\n c d\n}\ne", "a_b[c_d] e"),
            ("a\n{\n b\n}\n", "a[b]"),
            ("a{\nb\n}", "a[b]"),
            ("a { b { c } } d", "a[b[c]] d"),
            ("a { b 1.2.3.4}\nc", "a[b_1.2.3.4] c"),
            ("a {}", "a[]"),
            ("a ${X} ${Y}z {\n}", "a_${X}_${Y}z[]"),
            ("a \"x y\" 'z {' p\" q \"r", "a_x y_z {_p q r"),
            (
                r#"a "b\"c" d\ e \x41\102\t \cA \q"#,
                "a_b\"c_d e_AB\t_\u{1}_q",
            ),
            ("a \"\" b", "a__b"),
            ("a 'open {\nb", "a_open { b"),
            ("a x{2,3}y", "a_x{2,3}y"),
        ] {
            assert_eq!(shown(&read(text).unwrap()), expected, "{text}");
        }
    }

    #[test]
    fn braces_have_counterparts() {
        let place = |line| Place {
            file: "k".into(),
            line,
        };
        for (text, line, words) in [
            (
                "a {\nb {\n}\n",
                1,
                "the block 'a' that begins here has no }",
            ),
            ("a\n}\n", 2, "there is no block that } could end"),
        ] {
            let expected = Failure::Structure {
                place: place(line),
                problem: words.to_string(),
            };
            assert_eq!(read(text), Err(expected), "{text}");
        }
        let deep = "a {\n".repeat(100);
        assert!(matches!(read(&deep), Err(Failure::TooMuch { .. })));
    }

    #[test]
    fn statements_know_where_they_stand() {
        let all = read("a\n{\n b\n}").unwrap();
        assert_eq!((all[0].place.line, all[0].inner()[0].place.line), (1, 3));
        assert_eq!(all[0].what(), "a {…}");
        assert_eq!((all[0].value(), all[0].inner()[0].key()), (None, "b"));
    }
}
