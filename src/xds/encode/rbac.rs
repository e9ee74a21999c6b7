//! Role-based access control, the same rules for network and HTTP filters.

use envoy_types::pb::envoy::{
    config::rbac::v3::{
        Permission, Policy, Principal as PrincipalMessage, Rbac as Rules, permission,
        principal::{Authenticated, Identifier, Set},
        rbac::Action,
    },
    extensions::filters::{http::rbac::v3::Rbac as HttpRbac, network::rbac::v3::Rbac as NetworkRbac},
};

use crate::xds::{
    encode::value::regex,
    resource::filter::{Principal, Rbac, RbacAction},
};

pub(super) fn network(rbac: &Rbac) -> NetworkRbac {
    NetworkRbac { rules: Some(rules(rbac)), stat_prefix: rbac.stat_prefix.clone(), ..NetworkRbac::default() }
}

pub(super) fn http(rbac: &Rbac) -> HttpRbac {
    HttpRbac { rules: Some(rules(rbac)), rules_stat_prefix: rbac.stat_prefix.clone(), ..HttpRbac::default() }
}

fn rules(rbac: &Rbac) -> Rules {
    let action = match rbac.action {
        RbacAction::Allow => Action::Allow,
        RbacAction::Deny => Action::Deny,
    };
    let policies = rbac.policies.iter().map(|(name, principals)| {
        let policy = Policy {
            permissions: vec![Permission { rule: Some(permission::Rule::Any(true)) }],
            principals: principals.iter().map(principal).collect(),
            ..Policy::default()
        };
        (name.clone(), policy)
    });
    Rules { action: action.into(), policies: policies.collect(), ..Rules::default() }
}

fn principal(principal: &Principal) -> PrincipalMessage {
    let identifier = match principal {
        Principal::Any => Identifier::Any(true),
        Principal::SpiffeRegex(expression) => {
            Identifier::Authenticated(Authenticated { principal_name: Some(regex(expression)) })
        }
        Principal::All(all) => Identifier::AndIds(Set { ids: all.iter().map(self::principal).collect() }),
        Principal::Not(not) => Identifier::NotId(Box::new(self::principal(not))),
    };
    PrincipalMessage { identifier: Some(identifier) }
}
