//! A network of IP addresses, as `10.0.0.0/8`.

use std::{fmt, net::IpAddr, str::FromStr};

/// All addresses that begin with the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix_bits: u32,
}

/// A text that is no network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoNetwork {
    /// It has another form.
    #[error("is `{0}`, and must be an IP address, a slash and the number of bits that count")]
    Form(String),
    /// Bits beyond the prefix are set.
    #[error("is `{given}`, which is an address inside {network} and not the network")]
    Inside {
        /// What was given.
        given: String,
        /// What was meant.
        network: Network,
    },
}

impl Network {
    /// Whether this address is in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        let (own, own_width) = bits(self.address);
        let (other, other_width) = bits(address);
        own_width == other_width && (own ^ other) & mask(own_width, self.prefix_bits) == 0
    }
}

/// The address as a number, and how many bits it has.
fn bits(address: IpAddr) -> (u128, u32) {
    match address {
        IpAddr::V4(it) => (it.to_bits().into(), 32),
        IpAddr::V6(it) => (it.to_bits(), 128),
    }
}

/// Ones where the first `prefix_bits` of `width` are.
fn mask(width: u32, prefix_bits: u32) -> u128 {
    let rest = width - prefix_bits;
    let all = u128::MAX >> (128 - width);
    all.checked_shr(rest).unwrap_or(0).checked_shl(rest).unwrap_or(0)
}

impl FromStr for Network {
    type Err = NoNetwork;

    fn from_str(text: &str) -> Result<Self, NoNetwork> {
        let parts = || {
            let (address, prefix_bits) = text.split_once('/')?;
            let address: IpAddr = address.parse().ok()?;
            let prefix_bits: u32 = prefix_bits.parse().ok()?;
            (prefix_bits <= bits(address).1).then_some((address, prefix_bits))
        };
        let (address, prefix_bits) = parts().ok_or_else(|| NoNetwork::Form(text.to_owned()))?;
        let (number, width) = bits(address);
        let first = number & mask(width, prefix_bits);
        if first == number {
            return Ok(Self { address, prefix_bits });
        }
        let address = match address {
            IpAddr::V4(_) => IpAddr::V4(u32::try_from(first).unwrap_or_default().into()),
            IpAddr::V6(_) => IpAddr::V6(first.into()),
        };
        Err(NoNetwork::Inside { given: text.to_owned(), network: Self { address, prefix_bits } })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix_bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_holds_what_begins_as_it_does() {
        let holds = |network: &str, address: &str| {
            network.parse::<Network>().unwrap().contains(address.parse().unwrap())
        };
        assert!(holds("10.0.0.0/8", "10.255.0.1") && !holds("10.0.0.0/8", "11.0.0.1"));
        assert!(holds("0.0.0.0/0", "1.2.3.4") && !holds("0.0.0.0/0", "::1"));
        assert!(holds("10.0.0.7/32", "10.0.0.7") && !holds("10.0.0.7/32", "10.0.0.6"));
        assert!(holds("fd00::/8", "fd12::1") && holds("::/0", "fe80::1") && !holds("::1/128", "::2"));
    }

    #[test]
    fn what_is_no_network_is_told() {
        for bad in ["10.0.0.0", "10.0.0.0/33", "::/129", "/8", "x/8", "10.0.0.0/-1"] {
            assert!(matches!(bad.parse::<Network>(), Err(NoNetwork::Form(_))), "{bad}");
        }
        let inside = "10.1.2.3/8".parse::<Network>().unwrap_err();
        assert!(inside.to_string().ends_with("inside 10.0.0.0/8 and not the network"), "{inside}");
    }
}
