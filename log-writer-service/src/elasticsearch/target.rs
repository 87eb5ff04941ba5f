//! Where an event goes: the name of its data stream or index.
//!
//! The name is fixed when the event is committed. Only tenants that the configuration knows come here, but the name is
//! made safe all the same: nothing in a tenant can lead to another index.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use chrono::{DateTime, Datelike as _, Utc};

use super::error::SearchError;
use crate::{
    config::{self, Naming},
    event::Timestamp,
};

/// Longest namespace, in bytes; with the dataset's and what Elasticsearch adds it stays below the 255 of a name.
const NAMESPACE_BYTES_MAX: usize = 100;

/// The names of targets.
#[derive(Debug, Clone)]
pub struct Targets {
    naming: Naming,
    dataset: String,
    /// Of each known tenant: the stream, or what comes before the month.
    known: HashMap<String, Arc<str>>,
}

impl Targets {
    /// Names for the default tenant; others are added by [`Self::with_tenants`].
    ///
    /// # Errors
    /// [`SearchError::Settings`] if the dataset or tenant cannot be part of a name.
    pub fn new(settings: &config::Elasticsearch, default_tenant: &str) -> Result<Self, SearchError> {
        let dataset = settings.dataset.clone();
        if dataset.is_empty() || dataset.contains('-') || namespace(&dataset) != dataset {
            return Err(SearchError::Settings(format!(
                "elasticsearch.dataset `{dataset}` cannot be part of a data stream's name: lower case, no `-`"
            )));
        }
        let targets = Self {
            naming: settings.naming,
            dataset,
            known: HashMap::new(),
        };
        targets.with_tenants([default_tenant])
    }

    /// Adds the tenants of the configuration.
    ///
    /// # Errors
    /// [`SearchError::Settings`] if two would share a namespace.
    pub fn with_tenants<'a>(mut self, tenants: impl IntoIterator<Item = &'a str>) -> Result<Self, SearchError> {
        for tenant in tenants {
            let name = self.prefix(tenant);
            if let Some((other, _)) = self
                .known
                .iter()
                .find(|(other, prefix)| prefix.as_ref() == name && *other != tenant)
            {
                return Err(SearchError::Settings(format!(
                    "tenants `{other}` and `{tenant}` would share `{name}`: rename one"
                )));
            }
            self.known.insert(tenant.to_owned(), Arc::from(name));
        }
        Ok(self)
    }

    /// The stream or index of an event.
    pub fn target(&self, tenant: &str, timestamp: Timestamp) -> Arc<str> {
        let known = self.known.get(tenant).map(Arc::clone);
        let prefix = known.unwrap_or_else(|| Arc::from(self.prefix(tenant)));
        match self.naming {
            Naming::DataStream => prefix,
            Naming::Monthly => {
                let time = DateTime::<Utc>::from_timestamp_micros(timestamp.0).unwrap_or_default();
                Arc::from(format!("{prefix}{:04}.{:02}", time.year(), time.month()))
            }
        }
    }

    /// How indices are named.
    pub fn naming(&self) -> Naming {
        self.naming
    }

    /// Whether targets are data streams.
    pub fn is_stream(&self) -> bool {
        self.naming == Naming::DataStream
    }

    /// What to search for the events of a tenant, or of all; `None` if that cannot be told from indices of others.
    pub fn searched(&self, tenant: Option<&str>) -> Option<String> {
        match (self.naming, tenant) {
            (Naming::DataStream, Some(tenant)) => Some(self.prefix(tenant)),
            (Naming::DataStream, None) => Some(format!("logs-{}-*", self.dataset)),
            (Naming::Monthly, Some(tenant)) => Some(format!("{}*", self.prefix(tenant))),
            (Naming::Monthly, None) => None,
        }
    }

    /// Everything that is written for the tenants of the configuration and these.
    pub fn all<'a>(&self, tenants: impl IntoIterator<Item = &'a str>) -> String {
        self.searched(None).unwrap_or_else(|| {
            let searched = |tenant: &str| self.searched(Some(tenant));
            let mut names: BTreeSet<String> = self.known.keys().filter_map(|tenant| searched(tenant)).collect();
            names.extend(tenants.into_iter().filter_map(searched));
            Vec::from_iter(names).join(",")
        })
    }

    fn prefix(&self, tenant: &str) -> String {
        let namespace = namespace(tenant);
        match self.naming {
            Naming::DataStream => format!("logs-{}-{namespace}", self.dataset),
            Naming::Monthly => format!("logs-{namespace}-"),
        }
    }
}

/// The targets of one request's events.
///
/// Remembers the last one, in a copy of its own: one that all requests share, all processors would count up and down
/// for each event.
#[derive(Debug)]
pub(crate) struct RequestTargets<'t> {
    targets: &'t Targets,
    /// Tenant and target.
    last: Option<(Arc<str>, Arc<str>)>,
}

impl<'t> RequestTargets<'t> {
    /// Remembers none.
    pub(crate) fn new(targets: &'t Targets) -> Self {
        Self { targets, last: None }
    }

    /// What [`Targets::target`] gives.
    pub(crate) fn of(&mut self, tenant: &Arc<str>, timestamp: Timestamp) -> &Arc<str> {
        // Names of months say more than the tenant.
        let is_known = |(of, _): &(Arc<str>, Arc<str>)| self.targets.is_stream() && of == tenant;
        let named = self.last.take().filter(is_known).unwrap_or_else(|| {
            let target = self.targets.target(tenant, timestamp);
            (Arc::clone(tenant), Arc::from(&*target))
        });
        let (_, target) = self.last.insert(named);
        target
    }
}

/// A tenant as part of a name: lower case, what Elasticsearch forbids replaced (8.19, create index, parameter `index`).
fn namespace(tenant: &str) -> String {
    let mut name: String = tenant
        .to_lowercase()
        .chars()
        .map(|c| match c {
            '\\' | '/' | '*' | '?' | '"' | '<' | '>' | '|' | ',' | '#' | ':' => '_',
            c if c.is_whitespace() || c.is_control() => '_',
            c => c,
        })
        .collect();
    if name.is_empty() {
        name.push('_');
    }
    name.truncate(name.floor_char_boundary(NAMESPACE_BYTES_MAX));
    name
}

#[cfg(test)]
mod tests {
    use super::{super::test_settings::settings, *};

    const NOVEMBER: Timestamp = Timestamp(1_795_219_200_123_456);

    fn targets(naming: Naming) -> Targets {
        let mut settings = settings();
        settings.naming = naming;
        Targets::new(&settings, "default").unwrap()
    }

    #[test]
    fn a_stream_is_named_by_dataset_and_tenant() {
        let targets = targets(Naming::DataStream);
        assert!(targets.is_stream());
        assert_eq!(&*targets.target("default", NOVEMBER), "logs-app-default");
        assert_eq!(&*targets.target("Acme-Corp", NOVEMBER), "logs-app-acme-corp");
    }

    #[test]
    fn a_monthly_index_is_named_by_tenant_and_the_events_month() {
        let targets = targets(Naming::Monthly);
        assert!(!targets.is_stream());
        assert_eq!(&*targets.target("default", NOVEMBER), "logs-default-2026.11");
        assert_eq!(&*targets.target("default", Timestamp(0)), "logs-default-1970.01");
        assert_eq!(&*targets.target("default", Timestamp(-1)), "logs-default-1969.12");
    }

    #[test]
    fn events_of_a_request_have_the_targets_that_each_has_alone() {
        let other_month = Timestamp(NOVEMBER.0 + 31 * 86_400_000_000);
        for naming in [Naming::DataStream, Naming::Monthly] {
            let targets = targets(naming);
            let mut of_request = RequestTargets::new(&targets);
            for tenant in ["default", "default", "acme", "default", "acme", "acme"] {
                for time in [NOVEMBER, NOVEMBER, other_month] {
                    let expected = targets.target(tenant, time);
                    assert_eq!(*of_request.of(&Arc::from(tenant), time), expected, "{tenant} {time:?}");
                }
            }
        }
    }

    #[test]
    fn the_target_of_a_tenant_is_named_once_in_a_request() {
        let targets = targets(Naming::DataStream);
        let mut of_request = RequestTargets::new(&targets);
        let tenant = Arc::from("default");
        let first = Arc::clone(of_request.of(&tenant, NOVEMBER));
        assert!(Arc::ptr_eq(&first, of_request.of(&tenant, Timestamp(0))));
        assert!(
            !Arc::ptr_eq(&first, RequestTargets::new(&targets).of(&tenant, NOVEMBER)),
            "another request's"
        );
    }

    #[test]
    fn two_tenants_with_one_namespace_are_a_start_up_error() {
        let targets = targets(Naming::DataStream);
        let error = targets.clone().with_tenants(["acme", "ACME"]).unwrap_err().to_string();
        assert!(error.contains("acme") && error.contains("ACME"), "{error}");
        assert!(targets.clone().with_tenants(["Default"]).is_err());
        assert!(targets.clone().with_tenants(["a/b", "a_b"]).is_err());
        assert!(targets.with_tenants(["acme", "acme", "other"]).is_ok());
    }

    #[test]
    fn nothing_in_a_tenant_leads_to_another_index() {
        let targets = targets(Naming::DataStream);
        for tenant in [
            "../x",
            "a,logs-other",
            "*",
            "",
            "a b",
            "a\nb",
            "\u{0}",
            "a:b#",
            &"x".repeat(500),
        ] {
            let target = targets.target(tenant, NOVEMBER);
            assert!(target.starts_with("logs-app-") && target.len() <= 109, "{target}");
            assert!(
                !target.contains(['/', ',', '*', ' ', '\n', '\0', ':', '#', '?']),
                "{target}"
            );
        }
    }

    #[test]
    fn a_dataset_that_cannot_be_part_of_a_name_is_refused() {
        for dataset in ["", "a-b", "App", "a b", "a*"] {
            let mut settings = settings();
            settings.dataset = dataset.to_owned();
            assert!(Targets::new(&settings, "default").is_err(), "{dataset}");
        }
    }
}
