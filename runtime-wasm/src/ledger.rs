//! What containers use, counted in memory that the supervisor and its hosts share.
//!
//! `limits.memory` bounds a container's instances over all hosts, and a host that is killed cannot say what it held: so each host counts in a row of its own,
//! the sum over rows is the use, and the supervisor zeroes the row of a dead host. Messages would be too slow for a request of some microseconds,
//! and a lock could be held by a process that was just killed. The limits are here, too: the supervisor changes them, and all hosts go by them at once. A compromised host could write nonsense here; it is accounting, no pointer or
//! length in any process depends on it.
#![allow(unsafe_code, reason = "memory shared between processes")]

mod quota;

use coracle_runtime::Resources;
use std::{
    io,
    ptr::NonNull,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// Containers at once; more are refused.
pub const SLOTS: usize = 16_384;

/// One host's account of one container.
#[repr(C, align(32))]
struct Cell {
    memory: AtomicU64,
    cpu_nanos: AtomicU64,
    requests: AtomicU64,
    denied: AtomicU64,
}

/// What one container may have, over all hosts.
#[repr(C, align(32))]
struct Allowance {
    memory: AtomicU64,
    /// Thousandths of a core; 0 where there is no limit.
    cpu_millis: AtomicU64,
    /// See [`quota`].
    paid: AtomicU64,
}

/// Where there is no limit. (Nothing at all may be had of a slot that was never allotted.)
const UNLIMITED: u64 = u64::MAX;

/// The whole table. Cloning it by `fork` shares it.
pub struct Ledger {
    cells: NonNull<Cell>,
    /// Behind the cells.
    allowances: NonNull<Allowance>,
    hosts: usize,
}

// SAFETY: the memory is made of atomics only, and lives until the process ends (the Ledger never unmaps it).
unsafe impl Send for Ledger {}
// SAFETY: as above.
unsafe impl Sync for Ledger {}

impl Ledger {
    /// A zeroed table, shared with every process forked later. Its pages are touched as slots are used: idle it costs nothing.
    pub fn new(hosts: usize) -> io::Result<Self> {
        let cells = hosts.max(1) * SLOTS;
        let length = cells * size_of::<Cell>() + SLOTS * size_of::<Allowance>();
        let (prot, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE);
        // SAFETY: a fresh anonymous mapping overlaps nothing; the result is checked.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), length, prot, flags, -1, 0) };
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let table: NonNull<Cell> = NonNull::new(at.cast()).ok_or_else(|| io::Error::other("mmap gave address zero"))?;
        // SAFETY: within the mapping, by its length.
        let allowances = unsafe { table.add(cells) }.cast();
        Ok(Self { cells: table, allowances, hosts: hosts.max(1) })
    }

    fn cell(&self, host: usize, slot: usize) -> &Cell {
        assert!(host < self.hosts && slot < SLOTS, "no such cell in the ledger");
        // SAFETY: in bounds by the line above; zeroed memory is a valid Cell; all access is atomic.
        unsafe { self.cells.add(host * SLOTS + slot).as_ref() }
    }

    fn allowance(&self, slot: usize) -> &Allowance {
        assert!(slot < SLOTS, "no such slot in the ledger");
        // SAFETY: as above; the cells' size is a multiple of an allowance's alignment.
        unsafe { self.allowances.add(slot).as_ref() }
    }

    fn sum(&self, slot: usize, of: impl Fn(&Cell) -> &AtomicU64) -> u64 {
        (0..self.hosts).map(|host| of(self.cell(host, slot)).load(Relaxed)).sum()
    }

    /// Bytes in use, over all hosts.
    pub fn memory(&self, slot: usize) -> u64 {
        self.sum(slot, |cell| &cell.memory)
    }

    /// CPU time, over all hosts.
    pub fn cpu_nanos(&self, slot: usize) -> u64 {
        self.sum(slot, |cell| &cell.cpu_nanos)
    }

    /// Requests ended by the memory limit, over all hosts.
    pub fn denied(&self, slot: usize) -> u64 {
        self.sum(slot, |cell| &cell.denied)
    }

    /// A host is gone: it holds nothing any more. What it used of the CPU stays used.
    pub fn bury(&self, host: usize) {
        for slot in 0..SLOTS {
            let cell = self.cell(host, slot);
            // Do not touch pages that were never used.
            if cell.memory.load(Relaxed) != 0 {
                cell.memory.store(0, Relaxed);
            }
        }
    }

    /// What the slot's container may have from now on.
    pub fn allot(&self, slot: usize, resources: &Resources) {
        let allowance = self.allowance(slot);
        allowance.memory.store(resources.memory_limit.unwrap_or(UNLIMITED), Relaxed);
        allowance.cpu_millis.store(resources.cpu_limit_millis.unwrap_or(0), Relaxed);
        allowance.paid.store(0, Relaxed);
    }

    /// The slot starts anew for another container.
    pub fn clear(&self, slot: usize) {
        for host in 0..self.hosts {
            let cell = self.cell(host, slot);
            for counter in [&cell.memory, &cell.cpu_nanos, &cell.requests, &cell.denied] {
                counter.store(0, Relaxed);
            }
        }
    }
}

/// One host's side of one container's account.
#[derive(Clone, Copy)]
pub struct Account {
    ledger: &'static Ledger,
    host: usize,
    slot: usize,
}

impl Account {
    /// `ledger` lives as long as the process.
    pub fn new(ledger: &'static Ledger, host: usize, slot: usize) -> Self {
        Self { ledger, host, slot }
    }

    /// `limits.memory` as it is now.
    pub fn memory_limit(&self) -> Option<u64> {
        Some(self.ledger.allowance(self.slot).memory.load(Relaxed)).filter(|limit| *limit != UNLIMITED)
    }

    /// Takes `bytes` unless all hosts together would then hold more than the limit. Two hosts that race for the last bytes may both be denied.
    pub fn take(&self, bytes: u64) -> bool {
        let cell = self.ledger.cell(self.host, self.slot);
        cell.memory.fetch_add(bytes, Relaxed);
        if self.memory_limit().is_some_and(|limit| self.ledger.memory(self.slot) > limit) {
            cell.memory.fetch_sub(bytes, Relaxed);
            return false;
        }
        true
    }

    /// Gives `bytes` back.
    pub fn give(&self, bytes: u64) {
        self.ledger.cell(self.host, self.slot).memory.fetch_sub(bytes, Relaxed);
    }

    /// There is nothing left to take.
    pub fn is_full(&self) -> bool {
        self.memory_limit().is_some_and(|limit| self.ledger.memory(self.slot) >= limit)
    }

    /// Counts CPU time.
    pub fn spend(&self, nanos: u64) {
        self.ledger.cell(self.host, self.slot).cpu_nanos.fetch_add(nanos, Relaxed);
        let Allowance { cpu_millis, paid, .. } = self.ledger.allowance(self.slot);
        let millis = cpu_millis.load(Relaxed);
        if millis > 0 {
            let now = quota::now();
            _ = paid.fetch_update(Relaxed, Relaxed, |paid| Some(quota::pay(paid, now, nanos, millis)));
        }
    }

    /// How long the container has to wait, because it has used as much of the CPU as `limits.cpu` lets it; none: it has not.
    pub fn in_debt(&self) -> Option<Duration> {
        let Allowance { cpu_millis, paid, .. } = self.ledger.allowance(self.slot);
        if cpu_millis.load(Relaxed) == 0 {
            return None;
        }
        quota::wait(paid.load(Relaxed), quota::now())
    }

    /// CPU time over all hosts.
    pub fn cpu_nanos(&self) -> u64 {
        self.ledger.cpu_nanos(self.slot)
    }

    /// Counts a request.
    pub fn request(&self) {
        self.ledger.cell(self.host, self.slot).requests.fetch_add(1, Relaxed);
    }

    /// Counts a request that the memory limit ended; how many there were, over all hosts.
    pub fn deny(&self) -> u64 {
        self.ledger.cell(self.host, self.slot).denied.fetch_add(1, Relaxed);
        self.ledger.denied(self.slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(memory: Option<u64>) -> Resources {
        Resources { memory_limit: memory, ..Resources::default() }
    }

    #[test]
    fn what_one_host_uses_of_the_cpu_all_wait_for() {
        let ledger: &'static Ledger = Box::leak(Box::new(Ledger::new(2).unwrap()));
        let (a, b) = (Account::new(ledger, 0, 7), Account::new(ledger, 1, 7));
        let hour = 3_600_000_000_000;
        ledger.allot(7, &limits(None));
        a.spend(hour);
        assert_eq!((a.in_debt(), b.in_debt()), (None, None), "there is no limit");
        ledger.allot(7, &Resources { cpu_limit_millis: Some(500), ..Resources::default() });
        assert_eq!(b.in_debt(), None);
        a.spend(hour);
        assert!([a, b].iter().all(|account| account.in_debt() > Some(Duration::from_secs(3600))), "two for one");
        ledger.allot(7, &Resources { cpu_limit_millis: Some(1000), ..Resources::default() });
        assert_eq!(a.in_debt(), None, "another limit begins anew");
    }

    #[test]
    fn the_limit_holds_over_all_hosts_and_death_gives_back() {
        let ledger: &'static Ledger = Box::leak(Box::new(Ledger::new(2).unwrap()));
        let (a, b) = (Account::new(ledger, 0, 7), Account::new(ledger, 1, 7));
        assert!(!a.take(1), "not before it is allotted");
        ledger.allot(7, &limits(Some(100)));
        assert!(a.take(60));
        assert!(!b.take(50));
        assert!(b.take(40) && b.is_full());
        assert_eq!(ledger.memory(7), 100);
        a.spend(5);
        ledger.bury(0);
        assert_eq!((ledger.memory(7), ledger.cpu_nanos(7)), (40, 5));
        assert!(b.take(60));
        // Other limits hold at once, below what is used, too.
        ledger.allot(7, &limits(Some(50)));
        assert!(!b.take(1) && b.is_full());
        ledger.allot(7, &limits(Some(101)));
        assert!(b.take(1) && !b.take(1));
        ledger.allot(7, &limits(None));
        assert!(b.take(1 << 40) && !b.is_full());
        b.give(101 + (1 << 40));
        ledger.clear(7);
        assert_eq!((ledger.memory(7), ledger.cpu_nanos(7)), (0, 0));
    }
}
