//! Asks Linux what a 32-bit ARM processor can do: `std::arch` has no stable way to.
#![expect(unsafe_code, reason = "declares a function of the C library")]

use std::ffi::c_ulong;

/// The entry of the auxiliary vector with the processor's abilities (`getauxval(3)`).
const AT_HWCAP: c_ulong = 16;

/// Linux, `arch/arm/include/uapi/asm/hwcap.h`.
const HWCAP_NEON: c_ulong = 1 << 12;

// SAFETY: so it is declared in `sys/auxv.h`. It takes any number, and answers 0 where it knows nothing.
unsafe extern "C" {
    safe fn getauxval(kind: c_ulong) -> c_ulong;
}

/// Whether there are NEON instructions, and numbers begin with their low byte, as the kernels expect.
pub(super) fn has_neon() -> bool {
    cfg!(all(target_os = "linux", target_endian = "little"))
        && getauxval(AT_HWCAP) & HWCAP_NEON != 0
}
