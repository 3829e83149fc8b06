//! What one instance carries: the store's data, its limits, and the linker that says what a guest is granted.
//!
//! Fresh per request, so it must cost little to make: what is the same for all instances of a container is shared ([`Pod`]), and what few guests use
//! is made when they do.

use super::{
    log::{Log, Stream, Writer},
    outgoing::Outgoing,
    sockets::{self, PodNet},
};
use crate::ledger::Account;
use std::{
    fs::File,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};
use wasmtime::{
    Engine, ResourceLimiter, Result,
    component::{HasData, Linker, Resource, ResourceTable},
};
use wasmtime_wasi::{
    FsPerms, I32Exit, OpenMode,
    clocks::{WasiClocks, WasiClocksCtx, WasiClocksCtxView},
    filesystem::{Descriptor, Dir, WasiFilesystem, WasiFilesystemCtx, WasiFilesystemCtxView},
    p2::{
        DynInputStream, DynOutputStream,
        bindings::{cli, clocks, filesystem, io, random, sockets as wasi_sockets},
        pipe::ClosedInputStream,
    },
    random::{WasiRandom, WasiRandomCtx},
    sockets::{WasiSockets, WasiSocketsCtx, WasiSocketsCtxView},
};
use wasmtime_wasi_http::{WasiHttp, WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

/// A volume, as a descriptor: a host sees no paths.
pub struct Preopen {
    /// The directory.
    pub dir: Arc<File>,
    /// Where the guest sees it.
    pub path: String,
    /// Writes are refused.
    pub read_only: bool,
}

/// What all instances of a container share in this process.
pub struct Pod {
    /// Environment of the guest.
    pub env: Vec<(String, String)>,
    /// Arguments, the program's name first.
    pub args: Vec<String>,
    /// `workingDir`.
    pub cwd: Option<String>,
    /// Volumes.
    pub preopens: Vec<Preopen>,
    /// What addresses mean.
    pub net: PodNet,
    /// The gate for sockets.
    pub sockets: WasiSocketsCtx,
    /// How names resolve.
    pub resolver: Arc<super::resolve::Resolver>,
    /// Where output goes.
    pub log: Arc<Log>,
    /// The container's row in the ledger, with its limits.
    pub account: Account,
}

/// The data of a store.
pub struct Guest {
    pod: Arc<Pod>,
    table: ResourceTable,
    http: WasiHttpCtx,
    outgoing: Outgoing,
    /// What addresses mean.
    pub net: PodNet,
    sockets: WasiSocketsCtx,
    filesystem: WasiFilesystemCtx,
    clocks: Option<WasiClocksCtx>,
    random: Option<WasiRandomCtx>,
    stdout: Option<Writer>,
    stderr: Option<Writer>,
    alone: bool,
    /// Memory and its limit.
    pub limits: Limits,
}

/// Streams, sockets, requests and so on that one instance may hold at once. They are this process's memory, which `limits.memory` does not count;
/// who asks for more traps.
const RESOURCES: usize = 10_000;

impl Guest {
    /// For one instance, `alone` if its container has no others.
    pub fn new(pod: Arc<Pod>, alone: bool) -> Self {
        let mut table = ResourceTable::new();
        table.set_max_capacity(RESOURCES);
        Self {
            table,
            http: WasiHttpCtx::new(),
            outgoing: Outgoing::new(pod.clone()),
            net: pod.net,
            sockets: pod.sockets.clone(),
            filesystem: WasiFilesystemCtx::default(),
            clocks: None,
            random: None,
            stdout: None,
            stderr: None,
            alone,
            limits: Limits::new(pod.account),
            pod,
        }
    }

    /// For `wasi:sockets`.
    pub fn sockets(&mut self) -> WasiSocketsCtxView<'_> {
        WasiSocketsCtxView { ctx: &mut self.sockets, table: &mut self.table }
    }

    /// Resources of the guest.
    pub fn table(&mut self) -> &mut ResourceTable {
        &mut self.table
    }

    /// Of the container.
    pub fn pod(&self) -> &Arc<Pod> {
        &self.pod
    }

    fn filesystem(&mut self) -> WasiFilesystemCtxView<'_> {
        WasiFilesystemCtxView { ctx: &mut self.filesystem, table: &mut self.table }
    }

    fn clocks(&mut self) -> WasiClocksCtxView<'_> {
        WasiClocksCtxView { ctx: self.clocks.get_or_insert_with(WasiClocksCtx::default), table: &mut self.table }
    }

    fn random(&mut self) -> &mut WasiRandomCtx {
        self.random.get_or_insert_with(WasiRandomCtx::default)
    }

    fn writer(&mut self, stream: Stream) -> Writer {
        let slot = if stream == Stream::Out { &mut self.stdout } else { &mut self.stderr };
        slot.get_or_insert_with(|| Writer::new(self.pod.log.clone(), stream, self.alone)).clone()
    }
}

impl WasiHttpView for Guest {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { hooks: &mut self.outgoing, table: &mut self.table, ctx: &mut self.http }
    }
}

/// Memory of one instance, counted in the ledger.
pub struct Limits {
    account: Account,
    held: u64,
    denied: Arc<AtomicBool>,
}

impl Limits {
    /// Nothing held yet.
    pub fn new(account: Account) -> Self {
        Self { account, held: 0, denied: Arc::default() }
    }

    /// Set once a growth was denied: if the guest traps afterwards, it ran out of memory.
    pub fn denied(&self) -> Arc<AtomicBool> {
        self.denied.clone()
    }
}

impl Drop for Limits {
    fn drop(&mut self) {
        self.account.give(self.held);
    }
}

impl ResourceLimiter for Limits {
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> Result<bool> {
        let more = desired.saturating_sub(current) as u64;
        if maximum.is_some_and(|maximum| desired > maximum) || !self.account.take(more) {
            self.denied.store(true, Relaxed);
            return Ok(false);
        }
        self.held += more;
        Ok(true)
    }

    fn memory_grow_failed(&mut self, _: wasmtime::Error) -> Result<()> {
        self.denied.store(true, Relaxed);
        Ok(())
    }

    fn table_growing(&mut self, _: usize, desired: usize, maximum: Option<usize>) -> Result<bool> {
        Ok(maximum.is_none_or(|maximum| desired <= maximum))
    }
}

/// `wasi:cli` and preopens out of a [`Guest`], without copying environment and arguments into each of them beforehand.
struct OfGuest;

impl HasData for OfGuest {
    type Data<'a> = &'a mut Guest;
}

impl cli::environment::Host for Guest {
    fn get_environment(&mut self) -> Result<Vec<(String, String)>> {
        Ok(self.pod.env.clone())
    }

    fn get_arguments(&mut self) -> Result<Vec<String>> {
        Ok(self.pod.args.clone())
    }

    fn initial_cwd(&mut self) -> Result<Option<String>> {
        Ok(self.pod.cwd.clone())
    }
}

impl cli::stdin::Host for Guest {
    fn get_stdin(&mut self) -> Result<Resource<DynInputStream>> {
        let empty: DynInputStream = Box::new(ClosedInputStream);
        Ok(self.table.push(empty)?)
    }
}

impl cli::stdout::Host for Guest {
    fn get_stdout(&mut self) -> Result<Resource<DynOutputStream>> {
        let stream: DynOutputStream = Box::new(self.writer(Stream::Out));
        Ok(self.table.push(stream)?)
    }
}

impl cli::stderr::Host for Guest {
    fn get_stderr(&mut self) -> Result<Resource<DynOutputStream>> {
        let stream: DynOutputStream = Box::new(self.writer(Stream::Err));
        Ok(self.table.push(stream)?)
    }
}

impl cli::exit::Host for Guest {
    fn exit(&mut self, status: Result<(), ()>) -> Result<()> {
        Err(wasmtime::Error::from(I32Exit(if status.is_ok() { 0 } else { 1 })))
    }

    fn exit_with_code(&mut self, code: u8) -> Result<()> {
        Err(wasmtime::Error::from(I32Exit(code.into())))
    }
}

impl cli::terminal_input::Host for Guest {}

impl cli::terminal_input::HostTerminalInput for Guest {
    fn drop(&mut self, terminal: Resource<cli::terminal_input::TerminalInput>) -> Result<()> {
        self.table.delete(terminal)?;
        Ok(())
    }
}

impl cli::terminal_output::Host for Guest {}

impl cli::terminal_output::HostTerminalOutput for Guest {
    fn drop(&mut self, terminal: Resource<cli::terminal_output::TerminalOutput>) -> Result<()> {
        self.table.delete(terminal)?;
        Ok(())
    }
}

impl cli::terminal_stdin::Host for Guest {
    fn get_terminal_stdin(&mut self) -> Result<Option<Resource<cli::terminal_stdin::TerminalInput>>> {
        Ok(None)
    }
}

impl cli::terminal_stdout::Host for Guest {
    fn get_terminal_stdout(&mut self) -> Result<Option<Resource<cli::terminal_stdout::TerminalOutput>>> {
        Ok(None)
    }
}

impl cli::terminal_stderr::Host for Guest {
    fn get_terminal_stderr(&mut self) -> Result<Option<Resource<cli::terminal_stderr::TerminalOutput>>> {
        Ok(None)
    }
}

impl filesystem::preopens::Host for Guest {
    fn get_directories(&mut self) -> Result<Vec<(Resource<Descriptor>, String)>> {
        let mut directories = Vec::with_capacity(self.pod.preopens.len());
        for Preopen { dir, path, read_only } in &self.pod.preopens {
            let (perms, mode) = if *read_only { (FsPerms::ReadOnly, OpenMode::READ) } else { (FsPerms::ReadWrite, OpenMode::READ | OpenMode::WRITE) };
            let dir = Dir::new(dir.try_clone()?, perms, mode, false);
            directories.push((self.table.push(Descriptor::Dir(dir))?, path.clone()));
        }
        Ok(directories)
    }
}

/// What a component is granted: WASI 0.2 and nothing else.
pub fn linker(engine: &Engine) -> Result<Linker<Guest>> {
    let mut linker = Linker::new(engine);
    let l = &mut linker;
    // The names of these interfaces are the list in a refusal: see `classify`.
    type G = Guest;
    io::error::add_to_linker::<G, OfTable>(l, Guest::table)?;
    io::poll::add_to_linker::<G, OfTable>(l, Guest::table)?;
    io::streams::add_to_linker::<G, OfTable>(l, Guest::table)?;
    clocks::wall_clock::add_to_linker::<G, WasiClocks>(l, Guest::clocks)?;
    clocks::monotonic_clock::add_to_linker::<G, WasiClocks>(l, Guest::clocks)?;
    random::random::add_to_linker::<G, WasiRandom>(l, Guest::random)?;
    random::insecure::add_to_linker::<G, WasiRandom>(l, Guest::random)?;
    random::insecure_seed::add_to_linker::<G, WasiRandom>(l, Guest::random)?;
    filesystem::types::add_to_linker::<G, WasiFilesystem>(l, Guest::filesystem)?;
    filesystem::preopens::add_to_linker::<G, OfGuest>(l, |guest| guest)?;
    cli::exit::add_to_linker::<G, OfGuest>(l, |guest| guest)?;
    cli::environment::add_to_linker::<G, OfGuest>(l, |guest| guest)?;
    cli::stdin::add_to_linker::<G, OfGuest>(l, |guest| guest)?;
    cli::stdout::add_to_linker::<G, OfGuest>(l, |guest| guest)?;
    cli::stderr::add_to_linker::<G, OfGuest>(l, |guest| guest)?;
    cli::terminal_input::add_to_linker::<G, OfGuest>(l, |guest| guest)?;
    cli::terminal_output::add_to_linker::<G, OfGuest>(l, |guest| guest)?;
    cli::terminal_stdin::add_to_linker::<G, OfGuest>(l, |guest| guest)?;
    cli::terminal_stdout::add_to_linker::<G, OfGuest>(l, |guest| guest)?;
    cli::terminal_stderr::add_to_linker::<G, OfGuest>(l, |guest| guest)?;
    wasi_sockets::tcp::add_to_linker::<G, WasiSockets>(l, Guest::sockets)?;
    wasi_sockets::udp::add_to_linker::<G, WasiSockets>(l, Guest::sockets)?;
    wasi_sockets::tcp_create_socket::add_to_linker::<G, WasiSockets>(l, Guest::sockets)?;
    wasi_sockets::udp_create_socket::add_to_linker::<G, WasiSockets>(l, Guest::sockets)?;
    wasi_sockets::instance_network::add_to_linker::<G, WasiSockets>(l, Guest::sockets)?;
    wasi_sockets::network::add_to_linker::<G, WasiSockets>(l, &Default::default(), Guest::sockets)?;
    sockets::add_to_linker(l)?;
    super::resolve::add_to_linker(l)?;
    wasmtime_wasi_http::p2::bindings::http::outgoing_handler::add_to_linker::<G, WasiHttp>(l, Guest::http)?;
    wasmtime_wasi_http::p2::bindings::http::types::add_to_linker::<G, WasiHttp>(l, &Default::default(), Guest::http)?;
    Ok(linker)
}

struct OfTable;

impl HasData for OfTable {
    type Data<'a> = &'a mut ResourceTable;
}
