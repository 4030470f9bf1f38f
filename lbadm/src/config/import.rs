//! `import-config`.

use std::io::Read;
use std::net::{IpAddr, ToSocketAddrs};

use libilb::apply::ApplyOptions;
use libilb::client::Client;
use libilb::document;
use libilb::import::{self, Kind, MAX_BYTES, Mark, Options, Source, System};
use serde_json::json;

use super::script;
use crate::action;
use crate::cli::ImportConfig;
use crate::error::Error;
use crate::table::{Style, Tone};

/// What `import-config` was told.
#[derive(Debug)]
pub struct Import {
    args: ImportConfig,
    source: Option<Source>,
    options: Options,
}

impl Import {
    /// Reads the command line.
    ///
    /// # Errors
    /// Values that are wrong in themselves.
    pub fn understand(args: ImportConfig) -> Result<Import, Error> {
        let wrong = Error::from_command_line;
        let source = args.from.as_deref().map(Source::parse).transpose();
        let mut options = Options {
            config_id: args.config_id.clone(),
            ..Options::default()
        };
        for text in &args.proxy_src {
            options.add_proxy_src(text).map_err(wrong)?;
        }
        for text in &args.fwmark {
            options.add_mark(Mark::parse(text).map_err(wrong)?);
        }
        Ok(Import {
            source: source.map_err(wrong)?,
            options,
            args,
        })
    }

    /// Whether nothing shall be changed.
    pub fn is_dry_run(&self) -> bool {
        self.args.dry_run
    }

    /// Reads the file.
    ///
    /// # Errors
    /// One that cannot be read at all.
    pub fn read(&self) -> Result<import::Import, Error> {
        let (text, name) = self.text()?;
        self.read_text(&text, &name, &|host| {
            let found = (host, 0u16).to_socket_addrs();
            found
                .map(|all| all.map(|a| a.ip()).collect::<Vec<IpAddr>>())
                .map_err(|e| e.to_string())
        })
    }

    /// Reads text, with the addresses of host names from elsewhere.
    ///
    /// # Errors
    /// As [`Import::read`].
    pub fn read_text(
        &self,
        text: &str,
        name: &str,
        lookup: script::Lookup<'_>,
    ) -> Result<import::Import, Error> {
        let failed = |failure: import::Failure| Error::Import(failure.to_string());
        let source = match self.source {
            Some(source) => source,
            None => Source::recognise(text).map_err(failed)?,
        };
        match source {
            Source::Lbadm | Source::Ilbadm => script::import(source, text, name, lookup),
            _ => import::import(source, text, name, &System, &self.options),
        }
        .map_err(failed)
    }

    fn text(&self) -> Result<(String, String), Error> {
        let file = self.args.file.as_ref().filter(|f| f.as_os_str() != "-");
        let name = file.map_or("-".to_string(), |f| f.display().to_string());
        let failed = |cause: std::io::Error| Error::Import(format!("cannot read {name}: {cause}"));
        let mut bytes = Vec::new();
        let most = MAX_BYTES as u64 + 1;
        match file {
            Some(file) => {
                let file = std::fs::File::open(file).map_err(failed)?;
                file.take(most).read_to_end(&mut bytes).map_err(failed)?;
            }
            None => {
                std::io::stdin()
                    .take(most)
                    .read_to_end(&mut bytes)
                    .map_err(failed)?;
            }
        }
        // Comments may be in any encoding.
        let text = String::from_utf8(bytes)
            .unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned());
        Ok((text, name))
    }

    /// What is said about what was read.
    pub fn render(&self, read: &import::Import, json: bool, style: Style) -> String {
        let document = read.document();
        if json {
            return action::line(&json!({
                "format": read.source.name(),
                "complete": read.report.is_complete(),
                "report": read.report.entries,
                "document": document,
            }));
        }
        let mut out = String::new();
        for entry in &read.report.entries {
            let tone = match entry.kind {
                Kind::Wrong | Kind::LeftOut => Tone::Bad,
                Kind::Changed | Kind::Kept => Tone::Notice,
                Kind::Taken | Kind::Unneeded if !self.args.verbose => continue,
                Kind::Taken | Kind::Unneeded => Tone::Plain,
            };
            out.push_str(&style.paint(tone, &entry.to_string()));
            out.push('\n');
        }
        out.push_str(&format!("{}: {}\n", read.source, read.report.summary()));
        if self.args.dry_run {
            out.push('\n');
            out.push_str(&document.to_toml());
        }
        out
    }

    /// Whether it may be applied.
    ///
    /// # Errors
    /// Something would be missing, and the user has not said that it may.
    pub fn check(&self, read: &import::Import) -> Result<(), Error> {
        let lost = read
            .report
            .entries
            .iter()
            .filter(|e| e.kind.is_loss())
            .count();
        if lost == 0 || self.args.partial || self.args.dry_run {
            return Ok(());
        }
        let what = match lost {
            1 => "1 thing is wrong or cannot be expressed".to_string(),
            n => format!("{n} things are wrong or cannot be expressed"),
        };
        Err(Error::Import(format!(
            "{what}: nothing is changed; --partial applies the rest, --dry-run shows it"
        )))
    }

    /// Applies what was read, as one change.
    ///
    /// # Errors
    /// Everything that does not fit together with what is configured.
    pub async fn apply(
        &self,
        client: &Client,
        read: &import::Import,
    ) -> Result<document::Report, Error> {
        let options = ApplyOptions {
            merge: self.args.preserve,
            ..ApplyOptions::default()
        };
        Ok(client.apply(&read.document().to_toml(), &options).await?)
    }
}
