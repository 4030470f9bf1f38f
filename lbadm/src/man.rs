//! Man pages, made from the same descriptions as the help texts.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use clap_mangen::Man;

use crate::cli;
use crate::error::Error;

/// Writes `lbadm.8` and one page for each command into `directory`, which is created if need be.
///
/// # Errors
/// A file that cannot be written.
pub fn generate(directory: &Path) -> Result<(), Error> {
    let failed = |path: &Path| {
        let path = path.display().to_string();
        move |cause| Error::File { path, cause }
    };
    fs::create_dir_all(directory).map_err(failed(directory))?;
    let all = cli::command();
    let pages = all
        .get_subcommands()
        .filter(|sub| !sub.is_hide_set())
        .map(|sub| {
            // clap keeps names for ever; there is one for each page.
            let page: &'static str = format!("lbadm-{}", sub.get_name()).leak();
            let typed = format!("lbadm {}", sub.get_name());
            sub.clone().name(page).bin_name(typed)
        })
        .chain([all.clone()]);
    for command in pages {
        let path = directory.join(format!("{}.8", command.get_name()));
        let mut text = Vec::new();
        page(command, &mut text)
            .and_then(|()| fs::write(&path, text))
            .map_err(failed(&path))?;
    }
    Ok(())
}

fn page(mut command: clap::Command, out: &mut Vec<u8>) -> io::Result<()> {
    let usage = command.render_usage().to_string();
    let more = command.get_after_help().map(ToString::to_string);
    let parent = command.get_name() == "lbadm";
    let man = Man::new(command)
        .section("8")
        .source(concat!("ilb ", env!("CARGO_PKG_VERSION")))
        .manual("System administration");
    man.render_title(out)?;
    man.render_name_section(out)?;
    laid_out(out, "SYNOPSIS", usage.trim_start_matches("Usage: "))?;
    man.render_description_section(out)?;
    man.render_options_section(out)?;
    if parent {
        man.render_subcommands_section(out)?;
    }
    if let Some(more) = more {
        laid_out(out, "NOTES", &more)?;
    }
    if !parent {
        writeln!(out, ".SH SEE ALSO\n.BR lbadm (8)")?;
    }
    Ok(())
}

/// A section whose text has its line breaks already.
fn laid_out(out: &mut Vec<u8>, heading: &str, text: &str) -> io::Result<()> {
    writeln!(out, ".SH {heading}\n.nf")?;
    for line in text.lines() {
        writeln!(out, "{}", escaped(line.trim_end()))?;
    }
    writeln!(out, ".fi")
}

/// A line of text that roff takes as it is, see groff(7): no request, no escape, hyphens as they are typed.
fn escaped(line: &str) -> String {
    let text = line.replace('\\', "\\e").replace('-', "\\-");
    match text.starts_with(['.', '\'']) {
        true => format!("\\&{text}"),
        false => text,
    }
}
