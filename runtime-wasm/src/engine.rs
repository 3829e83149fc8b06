//! How wasmtime is set up: once for the compiler, once for the hosts, such that what the one makes the other loads.
//!
//! Cranelift only (Winch and some back ends had sandbox escapes), no threads, no 64-bit memories, no garbage-collected references: what is not needed
//! is not reachable. Instances come out of the pooling allocator: making and dropping one is then microseconds, because slots stay mapped
//! and only pages that were written are reset (PAGEMAP_SCAN finds them; Linux 6.7).

use sha2::{Digest, Sha256};
use std::hash::{Hash, Hasher};
use wasmtime::{Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, Result};

/// Instances at once in one host process, requests and processes together.
pub const INSTANCES: u32 = 4096;
/// A linear memory's utmost size. (4 GiB are what a 32-bit memory can address; no single instance gets all of it.)
pub const MAX_MEMORY: usize = (4 << 30) - (64 << 10);
/// Slots whose pages are kept after use. Each may keep [`KEEP_RESIDENT`] resident: this bounds what a host holds after a burst.
const WARM_SLOTS: u32 = 8;
const KEEP_RESIDENT: usize = 4 << 20;
const STACK: usize = 512 << 10;

fn base() -> Config {
    let mut config = Config::new();
    config.epoch_interruption(true);
    config.max_wasm_stack(STACK);
    // The host's own functions run on the guest's stack too.
    config.async_stack_size(STACK + (512 << 10));
    config.wasm_backtrace_max_frames(std::num::NonZeroUsize::new(16));
    config.memory_init_cow(true);
    config.wasm_memory64(false);
    config
}

/// For the compiler process: nothing is ever instantiated there.
pub fn compiler() -> Result<Engine> {
    Engine::new(&base())
}

/// For a host process.
pub fn host() -> Result<Engine> {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(INSTANCES)
        .total_core_instances(INSTANCES * 4)
        .total_memories(INSTANCES)
        .total_tables(INSTANCES * 2)
        .total_stacks(INSTANCES)
        .max_memories_per_component(4)
        .max_tables_per_component(16)
        .max_memory_size(MAX_MEMORY)
        .table_elements(50_000)
        .max_unused_warm_slots(WARM_SLOTS)
        .linear_memory_keep_resident(KEEP_RESIDENT)
        .table_keep_resident(64 << 10)
        .pagemap_scan(Enabled::Auto);
    let mut config = base();
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    Engine::new(&config)
}

struct Sha(Sha256);

impl Hasher for Sha {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        let digest: [u8; 32] = self.0.clone().finalize().into();
        digest.iter().take(8).fold(0, |all, byte| all << 8 | u64::from(*byte))
    }
}

/// Names what artifacts depend on beside the wasm: wasmtime's version, its settings and the CPU's features.
pub fn key(engine: &Engine) -> String {
    let mut hasher = Sha(Sha256::new());
    engine.precompile_compatibility_hash().hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_compiler_makes_the_hosts_load() {
        let compiler = compiler().unwrap();
        let host = host().unwrap();
        assert_eq!(key(&compiler), key(&host));
    }
}
