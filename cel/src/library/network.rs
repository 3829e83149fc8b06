//! Addresses and networks. IPv4 addresses in IPv6's clothes and zones are refused, as they hide what they are.

use crate::eval::{Answer, Run, error, no_overload};
use crate::functions::Library;
use crate::value::{Opaque, Val};
use std::fmt;
use std::net::IpAddr;

pub(super) const LIBRARY: Library = &[
    ("ip(string) -> net.IP", ip),
    ("isIP(string) -> bool", is_ip),
    ("ip.isCanonical(string) -> bool", is_canonical),
    ("(net.IP).family() -> int", family),
    ("(net.IP).isUnspecified() -> bool", is_unspecified),
    ("(net.IP).isLoopback() -> bool", is_loopback),
    ("(net.IP).isLinkLocalMulticast() -> bool", is_link_local_multicast),
    ("(net.IP).isLinkLocalUnicast() -> bool", is_link_local_unicast),
    ("(net.IP).isGlobalUnicast() -> bool", is_global_unicast),
    ("cidr(string) -> net.CIDR", cidr),
    ("isCIDR(string) -> bool", is_cidr),
    ("(net.CIDR).containsIP(string) -> bool", contains_ip),
    ("(net.CIDR).containsIP(net.IP) -> bool", contains_ip),
    ("(net.CIDR).containsCIDR(string) -> bool", contains_cidr),
    ("(net.CIDR).containsCIDR(net.CIDR) -> bool", contains_cidr),
    ("(net.CIDR).ip() -> net.IP", cidr_ip),
    ("(net.CIDR).prefixLength() -> int", prefix_length),
    ("(net.CIDR).masked() -> net.CIDR", masked),
];

/// A network: an address in it, and how many of its first bits all have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    /// As it was given, host bits included.
    pub addr: IpAddr,
    /// Length of the prefix.
    pub bits: u8,
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr, self.bits)
    }
}

impl Cidr {
    /// The address with everything behind the prefix zero.
    fn base(addr: IpAddr, bits: u8) -> IpAddr {
        match addr {
            IpAddr::V4(addr) => IpAddr::V4((u32::from(addr) & u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0)).into()),
            IpAddr::V6(addr) => IpAddr::V6((u128::from(addr) & u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0)).into()),
        }
    }
    fn contains(&self, addr: IpAddr) -> bool {
        self.addr.is_ipv4() == addr.is_ipv4() && Cidr::base(self.addr, self.bits) == Cidr::base(addr, self.bits)
    }
}

fn read_ip(text: &str) -> Result<IpAddr, String> {
    if let Some((addr, zone)) = text.split_once('%')
        && !zone.is_empty()
        && addr.parse::<std::net::Ipv6Addr>().is_ok()
    {
        return Err(format!("IP address {text:?} with zone value is not allowed"));
    }
    match text.parse() {
        Ok(IpAddr::V6(addr)) if addr.to_ipv4_mapped().is_some() => Err(format!("IPv4-mapped IPv6 address {text:?} is not allowed")),
        Ok(addr) => Ok(addr),
        Err(_) => Err(format!("IP Address {text:?} parse error during conversion from string: ParseAddr({text:?}): unable to parse IP")),
    }
}

fn read_cidr(text: &str) -> Result<Cidr, String> {
    let wrong = |why: &str| format!("network address parse error during conversion from string: netip.ParsePrefix({text:?}): {why}");
    let (addr, bits) = text.rsplit_once('/').ok_or_else(|| wrong("no '/'"))?;
    let addr: IpAddr = addr.parse().map_err(|_| wrong(&format!("ParseAddr({addr:?}): unable to parse IP")))?;
    if matches!(addr, IpAddr::V6(addr) if addr.to_ipv4_mapped().is_some()) {
        return Err(format!("IPv4-mapped IPv6 address {text:?} is not allowed"));
    }
    let plain = bits.bytes().all(|c| c.is_ascii_digit()) && (bits == "0" || !bits.starts_with('0'));
    let most = if addr.is_ipv4() { 32 } else { 128 };
    match bits.parse::<u8>() {
        Ok(length) if plain && length <= most => Ok(Cidr { addr, bits: length }),
        Ok(_) if plain => Err(wrong("prefix length out of range")),
        _ => Err(wrong(&format!("bad bits after slash: {bits:?}"))),
    }
}

fn ip<'a>(_: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    match args {
        [Val::String(text)] => read_ip(text).map(|addr| Val::opaque(Opaque::Ip(addr))).or_else(error),
        _ => no_overload(),
    }
}

fn is_ip<'a>(_: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    match args {
        [Val::String(text)] => Ok(Val::Bool(read_ip(text).is_ok())),
        _ => no_overload(),
    }
}

fn is_canonical<'a>(_: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    match args {
        [Val::String(text)] => read_ip(text).map(|addr| Val::Bool(addr.to_string() == **text)).or_else(error),
        _ => no_overload(),
    }
}

fn ask<'a>(run: &mut Run<'_, 'a>, args: &[Val<'a>], question: fn(IpAddr) -> Val<'static>) -> Answer<'a> {
    let [value] = args else { return no_overload() };
    match run.opaque(value)? {
        Opaque::Ip(addr) => Ok(question(*addr)),
        _ => no_overload(),
    }
}

fn family<'a>(run: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    ask(run, args, |addr| Val::Int(if addr.is_ipv4() { 4 } else { 6 }))
}

fn is_unspecified<'a>(run: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    ask(run, args, |addr| Val::Bool(addr.is_unspecified()))
}

fn is_loopback<'a>(run: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    ask(run, args, |addr| Val::Bool(addr.is_loopback()))
}

fn is_link_local_multicast<'a>(run: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    ask(run, args, |addr| {
        Val::Bool(match addr {
            IpAddr::V4(addr) => addr.octets().starts_with(&[224, 0, 0]),
            IpAddr::V6(addr) => addr.segments()[0] & 0xff0f == 0xff02,
        })
    })
}

fn link_local(addr: IpAddr) -> bool {
    match addr {
        IpAddr::V4(addr) => addr.is_link_local(),
        IpAddr::V6(addr) => addr.is_unicast_link_local(),
    }
}

fn is_link_local_unicast<'a>(run: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    ask(run, args, |addr| Val::Bool(link_local(addr)))
}

fn is_global_unicast<'a>(run: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    ask(run, args, |addr| {
        let broadcast = matches!(addr, IpAddr::V4(addr) if addr.is_broadcast());
        Val::Bool(!broadcast && !addr.is_unspecified() && !addr.is_loopback() && !addr.is_multicast() && !link_local(addr))
    })
}

fn cidr<'a>(_: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    match args {
        [Val::String(text)] => match read_cidr(text) {
            Ok(cidr) => Ok(Val::opaque(Opaque::Cidr(cidr))),
            Err(why) => error(format!("network address parse error during conversion from string: {why}")),
        },
        _ => no_overload(),
    }
}

fn is_cidr<'a>(_: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    match args {
        [Val::String(text)] => Ok(Val::Bool(read_cidr(text).is_ok())),
        _ => no_overload(),
    }
}

fn network(value: Option<&Val<'_>>) -> Result<Cidr, crate::eval::Error> {
    match value {
        Some(Val::String(text)) => read_cidr(text).or_else(|why| error(format!("network address parse error during conversion from string: {why}"))),
        Some(Val::Opaque(opaque)) => match &**opaque {
            Opaque::Cidr(cidr) => Ok(*cidr),
            _ => no_overload(),
        },
        _ => no_overload(),
    }
}

fn contains_ip<'a>(_: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    let cidr = network(args.first())?;
    let addr = match args.get(1) {
        Some(Val::String(text)) => read_ip(text).or_else(error)?,
        Some(Val::Opaque(opaque)) => match &**opaque {
            Opaque::Ip(addr) => *addr,
            _ => return no_overload(),
        },
        _ => return no_overload(),
    };
    Ok(Val::Bool(cidr.contains(addr)))
}

fn contains_cidr<'a>(_: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    let (outer, inner) = (network(args.first())?, network(args.get(1))?);
    Ok(Val::Bool(outer.bits <= inner.bits && outer.contains(inner.addr)))
}

fn cidr_ip<'a>(_: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    Ok(Val::opaque(Opaque::Ip(network(args.first())?.addr)))
}

fn prefix_length<'a>(_: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    Ok(Val::Int(network(args.first())?.bits.into()))
}

fn masked<'a>(_: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    let Cidr { addr, bits } = network(args.first())?;
    Ok(Val::opaque(Opaque::Cidr(Cidr { addr: Cidr::base(addr, bits), bits })))
}
