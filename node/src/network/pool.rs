//! Pod addresses of one range: who has which, pure.

use super::Error;
use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr},
};

/// An IPv4 range in CIDR notation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// First address.
    pub network: Ipv4Addr,
    /// Length of the prefix, 1 to 30.
    pub bits: u8,
}

impl std::fmt::Display for Range {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.network, self.bits)
    }
}

impl Range {
    /// Reads `10.244.0.0/20`.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let wrong = |why: &str| Error::Range(text.into(), why.into());
        let (base, bits) = text.split_once('/').ok_or_else(|| wrong("it is no CIDR such as 10.244.0.0/20"))?;
        let base: Ipv4Addr = base.parse().map_err(|_| wrong("its address is no IPv4 address"))?;
        let bits: u8 = bits.parse().map_err(|_| wrong("its length is no number"))?;
        if !(1..=30).contains(&bits) {
            return Err(wrong("its length is not within /1 to /30"));
        }
        let range = Self { network: base, bits };
        Ok(Self { network: Ipv4Addr::from(u32::from(base) & !(range.size() - 1)), bits })
    }

    /// The address so many after the first, if it is in the range.
    pub fn nth(self, offset: u32) -> Option<Ipv4Addr> {
        (offset < self.size()).then(|| Ipv4Addr::from(u32::from(self.network) + offset))
    }

    /// How many addresses it has.
    pub fn size(self) -> u32 {
        1 << (32 - self.bits)
    }

    /// The lower half, for sandboxes on the bridge.
    pub fn lower_half(self) -> Self {
        Self { network: self.network, bits: self.bits + 1 }
    }

    /// Whether the address is in it.
    pub fn contains(self, address: Ipv4Addr) -> bool {
        u32::from(address) & !(self.size() - 1) == u32::from(self.network)
    }

    /// The upper half; the lower one belongs to sandboxes on the bridge.
    pub fn upper_half(self) -> Self {
        Self { network: Ipv4Addr::from(u32::from(self.network) + self.size() / 2), bits: self.bits + 1 }
    }
}

/// Who has which address. The first (network) and last (broadcast) address stay free, as in any subnet.
pub struct Pool {
    range: Range,
    by_uid: HashMap<String, Ipv4Addr>,
    by_address: HashMap<Ipv4Addr, String>,
    /// Where the search for a free address goes on: freed addresses rest for a while.
    next: u32,
}

impl Pool {
    /// An empty pool.
    pub fn new(range: Range) -> Self {
        Self { range, by_uid: HashMap::new(), by_address: HashMap::new(), next: 0 }
    }

    /// The address that the pod has, else `keep` if that is free, else a new one.
    pub fn assign(&mut self, uid: &str, keep: Option<IpAddr>) -> Result<IpAddr, Error> {
        if let Some(address) = self.by_uid.get(uid) {
            return Ok((*address).into());
        }
        if let Some(IpAddr::V4(address)) = keep
            && self.usable(address)
            && !self.by_address.contains_key(&address)
        {
            return Ok(self.take(uid, address));
        }
        let count = self.range.size() - 2;
        for step in 0..count {
            let offset = (self.next + step) % count;
            let address = Ipv4Addr::from(u32::from(self.range.network) + 1 + offset);
            if !self.by_address.contains_key(&address) {
                self.next = (offset + 1) % count;
                return Ok(self.take(uid, address));
            }
        }
        Err(Error::Exhausted(self.range.to_string(), self.by_uid.len()))
    }

    /// Gives the pod's address back.
    pub fn release(&mut self, uid: &str) {
        if let Some(address) = self.by_uid.remove(uid) {
            self.by_address.remove(&address);
        }
    }

    /// Every pod with its address.
    pub fn iter(&self) -> impl Iterator<Item = (&String, &Ipv4Addr)> {
        self.by_uid.iter()
    }

    fn usable(&self, address: Ipv4Addr) -> bool {
        let offset = u32::from(address).wrapping_sub(u32::from(self.range.network));
        (1..self.range.size() - 1).contains(&offset)
    }

    fn take(&mut self, uid: &str, address: Ipv4Addr) -> IpAddr {
        self.by_uid.insert(uid.into(), address);
        self.by_address.insert(address, uid.into());
        address.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_and_halved() {
        let range = Range::parse("10.244.16.9/20").unwrap();
        assert_eq!(range, Range { network: Ipv4Addr::new(10, 244, 16, 0), bits: 20 });
        assert_eq!(range.upper_half(), Range { network: Ipv4Addr::new(10, 244, 24, 0), bits: 21 });
        assert_eq!(range.lower_half(), Range { network: Ipv4Addr::new(10, 244, 16, 0), bits: 21 });
        for (address, lower) in [([10, 244, 23, 255], true), ([10, 244, 24, 0], false), ([10, 244, 15, 255], false)] {
            assert_eq!(range.lower_half().contains(address.into()), lower);
        }
        for junk in ["10.0.0.0", "10.0.0.0/31", "x/9", "10.0.0.0/0", ""] {
            assert!(Range::parse(junk).is_err(), "{junk}");
        }
    }

    #[test]
    fn addresses_are_stable_unique_kept_and_bounded() {
        let mut pool = Pool::new(Range::parse("10.42.0.0/29").unwrap());
        let a = pool.assign("a", None).unwrap();
        assert_eq!(pool.assign("a", None).unwrap(), a);
        let kept = "10.42.0.5".parse().unwrap();
        assert_eq!(pool.assign("b", Some(kept)).unwrap(), kept);
        assert_ne!(pool.assign("c", Some(kept)).unwrap(), kept, "it is taken");
        for uid in ["d", "e", "f"] {
            pool.assign(uid, None).unwrap();
        }
        let error = pool.assign("g", None).unwrap_err().to_string();
        assert!(error.contains("10.42.0.0/29") && error.contains("6 pods"), "{error}");
        pool.release("b");
        assert_eq!(pool.assign("g", None).unwrap(), kept);
    }
}
