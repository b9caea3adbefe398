// SPDX-License-Identifier: GPL-2.0-or-later
//! The CPUID page: what the host says the processor is, as far as the firmware lets it.
//!
//! unspecified: the rules, but for features that QEMU (`target/i386/sev.c`,
//! sev_snp_mask_cpuid_features) knows to be refused. Here: those, and reserved fields.

use super::wire::{CpuidFunction, CpuidTable};
use crate::status::{Result, Status};

/// A mask of refused features in EAX, EBX, ECX, EDX.
type Mask = [u32; 4];

/// Features of the other interface for the same thing, which a guest could not trust.
fn refused(function: &CpuidFunction) -> Mask {
    match (function.eax_in.get(), function.ecx_in.get()) {
        // TSC-deadline timer.
        (1, _) => [0, 0, 1 << 24, 0],
        // IA32_TSC_ADJUST; speculation controls of the other vendor.
        (7, 0) => [0, 1 << 1, 0, 0xfc00_0000],
        // VIRT_SSBD.
        (0x8000_0008, _) => [0, 1 << 25, 0, 0],
        _ => [0; 4],
    }
}

/// Corrects a function; whether there was anything to correct.
fn correct_function(function: &mut CpuidFunction) -> bool {
    let mask = refused(function);
    let CpuidFunction {
        eax,
        ebx,
        ecx,
        edx,
        reserved,
        ..
    } = function;
    let mut changed = reserved.get() != 0;
    reserved.set(0);
    for (register, refused) in [eax, ebx, ecx, edx].into_iter().zip(mask) {
        changed |= register.get() & refused != 0;
        register.set(register.get() & !refused);
    }
    changed
}

/// Puts right what is not permitted. INVALID_PARAM if there was anything, or if the table says
/// that it has more functions than fit, which cannot be put right.
pub fn correct(table: &mut CpuidTable) -> Result {
    let count = table.count.get() as usize;
    let functions = table
        .functions
        .get_mut(..count)
        .ok_or(Status::INVALID_PARAM)?;
    let mut changed = table.reserved1.get() != 0 || table.reserved2.get() != 0;
    table.reserved1.set(0);
    table.reserved2.set(0);
    for function in functions {
        changed |= correct_function(function);
    }
    if changed {
        Err(Status::INVALID_PARAM)
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::FromZeros;
    use zerocopy::little_endian::U32;

    #[test]
    fn refused_features_are_cleared_and_nothing_else() {
        for (leaf, subleaf, register, refused) in [
            (1, 0, 2, 1 << 24),
            (7, 0, 1, 1 << 1),
            (7, 0, 3, 0xfc00_0000),
            (0x8000_0008, 0, 1, 1 << 25),
            (0x8000_001f, 0, 0, 0),
            (7, 1, 1, 0),
        ] {
            let mut table = CpuidTable::new_zeroed();
            table.count.set(2);
            let function = &mut table.functions[1];
            (function.eax_in, function.ecx_in) = (U32::new(leaf), U32::new(subleaf));
            let values = |f: &CpuidFunction| [f.eax, f.ebx, f.ecx, f.edx].map(|v| v.get());
            (function.eax, function.ebx) = (U32::new(!0), U32::new(!0));
            (function.ecx, function.edx) = (U32::new(!0), U32::new(!0));
            let clean = super::refused(function) == [0; 4];
            assert_eq!(correct(&mut table).is_ok(), clean);
            assert_eq!(values(&table.functions[1])[register], !refused);
            assert_eq!(correct(&mut table), Ok(()));
        }
        let mut table = CpuidTable::new_zeroed();
        table.count.set(65);
        assert_eq!(correct(&mut table), Err(Status::INVALID_PARAM));
    }
}
