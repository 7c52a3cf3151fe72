//! What may be asked though it is not public: hosts and networks that whoever runs the server names.

use std::net::IpAddr;

/// Hosts and networks that may be asked beside the public ones.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Allow {
    hosts: Vec<Box<str>>,
    networks: Vec<(IpAddr, u32)>,
}

/// Neither a host nor a network.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is neither a host, such as models.internal, nor a network, such as 10.1.0.0/16")]
pub struct BadAllow(Box<str>);

impl Allow {
    /// What `names` name: a host, an address, or a network with its bits (`10.1.0.0/16`, `fd00::/8`).
    pub fn new<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Self, BadAllow> {
        let mut allow = Self::default();
        for name in names {
            if !allow.add(name.trim()) {
                return Err(BadAllow(name.into()));
            }
        }
        Ok(allow)
    }

    /// Whether it is one that can be added.
    fn add(&mut self, name: &str) -> bool {
        let (address, bits) = name.split_once('/').map_or((name, None), |(address, bits)| (address, Some(bits)));
        let Ok(address) = address.trim_matches(['[', ']']).parse::<IpAddr>() else {
            let host = is_host(name);
            self.hosts.extend(host.then(|| name.to_ascii_lowercase().into()));
            return host;
        };
        let all = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Some(all), |bits| bits.parse().ok()).filter(|bits| *bits <= all);
        self.networks.extend(bits.map(|bits| (address, bits)));
        bits.is_some()
    }

    /// Whether the host is named, wherever it is.
    pub(super) fn host(&self, host: &str) -> bool {
        self.hosts.iter().any(|own| own.eq_ignore_ascii_case(host.trim_end_matches('.')))
    }

    /// Whether the address lies in a network that is named.
    pub(super) fn address(&self, address: IpAddr) -> bool {
        self.networks.iter().any(|(net, bits)| match (net, address) {
            (IpAddr::V4(net), IpAddr::V4(address)) => {
                same(u128::from(net.to_bits()) << 96, u128::from(address.to_bits()) << 96, *bits)
            }
            (IpAddr::V6(net), IpAddr::V6(address)) => same(net.to_bits(), address.to_bits(), *bits),
            _ => false,
        })
    }
}

/// Whether the first `bits` of both are the same.
fn same(a: u128, b: u128, bits: u32) -> bool {
    bits == 0 || (a ^ b) >> (128 - bits) == 0
}

fn is_host(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_networks_are_allowed_by_name() {
        let allow = Allow::new(["Models.Internal", "10.1.0.0/16", "::1", "fd00::/8", "192.168.7.7"]).unwrap();
        let address = |text: &str| allow.address(text.parse().unwrap());
        assert!(allow.host("models.internal") && allow.host("MODELS.internal."));
        assert!(!allow.host("evil.models.internal") && !allow.host("internal"));
        assert!(address("10.1.255.9") && !address("10.2.0.1"));
        assert!(address("::1") && !address("::2") && address("fdab::1") && !address("fe80::1"));
        assert!(address("192.168.7.7") && !address("192.168.7.8"));
        assert!(!address("::ffff:10.1.0.1"), "another way to write an address is another address");
        assert!(Allow::new(["0.0.0.0/0"]).unwrap().address("127.0.0.1".parse().unwrap()));
    }

    #[test]
    fn what_is_neither_is_refused() {
        for wrong in ["", "10.0.0.0/33", "fd00::/129", "host/8", "http://x", "a b", "10.0.0.0/x"] {
            assert_eq!(Allow::new([wrong]), Err(BadAllow(wrong.into())));
        }
    }
}
