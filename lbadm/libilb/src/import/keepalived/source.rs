//! From files to lines: comments, `include`, conditions (`@id`), definitions (`$NAME=`), sequences and lists (`~SEQ`,
//! `~LST`), as keepalived.conf(5) describes them under "advanced configuration".

use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::super::report::{Kind, Place, Report};
use super::super::{Failure, Files, MAX_BYTES, files};
use super::repeat::repeat;

/// Most lines that files and definitions may give.
const MAX_LINES: usize = 500_000;
/// Longest line after replacement, in bytes.
const MAX_LINE: usize = 64 << 10;
/// Most bytes that replacement may write, all lines together.
const MAX_WRITTEN: usize = 4 * MAX_BYTES;
/// How deep files may include each other.
const MAX_DEPTH: usize = 16;
/// Most files.
const MAX_FILES: usize = 10_000;

/// A line that stands for itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    pub place: Place,
    pub text: String,
}

/// All lines of a file and of what it includes.
pub(super) struct Reader<'a> {
    files: &'a dyn Files,
    config_id: Option<&'a str>,
    definitions: HashMap<String, Vec<String>>,
    lines: Vec<Line>,
    bytes: usize,
    written: usize,
    opened: usize,
}

/// What is still to be done with a line.
enum Todo {
    Line(String),
    Define(String, Vec<String>),
}

impl<'a> Reader<'a> {
    pub fn new(files: &'a dyn Files, config_id: Option<&'a str>) -> Reader<'a> {
        Reader {
            files,
            config_id,
            definitions: HashMap::new(),
            lines: Vec::new(),
            bytes: 0,
            written: 0,
            opened: 0,
        }
    }

    /// Reads a file.
    ///
    /// # Errors
    /// [`Failure::TooMuch`] or [`Failure::Structure`].
    pub fn read(
        mut self,
        text: &str,
        file: &Arc<str>,
        report: &mut Report,
    ) -> Result<Vec<Line>, Failure> {
        let mut within = vec![self.files.identity(Path::new(&**file))];
        self.file(text, file, &mut within, report)?;
        Ok(self.lines)
    }

    fn file(
        &mut self,
        text: &str,
        file: &Arc<str>,
        within: &mut Vec<PathBuf>,
        report: &mut Report,
    ) -> Result<(), Failure> {
        self.opened += 1;
        self.bytes += text.len();
        let folder = Path::new(&**file).parent().unwrap_or(Path::new(""));
        let pwd = folder.display().to_string();
        let place = |line| Place {
            file: file.clone(),
            line,
        };
        self.check(&place(1))?;
        let mut rest = text
            .lines()
            .map(|l| l.trim_start_matches('\u{feff}'))
            .zip(1..);
        while let Some((raw, number)) = rest.next() {
            let line = uncomment(raw).trim();
            if line.is_empty() {
                continue;
            }
            let place = place(number);
            if let Some((word, pattern)) = include(line) {
                self.include(word, pattern, folder, &place, within, report)?;
                continue;
            }
            let mut todo = VecDeque::from([Todo::Line(line.to_string())]);
            // A definition of several lines goes on in the file.
            if let Some((name, value)) = definition(line).filter(|(_, v)| v.ends_with('\\')) {
                let mut value = vec![value.to_string()];
                while value.last().is_some_and(|line| line.ends_with('\\')) {
                    let Some((next, _)) = rest.next() else { break };
                    let next = uncomment(next).trim();
                    if !next.is_empty() {
                        value.push(next.to_string());
                    }
                }
                todo = VecDeque::from([Todo::Define(name.to_string(), tidy(value))]);
            }
            self.expand(todo, &place, &pwd, report)?;
        }
        Ok(())
    }

    /// Whether the limits are kept.
    fn check(&self, place: &Place) -> Result<(), Failure> {
        let too_much = |what, limit: String| {
            Err(Failure::TooMuch {
                place: place.clone(),
                what,
                limit,
            })
        };
        if self.bytes > MAX_BYTES {
            return too_much(
                "the text of all files",
                format!("{} MiB at most", MAX_BYTES >> 20),
            );
        }
        if self.opened > MAX_FILES {
            return too_much("the number of files", format!("{MAX_FILES} at most"));
        }
        if self.lines.len() > MAX_LINES {
            return too_much(
                "the number of lines",
                format!("{MAX_LINES} at most, definitions replaced"),
            );
        }
        if self.written > MAX_WRITTEN {
            return too_much(
                "the text of definitions",
                format!("{} MiB at most, replaced", MAX_WRITTEN >> 20),
            );
        }
        Ok(())
    }

    fn include(
        &mut self,
        word: &str,
        pattern: &str,
        folder: &Path,
        place: &Place,
        within: &mut Vec<PathBuf>,
        report: &mut Report,
    ) -> Result<(), Failure> {
        let what = format!("{word} {pattern}");
        if within.len() > MAX_DEPTH {
            return Err(Failure::TooMuch {
                place: place.clone(),
                what: "the depth of includes",
                limit: format!("{MAX_DEPTH} at most"),
            });
        }
        let found = files::find(self.files, folder, pattern);
        if found.is_empty() {
            let note = "no file has such a name";
            report.add(place, Kind::Unneeded, &what, note);
        }
        for path in found {
            let identity = self.files.identity(&path);
            if within.contains(&identity) {
                let note = format!("{} includes itself", path.display());
                report.add(place, Kind::Wrong, &what, note);
                continue;
            }
            match self.files.read(&path) {
                Ok(text) => {
                    within.push(identity);
                    let name: Arc<str> = path.display().to_string().into();
                    self.file(&text, &name, within, report)?;
                    within.pop();
                }
                Err(cause) => {
                    let note = format!("cannot read {}: {cause}", path.display());
                    report.add(place, Kind::Wrong, &what, note);
                }
            }
        }
        Ok(())
    }

    /// Replaces and repeats until lines stand for themselves.
    fn expand(
        &mut self,
        mut todo: VecDeque<Todo>,
        place: &Place,
        pwd: &str,
        report: &mut Report,
    ) -> Result<(), Failure> {
        // Of recursion without end only the limits know.
        let mut steps = 0usize;
        while let Some(next) = todo.pop_front() {
            steps += 1;
            if steps > MAX_LINES {
                self.written = usize::MAX;
            }
            self.check(place)?;
            let line = match next {
                Todo::Define(name, value) => {
                    self.definitions.insert(name, value);
                    continue;
                }
                Todo::Line(line) => line,
            };
            if line.len() > MAX_LINE {
                return Err(Failure::TooMuch {
                    place: place.clone(),
                    what: "the length of a line",
                    limit: format!("{} KiB at most, definitions replaced", MAX_LINE >> 10),
                });
            }
            self.written += line.len() + 1;
            let text = line.trim();
            if text.is_empty() {
                continue;
            }
            if let Some(rest) = text.strip_prefix('@') {
                if let Some(rest) = self.condition(rest, place, text, report) {
                    todo.push_front(Todo::Line(rest.to_string()));
                }
                continue;
            }
            if let Some((name, value)) = definition(text) {
                let value = value.trim_end_matches('\\').trim();
                self.definitions
                    .insert(name.to_string(), vec![value.to_string()]);
                continue;
            }
            if text.starts_with("~SEQ") || text.starts_with("~LST") {
                match repeat(text) {
                    Ok(all) => {
                        for each in all.into_iter().rev() {
                            todo.push_front(Todo::Line(each.rest));
                            for (name, value) in each.values {
                                todo.push_front(Todo::Define(name, vec![value]));
                            }
                        }
                    }
                    Err(note) => report.add(place, Kind::Wrong, text, note),
                }
                continue;
            }
            match self.replace(text, pwd) {
                Some(lines) => {
                    for line in lines.into_iter().rev() {
                        self.written += line.len() + 1;
                        todo.push_front(Todo::Line(line));
                    }
                }
                None if include(text).is_some() => {
                    let note = "keepalived does not include what stands under a condition or in a definition";
                    report.add(place, Kind::Wrong, text, note);
                }
                None => self.lines.push(Line {
                    place: place.clone(),
                    text: text.to_string(),
                }),
            }
        }
        Ok(())
    }

    /// What stands behind `@id ` or `@^id `, if it counts.
    fn condition<'t>(
        &self,
        text: &'t str,
        place: &Place,
        what: &str,
        report: &mut Report,
    ) -> Option<&'t str> {
        let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        let (id, negated) = match word.strip_prefix('^') {
            Some(id) => (id, true),
            None => (word, false),
        };
        let Some(own) = self.config_id else {
            let note = "which node this is does not stand here; say it: --config-id ID";
            report.add(place, Kind::LeftOut, what, note);
            return None;
        };
        ((own == id) != negated).then_some(rest)
    }

    /// The line with the first name in it replaced, if it has a name that is defined. A value may have several lines.
    fn replace(&self, text: &str, pwd: &str) -> Option<Vec<String>> {
        let mut from = 0;
        while let Some(at) = text[from..].find('$').map(|at| from + at) {
            let after = &text[at + 1..];
            let (name, end) = match after.strip_prefix('{') {
                Some(inner) => match inner.find(|c: char| !is_name(c)) {
                    Some(close) if inner[close..].starts_with('}') => {
                        (&inner[..close], at + close + 3)
                    }
                    _ => ("", at + 1),
                },
                None => {
                    let length = after.find(|c: char| !is_name(c)).unwrap_or(after.len());
                    let ends = after[length..]
                        .chars()
                        .next()
                        .is_none_or(char::is_whitespace);
                    (if ends { &after[..length] } else { "" }, at + 1 + length)
                }
            };
            if let Some(value) = self.value(name, pwd) {
                let (before, behind) = (&text[..at], &text[end..]);
                let mut lines = value;
                if let Some(first) = lines.first_mut() {
                    first.insert_str(0, before);
                }
                if let Some(last) = lines.last_mut() {
                    last.push_str(behind);
                }
                return Some(lines);
            }
            from = at + 1;
        }
        None
    }

    fn value(&self, name: &str, pwd: &str) -> Option<Vec<String>> {
        let one = |text: &str| Some(vec![text.to_string()]);
        match name {
            "" => None,
            "_PWD" => one(pwd),
            "_HASH" => one("#"),
            "_BANG" => one("!"),
            "_INSTANCE" => self.config_id.and_then(one),
            name => self.definitions.get(name).cloned(),
        }
    }
}

/// The lines of a value without what continues them.
fn tidy(value: Vec<String>) -> Vec<String> {
    let lines = value
        .into_iter()
        .map(|l| l.trim_end_matches('\\').trim().to_string());
    let lines: Vec<String> = lines.filter(|line| !line.is_empty()).collect();
    match lines.is_empty() {
        true => vec![String::new()],
        false => lines,
    }
}

/// Whether it may stand in the name of a definition.
pub(super) fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// The file or pattern of an `include` of any kind.
fn include(line: &str) -> Option<(&str, &str)> {
    let (word, pattern) = line.split_once(char::is_whitespace)?;
    let known = [
        "include", "includer", "includem", "includew", "includeb", "includea",
    ];
    known
        .contains(&word)
        .then(|| (word, pattern.trim().trim_matches(['"', '\''])))
}

/// `$NAME=value`.
fn definition(line: &str) -> Option<(&str, &str)> {
    let (name, value) = line.strip_prefix('$')?.split_once('=')?;
    let good = name.chars().all(is_name) && name.starts_with(|c: char| !c.is_ascii_digit());
    good.then(|| (name, value.trim()))
}

/// The line without its comment. `#` and `!` begin one unless they are quoted or escaped.
pub(super) fn uncomment(line: &str) -> &str {
    let mut quote = None;
    let mut escaped = false;
    for (at, c) in line.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' | '\'' if quote == Some(c) => quote = None,
            '"' | '\'' if quote.is_none() => quote = Some(c),
            '#' | '!' if quote.is_none() => return &line[..at],
            _ => {}
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::super::super::Memory;
    use super::*;

    fn read(text: &str, id: Option<&str>) -> (Result<Vec<String>, Failure>, Report) {
        let files = Memory(
            [
                ("/e/conf.d/b.conf", "b1 # comment\nb2\n"),
                ("/e/conf.d/a.conf", "a1\ninclude ../loop.conf\n"),
                ("/e/loop.conf", "pwd ${_PWD}\ninclude conf.d/a.conf"),
            ]
            .map(|(path, text)| (path.into(), text.to_string()))
            .into(),
        );
        let mut report = Report::default();
        let reader = Reader::new(&files, id);
        let lines = reader.read(text, &"/e/k.conf".into(), &mut report);
        (
            lines.map(|all| all.into_iter().map(|l| l.text).collect()),
            report,
        )
    }

    #[test]
    fn lines_stand_for_themselves_in_the_end() {
        for (text, expected) in [
            ("# c\n! c\n a b ! c\n\n", vec!["a b"]),
            ("script \"a # b\" # c", vec!["script \"a # b\""]),
            ("regex a\\#b # c", vec!["regex a\\#b"]),
            ("@one a\n@two b\n@^two c\n@^one d", vec!["a", "c"]),
            (
                "$A=x y\nuse $A\nuse ${A}z\nuse $Az $B",
                vec!["use x y", "use x yz", "use $Az $B"],
            ),
            (
                "$B=10.2.${S}\n$S=0\n${B}.100/32\n$S=10\n${B}.100/32",
                vec!["10.2.0.100/32", "10.2.10.100/32"],
            ),
            ("$I=@one\n$I a\n$I=@two\n$I a", vec!["a"]),
            ("$E=\na $E b", vec!["a  b"]),
            (
                "$R= \\\n  real ${N} { \\\n\n   weight 1 \\\n  }\n$N=1\n$R\n$N=2\nx $R y",
                vec!["real 1 {", "weight 1", "}", "x real 2 {", "weight 1", "} y"],
            ),
            ("~SEQ(S, 0, 3) a.${S}", vec!["a.0", "a.1", "a.2", "a.3"]),
            ("~SEQ(S, 2) a $S b", vec!["a 1 b", "a 2 b"]),
            (
                "~SEQx(S, 0x90, 0x10, 0xb0) a:${S}",
                vec!["a:90", "a:a0", "a:b0"],
            ),
            ("~SEQ(S, 3, -1, 2) a${S}", vec!["a3", "a2"]),
            (
                "~LST(I, 1, 2) ~LST(J, 5,6) ${I}.${J}",
                vec!["1.5", "1.6", "2.5", "2.6"],
            ),
            (
                "~LST({I, J}, {10,1},{20,4}) ${I}.${J}",
                vec!["10.1", "20.4"],
            ),
            ("$V=x ${S}\n~SEQ(S, 2) $V", vec!["x 1", "x 2"]),
            ("${_HASH} ${_BANG} ${_INSTANCE} ${_PWD}", vec!["# ! one /e"]),
        ] {
            let (lines, report) = read(text, Some("one"));
            assert_eq!(lines.unwrap(), expected, "{text}");
            assert_eq!(report.entries, [], "{text}");
        }
    }

    #[test]
    fn files_are_included_and_loops_are_not() {
        let (lines, report) = read(
            "x\ninclude conf.d/*.conf\ninclude none/*\ninclude gone\ny",
            None,
        );
        assert_eq!(
            lines.unwrap(),
            ["x", "a1", "pwd /e/conf.d/..", "b1", "b2", "y"]
        );
        let text = report.to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        assert!(lines[0].contains("includes itself"), "{text}");
        assert!(
            lines[1].contains("k.conf:3: not needed: include none/*"),
            "{text}"
        );
        assert!(
            lines[2].contains("k.conf:4: wrong: include gone: cannot read"),
            "{text}"
        );
    }

    #[test]
    fn what_is_open_is_asked_for() {
        let (lines, report) = read("@one a\nb", None);
        assert_eq!(lines.unwrap(), ["b"]);
        assert!(report.to_string().contains("--config-id"));
    }

    #[test]
    fn nothing_grows_without_end() {
        for text in [
            "$A=$A\n$A",
            "$A=x ${A}${A}\n${A}",
            "$A= \\\n $A \\\n $A\n$A",
            "$A=${B}${B}${B}${B}${B}${B}${B}${B}\n$B=${C}${C}${C}${C}${C}${C}${C}${C}\n$C=${D}${D}${D}${D}${D}${D}${D}${D}\n\
             $D=0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789\n\
             $D=${D}${D}\n${A}",
            "~SEQ(A,60000) ~SEQ(B,60000) ~SEQ(C,60000) x",
        ] {
            let (lines, _) = read(text, None);
            assert!(matches!(lines, Err(Failure::TooMuch { .. })), "{text}");
        }
        let (lines, report) = read(
            "~SEQ(A,1000000) x\n~SEQ(A,1,0,5) x\n~LST({A,B},{1}) x\n~X(A) x\n~SEQ x",
            None,
        );
        assert_eq!(
            (lines.unwrap().len(), report.count(Kind::Wrong)),
            (1, 4),
            "{report}"
        );
    }
}
