//! Names, each with a type of its own, so that a datacenter is never passed where a service belongs.

use std::{borrow::Borrow, fmt, sync::Arc};

use serde::{Deserialize, Serialize};

macro_rules! name {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $type(Arc<str>);

        impl $type {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl<T: AsRef<str>> From<T> for $type {
            fn from(text: T) -> Self {
                Self(Arc::from(text.as_ref()))
            }
        }
        impl Borrow<str> for $type {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
    };
}

name! {
    /// A Consul datacenter.
    Datacenter
}
name! {
    /// The name of a service in the catalog, shared by all its instances.
    ServiceName
}
name! {
    /// The id of one service instance, unique on its Consul agent.
    ServiceId
}
name! {
    /// The service id of a proxy's own registration; Envoy presents it as `node.id`.
    ProxyId
}
name! {
    /// The name of a Consul node.
    NodeName
}
name! {
    /// The trust domain of the mesh, `<cluster id>.consul`, lower case; one for all federated datacenters.
    TrustDomain
}
