//! Who belongs to a subset of a service's instances.

use crate::model::{chain::Subset, filter::FilterError, instance::Instance};

/// The instances of `subset`, in their order; without one, all.
pub fn members<'a>(
    instances: &'a [Instance],
    subset: Option<&Subset>,
) -> Result<Vec<&'a Instance>, FilterError> {
    let Some(subset) = subset else { return Ok(instances.iter().collect()) };
    let filter = subset.filter.read()?;
    let mut members = Vec::new();
    for instance in instances {
        if filter.matches(&instance.entry)? {
            members.push(instance);
        }
    }
    Ok(members)
}
