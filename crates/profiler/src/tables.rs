//! What a module says of its stacks, for exceptions and for us.

use std::{ops::Range, sync::Arc};

use framehop::ExplicitModuleSectionInfo;
use gimli::{
    BaseAddresses, EhFrame, EhFrameHdr, EndianSlice, NativeEndian, RegisterRule, UnwindContext, UnwindSection,
};

/// A section: where the file wants it to lie, and what it holds.
#[derive(Clone)]
pub(crate) struct Part {
    pub(crate) at: Range<u64>,
    pub(crate) bytes: Arc<[u8]>,
}

/// How to come from a place in code to its caller.
pub(crate) struct Tables {
    /// `.eh_frame`.
    pub(crate) frames: Part,
    /// `.eh_frame_hdr`.
    pub(crate) index: Part,
    /// Where `.text` begins.
    pub(crate) text: u64,
    /// Where `.got` begins.
    pub(crate) got: u64,
}

#[cfg(target_arch = "x86_64")]
const RETURNS_TO: gimli::Register = gimli::X86_64::RA;
#[cfg(target_arch = "aarch64")]
const RETURNS_TO: gimli::Register = gimli::AArch64::X30;

impl Tables {
    /// The tables as the walker takes them.
    pub(crate) fn sections(&self) -> ExplicitModuleSectionInfo<Arc<[u8]>> {
        ExplicitModuleSectionInfo {
            text_svma: Some(self.text..self.text),
            got_svma: Some(self.got..self.got),
            eh_frame_svma: Some(self.frames.at.clone()),
            eh_frame: Some(Arc::clone(&self.frames.bytes)),
            eh_frame_hdr_svma: Some(self.index.at.clone()),
            eh_frame_hdr: Some(Arc::clone(&self.index.bytes)),
            ..Default::default()
        }
    }

    /// Whether the function at `address` of the file has no caller: a thread begins there. The tables say so of it.
    pub(crate) fn is_outermost(&self, address: u64) -> bool {
        self.rule(address).is_some_and(|rule| rule == RegisterRule::Undefined)
    }

    fn rule(&self, address: u64) -> Option<RegisterRule<usize>> {
        let bases = BaseAddresses::default()
            .set_text(self.text)
            .set_got(self.got)
            .set_eh_frame(self.frames.at.start)
            .set_eh_frame_hdr(self.index.at.start);
        let frames = EhFrame::from(EndianSlice::new(&self.frames.bytes, NativeEndian));
        let index = EhFrameHdr::from(EndianSlice::new(&self.index.bytes, NativeEndian));
        let index = index.parse(&bases, size_of::<usize>() as u8).ok()?;
        let mut context = UnwindContext::new();
        let row = index
            .table()?
            .unwind_info_for_address(&frames, &bases, &mut context, address, EhFrame::cie_from_offset)
            .ok()?;
        row.register(RETURNS_TO)
    }
}
