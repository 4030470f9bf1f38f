//! Commands about files: those in the folder `documents`, against the configuration that `present.toml` makes.

use std::net::IpAddr;
use std::path::Path;

use libilb::document::{self, Mistakes, Report};
use libilb::model::Configuration;

use crate::document::{Outcome, Request, answered, applied, checked, differs, mistakes};

fn text(file: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/golden/documents");
    std::fs::read_to_string(folder.join(file)).unwrap()
}

/// Knows one name.
fn lookup(host: &str) -> Result<Vec<IpAddr>, String> {
    match host {
        "web1.example.org" => Ok(vec!["10.0.0.1".parse().unwrap()]),
        _ => Err("Name or service not known".to_string()),
    }
}

fn planned(file: &str, merge: bool) -> Result<Report, Mistakes> {
    let present = text("present.toml");
    let present = document::plan(&present, &Configuration::default(), false).unwrap();
    document::plan(&text(file), &present.configuration, merge).map(|plan| plan.report)
}

/// Both outputs and the exit code.
pub fn outcome(request: &Request, json: bool) -> String {
    let Outcome { out, err, exit } = match request {
        Request::Check { file, merge } => checked(file, &text(file), *merge, lookup, json),
        Request::Diff { file, merge } => match planned(file, *merge) {
            Ok(report) => differs(&report, json),
            Err(found) => mistakes(file, &found, json),
        },
        Request::Apply { file, options } => match planned(file, options.merge) {
            Ok(report) => applied(&report, options, json),
            Err(found) => mistakes(file, &found, json),
        },
        Request::Confirm => answered(true, "confirmed", json),
        Request::Revert => answered(false, "reverted", json),
    };
    match exit as u8 {
        0 => format!("{out}{err}"),
        code => format!("{out}{err}[exit {code}]\n"),
    }
}
