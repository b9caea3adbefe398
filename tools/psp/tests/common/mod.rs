// SPDX-License-Identifier: GPL-2.0-or-later
//! A machine made of a byte vector, and a driver for the firmware on it.
#![allow(dead_code)] // every test program uses its part

pub mod request;
pub mod snp;

use std::cell::{Ref, RefCell, RefMut};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};

use sevfw::crypto::cert::Certificate;
use sevfw::firmware::{Event, Firmware};
use sevfw::host::{Host, HostError, Level};
use sevfw::status::Status;
use sevfw::wire;
use sha2::{Digest, Sha256};
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes};

pub const RAM: usize = 8 << 20;
pub const CORES: u32 = 2;
/// The command buffer.
pub const CMD: u64 = 0x1000;
/// Host buffers.
pub const BUF: u64 = 0x10_000;
pub const BUF2: u64 = 0x20_000;
pub const BUF3: u64 = 0x30_000;
pub const BUF4: u64 = 0x40_000;
/// Guest memory.
pub const GUEST: u64 = 0x200_000;
/// The trusted memory region.
pub const TMR: u64 = 0x400_000;
/// The area of INIT_EX.
pub const NV: u64 = 0x80_000;

pub struct State {
    pub ram: Vec<u8>,
    pub keys: BTreeMap<u32, [u8; 16]>,
    pub rmp: BTreeMap<u64, [u64; 2]>,
    /// Address and size of what IOMMUs write for themselves.
    pub iommu: Vec<(u64, u64)>,
    pub snp_disabled: bool,
    pub msrs: BTreeMap<(u32, u32), u64>,
    /// Pages that were made VMSAs, with the ASID.
    pub sealed: Vec<(u64, u32)>,
    pub parked: Vec<u32>,
    pub log: Vec<String>,
    pub broken_keys: bool,
}

/// A machine. Encryption is an XOR with the key and the address: enough to see who wrote what.
pub struct Machine(RefCell<State>);

fn keystream(key: &[u8; 16], spa: u64, data: &mut [u8]) {
    for (i, byte) in (0u64..).zip(data) {
        let at = spa + i;
        *byte ^= key[(at % 16) as usize] ^ (at >> 4) as u8 ^ 0x5a;
    }
}

impl Machine {
    pub fn new() -> Rc<Self> {
        let mut msrs = BTreeMap::new();
        for core in 0..CORES {
            msrs.insert((core, 0xc001_0010), 0b111 << 23);
            msrs.insert((core, 0xc001_0117), 0);
            msrs.insert((core, 0xc001_0132), 0x70_0000);
            msrs.insert((core, 0xc001_0133), 0x7f_ffff);
            msrs.insert((core, 0xc001_0136), 0);
        }
        Rc::new(Self(RefCell::new(State {
            ram: vec![0; RAM],
            keys: BTreeMap::new(),
            rmp: BTreeMap::new(),
            iommu: Vec::new(),
            snp_disabled: false,
            msrs,
            sealed: Vec::new(),
            parked: Vec::new(),
            log: Vec::new(),
            broken_keys: false,
        })))
    }

    pub fn state(&self) -> RefMut<'_, State> {
        self.0.borrow_mut()
    }

    pub fn look(&self) -> Ref<'_, State> {
        self.0.borrow()
    }

    pub fn put(&self, spa: u64, bytes: &[u8]) {
        self.mem_write(spa, 0, bytes).unwrap();
    }

    pub fn get(&self, spa: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.mem_read(spa, 0, &mut bytes).unwrap();
        bytes
    }

    pub fn read<T: FromBytes + FromZeros + IntoBytes>(&self, spa: u64) -> T {
        let mut value = T::new_zeroed();
        self.mem_read(spa, 0, value.as_mut_bytes()).unwrap();
        value
    }

    /// Guest memory as the guest sees it.
    pub fn get_guest(&self, asid: u32, spa: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.mem_read(spa, asid, &mut bytes).unwrap();
        bytes
    }

    pub fn put_guest(&self, asid: u32, spa: u64, bytes: &[u8]) {
        self.mem_write(spa, asid, bytes).unwrap();
    }
}

impl Host for Machine {
    fn mem_read(&self, spa: u64, asid: u32, buf: &mut [u8]) -> Result<(), HostError> {
        let state = self.look();
        let start = usize::try_from(spa).map_err(|_| HostError)?;
        let end = start.checked_add(buf.len()).expect("no range wraps");
        buf.copy_from_slice(state.ram.get(start..end).ok_or(HostError)?);
        if asid != 0 {
            keystream(state.keys.get(&asid).ok_or(HostError)?, spa, buf);
        }
        Ok(())
    }

    fn mem_write(&self, spa: u64, asid: u32, data: &[u8]) -> Result<(), HostError> {
        let mut state = self.state();
        let start = usize::try_from(spa).map_err(|_| HostError)?;
        let end = start.checked_add(data.len()).expect("no range wraps");
        let mut data = data.to_vec();
        if asid != 0 {
            keystream(state.keys.get(&asid).ok_or(HostError)?, spa, &mut data);
        }
        let to = state.ram.get_mut(start..end).ok_or(HostError)?;
        to.copy_from_slice(&data);
        Ok(())
    }

    fn asid_key(&self, asid: u32, key: Option<&[u8; 16]>) -> Result<(), HostError> {
        let mut state = self.state();
        if state.broken_keys {
            return Err(HostError);
        }
        match key {
            Some(key) => state.keys.insert(asid, *key),
            None => state.keys.remove(&asid),
        };
        Ok(())
    }

    fn vmsa_seal(&self, spa: u64, asid: u32) -> Result<(), HostError> {
        self.state().sealed.push((spa, asid));
        Ok(())
    }

    fn rmp_init(&self) -> Result<(), HostError> {
        self.state().rmp.clear();
        Ok(())
    }

    fn rmp_get(&self, spa: u64) -> Result<[u64; 2], HostError> {
        if spa >= RAM as u64 {
            return Err(HostError);
        }
        Ok(*self.look().rmp.get(&(spa >> 12)).unwrap_or(&[0; 2]))
    }

    fn rmp_set(&self, spa: u64, entry: [u64; 2]) -> Result<(), HostError> {
        if spa >= RAM as u64 {
            return Err(HostError);
        }
        self.state().rmp.insert(spa >> 12, entry);
        Ok(())
    }

    fn snp_disable(&self) -> Result<(), HostError> {
        self.state().snp_disabled = true;
        Ok(())
    }

    fn iommu_pages(&self, index: u32) -> Option<(u64, u64)> {
        self.look().iommu.get(index as usize).copied()
    }

    fn ncpus(&self) -> u32 {
        CORES
    }

    fn msr_get(&self, cpu: u32, msr: u32) -> Result<u64, HostError> {
        self.look().msrs.get(&(cpu, msr)).copied().ok_or(HostError)
    }

    fn cpu_is_parked(&self, cpu: u32) -> bool {
        self.look().parked.contains(&cpu)
    }

    fn entropy(&self, buf: &mut [u8]) -> Result<(), HostError> {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        let n = COUNTER.fetch_add(1, Ordering::Relaxed).to_le_bytes();
        buf.iter_mut().zip(n).for_each(|(to, from)| *to = from);
        Ok(())
    }

    fn log(&self, _: Level, line: &str) {
        self.state().log.push(line.into());
    }
}

/// A firmware and its machine.
pub struct Psp {
    pub fw: Firmware,
    pub machine: Rc<Machine>,
}

pub type Outcome<T = ()> = Result<T, Status>;

impl Psp {
    pub fn new(config: &str) -> Self {
        let machine = Machine::new();
        let fw = Firmware::new(machine.clone(), config).unwrap();
        Self { fw, machine }
    }

    /// A firmware after INIT with ES, and flushed.
    pub fn ready(config: &str) -> Self {
        let mut psp = Self::new(config);
        psp.init(true).unwrap();
        psp.flush().unwrap();
        psp
    }

    /// Issues a command by name with a buffer; the buffer afterwards.
    pub fn run<T: FromBytes + FromZeros + IntoBytes + Immutable>(
        &mut self,
        name: &str,
        buffer: &T,
    ) -> (Status, T) {
        self.machine.put(CMD, buffer.as_bytes());
        let status = self.plain(name).err().unwrap_or(Status::SUCCESS);
        (status, self.machine.read(CMD))
    }

    pub fn ok<T: FromBytes + FromZeros + IntoBytes + Immutable>(
        &mut self,
        name: &str,
        buffer: &T,
    ) -> Outcome<T> {
        match self.run(name, buffer) {
            (Status::SUCCESS, buffer) => Ok(buffer),
            (status, _) => Err(status),
        }
    }

    /// Issues a command by name without preparing a buffer.
    pub fn plain(&mut self, name: &str) -> Outcome {
        let id = sevfw::command::COMMANDS
            .iter()
            .find(|command| command.name == name)
            .unwrap()
            .id;
        match self.fw.command(id, CMD).status {
            Status::SUCCESS => Ok(()),
            status => Err(status),
        }
    }

    pub fn init(&mut self, es: bool) -> Outcome {
        self.ok("INIT", &init(es)).map(|_| ())
    }

    pub fn wbinvd(&mut self) {
        for core in 0..CORES {
            self.fw.event(Event::Wbinvd(core));
        }
    }

    pub fn flush(&mut self) -> Outcome {
        self.wbinvd();
        self.plain("DF_FLUSH")
    }

    pub fn status(&mut self) -> wire::PlatformStatus {
        let empty = wire::PlatformStatus::new_zeroed();
        self.ok("PLATFORM_STATUS", &empty).unwrap()
    }

    /// An unattended launch; the handle.
    pub fn launch_start(&mut self, policy: u32) -> Outcome<u32> {
        let mut cmd = wire::Start::new_zeroed();
        cmd.policy = U32::new(policy);
        self.ok("LAUNCH_START", &cmd).map(|cmd| cmd.handle.get())
    }

    pub fn activate(&mut self, handle: u32, asid: u32) -> Outcome {
        let (handle, asid) = (U32::new(handle), U32::new(asid));
        self.ok("ACTIVATE", &wire::Activate { handle, asid })
            .map(|_| ())
    }

    /// A command that only names a guest.
    pub fn on(&mut self, name: &str, handle: u32) -> Outcome {
        let handle = U32::new(handle);
        self.ok(name, &wire::Handle { handle }).map(|_| ())
    }

    pub fn region(&mut self, name: &str, handle: u32, address: u64, len: u32) -> Outcome {
        self.ok(name, &region(handle, address, len)).map(|_| ())
    }

    pub fn measure(&mut self, handle: u32) -> Outcome<wire::Measurement> {
        self.region("LAUNCH_MEASURE", handle, BUF, 48)?;
        Ok(self.machine.read(BUF))
    }

    pub fn guest_status(&mut self, handle: u32) -> Outcome<wire::GuestStatus> {
        let mut cmd = wire::GuestStatus::new_zeroed();
        cmd.handle = U32::new(handle);
        self.ok("GUEST_STATUS", &cmd)
    }

    /// Launches a guest to RUNNING with a page of `fill` at [`GUEST`].
    pub fn running(&mut self, policy: u32, asid: u32, fill: u8) -> u32 {
        let handle = self.launch_start(policy).unwrap();
        self.activate(handle, asid).unwrap();
        self.machine.put(GUEST, &[fill; 4096]);
        self.region("LAUNCH_UPDATE_DATA", handle, GUEST, 4096)
            .unwrap();
        self.measure(handle).unwrap();
        self.on("LAUNCH_FINISH", handle).unwrap();
        handle
    }

    /// PDH and its chain: PEK, OCA, CEK.
    pub fn export(&mut self) -> (Certificate, [Certificate; 3]) {
        let mut cmd = wire::PdhCertExport::new_zeroed();
        cmd.pdh_address = U64::new(BUF);
        cmd.pdh_len = U32::new(2084);
        cmd.chain_address = U64::new(BUF2);
        cmd.chain_len = U32::new(3 * 2084);
        self.ok("PDH_CERT_EXPORT", &cmd).unwrap();
        (self.machine.read(BUF), self.machine.read(BUF2))
    }
}

pub fn init(es: bool) -> wire::Init {
    wire::Init {
        flags: U32::new(es.into()),
        reserved: U32::ZERO,
        tmr_address: U64::new(TMR),
        tmr_len: U32::new(1 << 20),
    }
}

pub fn init_ex() -> wire::InitEx {
    wire::InitEx {
        length: U32::new(36),
        flags: U32::new(1),
        tmr_address: U64::new(TMR),
        tmr_len: U32::new(1 << 20),
        reserved: U32::ZERO,
        nv_address: U64::new(NV),
        nv_len: U32::new(32 * 1024),
    }
}

pub fn region(handle: u32, address: u64, len: u32) -> wire::Region {
    wire::Region {
        handle: U32::new(handle),
        reserved: U32::ZERO,
        address: U64::new(address),
        len: U32::new(len),
    }
}

/// Short enough to print when an assertion fails.
pub fn print(value: &(impl IntoBytes + Immutable + ?Sized)) -> String {
    let digest = Sha256::digest(value.as_bytes());
    format!(
        "{:016x}",
        u64::from_be_bytes(*digest.first_chunk().unwrap())
    )
}

/// Guest states as GUEST_STATUS encodes them.
pub mod guest_state {
    pub const LUPDATE: u8 = 1;
    pub const LSECRET: u8 = 2;
    pub const RUNNING: u8 = 3;
    pub const SUPDATE: u8 = 4;
    pub const RUPDATE: u8 = 5;
    pub const SENT: u8 = 6;
}
