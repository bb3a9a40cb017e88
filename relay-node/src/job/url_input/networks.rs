//! Which addresses a node may connect to for somebody else.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Networks that are allowed although they are not public.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Networks(Vec<(IpAddr, u8)>);

impl Networks {
    /// Reads addresses and networks: `10.1.0.0/16`, `127.0.0.1`, `fd00::/8`.
    ///
    /// # Errors
    /// What is wrong with the first that is none.
    pub fn parse(texts: &[String]) -> Result<Self, String> {
        let network = |text: &String| {
            let wrong = || format!("{text:?} is no address or network such as 10.1.0.0/16");
            let (address, bits) = text.split_once('/').map_or((text.as_str(), None), |(a, bits)| (a, Some(bits)));
            let address: IpAddr = address.parse().map_err(|_| wrong())?;
            let most = if address.is_ipv4() { 32 } else { 128 };
            let bits = bits.map_or(Ok(most), str::parse).map_err(|_| wrong())?;
            if bits > most { Err(wrong()) } else { Ok((address.to_canonical(), bits)) }
        };
        texts.iter().map(network).collect::<Result<_, _>>().map(Self)
    }

    /// Whether the address lies in one of them.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.iter().any(|(network, bits)| match (network, address.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let shift = 32 - u32::from(*bits);
                (u64::from(network.to_bits()) >> shift) == (u64::from(address.to_bits()) >> shift)
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(*bits)).unwrap_or(0);
                network.to_bits() & mask == address.to_bits() & mask
            }
            _ => false,
        })
    }

    /// Whether a node may connect there: to a public address, or to one of these networks.
    pub fn permit(&self, address: IpAddr) -> bool {
        !is_private(address) || self.contains(address)
    }
}

/// Whether the address is none of the public Internet: loopback, link-local, private, shared, multicast, reserved or for
/// documentation; also where an IPv6 address holds such an IPv4 address.
pub fn is_private(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => is_private_v4(v4),
        IpAddr::V6(v6) => is_private_v6(v6),
    }
}

fn is_private_v4(v4: Ipv4Addr) -> bool {
    let [a, b, c, _] = v4.octets();
    v4.is_private()
        || v4.is_loopback()
        || v4.is_link_local()
        || v4.is_multicast()
        || v4.is_documentation()
        || a == 0
        || a >= 240
        || (a == 100 && (64..128).contains(&b))
        || (a == 192 && b == 0 && c == 0)
        || (a == 192 && b == 88 && c == 99)
        || (a == 198 && (18..20).contains(&b))
}

fn is_private_v6(v6: Ipv6Addr) -> bool {
    let [a, b, c, d, e, f, g, h] = v6.segments();
    let v4_of = |high: u16, low: u16| Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low));
    v6.is_loopback()
        || v6.is_unspecified()
        || v6.is_multicast()
        || v6.is_unique_local()
        || v6.is_unicast_link_local()
        // Site-local, discard-only, documentation, Teredo.
        || a & 0xffc0 == 0xfec0
        || [a, b, c, d] == [0x100, 0, 0, 0]
        || (a, b) == (0x2001, 0xdb8)
        || a == 0x3fff && b < 0x1000
        || (a, b) == (0x2001, 0)
        // An IPv4 address inside: compatible, NAT64, its local form, 6to4.
        || [a, b, c, d, e, f] == [0; 6]
        || ([a, b, c, d, e, f] == [0x64, 0xff9b, 0, 0, 0, 0] && is_private_v4(v4_of(g, h)))
        || [a, b, c] == [0x64, 0xff9b, 1]
        || (a == 0x2002 && is_private_v4(v4_of(b, c)))
}

#[cfg(test)]
#[path = "networks_test.rs"]
mod networks_test;
