//! A `&'static T` with one bit beside it, in the room of the reference alone.

/// A reference that can be flagged once.
///
/// The flag is the lowest bit of the address, which the alignment of `T` keeps free.
pub(crate) struct FlaggedRef<T: 'static> {
    tagged: *const T,
}

impl<T> FlaggedRef<T> {
    const FLAG: usize = 1;
    const ROOM: () = assert!(align_of::<T>() > Self::FLAG);

    pub(crate) fn new(target: &'static T) -> Self {
        let () = Self::ROOM;
        Self { tagged: target }
    }

    #[inline]
    pub(crate) fn get(&self) -> &'static T {
        let target = self.tagged.map_addr(|address| address & !Self::FLAG);
        // SAFETY: with the flag taken off it is the reference that `new` was given, which is
        // `'static`; `map_addr` keeps its provenance.
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

// SAFETY: it is a `&'static T` and a bit, and a reference may go to, and be shared between, threads
// if what it refers to may be shared.
unsafe impl<T: Sync> Send for FlaggedRef<T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for FlaggedRef<T> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flag_leaves_the_reference_as_it_was() {
        static TARGET: u64 = 7;
        let mut flagged = FlaggedRef::new(&TARGET);
        assert!(!flagged.is_flagged() && std::ptr::eq(flagged.get(), &TARGET));
        flagged.flag();
        flagged.flag();
        assert!(flagged.is_flagged() && std::ptr::eq(flagged.get(), &TARGET));
        assert_eq!(size_of_val(&flagged), size_of::<&u64>());
    }
}
