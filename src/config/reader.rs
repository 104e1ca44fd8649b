//! Reads values by flag name, and knows the forms that they may have. Not here: which setting has which form.

use std::fmt::{self, Display};
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::str::FromStr;

use clap::ArgMatches;
use clap::parser::ValueSource;
use ipnet::IpNet;
use tracing_subscriber::EnvFilter;

use super::MetricsAddress;
use super::environment::Variables;
use super::flags::{DATABASE_URL, find};
use super::plan::Plan;
use crate::base::Map;
use crate::store::postgres::Address;

/// Leaves a value to the plan or the machine.
pub(super) const AUTO: &str = "auto";
/// More than any process has.
pub(super) const CONNECTIONS_TOP: usize = 10_000_000;

/// More memory than any machine has, MiB.
const MEBIBYTES_TOP: u64 = 1 << 40;

/// Where a value comes from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Source {
    Default,
    Plan(&'static str),
    Variable(&'static str),
    /// A line of the file of variables.
    Line(&'static str),
    Flag(&'static str),
    /// That a setting names, which comes from there.
    File(Box<Source>),
    /// The folder of credentials.
    Credential,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Plan(name) => write!(f, "plan {name}"),
            Self::Variable(name) => write!(f, "environment {name}"),
            Self::Line(name) => write!(f, "env file {name}"),
            Self::Flag(name) => write!(f, "flag --{name}"),
            Self::File(named_by) => write!(f, "file named by {named_by}"),
            Self::Credential => f.write_str("credential"),
        }
    }
}

/// What somebody has said of a setting, or its default; by flag name, with where it comes from.
pub(super) type Given = Map<&'static str, (String, Source)>;

/// Values by flag name, and what is wrong with them.
pub(super) struct Reader<'a> {
    pub matches: &'a ArgMatches,
    pub file: Variables,
    /// What must stay as it is, whatever is said now.
    pub kept: Given,
    /// What `auto` stands for.
    pub plan: Plan,
    /// Values that were found out: secrets from files, and what `auto` has become.
    pub found: Given,
    pub errors: Vec<String>,
    pub warnings: Vec<String>,
}

impl Reader<'_> {
    /// The value that counts, and where it comes from. Blank is as good as none.
    pub fn value(&self, name: &str) -> (String, Source) {
        if let Some(found) = self.found.get(name) {
            return found.clone();
        }
        let (text, source) = self.given(name);
        match self.plan.value(name) {
            Some(number) if text == AUTO => (number.to_string(), Source::Plan(self.plan.name)),
            _ => (text, source),
        }
    }

    /// The value as it was said, before the plan and the machine have had their say.
    pub fn given(&self, name: &str) -> (String, Source) {
        if let Some(kept) = self.kept.get(name) {
            return kept.clone();
        }
        let flag = find(name);
        let given = self.matches.get_one::<String>(name).map_or("", |text| text.trim());
        let source = self.matches.value_source(name).filter(|_| !given.is_empty());
        match (source, self.file.get(flag.variable)) {
            (Some(ValueSource::CommandLine), _) => (given.to_owned(), Source::Flag(flag.name)),
            (Some(ValueSource::EnvVariable), _) => (given.to_owned(), Source::Variable(flag.variable)),
            (_, Some(line)) => (line.to_owned(), Source::Line(flag.variable)),
            _ => (flag.default.to_owned(), Source::Default),
        }
    }

    /// The value that counts.
    pub fn text(&self, name: &str) -> String {
        self.value(name).0
    }

    /// Whether an operator has said it, rather than a default or a plan.
    pub fn is_given(&self, name: &str) -> bool {
        !matches!(self.value(name).1, Source::Default | Source::Plan(_))
    }

    /// Keeps what `auto` has become, which the plan has bounded.
    pub fn resolve(&mut self, name: &'static str, value: impl Display) {
        if self.text(name) == AUTO {
            self.found.insert(name, (value.to_string(), Source::Plan(self.plan.name)));
        }
    }

    /// Notes that a value is not what it was asked to be.
    pub fn adjust(&mut self, name: &'static str, value: impl Display) {
        let source = self.value(name).1;
        self.found.insert(name, (value.to_string(), source));
    }

    /// Notes what is wrong with a value.
    fn fault(&mut self, name: &str, given: &str, rule: impl Display) {
        let variable = find(name).variable;
        self.errors.push(format!("--{name} ({variable}) is {given:?}: {rule}"));
    }

    /// One value; `None` if it is blank, or wrong.
    pub fn one<T>(&mut self, name: &str, rule: &str, parse: impl Fn(&str) -> Option<T>) -> Option<T> {
        let given = self.text(name);
        let value = parse(&given);
        if value.is_none() && !given.is_empty() {
            self.fault(name, &given, rule);
        }
        value
    }

    /// The URL of the database, if one is given. It holds a password: an error does not repeat it.
    pub fn database(&mut self) -> Option<Address> {
        let address = Some(self.text(DATABASE_URL)).filter(|url| !url.is_empty()).map(|url| Address::decode(&url))?;
        let refused = |rule| self.errors.push(format!("--{DATABASE_URL} (DATABASE_URL): {rule}"));
        address.map_err(refused).ok()
    }

    /// Values between commas, blanks left out.
    pub fn list<T>(&mut self, name: &str, rule: &str, parse: impl Fn(&str) -> Option<T>) -> Vec<T> {
        let given = self.text(name);
        let mut values = Vec::new();
        for part in given.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            match parse(part) {
                Some(value) => values.push(value),
                None => self.fault(name, part, rule),
            }
        }
        values
    }

    /// A number within `range`, which must fit `T`.
    pub fn number<T: TryFrom<u64> + Default>(&mut self, name: &str, range: RangeInclusive<u64>) -> T {
        let or_auto = if self.plan.value(name).is_some() { "auto or " } else { "" };
        let rule = format!("must be {or_auto}a number from {} to {}", range.start(), range.end());
        let number = self.one(name, &rule, |text| text.parse().ok().filter(|number| range.contains(number)));
        number.and_then(|number| T::try_from(number).ok()).unwrap_or_default()
    }
}

/// Whatever the standard forms of `T` are.
pub(super) fn parsed<T: FromStr>(text: &str) -> Option<T> {
    text.parse().ok()
}

/// Scheme and authority, nothing behind them.
pub(super) fn is_origin(text: &str) -> bool {
    let authority = text.split_once("://").filter(|(scheme, _)| !scheme.is_empty()).map(|(_, authority)| authority);
    authority.is_some_and(|authority| !authority.is_empty() && !authority.contains(['/', '?', '#', ' ', '*']))
}

/// An origin as browsers send it.
pub(super) fn origin(text: &str) -> Option<String> {
    is_origin(text).then(|| text.to_owned())
}

/// A network, or an address as the network of itself.
pub(super) fn network(text: &str) -> Option<IpNet> {
    parsed(text).or_else(|| parsed::<IpAddr>(text).map(IpNet::from))
}

pub(super) fn switch(text: &str) -> Option<bool> {
    match text {
        "on" => Some(true),
        "off" => Some(false),
        _ => None,
    }
}

/// An address with a port, or none, or one that is found.
pub(super) fn metrics(text: &str) -> Option<MetricsAddress> {
    match text {
        "off" => Some(MetricsAddress::Off),
        "auto" => Some(MetricsAddress::Auto),
        address => parsed(address).map(MetricsAddress::At),
    }
}

/// A number of MiB; `Some(None)` leaves it to the system.
pub(super) fn limit(text: &str) -> Option<Option<u64>> {
    match text {
        AUTO => Some(None),
        number => parsed(number).filter(|mib| (1..=MEBIBYTES_TOP).contains(mib)).map(Some),
    }
}

/// A number of connections; what `auto` is shows later.
pub(super) fn connections(text: &str) -> Option<usize> {
    match text {
        AUTO => Some(0),
        number => parsed(number).filter(|count| *count <= CONNECTIONS_TOP),
    }
}

/// An origin, with or without a slash at its end.
pub(super) fn site(text: &str) -> Option<String> {
    scheme(text.trim_end_matches('/'), ["http://", "https://"]).filter(|url| is_origin(url))
}

/// A path without a slash at its end, and more than that slash.
pub(super) fn path(text: &str) -> Option<String> {
    let path = text.trim_end_matches('/');
    let is_path = path.len() > 1 && path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic());
    (is_path && !path.contains(['?', '#', '%'])).then(|| path.to_owned())
}

/// A number of threads.
pub(super) fn count(text: &str) -> Option<u16> {
    parsed(text).filter(|count| (1..=1024).contains(count))
}

/// A URL with one of the schemes and something behind it.
pub(super) fn scheme(url: &str, schemes: [&str; 2]) -> Option<String> {
    schemes.iter().any(|scheme| url.len() > scheme.len() && url.starts_with(scheme)).then(|| url.to_owned())
}

pub(super) fn filter(text: &str) -> Option<String> {
    EnvFilter::try_new(text).is_ok().then(|| text.to_owned())
}
