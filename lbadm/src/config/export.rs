//! `export-config`.

use std::io::Write;
use std::path::Path;

use libilb::describe::Description;
use libilb::document::Document;
use libilb::export;

use crate::cli::ExportConfig;
use crate::error::Error;

/// What `export-config` writes.
pub fn export(args: &ExportConfig, node: &Description, json: bool) -> String {
    let configuration = node.configuration();
    if json {
        return crate::action::line(&serde_json::json!(Document::of(&configuration)));
    }
    match args.toml {
        true => Document::of(&configuration).to_toml(),
        false => export::commands(&configuration, env!("CARGO_PKG_VERSION")),
    }
}

/// Writes a file as a whole or not at all.
///
/// # Errors
/// [`Error::File`].
pub fn write(path: &Path, text: &str) -> Result<(), Error> {
    let failed = |cause| Error::File {
        path: path.display().to_string(),
        cause,
    };
    // What is no regular file, such as a pipe, cannot be replaced.
    if path.metadata().is_ok_and(|m| !m.is_file()) {
        return std::fs::write(path, text).map_err(failed);
    }
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}", std::process::id()));
    let done = std::fs::File::create_new(&beside).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&beside, path)
    });
    done.map_err(|cause| {
        // It is ours, if it is there; a second failure would say nothing new.
        let _ = std::fs::remove_file(&beside);
        failed(cause)
    })
}
