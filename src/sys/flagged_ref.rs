//! A `&'static T` and one bit, in the size of the reference.

/// Holds a reference and a flag that can be set once.
///
/// The flag is the lowest bit of the address. The alignment of `T` keeps that bit free.
pub(crate) struct FlaggedRef<T: 'static> {
    tagged: *const T,
}

impl<T> FlaggedRef<T> {
    const FLAG: usize = 1;
    const HAS_FREE_BIT: () = assert!(align_of::<T>() > Self::FLAG);

    pub(crate) fn new(target: &'static T) -> Self {
        let () = Self::HAS_FREE_BIT;
        Self { tagged: target }
    }

    #[inline]
    pub(crate) fn get(&self) -> &'static T {
        let target = self.tagged.map_addr(|address| address & !Self::FLAG);
        // SAFETY: without the flag it is the reference that `new` got, which is `'static`. `map_addr` keeps its
        // provenance.
        unsafe { &*target }
    }

    #[inline]
    pub(crate) fn flag(&mut self) {
        self.tagged = self.tagged.map_addr(|address| address | Self::FLAG);
    }

    pub(crate) fn is_flagged(&self) -> bool {
        self.tagged.addr() & Self::FLAG != 0
    }
}

// SAFETY: it is a `&'static T` and a bit. A reference may be sent to and shared between threads if `T: Sync`.
unsafe impl<T: Sync> Send for FlaggedRef<T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for FlaggedRef<T> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flag_keeps_the_reference() {
        static TARGET: u64 = 7;
        let mut flagged = FlaggedRef::new(&TARGET);
        assert!(!flagged.is_flagged() && std::ptr::eq(flagged.get(), &TARGET));
        flagged.flag();
        flagged.flag();
        assert!(flagged.is_flagged() && std::ptr::eq(flagged.get(), &TARGET));
        assert_eq!(size_of_val(&flagged), size_of::<&u64>());
    }
}
