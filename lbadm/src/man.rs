//! Man pages, made from the same descriptions as the help texts.

use std::fs;
use std::path::Path;

use crate::cli;
use crate::error::Error;

/// Writes `lbadm.8` and one page for each command into `directory`, which is created if need be.
///
/// # Errors
/// A file that cannot be written.
pub fn generate(directory: &Path) -> Result<(), Error> {
    let failed = |path: &Path, cause| Error::File {
        path: path.display().to_string(),
        cause,
    };
    fs::create_dir_all(directory).map_err(|e| failed(directory, e))?;
    let command = cli::command();
    for sub in command.get_subcommands().filter(|s| !s.is_hide_set()) {
        let name = format!("lbadm-{}", sub.get_name());
        let title: &'static str = name.clone().leak();
        let sub = sub
            .clone()
            .name(title)
            .bin_name(format!("lbadm {}", sub.get_name()));
        write(directory, &name, sub).map_err(|(p, e)| failed(Path::new(&p), e))?;
    }
    write(directory, "lbadm", command).map_err(|(p, e)| failed(Path::new(&p), e))
}

fn write(
    directory: &Path,
    name: &str,
    command: clap::Command,
) -> Result<(), (String, std::io::Error)> {
    let path = directory.join(format!("{name}.8"));
    let mut page = Vec::new();
    clap_mangen::Man::new(command)
        .section("8")
        .manual("ilb")
        .render(&mut page)
        .and_then(|()| fs::write(&path, page))
        .map_err(|e| (path.display().to_string(), e))
}
