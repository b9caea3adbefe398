// SPDX-License-Identifier: GPL-2.0-or-later
//! The one table of commands: number, name, platform states, handler.
//!
//! Numbers: Linux `include/linux/psp-sev.h`, AMDESE/sev-tool `src/sevapi.h`. Platform states:
//! `src/sevapi.h`, SEV_PLATFORM_STATE. Names are the manuals'; `alias` is Linux's where it
//! differs.

use crate::firmware::Firmware;
use crate::memory::Spa;
use crate::platform::State::{self, Init, Uninit, Working};
use crate::status::Result;
use crate::{guest, platform, snp};

/// Executes a command whose platform state has been checked. The address of the command buffer
/// is meaningless for commands without one.
pub type Handler = fn(&mut Firmware, Spa) -> Result;

/// A command.
pub struct Command {
    /// Its number in the mailbox.
    pub id: u32,
    /// The manual's name.
    pub name: &'static str,
    /// Linux's name, or the same.
    pub alias: &'static str,
    /// Platform states that permit it; otherwise INVALID_PLATFORM_STATE.
    pub states: &'static [State],
    /// Whether it belongs to the SNP interface.
    pub snp: bool,
    /// Whether SNP must be initialised; otherwise INVALID_PLATFORM_STATE.
    pub snp_initialized: bool,
    /// What it does.
    pub run: Handler,
}

const ANY: &[State] = &[Uninit, Init, Working];
const READY: &[State] = &[Init, Working];

const fn c(id: u32, name: &'static str, states: &'static [State], run: Handler) -> Command {
    Command {
        id,
        name,
        alias: name,
        states,
        snp: id >= 0x80,
        snp_initialized: false,
        run,
    }
}

/// A command that needs SNP to be initialised.
const fn up(command: Command) -> Command {
    Command {
        snp_initialized: true,
        ..command
    }
}

const fn alias(alias: &'static str, command: Command) -> Command {
    Command { alias, ..command }
}

/// Name under which commands that do not exist are counted.
pub const UNKNOWN: &str = "UNKNOWN";

/// Every command that the firmware knows.
#[rustfmt::skip]
pub static COMMANDS: &[Command] = &[
    c(0x001, "INIT", &[Uninit], platform::state::init),
    c(0x002, "SHUTDOWN", READY, platform::state::shutdown),
    alias("FACTORY_RESET",
        c(0x003, "PLATFORM_RESET", &[Uninit], platform::state::reset)),
    c(0x004, "PLATFORM_STATUS", ANY, platform::state::status),
    c(0x005, "PEK_GEN", &[Init], platform::certs::pek_gen),
    c(0x006, "PEK_CSR", &[Init], platform::certs::pek_csr),
    c(0x007, "PEK_CERT_IMPORT", &[Init], platform::certs::pek_cert_import),
    c(0x008, "PDH_CERT_EXPORT", READY, platform::certs::pdh_cert_export),
    c(0x009, "PDH_GEN", READY, platform::certs::pdh_gen),
    c(0x00a, "DF_FLUSH", READY, platform::state::df_flush),
    c(0x00b, "DOWNLOAD_FIRMWARE", &[Uninit], platform::state::download_firmware),
    c(0x00c, "GET_ID", ANY, platform::state::get_id),
    c(0x00d, "INIT_EX", &[Uninit], platform::state::init_ex),
    c(0x00e, "NOP", ANY, platform::state::nop),

    c(0x020, "DECOMMISSION", &[Working], guest::activate::decommission),
    c(0x021, "ACTIVATE", &[Working], guest::activate::activate),
    c(0x022, "DEACTIVATE", &[Working], guest::activate::deactivate),
    c(0x023, "GUEST_STATUS", &[Working], guest::activate::guest_status),
    c(0x024, "COPY", &[Working], guest::debug::copy),
    c(0x025, "ACTIVATE_EX", &[Working], guest::activate::activate_ex),

    c(0x030, "LAUNCH_START", READY, guest::launch::start),
    c(0x031, "LAUNCH_UPDATE_DATA", &[Working], guest::launch::update_data),
    c(0x032, "LAUNCH_UPDATE_VMSA", &[Working], guest::launch::update_vmsa),
    c(0x033, "LAUNCH_MEASURE", &[Working], guest::launch::measure),
    alias("LAUNCH_UPDATE_SECRET",
        c(0x034, "LAUNCH_SECRET", &[Working], guest::launch::secret)),
    c(0x035, "LAUNCH_FINISH", &[Working], guest::launch::finish),
    alias("ATTESTATION_REPORT",
        c(0x036, "ATTESTATION", &[Working], guest::attest::attestation)),

    c(0x040, "SEND_START", &[Working], guest::send::start),
    c(0x041, "SEND_UPDATE_DATA", &[Working], guest::send::update_data),
    c(0x042, "SEND_UPDATE_VMSA", &[Working], guest::send::update_vmsa),
    c(0x043, "SEND_FINISH", &[Working], guest::send::finish),
    c(0x044, "SEND_CANCEL", &[Working], guest::send::cancel),

    c(0x050, "RECEIVE_START", READY, guest::receive::start),
    c(0x051, "RECEIVE_UPDATE_DATA", &[Working], guest::receive::update_data),
    c(0x052, "RECEIVE_UPDATE_VMSA", &[Working], guest::receive::update_vmsa),
    c(0x053, "RECEIVE_FINISH", &[Working], guest::receive::finish),

    c(0x060, "DBG_DECRYPT", &[Working], guest::debug::decrypt),
    c(0x061, "DBG_ENCRYPT", &[Working], guest::debug::encrypt),

    c(0x081, "SNP_INIT", &[Uninit, Init], snp::platform::init),
    up(c(0x082, "SNP_SHUTDOWN", &[Uninit, Init], snp::platform::shutdown)),
    c(0x083, "SNP_PLATFORM_STATUS", ANY, snp::platform::status),
    up(c(0x084, "SNP_DF_FLUSH", ANY, snp::platform::df_flush)),
    c(0x085, "SNP_INIT_EX", &[Uninit, Init], snp::platform::init_ex),
    up(c(0x086, "SNP_SHUTDOWN_EX", &[Uninit, Init], snp::platform::shutdown_ex)),
    up(c(0x090, "SNP_DECOMMISSION", ANY, snp::context::decommission)),
    up(c(0x091, "SNP_ACTIVATE", ANY, snp::activate::activate)),
    up(c(0x092, "SNP_GUEST_STATUS", ANY, snp::context::status)),
    up(c(0x093, "SNP_GCTX_CREATE", ANY, snp::context::create)),
    up(c(0x094, "SNP_GUEST_REQUEST", ANY, snp::request::guest_request)),
    up(c(0x095, "SNP_ACTIVATE_EX", ANY, snp::activate::activate_ex)),
    up(c(0x0a0, "SNP_LAUNCH_START", ANY, snp::launch::start)),
    up(c(0x0a1, "SNP_LAUNCH_UPDATE", ANY, snp::launch::update)),
    up(c(0x0a2, "SNP_LAUNCH_FINISH", ANY, snp::launch::finish)),
    up(c(0x0b0, "SNP_DBG_DECRYPT", ANY, snp::debug::decrypt)),
    up(c(0x0b1, "SNP_DBG_ENCRYPT", ANY, snp::debug::encrypt)),
    up(c(0x0c7, "SNP_PAGE_RECLAIM", ANY, snp::pages::reclaim)),
    up(c(0x0c9, "SNP_CONFIG", ANY, snp::config::config)),
    c(0x0ca, "SNP_DOWNLOAD_FIRMWARE_EX", ANY, platform::state::download_firmware),
    c(0x0cb, "SNP_COMMIT", ANY, snp::config::commit),
    up(c(0x0cd, "SNP_VLEK_LOAD", ANY, snp::config::vlek_load)),
    c(0x0ce, "SNP_FEATURE_INFO", ANY, snp::platform::feature_info),
];

/// The command with this number.
pub fn find(id: u32) -> Option<&'static Command> {
    COMMANDS.iter().find(|command| command.id == id)
}

/// The name of the command that a person calls `name`.
pub fn canonical_name(name: &str) -> Option<&'static str> {
    COMMANDS
        .iter()
        .find(|command| command.name == name || command.alias == name)
        .map(|command| command.name)
        .or((name == UNKNOWN).then_some(UNKNOWN))
}
