use proptest::prelude::*;

use super::*;
use crate::{GROUP_V4, GROUP_V6};

const FROM: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));
const TO: IpAddr = IpAddr::V4(GROUP_V4);
const FROM6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2));
const TO6: IpAddr = IpAddr::V6(GROUP_V6);

fn advertisement(version: Version, addresses: &[&str]) -> Advertisement {
    Advertisement {
        version,
        vrid: 51,
        priority: 100,
        interval: Interval::SECOND,
        addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
        authentication: Authentication::None,
        checksum: ChecksumForm::PseudoHeader,
    }
}

#[test]
fn version_3_over_ipv4_byte_by_byte_in_both_forms() {
    let mut it = advertisement(Version::V3, &["192.0.2.80"]);
    // 3133 + 6401 + 0064 + c000 + 0250 = 157e8 -> 57e9
    it.checksum = ChecksumForm::MessageOnly;
    let bytes = it.encode(FROM, TO).unwrap();
    let sum = !0x57e9u16;
    let [high, low] = sum.to_be_bytes();
    assert_eq!(bytes, [0x31, 51, 100, 1, 0, 100, high, low, 192, 0, 2, 80]);
    // And the pseudo-header: c000 + 0202 + e000 + 0012 + 0070 + 000c = 1a290 -> a291; 57e9 + a291 = fa7a
    it.checksum = ChecksumForm::PseudoHeader;
    let bytes = it.encode(FROM, TO).unwrap();
    assert_eq!(bytes[6..8], (!0xfa7au16).to_be_bytes());
}

#[test]
fn version_2_byte_by_byte() {
    let mut it = advertisement(Version::V2, &["192.0.2.80"]);
    it.authentication = Authentication::password("secret");
    let bytes = it.encode(FROM, TO).unwrap();
    assert_eq!(bytes[..6], [0x21, 51, 100, 1, 1, 1]);
    assert_eq!(bytes[8..], *b"\xc0\x00\x02\x50secret\0\0");
    // 2133 + 6401 + 0101 + c000 + 0250 + 7365 + 6372 + 6574 = 2835a... added by hand, folded once.
    let words = [
        0x2133u32, 0x6401, 0x0101, 0xc000, 0x0250, 0x7365, 0x6372, 0x6574,
    ];
    let sum: u32 = words.iter().sum();
    assert_eq!(
        bytes[6..8],
        (!((sum & 0xffff) + (sum >> 16)) as u16).to_be_bytes()
    );
}

#[test]
fn what_is_encoded_is_decoded() {
    for (it, from, to) in [
        (
            advertisement(Version::V3, &["192.0.2.80", "192.0.2.81"]),
            FROM,
            TO,
        ),
        (advertisement(Version::V2, &["192.0.2.80"]), FROM, TO),
        (
            advertisement(Version::V3, &["fe80::1", "2001:db8::80"]),
            FROM6,
            TO6,
        ),
        // Unicast.
        (
            advertisement(Version::V3, &["192.0.2.80"]),
            FROM,
            IpAddr::from([192, 0, 2, 3]),
        ),
    ] {
        let bytes = it.encode(from, to).unwrap();
        assert_eq!(Advertisement::decode(&bytes, from, to, 255), Ok(it));
    }
}

#[test]
fn what_must_not_be_believed() {
    let good = advertisement(Version::V3, &["192.0.2.80"])
        .encode(FROM, TO)
        .unwrap();
    let decode = |bytes: &[u8]| Advertisement::decode(bytes, FROM, TO, 255);
    let with = |at: usize, value: u8| {
        let mut bytes = good.clone();
        bytes[at] = value;
        bytes[6..8].fill(0);
        let sum = Sum::default().bytes(&bytes).field();
        bytes[6..8].copy_from_slice(&sum.to_be_bytes());
        decode(&bytes)
    };
    assert_eq!(
        Advertisement::decode(&good, FROM, TO, 254),
        Err(DecodeError::Hops(254))
    );
    assert_eq!(with(0, 0x41), Err(DecodeError::Version(4)));
    assert_eq!(with(0, 0x32), Err(DecodeError::Type(2)));
    assert_eq!(with(1, 0), Err(DecodeError::Vrid));
    assert_eq!(with(5, 0), Err(DecodeError::Interval));
    let wrong = DecodeError::Length {
        found: 12,
        expected: 16,
    };
    assert_eq!(with(3, 2), Err(wrong));
    for length in 0..good.len() {
        assert!(matches!(
            decode(&good[..length]),
            Err(DecodeError::Length { .. })
        ));
    }
    for bit in 0..good.len() * 8 {
        let mut bytes = good.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(decode(&bytes).is_err(), "bit {bit}");
    }
    // Version 2 knows no IPv6, and only one kind of authentication.
    let mut six = advertisement(Version::V3, &["fe80::1"])
        .encode(FROM6, TO6)
        .unwrap();
    six[0] = 0x21;
    assert_eq!(
        Advertisement::decode(&six, FROM6, TO6, 255),
        Err(DecodeError::Version(2))
    );
    let mut header = advertisement(Version::V2, &["192.0.2.80"])
        .encode(FROM, TO)
        .unwrap();
    header[4] = 2;
    header[6..8].fill(0);
    let sum = Sum::default().bytes(&header).field();
    header[6..8].copy_from_slice(&sum.to_be_bytes());
    assert_eq!(decode(&header), Err(DecodeError::Authentication(2)));
    // No addresses.
    let mut none = good[..8].to_vec();
    none[3] = 0;
    none[6..8].fill(0);
    let sum = Sum::default().bytes(&none).field();
    none[6..8].copy_from_slice(&sum.to_be_bytes());
    assert_eq!(decode(&none), Err(DecodeError::NoAddresses));
}

#[test]
fn reserved_bits_are_ignored() {
    let mut bytes = advertisement(Version::V3, &["192.0.2.80"])
        .encode(FROM, TO)
        .unwrap();
    bytes[4] |= 0xf0;
    bytes[6..8].fill(0);
    let sum = Sum::default().bytes(&bytes).field();
    bytes[6..8].copy_from_slice(&sum.to_be_bytes());
    let it = Advertisement::decode(&bytes, FROM, TO, 255).unwrap();
    assert_eq!(it.interval, Interval::SECOND);
    assert_eq!(it.checksum, ChecksumForm::MessageOnly);
}

#[test]
fn what_no_packet_can_say() {
    let it = advertisement(Version::V3, &["192.0.2.80"]);
    let error = |it: &Advertisement, from| it.encode(from, TO).unwrap_err().to_string();
    let it = |change: &dyn Fn(&mut Advertisement)| {
        let mut it = it.clone();
        change(&mut it);
        it
    };
    let interval = |n| Interval::centiseconds(n).unwrap();
    for (it, words) in [
        (it(&|it| it.vrid = 0), "VRID 0 is not allowed: 1 to 255 are"),
        (
            it(&|it| it.addresses.clear()),
            "0 addresses cannot be advertised: 1 to 255 can",
        ),
        (
            it(&|it| it.addresses = vec![FROM; 256]),
            "256 addresses cannot be advertised: 1 to 255 can",
        ),
        (
            it(&|it| it.addresses.push(FROM6)),
            "address fe80::2 cannot be advertised from 192.0.2.2: it is of the other family",
        ),
        (
            it(&|it| it.interval = interval(4096)),
            "an interval of 40.96 s cannot be sent as VRRPv3: 0.01 to 40.95 seconds are allowed",
        ),
        (
            it(&|it| (it.version, it.interval) = (Version::V2, interval(150))),
            "an interval of 1.50 s cannot be sent as VRRPv2: whole seconds from 1 to 255 are allowed",
        ),
    ] {
        assert_eq!(error(&it, FROM), words);
    }
    let six = advertisement(Version::V2, &["fe80::1"]);
    assert_eq!(error(&six, FROM6), "VRRPv2 has no IPv6: use version 3");
    assert_eq!(Interval::centiseconds(0), None);
    assert_eq!(Interval::centiseconds(25_501), None);
    assert_eq!(
        Interval::seconds(255).map(Interval::as_centiseconds),
        Some(25_500)
    );
}

proptest! {
    #[test]
    fn any_bytes_are_answered(bytes in prop::collection::vec(any::<u8>(), 0..80), six in any::<bool>()) {
        let (from, to) = if six { (FROM6, TO6) } else { (FROM, TO) };
        let _ = Advertisement::decode(&bytes, from, to, 255);
    }

    #[test]
    fn what_is_decoded_from_anything_is_encoded_to_the_same(
        mut bytes in prop::collection::vec(any::<u8>(), 12..64), six in any::<bool>(), v2 in any::<bool>(),
    ) {
        let (from, to, size) = if six { (FROM6, TO6, 16) } else { (FROM, TO, 4) };
        let behind = if v2 { 8 } else { 0 };
        bytes[0] = if v2 { 0x21 } else { 0x31 };
        bytes[3] = ((bytes.len() - 8).saturating_sub(behind) / size) as u8;
        bytes.truncate(8 + bytes[3] as usize * size + behind);
        if v2 {
            bytes[4] &= 1;
        } else {
            bytes[4] &= 0x0f;
        }
        bytes[6..8].fill(0);
        let sum = Sum::default().bytes(&bytes);
        let sum = if v2 { sum } else { sum.pseudo_header(from, to, bytes.len()) };
        bytes[6..8].copy_from_slice(&sum.field().to_be_bytes());
        if let Ok(it) = Advertisement::decode(&bytes, from, to, 255) {
            let again = it.encode(from, to).unwrap();
            // A type of authentication that has no password may have any bytes.
            if it.authentication != Authentication::None || !v2 {
                prop_assert_eq!(again, bytes);
            }
        }
    }
}
