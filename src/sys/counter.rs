//! Reads the processor's counter that advances at a constant rate.

/// Returns whether the counter advances at one rate on all processors, also while they sleep.
#[cfg(all(target_arch = "x86_64", not(any(miri, shotclock_loom))))]
pub(crate) fn has_steady_counter() -> bool {
    use std::arch::x86_64::__cpuid;

    const HIGHEST_LEAF: u32 = 0x8000_0000;
    const FEATURES: u32 = 0x8000_0001;
    const POWER_MANAGEMENT: u32 = 0x8000_0007;
    /// Bit of `edx` in `FEATURES`.
    const RDTSCP: u32 = 1 << 27;
    /// Bit of `edx` in `POWER_MANAGEMENT`.
    const INVARIANT_TSC: u32 = 1 << 8;

    #[allow(unused_unsafe, reason = "safe in newer releases of Rust")]
    // SAFETY: every x86-64 processor has the instruction.
    let edx_of = |leaf| unsafe { (__cpuid(HIGHEST_LEAF).eax >= leaf).then(|| __cpuid(leaf).edx) };
    let has = |leaf, bit| edx_of(leaf).is_some_and(|edx| edx & bit != 0);
    has(POWER_MANAGEMENT, INVARIANT_TSC) && has(FEATURES, RDTSCP)
}

/// Returns true: each aarch64 processor has the counter, but iOS does not let programs read it.
#[cfg(all(
    target_arch = "aarch64",
    not(any(target_os = "ios", miri, shotclock_loom))
))]
pub(crate) fn has_steady_counter() -> bool {
    true
}

#[cfg(any(
    not(any(target_arch = "x86_64", target_arch = "aarch64")),
    all(target_arch = "aarch64", target_os = "ios"),
    miri,
    shotclock_loom
))]
pub(crate) fn has_steady_counter() -> bool {
    false
}

/// Reads the counter. Its unit depends on the machine.
#[inline(always)]
pub(crate) fn read_counter() -> u64 {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    {
        // SAFETY: every x86-64 processor has the instruction.
        unsafe { std::arch::x86_64::_rdtsc() }
    }
    #[cfg(all(target_arch = "aarch64", not(miri)))]
    {
        let count: u64;
        // SAFETY: copies a register. Not `nomem`, so that the compiler keeps the reading between its neighbours.
        unsafe { std::arch::asm!("mrs {}, cntvct_el0", out(reg) count, options(nostack)) };
        count
    }
    #[cfg(any(miri, not(any(target_arch = "x86_64", target_arch = "aarch64"))))]
    {
        0
    }
}
