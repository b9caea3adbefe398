// SPDX-License-Identifier: GPL-2.0
//! The x87 registers in a save area. Pure: no kernel dependencies.

/// Bytes of the mantissas, which come first.
const MANTISSAS: usize = 8 * 8;

/// From the format of FXSAVE, 16 bytes for each register of 10, to that of a save area: the lower 8
/// bytes of all eight registers, and then the upper 2 of each.
///
/// Source: not documented; as the firmware measures it, and KVM writes it.
pub(crate) fn pack(fxsave: &[u32; 32]) -> [u8; 80] {
    let mut packed = [0; 80];
    let (low, high) = packed.split_at_mut(MANTISSAS);
    let to = low.chunks_exact_mut(8).zip(high.chunks_exact_mut(2));

    for ((low, high), register) in to.zip(fxsave.chunks_exact(4)) {
        if let &[a, b, c, _] = register {
            let mantissa = (u64::from(b) << 32) | u64::from(a);
            low.copy_from_slice(&mantissa.to_le_bytes());
            high.copy_from_slice(&(c as u16).to_le_bytes());
        }
    }
    packed
}
