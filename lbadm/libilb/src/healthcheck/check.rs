//! What settings of a health check have to be, and what they make of it.

use std::net::IpAddr;

use super::load::Said;
use super::settings::each_field;
use super::values::{Url, check_host};
use super::{
    Contract, Dns, FIELDS, Field, File, HealthCheck, HealthCheckSettings, Http, Kind, Load,
    MAX_ARGUMENTS, MAX_COUNT, MAX_URLS, Script, Smtp, Test, Time, Timing, Tls, Udp,
};
use crate::address::{self, Purpose};
use crate::error::{Item, ModelError};
use crate::healthcheck_use::is_none;
use crate::rule::check_name;
use crate::words;

impl HealthCheckSettings {
    /// Reads and checks everything.
    ///
    /// # Errors
    /// At least one; everything that is wrong: [`ModelError::Missing`], [`ModelError::Invalid`] or
    /// [`ModelError::UnknownWord`].
    pub fn check_all(&self, name: &str) -> Result<HealthCheck, Vec<ModelError>> {
        let mut errors: Vec<ModelError> = Vec::new();
        keep(&mut errors, check_name(Item::HealthCheck, name));
        if is_none(name) {
            let (field, problem) = ("health check name", "means no health check");
            errors.push(ModelError::invalid(
                field,
                name,
                problem,
                "choose another name",
            ));
        }
        if let Some(other) = self.name.as_ref().filter(|other| *other != name) {
            let problem = format!("is given for health check '{name}'");
            let allowed = "leave the name out where it is given already";
            errors.push(ModelError::invalid("name", other, problem, allowed));
        }
        let timing = self.timing(&mut errors);
        for (field, address) in [("address", self.address), ("source", self.source)] {
            keep(
                &mut errors,
                address.map_or(Ok(()), |a| check_address(field, a)),
            );
        }
        if let (Some(address), Some(source)) = (self.address, self.source)
            && address.is_ipv4() != source.is_ipv4()
        {
            let problem = format!("is of another address family than address {address}");
            let allowed = "use two addresses of one family";
            errors.push(ModelError::invalid(
                "source",
                source.to_string(),
                problem,
                allowed,
            ));
        }
        let load = self.load(&mut errors);
        let test = keep(&mut errors, self.kind()).and_then(|kind| self.test(kind, &mut errors));
        match (test, errors.is_empty()) {
            (Some(test), true) => Ok(HealthCheck {
                name: name.to_string(),
                // It would ping twice.
                ping: self.ping.unwrap_or(true) && test != Test::Ping,
                test,
                alpha: self.alpha.unwrap_or(false),
                timing,
                port: self.port,
                address: self.address,
                source: self.source,
                load,
            }),
            _ => Err(errors),
        }
    }

    fn load(&self, errors: &mut Vec<ModelError>) -> Option<Load> {
        let Some(load) = &self.load else {
            let alone = [
                ("load-interval", self.load_interval.is_some()),
                ("load-least", self.load_least.is_some()),
                ("load-port", self.load_port.is_some()),
                ("community", self.community.is_some()),
            ];
            for (field, _) in alone.iter().filter(|(_, given)| *given) {
                let problem = "is given, but load is not";
                let allowed = "say what is looked at, such as load=cpu, or leave it out";
                errors.push(ModelError::invalid("setting", *field, problem, allowed));
            }
            return None;
        };
        if self.weight == Some(true) {
            let problem = "is given together with load";
            let allowed = "let one of both give weights";
            errors.push(ModelError::invalid("weight", "yes", problem, allowed));
        }
        Said {
            load,
            interval: self.load_interval,
            least: self.load_least,
            port: self.load_port,
            community: self.community.as_deref(),
        }
        .check(errors)
    }

    /// The path, if that is what was given as test.
    pub(super) fn script_path(&self) -> Option<&str> {
        self.test.as_deref().filter(|test| test.contains('/'))
    }

    pub(super) fn kind(&self) -> Result<Kind, ModelError> {
        let known: Vec<&str> = super::KINDS.iter().map(|(_, word, _)| *word).collect();
        let allowed = || {
            format!(
                "{}, or the absolute path of a script",
                words::one_of(&known)
            )
        };
        match (&self.test, self.script_path()) {
            (_, Some(_)) => Ok(Kind::Script),
            (Some(word), None) => {
                words::find(super::KINDS, word).ok_or_else(|| ModelError::UnknownWord {
                    field: "test",
                    value: word.clone(),
                    suggestion: words::nearest(word, known.iter().copied()),
                    allowed: allowed(),
                })
            }
            (None, None) => Err(ModelError::Missing {
                field: "test",
                allowed: format!("say what is asked: {}", allowed()),
            }),
        }
    }

    fn timing(&self, errors: &mut Vec<ModelError>) -> Timing {
        let default = Timing::default();
        let (timeout, interval) = (
            self.timeout.unwrap_or(default.timeout),
            self.interval.unwrap_or(default.interval),
        );
        let retry_delay = self.retry_delay.unwrap_or(default.retry_delay);
        let day = Time::from_secs(86_400);
        for (field, time, least, most) in [
            ("timeout", timeout, 1, Time::from_secs(3600)),
            ("interval", interval, 10, day),
            ("retry-delay", retry_delay, 0, Time::from_secs(3600)),
            ("warm-up", self.warm_up.unwrap_or_default(), 0, day),
        ] {
            let least = Time::from_millis(least);
            if !(least..=most).contains(&time) {
                let allowed = format!("use {least} to {most} seconds");
                let value = time.to_string();
                errors.push(ModelError::invalid(
                    field,
                    value,
                    "is out of range",
                    allowed,
                ));
            }
        }
        let count = self.count.unwrap_or(default.count);
        let rise = self.rise.unwrap_or(default.rise);
        let jitter = self.jitter.unwrap_or(default.jitter.into());
        for (field, number, least, most) in [
            ("count", count, 1, MAX_COUNT),
            ("rise", rise, 1, MAX_COUNT),
            ("retries", self.retries.unwrap_or(0), 0, MAX_COUNT),
            ("jitter", jitter, 0, 50),
        ] {
            if !(least..=most).contains(&number) {
                let unit = if field == "jitter" { " percent" } else { "" };
                let allowed = format!("use {least} to {most}{unit}");
                let value = number.to_string();
                errors.push(ModelError::invalid(
                    field,
                    value,
                    "is out of range",
                    allowed,
                ));
            }
        }
        Timing {
            timeout,
            interval,
            jitter: u8::try_from(jitter).unwrap_or(default.jitter),
            warm_up: self.warm_up,
            count,
            rise,
            retries: self.retries,
            retry_delay,
        }
    }

    fn test(&self, kind: Kind, errors: &mut Vec<ModelError>) -> Option<Test> {
        macro_rules! belongs {
            ($($name:ident $field:ident),*) => {$(
                if self.$name.is_some() && !of(Field::$field, kind) {
                    errors.push(foreign(Field::$field, kind));
                }
            )*};
        }
        each_field!(belongs);
        for (field, host) in [
            ("host", &self.host),
            ("sni", &self.sni),
            ("helo", &self.helo),
        ] {
            keep(
                errors,
                host.as_ref().map_or(Ok(()), |host| check_host(field, host)),
            );
        }
        Some(match kind {
            Kind::Ping => Test::Ping,
            Kind::Tcp => Test::Tcp,
            Kind::Udp => Test::Udp(Udp {
                payload: self.payload.clone().unwrap_or_default(),
                reply: self.reply.clone().unwrap_or_default(),
            }),
            Kind::Http => Test::Http(self.http(errors)?),
            Kind::Https => Test::Https(self.http(errors)?, self.tls(errors)),
            Kind::Dns => Test::Dns(self.dns(errors)),
            Kind::Smtp => Test::Smtp(Smtp {
                helo: self.helo.clone(),
            }),
            Kind::Script => Test::Script(self.script(errors)?),
            Kind::File => Test::File(File {
                path: keep(errors, check_path("path", self.path.as_deref()))?,
                weight: self.weight.unwrap_or(false),
            }),
        })
    }

    fn http(&self, errors: &mut Vec<ModelError>) -> Option<Http> {
        let urls = match &self.urls {
            Some(urls) => urls.clone(),
            None => vec![keep(errors, Url::parse("/"))?],
        };
        if urls.is_empty() || urls.len() > MAX_URLS {
            let problem = format!("has {} URLs", urls.len());
            let allowed = format!("use 1 to {MAX_URLS}");
            errors.push(ModelError::invalid("urls", "list", problem, allowed));
        }
        for url in &urls {
            keep(errors, url.check());
        }
        let host = self.host.clone();
        Some(Http { urls, host })
    }

    fn tls(&self, errors: &mut Vec<ModelError>) -> Tls {
        let verify = self.verify.unwrap_or(false);
        if let Some(file) = &self.ca_file {
            keep(errors, check_path("ca-file", Some(file)));
            if !verify {
                let problem = "is given without verify=yes";
                let allowed = "give verify=yes too, or leave it out";
                errors.push(ModelError::invalid("ca-file", file, problem, allowed));
            }
        }
        Tls {
            sni: self.sni.clone(),
            verify,
            ca_file: self.ca_file.clone(),
        }
    }

    fn dns(&self, errors: &mut Vec<ModelError>) -> Dns {
        let query = self.query.clone().unwrap_or_else(|| ".".to_string());
        keep(errors, check_query(&query));
        if let Some(answer) = self.answer.as_ref().filter(|answer| answer.len() > 255) {
            let problem = format!("has {} octets", answer.len());
            errors.push(ModelError::invalid(
                "answer",
                answer,
                problem,
                "use at most 255",
            ));
        }
        Dns {
            query,
            record_type: self.record_type.unwrap_or_default(),
            answer: self.answer.clone(),
        }
    }

    fn script(&self, errors: &mut Vec<ModelError>) -> Option<Script> {
        if let (Some(test), Some(path)) = (self.script_path(), &self.path)
            && test != path
        {
            let problem = format!("is given, but test is {test}");
            errors.push(ModelError::invalid(
                "path",
                path,
                problem,
                "give one of both",
            ));
        }
        let field = if self.script_path().is_some() {
            "test"
        } else {
            "path"
        };
        let path = keep(
            errors,
            check_path(field, self.script_path().or(self.path.as_deref())),
        );
        let contract = self.contract.unwrap_or_default();
        let arguments = self.arguments.clone().unwrap_or_default();
        let long = |text: &String| text.len() > 4096 || text.contains('\0');
        if arguments.len() > MAX_ARGUMENTS || arguments.iter().any(long) {
            let problem = "has too many, too long, or with a null character";
            let allowed = format!("use at most {MAX_ARGUMENTS} of at most 4096 octets");
            errors.push(ModelError::invalid("arguments", "list", problem, allowed));
        }
        let weight = self.weight.unwrap_or(false);
        for (field, given) in [("arguments", !arguments.is_empty()), ("weight", weight)] {
            if given && contract == Contract::Ilbadm {
                let allowed = "give contract=exit-code too, or leave it out";
                let problem = "cannot be given with contract ilbadm";
                let value = if field == "weight" {
                    "yes"
                } else {
                    &arguments[0]
                };
                errors.push(ModelError::invalid(field, value, problem, allowed));
            }
        }
        Some(Script {
            path: path?,
            arguments,
            contract,
            weight,
        })
    }
}

/// Whether a test of this kind has such a setting.
pub(super) fn of(field: Field, kind: Kind) -> bool {
    kinds(field).is_none_or(|kinds| kinds.contains(&kind))
}

/// The kinds that have it; none for all.
const fn kinds(field: Field) -> Option<&'static [Kind]> {
    use Kind::{Dns, File, Http, Https, Script, Smtp, Tcp, Udp};
    Some(match field {
        Field::Path | Field::Weight => &[Script, File],
        Field::Argument | Field::Contract => &[Script],
        Field::Url
        | Field::Status
        | Field::Digest
        | Field::Regex
        | Field::RegexNoMatch
        | Field::Host => &[Http, Https],
        Field::Sni | Field::Verify | Field::CaFile => &[Https],
        Field::Payload | Field::Reply => &[Udp],
        Field::Query | Field::RecordType | Field::Answer => &[Dns],
        Field::Helo => &[Smtp],
        Field::Port => &[Tcp, Udp, Http, Https, Dns, Smtp, Script],
        Field::Test
        | Field::Ping
        | Field::Alpha
        | Field::Timeout
        | Field::Interval
        | Field::Count
        | Field::Rise
        | Field::Retries
        | Field::RetryDelay
        | Field::WarmUp
        | Field::Jitter
        | Field::Address
        | Field::Source
        | Field::Load
        | Field::LoadInterval
        | Field::LoadLeast
        | Field::LoadPort
        | Field::Community => return None,
    })
}

fn foreign(field: Field, kind: Kind) -> ModelError {
    let of: Vec<&str> = kinds(field)
        .unwrap_or_default()
        .iter()
        .map(|kind| kind.name())
        .collect();
    ModelError::invalid(
        "setting",
        words::name(FIELDS, field),
        format!("is given, but test is {kind}"),
        format!("it belongs to test={}; leave it out", words::one_of(&of)),
    )
}

/// Keeps an error for later.
fn keep<T>(errors: &mut Vec<ModelError>, result: Result<T, ModelError>) -> Option<T> {
    result.map_err(|error| errors.push(error)).ok()
}

/// Checks an address to ask or to ask from; other than a server's it may be a loopback address.
fn check_address(field: &'static str, address: IpAddr) -> Result<(), ModelError> {
    if address.is_loopback() {
        return Ok(());
    }
    address::check(Purpose::Server, address).map_err(|error| match error {
        ModelError::Invalid {
            value,
            problem,
            allowed,
            ..
        } => ModelError::Invalid {
            field,
            value,
            problem,
            allowed,
        },
        other => other,
    })
}

fn check_path(field: &'static str, path: Option<&str>) -> Result<String, ModelError> {
    let allowed = "use an absolute path, such as /etc/ilb/check.sh";
    let Some(path) = path else {
        return Err(ModelError::Missing {
            field,
            allowed: allowed.to_string(),
        });
    };
    let problem = match path {
        _ if !path.starts_with('/') => "is no absolute path",
        _ if path.len() > 4095 => "is too long",
        _ if path.contains('\0') => "contains a null character",
        _ => return Ok(path.to_string()),
    };
    Err(ModelError::invalid(
        field,
        path.escape_debug().to_string(),
        problem,
        allowed,
    ))
}

/// Checks a name of the DNS (RFC 1035, section 2.3.4): labels of 1 to 63 octets, 253 in all.
fn check_query(query: &str) -> Result<(), ModelError> {
    let bare = query.strip_suffix('.').unwrap_or(query);
    let good = |label: &str| {
        (1..=63).contains(&label.len()) && label.bytes().all(|b| b.is_ascii_graphic())
    };
    if query == "." || bare.len() <= 253 && bare.split('.').all(good) {
        return Ok(());
    }
    Err(ModelError::invalid(
        "query",
        query.escape_debug().to_string(),
        "is not a name of the DNS",
        "use a name such as www.example.com, or . for the root",
    ))
}
