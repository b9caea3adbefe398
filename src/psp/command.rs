// SPDX-License-Identifier: GPL-2.0
//! The firmware's commands: one type each, which ties the number to the layout of the buffer.
//!
//! Source: include/linux/psp-sev.h, `enum sev_cmd` and `struct sev_data_*`.

#![allow(unsafe_code)]

use core::ffi::c_void;

use crate::ffi::bindings;
use crate::hw::addr::PspAddr;
use crate::hw::asid::Asid;

/// A guest context of the legacy firmware; 0 is never a valid one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Handle(pub(super) u32);

impl Handle {
    pub(crate) const fn get(self) -> u32 {
        self.0
    }
}

/// A command with its buffer.
///
/// # Safety
///
/// `as_buffer` must return a pointer to an initialised buffer of the length and layout that the PSP
/// driver associates with `ID` (its `sev_cmd_buffer_len()`), or null for a command without one.
pub(crate) unsafe trait Command {
    /// The number that is written to the mailbox.
    const ID: u32;
    /// The name in the SEV specifications.
    const NAME: &'static str;

    fn as_buffer(&mut self) -> *mut c_void;

    /// The handle of the guest that it is about, or the address of its context or page; 0 if it is
    /// about none.
    fn guest(&self) -> u64;
}

macro_rules! commands {
    ($($(#[$doc:meta])* $name:ident = $id:ident, $spec_name:literal, $data:ident.$guest:ident;)*) => {$(
        $(#[$doc])*
        #[repr(transparent)]
        pub(crate) struct $name($crate::ffi::bindings::$data);

        // SAFETY: The buffer is the structure that <linux/psp-sev.h> declares for this command.
        unsafe impl $crate::psp::Command for $name {
            const ID: u32 = $crate::ffi::bindings::$id;
            const NAME: &'static str = $spec_name;

            fn as_buffer(&mut self) -> *mut core::ffi::c_void {
                (&raw mut self.0).cast()
            }

            fn guest(&self) -> u64 {
                u64::from(self.0.$guest)
            }
        }
    )*};
}
pub(super) use commands;

commands! {
    /// Binds a guest to an ASID and installs its key.
    Activate = sev_cmd_SEV_CMD_ACTIVATE, "ACTIVATE", sev_data_activate.handle;
    /// Removes a guest's key from its ASID.
    Deactivate = sev_cmd_SEV_CMD_DEACTIVATE, "DEACTIVATE", sev_data_deactivate.handle;
    /// Forgets a guest context.
    Decommission = sev_cmd_SEV_CMD_DECOMMISSION, "DECOMMISSION", sev_data_decommission.handle;
    /// Policy and state of a guest.
    GuestStatus = sev_cmd_SEV_CMD_GUEST_STATUS, "GUEST_STATUS", sev_data_guest_status.handle;
    /// Creates a guest context.
    LaunchStart = sev_cmd_SEV_CMD_LAUNCH_START, "LAUNCH_START", sev_data_launch_start.handle;
    /// Encrypts memory in place and adds it to the measurement.
    LaunchUpdateData = sev_cmd_SEV_CMD_LAUNCH_UPDATE_DATA, "LAUNCH_UPDATE_DATA",
        sev_data_launch_update_data.handle;
    /// Encrypts a save area in place and adds it to the measurement.
    LaunchUpdateVmsa = sev_cmd_SEV_CMD_LAUNCH_UPDATE_VMSA, "LAUNCH_UPDATE_VMSA",
        sev_data_launch_update_vmsa.handle;
    /// Authenticated digest of what was loaded.
    LaunchMeasure = sev_cmd_SEV_CMD_LAUNCH_MEASURE, "LAUNCH_MEASURE", sev_data_launch_measure.handle;
    /// Decrypts the guest owner's secret into guest memory.
    LaunchSecret = sev_cmd_SEV_CMD_LAUNCH_UPDATE_SECRET, "LAUNCH_UPDATE_SECRET",
        sev_data_launch_secret.handle;
    /// The guest may run.
    LaunchFinish = sev_cmd_SEV_CMD_LAUNCH_FINISH, "LAUNCH_FINISH", sev_data_launch_finish.handle;
    /// Signed digest of what was loaded.
    AttestationReport = sev_cmd_SEV_CMD_ATTESTATION_REPORT, "ATTESTATION",
        sev_data_attestation_report.handle;
    /// The guest is about to be sent to another platform.
    SendStart = sev_cmd_SEV_CMD_SEND_START, "SEND_START", sev_data_send_start.handle;
    /// Guest memory to a packet.
    SendUpdateData = sev_cmd_SEV_CMD_SEND_UPDATE_DATA, "SEND_UPDATE_DATA",
        sev_data_send_update_data.handle;
    /// The guest was sent.
    SendFinish = sev_cmd_SEV_CMD_SEND_FINISH, "SEND_FINISH", sev_data_send_finish.handle;
    /// The guest stays.
    SendCancel = sev_cmd_SEV_CMD_SEND_CANCEL, "SEND_CANCEL", sev_data_send_cancel.handle;
    /// Creates a guest context for a guest of another platform.
    ReceiveStart = sev_cmd_SEV_CMD_RECEIVE_START, "RECEIVE_START", sev_data_receive_start.handle;
    /// A packet to guest memory.
    ReceiveUpdateData = sev_cmd_SEV_CMD_RECEIVE_UPDATE_DATA, "RECEIVE_UPDATE_DATA",
        sev_data_receive_update_data.handle;
    /// The guest may run.
    ReceiveFinish = sev_cmd_SEV_CMD_RECEIVE_FINISH, "RECEIVE_FINISH", sev_data_receive_finish.handle;
    /// Guest memory to plaintext.
    DbgDecrypt = sev_cmd_SEV_CMD_DBG_DECRYPT, "DBG_DECRYPT", sev_data_dbg.handle;
    /// Plaintext to guest memory.
    DbgEncrypt = sev_cmd_SEV_CMD_DBG_ENCRYPT, "DBG_ENCRYPT", sev_data_dbg.handle;
}

macro_rules! commands_without_buffer {
    ($($(#[$doc:meta])* $name:ident = $id:ident, $spec_name:literal;)*) => {$(
        $(#[$doc])*
        pub(crate) struct $name;

        // SAFETY: The command has no buffer.
        unsafe impl Command for $name {
            const ID: u32 = bindings::$id;
            const NAME: &'static str = $spec_name;

            fn as_buffer(&mut self) -> *mut c_void {
                core::ptr::null_mut()
            }

            fn guest(&self) -> u64 {
                0
            }
        }
    )*};
}

commands_without_buffer! {
    /// Makes deactivated ASIDs usable again, after WBINVD on all CPUs.
    DfFlush = sev_cmd_SEV_CMD_DF_FLUSH, "DF_FLUSH";
    /// The same once the SNP firmware is initialised.
    SnpDfFlush = sev_cmd_SEV_CMD_SNP_DF_FLUSH, "SNP_DF_FLUSH";
}

impl Activate {
    pub(crate) fn new(handle: Handle, asid: Asid) -> Self {
        Self(bindings::sev_data_activate {
            handle: handle.0,
            asid: asid.get(),
        })
    }
}

impl Deactivate {
    pub(crate) fn new(handle: Handle) -> Self {
        Self(bindings::sev_data_deactivate { handle: handle.0 })
    }
}

impl Decommission {
    pub(crate) fn new(handle: Handle) -> Self {
        Self(bindings::sev_data_decommission { handle: handle.0 })
    }
}

impl GuestStatus {
    pub(crate) fn new(handle: Handle) -> Self {
        Self(bindings::sev_data_guest_status {
            handle: handle.0,
            ..Default::default()
        })
    }

    pub(crate) fn handle(&self) -> u32 {
        self.0.handle
    }

    pub(crate) fn policy(&self) -> u32 {
        self.0.policy
    }

    pub(crate) fn state(&self) -> u32 {
        u32::from(self.0.state)
    }
}

/// A buffer of the host's that the firmware reads or writes; the default is that there is none.
#[derive(Clone, Copy, Default)]
pub(crate) struct Buffer(Option<(PspAddr, u32)>);

impl Buffer {
    /// `len`: in bytes.
    pub(crate) const fn new(address: PspAddr, len: u32) -> Self {
        Self(Some((address, len)))
    }

    /// Address 0 stands for "none".
    fn address(self) -> u64 {
        self.0.map_or(0, |(address, _)| address.get())
    }

    fn len(self) -> u32 {
        self.0.map_or(0, |(_, len)| len)
    }
}

impl LaunchStart {
    /// `key_share`: the handle of a guest to share the key with, or 0 for a new key.
    pub(crate) fn new(key_share: u32, policy: u32, dh_cert: Buffer, session: Buffer) -> Self {
        Self(bindings::sev_data_launch_start {
            handle: key_share,
            policy,
            dh_cert_address: dh_cert.address(),
            dh_cert_len: dh_cert.len(),
            session_address: session.address(),
            session_len: session.len(),
            ..Default::default()
        })
    }

    /// The guest that the firmware created, once the command succeeded.
    pub(crate) fn handle(&self) -> Handle {
        Handle(self.0.handle)
    }
}

impl LaunchUpdateData {
    pub(crate) fn new(handle: Handle, address: PspAddr, len: u32) -> Self {
        Self(bindings::sev_data_launch_update_data {
            handle: handle.0,
            address: address.get(),
            len,
            ..Default::default()
        })
    }
}

impl LaunchUpdateVmsa {
    /// `len`: 4096.
    pub(crate) fn new(handle: Handle, address: PspAddr, len: u32) -> Self {
        Self(bindings::sev_data_launch_update_vmsa {
            handle: handle.0,
            address: address.get(),
            len,
            ..Default::default()
        })
    }
}

impl LaunchMeasure {
    pub(crate) fn new(handle: Handle, out: Buffer) -> Self {
        Self(bindings::sev_data_launch_measure {
            handle: handle.0,
            address: out.address(),
            len: out.len(),
            ..Default::default()
        })
    }
}

/// A command that writes a report of a length that the firmware knows.
pub(crate) trait Reports: Command {
    /// The length that the firmware wrote or needs, in bytes.
    fn needed(&self) -> u32;
}

impl Reports for LaunchMeasure {
    fn needed(&self) -> u32 {
        self.0.len
    }
}

impl Reports for AttestationReport {
    fn needed(&self) -> u32 {
        self.0.len
    }
}

impl AttestationReport {
    /// `nonce` is repeated in the report.
    pub(crate) fn new(handle: Handle, nonce: [u8; 16], out: Buffer) -> Self {
        Self(bindings::sev_data_attestation_report {
            handle: handle.0,
            mnonce: nonce,
            address: out.address(),
            len: out.len(),
            ..Default::default()
        })
    }
}

macro_rules! packets {
    ($($name:ident = $data:ident;)*) => {$(
        impl $name {
            /// `guest`: its memory. `header` and `transport`: the packet.
            pub(crate) fn new(
                handle: Handle,
                guest: Buffer,
                header: Buffer,
                transport: Buffer,
            ) -> Self {
                Self(bindings::$data {
                    handle: handle.0,
                    hdr_address: header.address(),
                    hdr_len: header.len(),
                    guest_address: guest.address(),
                    guest_len: guest.len(),
                    trans_address: transport.address(),
                    trans_len: transport.len(),
                    ..Default::default()
                })
            }
        }
    )*};
}

packets! {
    LaunchSecret = sev_data_launch_secret;
    SendUpdateData = sev_data_send_update_data;
    ReceiveUpdateData = sev_data_receive_update_data;
}

impl LaunchFinish {
    pub(crate) fn new(handle: Handle) -> Self {
        Self(bindings::sev_data_launch_finish { handle: handle.0 })
    }
}

/// Buffer of both debug commands; `len` and the addresses are multiples of 16.
fn dbg(handle: Handle, src: PspAddr, dst: PspAddr, len: u32) -> bindings::sev_data_dbg {
    bindings::sev_data_dbg {
        handle: handle.0,
        src_addr: src.get(),
        dst_addr: dst.get(),
        len,
        ..Default::default()
    }
}

impl DbgDecrypt {
    pub(crate) fn new(handle: Handle, src: PspAddr, dst: PspAddr, len: u32) -> Self {
        Self(dbg(handle, src, dst, len))
    }
}

impl DbgEncrypt {
    pub(crate) fn new(handle: Handle, src: PspAddr, dst: PspAddr, len: u32) -> Self {
        Self(dbg(handle, src, dst, len))
    }
}

/// What the owner of a guest has to know of the platform that it is sent to.
#[derive(Clone, Copy, Default)]
pub(crate) struct Recipient {
    /// Its Diffie-Hellman key.
    pub(crate) pdh: Buffer,
    /// The certificates of that key.
    pub(crate) platform_certs: Buffer,
    /// The certificates of its chip.
    pub(crate) amd_certs: Buffer,
}

impl SendStart {
    pub(crate) fn new(handle: Handle, recipient: Recipient, session: Buffer) -> Self {
        Self(bindings::sev_data_send_start {
            handle: handle.0,
            pdh_cert_address: recipient.pdh.address(),
            pdh_cert_len: recipient.pdh.len(),
            plat_certs_address: recipient.platform_certs.address(),
            plat_certs_len: recipient.platform_certs.len(),
            amd_certs_address: recipient.amd_certs.address(),
            amd_certs_len: recipient.amd_certs.len(),
            session_address: session.address(),
            session_len: session.len(),
            ..Default::default()
        })
    }

    /// The guest's policy.
    pub(crate) fn policy(&self) -> u32 {
        self.0.policy
    }

    /// The length of the session that the firmware wrote or needs, in bytes.
    pub(crate) fn session_len(&self) -> u32 {
        self.0.session_len
    }
}

impl SendUpdateData {
    /// Lengths of header and data that the firmware wrote or needs, in bytes.
    pub(crate) fn lengths(&self) -> (u32, u32) {
        (self.0.hdr_len, self.0.trans_len)
    }
}

impl SendFinish {
    pub(crate) fn new(handle: Handle) -> Self {
        Self(bindings::sev_data_send_finish { handle: handle.0 })
    }
}

impl SendCancel {
    pub(crate) fn new(handle: Handle) -> Self {
        Self(bindings::sev_data_send_cancel { handle: handle.0 })
    }
}

impl ReceiveStart {
    /// `key_share`: as for [`LaunchStart::new`]. `pdh`: of the platform that sends.
    pub(crate) fn new(key_share: u32, policy: u32, pdh: Buffer, session: Buffer) -> Self {
        Self(bindings::sev_data_receive_start {
            handle: key_share,
            policy,
            pdh_cert_address: pdh.address(),
            pdh_cert_len: pdh.len(),
            session_address: session.address(),
            session_len: session.len(),
            ..Default::default()
        })
    }

    /// The guest that the firmware created, once the command succeeded.
    pub(crate) fn handle(&self) -> Handle {
        Handle(self.0.handle)
    }
}

impl ReceiveFinish {
    pub(crate) fn new(handle: Handle) -> Self {
        Self(bindings::sev_data_receive_finish { handle: handle.0 })
    }
}
