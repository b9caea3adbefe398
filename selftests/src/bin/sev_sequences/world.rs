// SPDX-License-Identifier: GPL-2.0-or-later
//! What a sequence has created, and the operations on it.
//!
//! | operation | |
//! |---|---|
//! | `vm V type=T [mem=W]` | creates VM V; its memory is V's place, or that of W |
//! | `close V`, `vcpu V n=I`, `closevcpu V n=I`, `run V n=I` | its file and those of vCPUs |
//! | `load V` | writes page tables and a program into V's memory |
//! | `sev V COMMAND [FIELD=X]... [at=P] [fd=D] [by=B]` | a command by name: [`crate::commands`] |
//! | `raw V id=N data=P [fd=D] [by=B]` | a command by number |
//! | `argp V at=P` | with the command block itself at P |
//! | `reg V addr=P size=N`, `unreg ...` | memory regions |
//! | `copy V from=W`, `move V from=W` | encryption context; W may be a descriptor |
//! | `write P len=N byte=B`, `read P len=N` | by the host |
//! | `attr group=N attr=N` | device attributes of /dev/kvm |
//! | `private V at=X len=N to=B`, `punch V at=X len=N`, `prefault V n=I at=X len=N` | private memory |
//! | `certificates`, `identity policy=N` | of the platform, of an SEV-SNP guest: to `cert` |
//! | `fault cmd=C n=N status=S` | the firmware will fail |
//! | `limit sev=N`, `limit sev_es=N` | the cgroup's limits |
//! | `exhaust type=T` | initialises VMs until that fails, and closes them |
//! | `opensev`, `closesev` | a second descriptor of /dev/sev, `fd=second` |
//! | `owner policy=N`, `packet V len=N` | the guest's owner: session in `cert`, secret in `hdr`, `trans` |
//!
//! Operations on what does not exist answer `none`, so that any part of a sequence is one.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use anyhow::{Context, Result, bail};
use kvm_bindings::*;
use kvm_ioctls::VmFd;
use sev_vm::bad::Descriptors;
use sev_vm::cmd::{Answer, issue, issue_at};
use sev_vm::host::{EncryptionLeaf, Host, VmType, open_sev};
use sev_vm::psp::Psp;
use sev_vm::tenant::{Owner, Packet, VerifiedSession, build, firmware};
use sev_vm::vm::addr_of;

use crate::cpus::{Cpus, program};
use crate::places::{GUEST, Places, number};
use crate::private::{on_memory, with_private};
use crate::reset::cgroup;
use crate::script::Op;
use crate::table::{Command, commands};

const COPY: u32 = 197;
const MOVE: u32 = 206;

/// A VM.
pub struct Guest {
    /// Its file.
    pub fd: VmFd,
    /// Its private memory, if it has any.
    pub private: Option<OwnedFd>,
    /// Its memory.
    pub memory: u64,
    /// Its type.
    pub kind: u64,
    /// A program is in its memory, and nobody has written there since.
    pub loaded: bool,
    /// The program was encrypted with its key.
    pub encrypted: bool,
    /// Its launch is finished: it runs a program that is known.
    pub runnable: bool,
    /// It was launched with a session of the owner's.
    pub owner: Option<Owner>,
    /// The owner accepted the measurement.
    pub verified: Option<VerifiedSession>,
    /// What was launched.
    pub parts: Vec<Vec<u8>>,
}

/// Everything of one sequence. vCPUs go first, then VMs, by name.
pub struct World {
    pub(crate) cpus: Cpus,
    pub(crate) vms: BTreeMap<String, Guest>,
    pub(crate) places: &'static Places,
    pub(crate) host: Host,
    pub(crate) commands: Vec<Command>,
    pub(crate) bad: Descriptors,
    pub(crate) second: Option<File>,
    /// Firmware handles in the order in which they were first seen; their numbers depend on
    /// what happened before the sequence.
    pub(crate) handles: Vec<u32>,
    pub(crate) owner: Option<Owner>,
    /// ASIDs of SEV and of SEV-ES guests that were leased, at most.
    pub leased: [u64; 2],
    /// Whether firmware was told to fail.
    pub faulty: bool,
    limits: BTreeSet<String>,
}

impl World {
    /// Nothing, and buffers full of zeroes.
    pub fn new(places: &'static Places) -> Result<Self> {
        places.clear();
        let host = Host::open()?;
        Ok(Self {
            cpus: Cpus::default(),
            vms: BTreeMap::new(),
            places,
            commands: commands(),
            bad: Descriptors::new(&host)?,
            second: None,
            handles: Vec::new(),
            owner: None,
            leased: [0; 2],
            faulty: false,
            limits: BTreeSet::new(),
            host,
        })
    }

    /// Performs one operation; its answer as text. An error is one of the script.
    pub fn perform(&mut self, op: Op<'_>, psp: &mut Psp) -> Result<String> {
        match op.word(0)? {
            "vm" => self.create(op),
            "sev" => self.command(op),
            "owner" => self.prepare_owner(op),
            "packet" => self.packet(op),
            "identity" => self.identity(op),
            "certificates" => self.certificates(),
            "prefault" => self.prefault(op),
            "exhaust" => self.exhaust(op),
            "write" => self.write(op),
            "read" => {
                let bytes = self.places.read(self.at(op.word(1)?)?, op.number("len")? as usize);
                Ok(digest(&bytes))
            }
            "attr" => {
                let (group, attr) = (op.number("group")? as u32, op.number("attr")?);
                let has = Answer::from_result(self.host.has_device_attr(group, attr));
                let value = self.host.device_attr(group, attr);
                Ok(format!("{has} value={value:x?}"))
            }
            "fault" => {
                self.faulty = true;
                psp.request(op.line()).map(|_| "armed".into())
            }
            "limit" => self.limit(op),
            "opensev" => {
                self.second = Some(open_sev()?);
                Ok("open".into())
            }
            "closesev" => Ok(if self.second.take().is_some() { "closed" } else { "none" }.into()),
            _ => self.on_vm(op),
        }
    }

    /// Operations on a VM that exists.
    fn on_vm(&mut self, op: Op<'_>) -> Result<String> {
        let (what, name) = (op.word(0)?, op.word(1)?);
        if what == "closevcpu" {
            return Ok(self.cpus.close(name, op.number("n")?).into());
        }
        if what == "run" {
            return self.run(name, op.number("n")?);
        }
        if what == "close" {
            return Ok(if self.vms.remove(name).is_some() { "closed" } else { "none" }.into());
        }
        let Some(vm) = self.vms.get(name) else { return Ok("none".into()) };
        let answer = match what {
            "vcpu" => return self.cpus.add(&self.host, name, vm, op.number("n")?),
            "load" => return self.load(name),
            "private" | "punch" => on_memory(vm, op)?,
            "raw" => {
                let (id, data) = (op.number("id")?, self.at(op.value("data").unwrap_or("arg"))?);
                let fd = self.descriptor(op)?;
                by(op, || issue(&vm.fd, id as u32, data, fd))?
            }
            "argp" => {
                let at = self.at(op.value("at").context("no at=")?)?;
                by(op, || issue_at(&vm.fd, at))?
            }
            "reg" | "unreg" => {
                let addr = self.at(op.value("addr").context("no addr=")?)?;
                let region = kvm_enc_region { addr, size: op.number("size")? };
                by(op, || {
                    Answer::from_result(match what {
                        "reg" => vm.fd.register_enc_memory_region(&region),
                        _ => vm.fd.unregister_enc_memory_region(&region),
                    })
                })?
            }
            "copy" | "move" => {
                let from = op.value("from").context("no from=")?;
                let fd = match self.vms.get(from) {
                    Some(source) => source.fd.as_raw_fd(),
                    None => self.descriptor_named(from)?,
                };
                let cap = if what == "copy" { COPY } else { MOVE };
                let cap = kvm_enable_cap { cap, args: [fd as u64, 0, 0, 0], ..Default::default() };
                by(op, || Answer::from_result(vm.fd.enable_cap(&cap)))?
            }
            _ => bail!("{:?}: unknown operation", op.line()),
        };
        if what == "raw" {
            self.leased.iter_mut().for_each(|leased| *leased += 1);
        }
        Ok(answer.to_string())
    }

    fn create(&mut self, op: Op<'_>) -> Result<String> {
        let name = op.word(1)?;
        if self.vms.contains_key(name) || self.cpus.any_of(name) {
            return Ok("exists".into());
        }
        let kind = op.number("type")?;
        let memory = self.at(op.value("mem").unwrap_or(name))?;
        let fd = match self.host.kvm.create_vm_with_type(kind) {
            Ok(fd) => fd,
            Err(error) => return Ok(Answer::from_result::<()>(Err(error)).to_string()),
        };
        if !self.vms.values().any(|vm| vm.memory == memory) {
            self.places.clear_guest(memory);
        }
        let (private, slot) = if kind == VmType::Snp as u64 {
            let (private, slot) = with_private(&fd, memory)?;
            (Some(private), slot)
        } else {
            let slot = kvm_userspace_memory_region2 {
                memory_size: GUEST as u64,
                userspace_addr: memory,
                ..Default::default()
            };
            (None, slot)
        };
        // SAFETY: the place is mapped for the life of the process and only accessed by copying.
        let answer = Answer::from_result(unsafe { fd.set_user_memory_region2(slot) });
        self.vms.insert(
            name.into(),
            Guest {
                fd,
                private,
                memory,
                kind,
                loaded: false,
                encrypted: false,
                runnable: false,
                owner: None,
                verified: None,
                parts: Vec::new(),
            },
        );
        Ok(answer.to_string())
    }

    fn load(&mut self, name: &str) -> Result<String> {
        let memory = self.vms.get(name).context("no such VM")?.memory;
        self.touched(memory);
        let leaf = EncryptionLeaf::read();
        let Some(vm) = self.vms.get_mut(name) else { return Ok("none".into()) };
        let mask = if vm.kind == VmType::Default as u64 { 0 } else { leaf.c_mask() };
        for (offset, bytes) in program(mask)? {
            self.places.write(memory + offset, &bytes);
        }
        vm.loaded = true;
        Ok("loaded".into())
    }

    fn run(&mut self, name: &str, n: u64) -> Result<String> {
        let vm = self.vms.get(name);
        // What would run otherwise is not known, and may never end.
        if !vm.is_some_and(|vm| vm.runnable) {
            return Ok("not ready".into());
        }
        let memory = vm.map(|vm| vm.memory).unwrap_or_default();
        self.cpus.run(name, n, self.places, memory)
    }

    /// Somebody changes memory: what it held does not run any more.
    pub(crate) fn touched(&mut self, address: u64) {
        let here = |vm: &Guest| (vm.memory..vm.memory + GUEST as u64).contains(&address);
        for vm in self.vms.values_mut().filter(|vm| here(vm)) {
            (vm.loaded, vm.encrypted, vm.runnable) = (false, false, false);
        }
    }

    fn write(&mut self, op: Op<'_>) -> Result<String> {
        let at = self.at(op.word(1)?)?;
        self.touched(at);
        self.places.write(at, &vec![op.number("byte")? as u8; op.number("len")? as usize]);
        Ok("written".into())
    }

    fn limit(&mut self, op: Op<'_>) -> Result<String> {
        let (resource, value) = op.pairs().next().context("limit of what?")?;
        self.limits.insert(resource.into());
        Ok(match fs::write(cgroup("misc.max"), format!("{resource} {value}")) {
            Ok(()) => "set".into(),
            Err(error) => format!("{:?}", error.kind()),
        })
    }

    /// More VMs than there are ASIDs of any kind.
    fn exhaust(&mut self, op: Op<'_>) -> Result<String> {
        let kind = op.number("type")?;
        let mut vms = Vec::new();
        let mut answer = Answer::OK;
        // The pool is not the one that the sequence began with: have it made anew.
        self.leased = [1 << 16; 2];
        while answer.is_ok() && vms.len() < 600 {
            let Ok(vm) = self.host.kvm.create_vm_with_type(kind) else {
                return Ok("no such VM type".into());
            };
            let mut init = kvm_sev_init::default();
            answer = issue(&vm, sev_cmd_id_KVM_SEV_INIT2, addr_of(&mut init), self.host.sev_fd());
            vms.push(vm);
        }
        // How many there were depends on charges that were lost before.
        Ok(format!("at the end {answer}"))
    }

    fn prepare_owner(&mut self, op: Op<'_>) -> Result<String> {
        let Ok(chain) = firmware()?.pdh_cert_export() else { return Ok("refused".into()) };
        let owner = Owner::prepare_for(op.number("policy")? as u32, chain.pdh)?;
        self.places.write(self.at("cert")?, &owner.certificate());
        self.places.write(self.at("cert+0x1000")?, &owner.session_blob());
        self.owner = Some(owner);
        Ok("prepared".into())
    }

    /// A packet with a secret, if the owner accepted the measurement.
    fn packet(&mut self, op: Op<'_>) -> Result<String> {
        let verified = self.vms.get(op.word(1)?).and_then(|vm| vm.verified.as_ref());
        let Some(session) = verified else { return Ok("no session".into()) };
        let mut packet = Packet::new(session, &vec![0x53; op.number("len")? as usize])?;
        self.places.write(self.at("hdr")?, packet.header_mut());
        self.places.write(self.at("trans")?, packet.ciphertext_mut());
        Ok("packed".into())
    }

    /// The owner looks at a measurement.
    pub(crate) fn verify(&mut self, name: &str, measurement: &[u8]) -> Result<&'static str> {
        use sev_vm::tenant::Verdict;
        let Ok(build) = build() else { return Ok(" unverified") };
        let Some(vm) = self.vms.get_mut(name) else { return Ok("") };
        let Some(owner) = vm.owner.take() else { return Ok("") };
        let parts: Vec<&[u8]> = vm.parts.iter().map(Vec::as_slice).collect();
        Ok(match owner.verify(build, &parts, measurement)? {
            Verdict::Genuine(session) => {
                vm.verified = Some(session);
                " genuine"
            }
            Verdict::Tampered => " tampered",
        })
    }

    /// The address of a place, or a number.
    pub(crate) fn at(&self, text: &str) -> Result<u64> {
        let address = self.places.address(text).or_else(|| number(text));
        address.with_context(|| format!("{text:?} is no place"))
    }

    /// The descriptor for `fd=`.
    pub(crate) fn descriptor(&self, op: Op<'_>) -> Result<RawFd> {
        op.value("fd").map_or(Ok(self.host.sev_fd()), |name| self.descriptor_named(name))
    }

    fn descriptor_named(&self, name: &str) -> Result<RawFd> {
        if name == "sev" {
            return Ok(self.host.sev_fd());
        }
        if name == "second" {
            // Not open: a number that nobody has.
            return Ok(self.second.as_ref().map_or(901, AsRawFd::as_raw_fd));
        }
        let bad = self.bad.wrong();
        // A VM that does not exist (any more) is a descriptor that is not open.
        Ok(bad.iter().find(|(bad, _)| *bad == name).map_or(902, |(_, fd)| *fd))
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for resource in &self.limits {
            // Fails for a resource that there is none of.
            let _ = fs::write(cgroup("misc.max"), format!("{resource} max"));
        }
    }
}

/// A short name of these bytes.
pub fn digest(bytes: &[u8]) -> String {
    let hash = openssl::sha::sha256(bytes);
    format!("bytes:{}:{:02x}{:02x}{:02x}{:02x}", bytes.len(), hash[0], hash[1], hash[2], hash[3])
}

/// Performs an action here, in a thread, or in a child process that inherits every file
/// (of which only the error number is known).
pub fn by(op: Op<'_>, action: impl FnOnce() -> Answer + Send) -> Result<Answer> {
    use nix::sys::wait::{WaitStatus, waitpid};
    use nix::unistd::{ForkResult, fork};
    match op.value("by") {
        None => Ok(action()),
        Some("thread") => {
            let joined = std::thread::scope(|scope| scope.spawn(action).join());
            joined.map_err(|_| anyhow::anyhow!("the thread panicked"))
        }
        Some("fork") => {
            // SAFETY: this program has one thread here; the child only calls an ioctl and exits.
            match unsafe { fork()? } {
                ForkResult::Child => {
                    let errno = action().errno;
                    // SAFETY: ends the child without running what the parent registered.
                    unsafe { nix::libc::_exit(errno.min(255)) }
                }
                ForkResult::Parent { child } => match waitpid(child, None)? {
                    WaitStatus::Exited(_, 0) => Ok(Answer::OK_KEPT),
                    WaitStatus::Exited(_, errno) => Ok(Answer { errno, fw: Answer::OK_KEPT.fw }),
                    other => bail!("the child ended with {other:?}"),
                },
            }
        }
        Some(other) => bail!("by={other}"),
    }
}
