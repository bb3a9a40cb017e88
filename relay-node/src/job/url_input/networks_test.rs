//! Addresses by name of their block, and networks against their bits.

use std::net::IpAddr;

use proptest::prelude::*;

use super::{Networks, is_private};

fn networks(texts: &[&str]) -> Networks {
    Networks::parse(&texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>()).unwrap()
}

#[test]
fn no_block_of_private_ipv4_addresses_is_public() {
    let private = [
        "0.0.0.0",
        "0.1.2.3",
        "10.0.0.1",
        "100.64.0.1",
        "100.127.255.255",
        "127.0.0.1",
        "127.255.0.9",
        "169.254.169.254",
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.8",
        "192.0.2.1",
        "192.88.99.1",
        "192.168.1.1",
        "198.18.0.1",
        "198.51.100.7",
        "203.0.113.9",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
    ];
    let public = [
        "1.1.1.1",
        "9.9.9.9",
        "100.63.0.1",
        "100.128.0.1",
        "172.15.0.1",
        "172.32.0.1",
        "192.0.1.1",
        "198.17.0.1",
        "198.20.0.1",
    ];
    expect_blocks(&private, &public);
}

#[test]
fn no_block_of_private_ipv6_addresses_is_public() {
    let private = [
        "::",
        "::1",
        "::7f00:1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "64:ff9b::a00:1",
        "64:ff9b:1::1",
        "100::1",
        "2001::1",
        "2001:db8::1",
        "2002:7f00:1::",
        "3fff::1",
        "fc00::1",
        "fd12::1",
        "fe80::1",
        "fec0::1",
        "ff02::1",
    ];
    expect_blocks(&private, &["2606:4700::1111", "64:ff9b::101:101", "2002:101:101::", "::ffff:1.1.1.1"]);
}

fn expect_blocks(private: &[&str], public: &[&str]) {
    for text in private {
        assert!(is_private(text.parse().unwrap()), "{text}");
    }
    for text in public {
        assert!(!is_private(text.parse().unwrap()), "{text}");
    }
}

#[test]
fn a_network_is_what_its_bits_say() {
    let some = networks(&["10.1.0.0/16", "127.0.0.1", "fd00::/8"]);
    for text in ["10.1.0.0", "10.1.255.255", "127.0.0.1", "::ffff:10.1.2.3", "fd00::1", "fdff::"] {
        assert!(some.contains(text.parse().unwrap()), "{text}");
    }
    for text in ["10.0.255.255", "10.2.0.0", "127.0.0.2", "fc00::1", "::1"] {
        let address: IpAddr = text.parse().unwrap();
        assert!(!some.contains(address) && !some.permit(address), "{text}");
    }
    assert!(networks(&["0.0.0.0/0"]).contains("127.0.0.1".parse().unwrap()));
    assert!(networks(&["::/0"]).contains("::1".parse().unwrap()));
    for wrong in ["10.0.0.0/33", "::/129", "10.0.0/8", "host", "", "10.0.0.0/", "10.0.0.0/-1"] {
        let refused = Networks::parse(&[wrong.to_owned()]).unwrap_err();
        assert!(refused.contains("no address or network"), "{wrong}: {refused}");
    }
}

proptest! {
    /// An address is in a network when their first bits are the same, whatever the others are.
    #[test]
    fn the_first_bits_decide(network: u32, other: u32, bits in 0..=32_u32) {
        let text = format!("{}/{bits}", std::net::Ipv4Addr::from_bits(network));
        let same = (network ^ other).leading_zeros() >= bits;
        prop_assert_eq!(networks(&[&text]).contains(std::net::Ipv4Addr::from_bits(other).into()), same);
    }
}
