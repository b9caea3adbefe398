// SPDX-License-Identifier: GPL-2.0
//! Page-state changes: userspace converts memory, because a guest wants it.

use kernel::prelude::*;

use super::Exited;
use crate::ghcb::msr;
use crate::ghcb::psc::{Conversion, PageState, Psc, Step, GENERIC_ERROR, WORD};
use crate::kvm::ask_user::{Continue, Converted};
use crate::kvm::exit::Next;
use crate::kvm::vcpu::Vcpu;

/// Converts a page, by the MSR protocol.
pub(super) fn convert_one(vcpu: &Vcpu, gfn: u64, state: Option<PageState>) -> Next {
    match state {
        Some(state) if vcpu.user_converts_pages() => vcpu.ask_to_convert::<One>(Conversion {
            gfn,
            pages: 1,
            state,
            large: false,
        }),
        _ => {
            vcpu.set_ghcb_msr(msr::page_state(false));
            Next::Guest
        }
    }
}

/// A page of the MSR protocol.
struct One;

impl Continue for One {
    type Answer = Converted;

    fn go_on(vcpu: &Vcpu, Converted(done): Converted) -> Result<Next> {
        vcpu.set_ghcb_msr(msr::page_state(done));
        Ok(Next::Guest)
    }
}

/// Converts the pages in the list that the guest wrote into its GHCB. Errors are KVM's.
pub(super) fn convert_list(exited: &Exited<'_>) -> Result<Next> {
    let Some(place) = exited.find(WORD as u64) else {
        return Ok(Next::Guest);
    };
    if !exited.vcpu.user_converts_pages() {
        exited.succeed(GENERIC_ERROR);
        return Ok(Next::Guest);
    }
    let list = exited.vcpu.take_list(place)?;

    match Psc::begin(&list, list.len()) {
        Ok(psc) => Ok(go_on(exited, psc)),
        Err(answer) => {
            exited.succeed(answer);
            Ok(Next::Guest)
        }
    }
}

/// The next step.
fn go_on(exited: &Exited<'_>, mut psc: Psc) -> Next {
    let step = psc.next(&exited.es.exchange().list());

    match step {
        Step::Convert(what) => {
            exited.es.set_psc(psc);
            exited.vcpu.ask_to_convert::<Listed>(what)
        }
        Step::Finished(answer) => {
            exited.succeed(answer);
            Next::Guest
        }
    }
}

/// Pages of a list.
struct Listed;

impl Continue for Listed {
    type Answer = Converted;

    fn go_on(vcpu: &Vcpu, Converted(done): Converted) -> Result<Next> {
        let exited = Exited::new(vcpu)?;
        let mut psc = exited.es.take_psc().ok_or(EINVAL)?;

        if !done {
            exited.succeed(GENERIC_ERROR);
            return Ok(Next::Guest);
        }
        psc.complete(&exited.es.exchange().list());
        Ok(go_on(&exited, psc))
    }
}
