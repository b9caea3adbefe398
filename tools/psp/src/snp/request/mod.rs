// SPDX-License-Identifier: GPL-2.0-or-later
//! GUEST_REQUEST: encrypted messages between a guest and the firmware, which the host carries.
//!
//! Source: Linux `arch/x86/coco/sev/core.c`, coconut-svsm `kernel/src/greq/msg.rs`. unspecified:
//! the status of a wrong header or sequence number (INVALID_PARAM), and of a message type that
//! does not exist or is not implemented (INVALID_PARAM).

mod key;
mod message;
mod misc;
mod report;

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, IntoBytes};

use super::context::{Guest, Launched, find};
use super::wire::{GuestRequest, MessageHeader};
use crate::firmware::Firmware;
use crate::memory::{PAGE, Spa};
use crate::status::{Result, Status};
use message::{Message, Payload};

/// What an answer depends on.
struct Asker<'a> {
    guest: &'a Guest,
    launched: &'a Launched,
    /// The VMPL whose key the message came under.
    vmpl: u32,
}

/// Refuses a request as its answer's status tells.
type Answer<T> = core::result::Result<T, Status>;

/// Takes a request of a fixed size off a payload: INVALID_PARAM.
fn parse<T: FromBytes>(payload: &[u8]) -> Result<T> {
    T::read_from_bytes(payload).map_err(|_| Status::INVALID_PARAM)
}

fn respond(fw: &Firmware, asker: &Asker<'_>, kind: u8, payload: &[u8]) -> Result<Vec<u8>> {
    match kind {
        1 => misc::cpuid(payload),
        3 => key::respond(fw, asker, &parse(payload)?),
        5 => report::respond(fw, asker, &parse(payload)?),
        17 => misc::tsc_info(fw, asker.guest, payload),
        _ => Err(Status::INVALID_PARAM),
    }
}

/// The status of an answer as a field.
fn status<T>(answer: &Answer<T>) -> U32 {
    U32::new(answer.as_ref().err().map_or(0, |status| status.0.into()))
}

/// GUEST_REQUEST: the request page is any page, the response page one in the Firmware state,
/// which stays so.
pub fn guest_request(fw: &mut Firmware, buffer: Spa) -> Result {
    let cmd: GuestRequest = fw.mem.read(buffer)?;
    let (_, context) = find(&fw.mem, &mut fw.snp, cmd.gctx_address)?;
    let (guest, launched) = context.running()?;
    let guest = guest.clone();
    let request = fw.mem.spa(cmd.request_address.get()).aligned(PAGE as u64)?;
    let response = fw
        .mem
        .spa(cmd.response_address.get())
        .aligned(PAGE as u64)?;
    let page: Message = fw.mem.read(request)?;

    let vmpck = usize::from(page.header.vmpck);
    let channel = guest.vmpck.get(vmpck).ok_or(Status::INVALID_PARAM)?;
    let sequence = channel.sequence.checked_add(2).ok_or(Status::AEAD_OFLOW)?;
    if page.header.sequence.get().checked_add(1) != Some(sequence) {
        return Err(Status::INVALID_PARAM);
    }
    let payload = page.open(&channel.key)?;
    let asker = Asker {
        guest: &guest,
        launched: &launched,
        vmpl: vmpck as u32,
    };
    let answer = respond(fw, &asker, page.header.kind, &payload)?;

    let header = MessageHeader {
        sequence: U64::new(sequence),
        kind: page.header.kind.saturating_add(1),
        size: U16::new(u16::try_from(answer.len()).map_err(|_| Status::INVALID_LENGTH)?),
        ..page.header
    };
    let sealed = Message::seal(&channel.key, header, &Payload::from_bytes(&answer)?)?;
    fw.mem.write_bytes(response, sealed.as_bytes())?;
    let (_, context) = find(&fw.mem, &mut fw.snp, cmd.gctx_address)?;
    if let Some(channel) = context.started()?.vmpck.get_mut(vmpck) {
        channel.sequence = sequence;
    }
    Ok(())
}
