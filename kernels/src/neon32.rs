//! Assembly with NEON instructions on 32-bit ARM, for which stable Rust has neither intrinsics nor a way to compile a function
//! for them.

/// A block of assembly for which every vector register is free. Named operands end with commas; the general registers named
/// last are free for it, too.
///
/// The assembler takes the instructions because of the directive. Registers are named by their 64 bits: for a target without
/// NEON the compiler does not know the names of 128 bits, and would not restore `d8` to `d15`, which belong to the caller.
macro_rules! neon {
    ($code:expr, [$($operands:tt)*] $(, $scratch:ident)*) => {
        std::arch::asm!(
            concat!(".fpu neon\n", $code),
            $($operands)*
            $($scratch = out(reg) _,)*
            out("d0") _, out("d1") _, out("d2") _, out("d3") _, out("d4") _, out("d5") _, out("d6") _, out("d7") _,
            out("d8") _, out("d9") _, out("d10") _, out("d11") _, out("d12") _, out("d13") _, out("d14") _, out("d15") _,
            out("d16") _, out("d17") _, out("d18") _, out("d19") _, out("d20") _, out("d21") _, out("d22") _, out("d23") _,
            out("d24") _, out("d25") _, out("d26") _, out("d27") _, out("d28") _, out("d29") _, out("d30") _, out("d31") _,
            options(nostack),
        )
    };
}
