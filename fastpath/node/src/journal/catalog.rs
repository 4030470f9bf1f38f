//! The words of `journalctl -x`, as a message catalogue
//! (<https://www.freedesktop.org/wiki/Software/systemd/catalog/>), and the same as a table.

use super::events::ALL;

/// Longest line, in bytes.
const WIDTH: usize = 78;

/// The file `ilb.catalog`.
pub fn catalog() -> String {
    let mut text = "# What journalctl -x says of events of ilb. Written from fastpath/node/src/journal/events.rs by \
                    `make journal-docs`.\n"
        .to_owned();
    for event in ALL {
        text.push_str(&format!(
            "\n-- {}\nSubject: {}\nDefined-By: ilb\nDocumentation: man:lbadm(8)\nDocumentation: file:/usr/share/doc/ilb/operations.md\n\n{}\n",
            event.id,
            event.subject,
            folded(event.text)
        ));
    }
    text
}

/// The table in docs/operations.md.
pub fn table() -> String {
    let mut text = "| event | `MESSAGE_ID` | fields | says |\n|---|---|---|---|\n".to_owned();
    for event in ALL {
        let fields: Vec<String> = event.fields.iter().map(|f| format!("`{f}`")).collect();
        text.push_str(&format!(
            "| {} | `{}` | {} | {} |\n",
            event.name,
            event.id,
            fields.join(", "),
            event.subject.replace("@ILB_", "`ILB_").replace('@', "`")
        ));
    }
    text
}

/// In lines that fit a terminal.
fn folded(text: &str) -> String {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.len() + 1 + word.len() <= WIDTH => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines.join("\n")
}
