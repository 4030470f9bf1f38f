//! What an administrator says about a health check, to create it or to change it.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::check::of;
use super::values::{CheckPort, RecordType, Reply, StatusSet, Url};
use super::{
    Bytes, CONTRACTS, Contract, FIELDS, Field, HealthCheck, Http, Kind, Load, LoadSource,
    SNMP_PORT, Test, Time, Timing,
};
use crate::error::ModelError;
use crate::words;

/// What is said about a health check; what is not has its default, or stays as it is. These are its keys in TOML and JSON.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
#[allow(
    missing_docs,
    reason = "each is explained where it is checked into: HealthCheck and its parts"
)]
pub struct HealthCheckSettings {
    /// Only where no key names the check already.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Kind of the test, or the absolute path of a script.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub test: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rise: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retries: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_delay: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warm_up: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jitter: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ping: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alpha: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<CheckPort>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sni: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verify: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payload: Option<Bytes>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reply: Option<Reply>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub record_type: Option<RecordType>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answer: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub helo: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arguments: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub contract: Option<Contract>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load_interval: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load_least: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load_port: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub community: Option<String>,
    // Tables come last, as TOML wants it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub urls: Option<Vec<Url>>,
    /// What was said to have its default again.
    #[serde(skip)]
    pub cleared: BTreeSet<Field>,
}

/// Does the same with every field of settings but name, test and what was cleared.
macro_rules! each_field {
    ($do:ident) => {
        $do!(
            timeout Timeout, count Count, interval Interval, rise Rise, retries Retries, retry_delay RetryDelay,
            warm_up WarmUp, jitter Jitter, ping Ping, alpha Alpha, port Port, address Address, source Source,
            host Host, sni Sni, verify Verify, ca_file CaFile, payload Payload, reply Reply, query Query,
            record_type RecordType, answer Answer, helo Helo, path Path, arguments Argument, contract Contract,
            weight Weight, load Load, load_interval LoadInterval, load_least LoadLeast, load_port LoadPort,
            community Community, urls Url
        )
    };
}

pub(super) use each_field;

impl HealthCheckSettings {
    /// Whether nothing is said.
    pub fn is_empty(&self) -> bool {
        *self == HealthCheckSettings::default()
    }

    /// Reads and checks everything.
    ///
    /// # Errors
    /// The first of [`HealthCheckSettings::check_all`].
    pub fn check(&self, name: &str) -> Result<HealthCheck, ModelError> {
        self.check_all(name)
            .map_err(|mut errors| errors.swap_remove(0))
    }

    /// A health check with everything changed that is said here. With another kind of test, what was said for the old kind
    /// is forgotten.
    ///
    /// # Errors
    /// As [`HealthCheckSettings::check`].
    pub fn amend(&self, check: &HealthCheck) -> Result<HealthCheck, ModelError> {
        let mut all = HealthCheckSettings::from(check);
        if self.test.is_some() {
            let kind = self.kind()?;
            if kind != check.test.kind() {
                all.forget(kind);
                all.path = None;
            }
            all.test.clone_from(&self.test);
            if self.path.is_none() && all.script_path().is_some() {
                all.path = None;
            }
        }
        macro_rules! change {
            ($($name:ident $field:ident),*) => {$(
                if self.cleared.contains(&Field::$field) {
                    all.$name = None;
                }
                if self.$name.is_some() {
                    all.$name.clone_from(&self.$name);
                }
            )*};
        }
        each_field!(change);
        all.check(&check.name)
    }

    /// Forgets what tests of this kind do not have.
    fn forget(&mut self, kind: Kind) {
        macro_rules! forget {
            ($($name:ident $field:ident),*) => {$(
                if !of(Field::$field, kind) {
                    self.$name = None;
                }
            )*};
        }
        each_field!(forget);
    }

    /// Leaves out what is as it would be without being said: how a person would have written it.
    #[must_use]
    pub fn brief(mut self) -> HealthCheckSettings {
        let default = Timing::default();
        let not = |time: &Time, usual: Time| *time != usual;
        self.timeout = self.timeout.filter(|t| not(t, default.timeout));
        self.interval = self.interval.filter(|t| not(t, default.interval));
        self.retry_delay = self.retry_delay.filter(|t| not(t, default.retry_delay));
        self.count = self.count.filter(|n| *n != default.count);
        self.rise = self.rise.filter(|n| *n != default.rise);
        self.jitter = self.jitter.filter(|n| *n != u32::from(default.jitter));
        let pings = self.kind().is_ok_and(|kind| kind == Kind::Ping);
        self.ping = self.ping.filter(|ping| !ping && !pings);
        self.alpha = self.alpha.filter(|alpha| *alpha);
        self.verify = self.verify.filter(|verify| *verify);
        self.weight = self.weight.filter(|weight| *weight);
        self.query = self.query.filter(|query| query != ".");
        self.record_type = self.record_type.filter(|t| *t != RecordType::default());
        self.reply = self.reply.filter(|reply| *reply != Reply::None);
        self.payload = self.payload.filter(|payload| !payload.0.is_empty());
        self.contract = self.contract.filter(|c| *c != Contract::default());
        let usual = |time: &Time| *time != Load::DEFAULT_INTERVAL;
        self.load_interval = self.load_interval.filter(usual);
        let usual = |least: &u32| *least != u32::from(Load::DEFAULT_LEAST);
        self.load_least = self.load_least.filter(usual);
        self.load_port = self.load_port.filter(|port| *port != u32::from(SNMP_PORT));
        self.community = self.community.filter(|community| community != "public");
        self.urls = self
            .urls
            .filter(|urls| Url::parse("/").map_or(true, |root| *urls != [root]));
        self
    }

    /// What stands behind `-h` for all this; [`HealthCheckSettings::parse`] reads it again.
    pub fn words(&self) -> String {
        self.pairs()
            .into_iter()
            .map(|(field, value)| {
                let value = value.replace('\\', "\\\\").replace(',', "\\,");
                format!("hc-{}={value}", words::name(FIELDS, field))
            })
            .collect::<Vec<_>>()
            .join(",")
    }

    /// Everything that is said, in an order in which [`HealthCheckSettings::set`] takes it.
    pub fn pairs(&self) -> Vec<(Field, String)> {
        let mut pairs = Vec::new();
        let yes = |yes: &bool| if *yes { "yes" } else { "no" }.to_string();
        let mut add = |field, value: Option<String>| {
            pairs.extend(value.map(|value| (field, value)));
        };
        macro_rules! text {
            ($($name:ident $field:ident),*) => {
                $(add(Field::$field, self.$name.as_ref().map(ToString::to_string));)*
            };
        }
        text!(
            test Test, path Path, timeout Timeout, count Count, interval Interval, rise Rise, retries Retries,
            retry_delay RetryDelay, warm_up WarmUp, jitter Jitter
        );
        add(Field::Ping, self.ping.as_ref().map(yes));
        add(Field::Alpha, self.alpha.as_ref().map(yes));
        text!(
            port Port, address Address, source Source, host Host, sni Sni, ca_file CaFile, payload Payload, reply Reply,
            query Query, record_type RecordType, answer Answer, helo Helo
        );
        add(Field::Verify, self.verify.as_ref().map(yes));
        let contract = self.contract.map(|c| words::name(CONTRACTS, c).to_string());
        add(Field::Contract, contract);
        add(Field::Weight, self.weight.as_ref().map(yes));
        macro_rules! load {
            ($($name:ident $field:ident),*) => {
                $(add(Field::$field, self.$name.as_ref().map(ToString::to_string));)*
            };
        }
        load!(
            load Load, load_interval LoadInterval, load_least LoadLeast, load_port LoadPort, community Community
        );
        for argument in self.arguments.iter().flatten() {
            add(Field::Argument, Some(argument.clone()));
        }
        for url in self.urls.iter().flatten() {
            add(Field::Url, Some(url.path.clone()));
            let status = (url.status != StatusSet::default()).then(|| url.status.to_string());
            add(Field::Status, status);
            add(Field::Digest, url.digest.map(|d| d.to_string()));
            add(Field::Regex, url.regex.as_ref().map(ToString::to_string));
            add(
                Field::RegexNoMatch,
                url.regex_no_match.then(|| "yes".to_string()),
            );
            add(Field::Host, url.host.clone());
        }
        pairs
    }
}

impl From<&HealthCheck> for HealthCheckSettings {
    /// Everything about a health check, with its name; defaults too, so that what is stored stays as it is when they change.
    fn from(check: &HealthCheck) -> HealthCheckSettings {
        let timing = &check.timing;
        let mut settings = HealthCheckSettings {
            name: Some(check.name.clone()),
            test: Some(check.test.kind().name().to_string()),
            timeout: Some(timing.timeout),
            count: Some(timing.count),
            interval: Some(timing.interval),
            rise: Some(timing.rise),
            retries: timing.retries,
            retry_delay: Some(timing.retry_delay),
            warm_up: timing.warm_up,
            jitter: Some(timing.jitter.into()),
            ping: Some(check.ping),
            alpha: Some(check.alpha),
            port: check.port,
            address: check.address,
            source: check.source,
            ..HealthCheckSettings::default()
        };
        let mut http = |http: &Http| {
            settings.urls = Some(http.urls.clone());
            settings.host.clone_from(&http.host);
        };
        match &check.test {
            Test::Ping | Test::Tcp => {}
            Test::Udp(udp) => {
                settings.payload = Some(udp.payload.clone());
                settings.reply = Some(udp.reply.clone());
            }
            Test::Http(pages) => http(pages),
            Test::Https(pages, tls) => {
                http(pages);
                settings.sni.clone_from(&tls.sni);
                settings.verify = Some(tls.verify);
                settings.ca_file.clone_from(&tls.ca_file);
            }
            Test::Dns(dns) => {
                settings.query = Some(dns.query.clone());
                settings.record_type = Some(dns.record_type);
                settings.answer.clone_from(&dns.answer);
            }
            Test::Smtp(smtp) => settings.helo.clone_from(&smtp.helo),
            Test::Script(script) => {
                settings.test = Some(script.path.clone());
                settings.contract = Some(script.contract);
                let arguments = script.arguments.clone();
                settings.arguments = (!arguments.is_empty()).then_some(arguments);
                settings.weight = Some(script.weight);
            }
            Test::File(file) => {
                settings.path = Some(file.path.clone());
                settings.weight = Some(file.weight);
            }
        }
        if let Some(load) = &check.load {
            settings.load = Some(load.source.to_string());
            settings.load_interval = Some(load.interval);
            settings.load_least = Some(load.least.into());
            (settings.load_port, settings.community) = match &load.source {
                LoadSource::Response => (None, None),
                LoadSource::Agent { port } => (Some((*port).into()), None),
                LoadSource::Snmp {
                    community, port, ..
                } => (Some((*port).into()), Some(community.clone())),
            };
        }
        settings
    }
}

impl From<HealthCheck> for HealthCheckSettings {
    fn from(check: HealthCheck) -> HealthCheckSettings {
        HealthCheckSettings::from(&check)
    }
}

impl TryFrom<HealthCheckSettings> for HealthCheck {
    type Error = String;

    /// What is wrong, all of it.
    fn try_from(settings: HealthCheckSettings) -> Result<HealthCheck, String> {
        let Some(name) = settings.name.clone() else {
            return Err("a health check has no name".to_string());
        };
        settings.check_all(&name).map_err(|errors| {
            let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
            format!("health check '{name}': {}", errors.join("; "))
        })
    }
}
