//! What is asked for by flags and not acted on yet: texts to warn with. Pure.

use crate::cli::envoy::register::GatewayRegistration;

/// One text for each address of a gateway that other gateways cannot follow.
pub(super) fn of_addresses(registration: &GatewayRegistration) -> Vec<String> {
    let wan = registration.wan.as_ref().map(|wan| &wan.host);
    [("--address", registration.address.as_ref()), ("--wan-address", wan)]
        .into_iter()
        .filter_map(|(flag, host)| Some((flag, host?)))
        .filter(|(_, host)| host.parse::<std::net::IpAddr>().is_err())
        .map(|(flag, host)| {
            format!(
                "{flag}: `{host}` is a host name, which Causeway's gateways do not follow yet: they leave this gateway \
                 out, with a note; give an IP address"
            )
        })
        .collect()
}
