//! Which addresses are the public net's: everything else belongs to this machine, its network, or nobody.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What is not public of IPv4: address, bits.
const V4: &[([u8; 4], u32)] = &[
    ([0, 0, 0, 0], 8),       // this network
    ([10, 0, 0, 0], 8),      // private
    ([100, 64, 0, 0], 10),   // behind a carrier's NAT
    ([127, 0, 0, 0], 8),     // this machine
    ([169, 254, 0, 0], 16),  // this link; clouds tell their secrets there
    ([172, 16, 0, 0], 12),   // private
    ([192, 0, 0, 0], 24),    // protocols
    ([192, 0, 2, 0], 24),    // examples
    ([192, 88, 99, 0], 24),  // relays to IPv6
    ([192, 168, 0, 0], 16),  // private
    ([198, 18, 0, 0], 15),   // benchmarks
    ([198, 51, 100, 0], 24), // examples
    ([203, 0, 113, 0], 24),  // examples
    ([224, 0, 0, 0], 4),     // many at once
    ([240, 0, 0, 0], 4),     // reserved, and everybody
];

/// What is not public within 2000::/3, which is all that is public of IPv6: first two groups, bits.
const V6: &[([u16; 2], u32)] = &[
    ([0x2001, 0], 23),     // protocols: tunnels among them
    ([0x2001, 0xdb8], 32), // examples
    ([0x2002, 0], 16),     // IPv4 within
    ([0x3fff, 0], 20),     // examples
];

/// Where a network translates to IPv4, whose address stands in the last 32 bits: 64:ff9b::/96.
const TRANSLATED: [u16; 6] = [0x64, 0xff9b, 0, 0, 0, 0];

/// Whether `address` is the public net's.
pub(super) fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let bits = address.to_bits();
    V4.iter().all(|(net, length)| (bits ^ u32::from_be_bytes(*net)) >> (32 - length) != 0)
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let groups = address.segments();
    if groups[..6] == TRANSLATED {
        return is_public_v4(Ipv4Addr::from_bits(address.to_bits() as u32));
    }
    let head = u32::from(groups[0]) << 16 | u32::from(groups[1]);
    let within =
        |net: [u16; 2], length: u32| (head ^ (u32::from(net[0]) << 16 | u32::from(net[1]))) >> (32 - length) == 0;
    within([0x2000, 0], 3) && !V6.iter().any(|(net, length)| within(*net, *length))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_what_is_public_is_asked() {
        let public = [
            "1.1.1.1",
            "8.8.8.8",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.1",
            "169.253.255.255",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.1",
            "192.167.1.1",
            "198.17.0.1",
            "198.20.0.0",
            "223.255.255.255",
            "2606:4700::1111",
            "2a00::1",
            "2001:4860::8888",
            "2001:200::1",
            "3ffe::1",
            "64:ff9b::808:808",
        ];
        let not = [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "10.255.255.255",
            "100.64.0.0",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.255.255",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.1",
            "192.0.0.192",
            "192.0.2.9",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.7",
            "203.0.113.7",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::7f00:1",
            "::808:808",
            "::ffff:127.0.0.1",
            "::ffff:8.8.8.8",
            "::ffff:0:8.8.8.8",
            "64:ff9b::7f00:1",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::808:808",
            "100::1",
            "2001::1",
            "2001:1::1",
            "2001:10::1",
            "2001:20::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "2002:808:808::1",
            "3fff::1",
            "3fff:fff::1",
            "4000::1",
            "5f00::1",
            "fc00::1",
            "fd00::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ];
        let is = |text: &&&str| is_public(text.parse().unwrap());
        assert_eq!(public.iter().filter(|text| !is(text)).collect::<Vec<_>>(), Vec::<&&str>::new());
        assert_eq!(not.iter().filter(is).collect::<Vec<_>>(), Vec::<&&str>::new());
    }

    proptest! {
        /// However an address is written in a URL, it is the one that is looked at.
        #[test]
        fn no_way_of_writing_an_address_hides_it(bits: u32) {
            let address = Ipv4Addr::from_bits(bits);
            let [a, b, c, d] = address.octets();
            let rest = bits & 0xff_ffff;
            let ways = [
                format!("{address}"), format!("{bits}"), format!("0x{bits:x}"), format!("0{bits:o}"), format!("{a}.{rest}"),
                format!("0x{a:x}.0{b:o}.{c}.{d}"), format!("{address}."),
            ];
            for way in &ways {
                let url = url::Url::parse(&format!("http://{way}/")).unwrap();
                prop_assert_eq!(url.host(), Some(url::Host::Ipv4(address)), "{}", way);
            }
            let mapped = address.to_ipv6_mapped();
            prop_assert!(!is_public(IpAddr::V6(mapped)));
            prop_assert!(!is_public(IpAddr::V6(address.to_ipv6_compatible())));
        }
    }
}
