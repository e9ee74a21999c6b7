//! What a client has to know of a delta response to answer it, without making anything of the rest.

use bytes::Buf as _;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

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
