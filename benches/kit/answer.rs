//! What a client has to know of a delta response to answer it, without making anything of the rest.

use bytes::Buf as _;
use causeway::xds::resource::Kind;
use envoy_types::pb::envoy::{
    config::{
        core::v3::{address::Address, socket_address::PortSpecifier},
        endpoint::v3::{ClusterLoadAssignment, lb_endpoint::HostIdentifier},
    },
    service::discovery::v3::DeltaDiscoveryResponse,
};
use prost::{
    Message as _,
    encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field},
};

use crate::ports::{PORT_OF_FIRST_CHANGE, PORTS};

// Fields of `DeltaDiscoveryResponse`.
const RESOURCES: u32 = 2;
const TYPE_URL: u32 = 4;
const NONCE: u32 = 5;
const REMOVED: u32 = 6;

/// What was sent, and what its answer names.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Answered<'a> {
    pub(crate) type_url: &'a str,
    pub(crate) nonce: &'a str,
    pub(crate) resources: usize,
    pub(crate) removed: usize,
}

impl<'a> Answered<'a> {
    pub(crate) fn read(mut message: &'a [u8]) -> Self {
        let mut answered = Self::default();
        while message.has_remaining() {
            let (field, wire_type) = decode_key(&mut message).unwrap();
            if wire_type != WireType::LengthDelimited {
                skip_field(wire_type, field, &mut message, DecodeContext::default()).unwrap();
                continue;
            }
            let length = usize::try_from(decode_varint(&mut message).unwrap()).unwrap();
            let (value, rest) = message.split_at(length);
            message = rest;
            match field {
                RESOURCES => answered.resources += 1,
                TYPE_URL => answered.type_url = std::str::from_utf8(value).unwrap(),
                NONCE => answered.nonce = std::str::from_utf8(value).unwrap(),
                REMOVED => answered.removed += 1,
                _ => {}
            }
        }
        answered
    }
}

/// Which change the endpoints of this name in a response are of, for a client that has seen `before`. Ports begin anew
/// after [`PORTS`] changes: nobody is that far behind.
pub(crate) fn change(message: &[u8], name: &str, before: Option<u32>) -> Option<u32> {
    let response = DeltaDiscoveryResponse::decode(message).unwrap();
    if response.type_url != Kind::Endpoints.type_url() {
        return None; // The cluster has the same name.
    }
    let resource = response.resources.into_iter().find(|resource| resource.name == name)?;
    let endpoints = ClusterLoadAssignment::decode(&*resource.resource?.value).unwrap();
    let offset = first_port(&endpoints)?.checked_sub(PORT_OF_FIRST_CHANGE)?;
    let before = before.unwrap_or(0);
    Some(before + (offset + PORTS - before % PORTS) % PORTS)
}

fn first_port(endpoints: &ClusterLoadAssignment) -> Option<u32> {
    let Some(HostIdentifier::Endpoint(endpoint)) =
        &endpoints.endpoints.first()?.lb_endpoints.first()?.host_identifier
    else {
        return None;
    };
    let Some(Address::SocketAddress(address)) = &endpoint.address.as_ref()?.address else { return None };
    match address.port_specifier {
        Some(PortSpecifier::PortValue(port)) => Some(port),
        _ => None,
    }
}
