//! Unwinds registers and a copy of a stack into the functions that were running.

use std::sync::Arc;

use framehop::{
    CacheNative, ExplicitModuleSectionInfo, FrameAddress, MayAllocateDuringUnwind,
    UnwindRegsNative, Unwinder as _, UnwinderNative,
};

use super::known_frame::KnownFrame;
pub(super) use super::modules::KnownModule;
use super::modules::{Difference, Module, Modules, Unwinding, difference};
use super::restarting_callers::Call;
use crate::stack::{RawFrame, invalidate_names};
use crate::sys::{Copied, Registers};

/// The largest number of frames, to bound the time. Deeper stacks are cut at their outer end.
pub(crate) const MAX_FRAMES: usize = 512;

/// Unwinds copies of stacks, with the modules of their addresses.
pub(crate) struct Unwinder {
    unwinder: UnwinderNative<Arc<[u8]>, MayAllocateDuringUnwind>,
    cache: CacheNative<MayAllocateDuringUnwind>,
    modules: Modules,
    /// Whether an address was in no known module.
    has_missed: bool,
}

/// The difference between the loaded and the known modules, ready for an [`Unwinder`].
#[derive(Default)]
pub(super) struct Changes {
    gone: Vec<KnownModule>,
    new: Vec<(Module, framehop::Module<Arc<[u8]>>)>,
}

impl Changes {
    /// Compares the loaded modules with the known ones. Reads files, so it may take long.
    pub(super) fn since(known: Vec<KnownModule>) -> Self {
        let Difference { gone, new } = difference(known);
        let ready = |(module, unwinding)| {
            let info = section_info(&module, unwinding);
            (module, info)
        };
        Self {
            gone,
            new: new.into_iter().map(ready).collect(),
        }
    }
}

/// A function that was running, and the begin of its frame.
pub(crate) struct UnwoundFrame {
    address: FrameAddress,
    sp: u64,
}

/// An unwound stack.
pub(crate) struct Unwound {
    pub(crate) raw_frames: Vec<RawFrame>,
    /// The stack pointer in each frame.
    pub(crate) sps: Vec<u64>,
}

impl Unwound {
    /// Counts the frames from the innermost one to the one whose stack pointer was `mark` when it made its call.
    ///
    /// `None` if the stack does not reach it. The frames beyond are its callers.
    pub(crate) fn inside(&self, mark: usize) -> Option<usize> {
        let beyond = self.sps.iter().skip(1).position(|sp| *sp > mark as u64);
        (mark != 0).then_some(beyond? + 1)
    }
}

impl Unwinder {
    pub(crate) fn new() -> Self {
        Self {
            unwinder: UnwinderNative::new(),
            cache: CacheNative::new(),
            modules: Modules::default(),
            has_missed: false,
        }
    }

    /// Makes an unwinder with a single module.
    #[cfg(any(test, fuzzing))]
    #[allow(dead_code, reason = "some test builds use it")]
    pub(crate) fn over(module: Module, unwinding: Unwinding) -> Self {
        let mut unwinder = Self::new();
        unwinder
            .unwinder
            .add_module(section_info(&module, unwinding));
        unwinder.modules = Modules::of(module);
        unwinder
    }

    /// Returns the module of an address.
    #[cfg(any(test, fuzzing))]
    #[allow(dead_code, reason = "some test builds use it")]
    pub(crate) fn module(&self, address: u64) -> Option<&Module> {
        self.modules.at(address)
    }

    /// Reads the modules, on the calling thread.
    pub(crate) fn load(&mut self) {
        let changes = Changes::since(self.known());
        self.apply(changes);
    }

    pub(super) fn known(&self) -> Vec<KnownModule> {
        self.modules.known()
    }

    pub(super) fn apply(&mut self, changes: Changes) {
        if !changes.gone.is_empty() || !changes.new.is_empty() {
            invalidate_names();
        }
        for known in changes.gone {
            self.unwinder.remove_module(known.start());
            self.modules.remove(&known);
        }
        for (module, info) in changes.new {
            self.unwinder.add_module(info);
            self.modules.add(module);
        }
    }

    /// Returns whether a stack since the last call led through an unknown module.
    pub(super) fn has_missed(&mut self) -> bool {
        std::mem::take(&mut self.has_missed)
    }

    /// Returns whether a system call is repeated if a signal cuts it short.
    ///
    /// The function that repeats it is the innermost one outside the C library, or one inside that library.
    pub(crate) fn caller_restarts(&self, unwound: &Unwound, call: Call) -> bool {
        for raw_frame in &unwound.raw_frames {
            // Code outside all files, such as that of a JIT compiler, is unknown.
            let Some(module) = self.modules.at(lookup(raw_frame)) else {
                return false;
            };
            let repeats =
                module.known_frame_at(lookup(raw_frame)) == Some(KnownFrame::Repeats(call));
            if repeats || !module.is_c_library() {
                return repeats;
            }
        }
        false
    }

    /// Returns the known function of a frame.
    pub(super) fn known_frame(&self, raw_frame: &RawFrame) -> Option<KnownFrame> {
        let module = self.modules.at(lookup(raw_frame));
        module.and_then(|module| module.known_frame_at(lookup(raw_frame)))
    }

    pub(crate) fn unwind(&mut self, copied: &Copied) -> Unwound {
        let read = |address: u64| word(copied, address).ok_or(());
        self.modules.begin_stack();
        let frames = self.frames(copied.registers, read);
        let raw_frame = |frame: &UnwoundFrame| RawFrame {
            address: frame.address.address() as usize,
            is_return: frame.address.is_return_address(),
            module: (self.modules)
                .at(frame.address.address_for_lookup())
                .map(|module| Arc::clone(&module.path)),
        };
        Unwound {
            raw_frames: frames.iter().map(raw_frame).collect(),
            sps: frames.iter().map(|frame| frame.sp).collect(),
        }
    }

    /// Forgets the module of an address if another one has replaced it. Notes whether the address has no module.
    fn look_up(&mut self, address: u64) {
        if let Some(start) = self.modules.forget_if_replaced(address) {
            self.unwinder.remove_module(start);
            invalidate_names();
        }
        self.has_missed |= self.modules.at(address).is_none();
    }

    pub(crate) fn frames(
        &mut self,
        registers: Registers,
        mut read: impl FnMut(u64) -> Result<u64, ()>,
    ) -> Vec<UnwoundFrame> {
        let mut native = native(registers);
        let mut address = FrameAddress::from_instruction_pointer(registers.ip);
        let mut frames = Vec::new();
        while frames.len() < MAX_FRAMES {
            self.look_up(address.address_for_lookup());
            frames.push(UnwoundFrame {
                address,
                sp: native.sp(),
            });
            let next = self
                .unwinder
                .unwind_frame(address, &mut native, &mut self.cache, &mut read);
            match next
                .ok()
                .flatten()
                .and_then(FrameAddress::from_return_address)
            {
                Some(caller) => address = caller,
                None => break,
            }
        }
        frames
    }
}

fn section_info(module: &Module, unwinding: Unwinding) -> framehop::Module<Arc<[u8]>> {
    let (eh_frame_svma, eh_frame) = unwinding.eh_frame.unzip();
    let (eh_frame_hdr_svma, eh_frame_hdr) = unwinding.eh_frame_hdr.unzip();
    let info = ExplicitModuleSectionInfo {
        base_svma: 0,
        text_svma: unwinding.text,
        eh_frame_svma,
        eh_frame,
        eh_frame_hdr_svma,
        eh_frame_hdr,
        ..Default::default()
    };
    framehop::Module::new(
        module.path.to_string(),
        module.addresses.clone(),
        module.bias,
        info,
    )
}

/// Returns an address in the function. A return address may be past its end, if the call does not return.
pub(crate) fn lookup(raw_frame: &RawFrame) -> u64 {
    raw_frame.address as u64 - u64::from(raw_frame.is_return)
}

/// Returns the word at an address of the thread, from the copy.
pub(crate) fn word(copied: &Copied, address: u64) -> Option<u64> {
    let at = usize::try_from(address).ok()?.checked_sub(copied.from)?;
    let bytes = copied.bytes.get(at..at.checked_add(size_of::<u64>())?)?;
    Some(u64::from_ne_bytes(bytes.try_into().ok()?))
}

#[cfg(target_arch = "x86_64")]
fn native(registers: Registers) -> UnwindRegsNative {
    UnwindRegsNative::new(registers.ip, registers.sp, registers.fp)
}

#[cfg(target_arch = "aarch64")]
fn native(registers: Registers) -> UnwindRegsNative {
    UnwindRegsNative::new(registers.lr, registers.sp, registers.fp)
}
