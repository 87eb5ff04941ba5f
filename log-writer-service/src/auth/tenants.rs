//! Which tenants there are, and that no two of them would share an index.

use std::{collections::BTreeMap, sync::Arc};

use crate::config::tenant_mistake;

/// Tenants by their names in lower case, as indices have them.
#[derive(Debug, Clone)]
pub(super) struct Tenants(BTreeMap<String, Arc<str>>);

impl Tenants {
    pub(super) fn new(default: &str) -> Self {
        Self(BTreeMap::from([(default.to_lowercase(), Arc::from(default))]))
    }

    /// Notes a tenant of the file.
    ///
    /// # Errors
    /// The tenant that it would share an index with.
    pub(super) fn add(&mut self, tenant: &Arc<str>) -> Result<(), Arc<str>> {
        let known = self
            .0
            .entry(tenant.to_lowercase())
            .or_insert_with(|| Arc::clone(tenant));
        if *known == *tenant {
            Ok(())
        } else {
            Err(Arc::clone(known))
        }
    }

    /// A tenant that no file names: it is one that is known, in its own spelling, or one in lower case. So two that come
    /// at different times, or to different replicas, cannot meet in one index.
    ///
    /// # Errors
    /// Why it can't be one.
    pub(super) fn take(&self, tenant: &str) -> Result<Arc<str>, String> {
        if let Some(wrong) = tenant_mistake(tenant) {
            return Err(wrong);
        }
        let lower = tenant.to_lowercase();
        match self.0.get(&lower) {
            Some(known) if &**known == tenant => Ok(Arc::clone(known)),
            Some(known) => Err(format!(
                "differs from `{known}` in case only, and would share its index"
            )),
            None if lower == tenant => Ok(Arc::from(tenant)),
            None => Err("must be in lower case, as the names of indices are".to_owned()),
        }
    }
}
