//! From registers and a copy of the stack to the functions that were being run.

use std::ops::Range;
use std::sync::Arc;

use framehop::{
    CacheNative, ExplicitModuleSectionInfo, FrameAddress, MayAllocateDuringUnwind,
    UnwindRegsNative, Unwinder as _, UnwinderNative,
};

use super::modules::{Module, Modules, Unwinding};
use super::part::Part;
use super::repeats::Call;
use crate::stack::{Step, forget_names};
use crate::sys::{Copied, Registers};

/// Deeper stacks are cut at their outer end.
pub(super) const MAX_STEPS: usize = 512;

/// Unwinds copies of stacks, and knows the modules that their addresses are in.
pub(super) struct Unwinder {
    unwinder: UnwinderNative<Arc<[u8]>, MayAllocateDuringUnwind>,
    cache: CacheNative<MayAllocateDuringUnwind>,
    modules: Modules,
}

/// A function that was being run, and where its frame begins.
pub(super) struct Frame {
    address: FrameAddress,
    sp: u64,
}

/// An unwound stack.
pub(super) struct Unwound {
    pub(super) steps: Vec<Step>,
    /// The stack pointer in each of them.
    pub(super) sps: Vec<u64>,
}

impl Unwound {
    /// How many steps there are from the innermost to the one that stood at `mark` when it called,
    /// if it was reached. Beyond is what called the one.
    pub(super) fn inside(&self, mark: usize) -> Option<usize> {
        let beyond = self.sps.iter().skip(1).position(|sp| *sp > mark as u64);
        (mark != 0).then_some(beyond? + 1)
    }
}

impl Unwinder {
    pub(super) fn new() -> Self {
        Self {
            unwinder: UnwinderNative::new(),
            cache: CacheNative::new(),
            modules: Modules::default(),
        }
    }

    /// One that knows a single module.
    #[cfg(any(test, fuzzing))]
    #[allow(dead_code, reason = "where nothing is fuzzed nobody makes one")]
    pub(super) fn over(module: Module, unwinding: Unwinding) -> Self {
        let mut unwinder = Self::new();
        unwinder
            .unwinder
            .add_module(section_info(&module, unwinding));
        unwinder.modules = Modules::of(module);
        unwinder
    }

    /// The module of an address.
    #[cfg(any(test, fuzzing))]
    #[allow(dead_code, reason = "where nothing is fuzzed nobody asks")]
    pub(super) fn module(&self, address: u64) -> Option<&Module> {
        self.modules.at(address)
    }

    /// Reads the modules, which otherwise happens when the first stack is unwound.
    pub(super) fn load(&mut self) {
        self.refresh(0);
    }

    /// Whether a system call is made again if a signal cuts it short: by the function that made it, the
    /// innermost outside of the C library, or inside of the library.
    pub(super) fn is_repeated(&self, unwound: &Unwound, call: Call) -> bool {
        for step in &unwound.steps {
            // Code that is in no file may be anything.
            let Some(module) = self.modules.at(lookup(step)) else {
                return false;
            };
            let repeats = module.part_at(lookup(step)) == Some(Part::Repeats(call));
            if repeats || !module.is_c_library() {
                return repeats;
            }
        }
        false
    }

    /// What a function belongs to, if that is anything known.
    pub(super) fn part(&self, step: &Step) -> Option<Part> {
        let module = self.modules.at(lookup(step));
        module.and_then(|module| module.part_at(lookup(step)))
    }

    pub(super) fn unwind(&mut self, copied: &Copied) -> Unwound {
        let read = |address: u64| word(copied, address).ok_or(());
        self.modules.begin_stack();
        let frames = self.frames(copied.registers, read);
        let step = |frame: &Frame| Step {
            address: frame.address.address() as usize,
            is_return: frame.address.is_return_address(),
            module: (self.modules)
                .at(frame.address.address_for_lookup())
                .map(|module| Arc::clone(&module.path)),
        };
        Unwound {
            steps: frames.iter().map(step).collect(),
            sps: frames.iter().map(|frame| frame.sp).collect(),
        }
    }

    pub(super) fn frames(
        &mut self,
        registers: Registers,
        mut read: impl FnMut(u64) -> Result<u64, ()>,
    ) -> Vec<Frame> {
        let mut native = native(registers);
        let mut address = FrameAddress::from_instruction_pointer(registers.ip);
        let mut frames = Vec::new();
        while frames.len() < MAX_STEPS {
            self.refresh(address.address_for_lookup());
            frames.push(Frame {
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

    fn refresh(&mut self, address: u64) {
        let Self {
            unwinder, modules, ..
        } = self;
        let mut gone = Vec::new();
        let mut new = Vec::new();
        modules.refresh(
            address,
            |module, unwinding| new.push(section_info(module, unwinding)),
            |addresses: Range<u64>| gone.push(addresses.start),
        );
        if !gone.is_empty() || !new.is_empty() {
            forget_names();
        }
        for start in gone {
            unwinder.remove_module(start);
        }
        for module in new {
            unwinder.add_module(module);
        }
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

/// An address in the function: after a call there may be nothing of it any more.
pub(super) fn lookup(step: &Step) -> u64 {
    step.address as u64 - u64::from(step.is_return)
}

/// The word at an address of the thread, out of the copy.
pub(super) fn word(copied: &Copied, address: u64) -> Option<u64> {
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
