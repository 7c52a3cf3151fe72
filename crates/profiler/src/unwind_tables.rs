//! Unwind tables of a module (`.eh_frame`).

use std::{ops::Range, sync::Arc};

use framehop::ExplicitModuleSectionInfo;
use gimli::{
    BaseAddresses, EhFrame, EhFrameHdr, EndianSlice, NativeEndian, RegisterRule, UnwindContext, UnwindSection,
};

/// A section: its addresses in the file, and its content.
#[derive(Clone)]
pub(crate) struct Section {
    pub(crate) at: Range<u64>,
    pub(crate) bytes: Arc<[u8]>,
}

/// The tables for finding the caller of an address.
pub(crate) struct UnwindTables {
    /// `.eh_frame`.
    pub(crate) frames: Section,
    /// `.eh_frame_hdr`.
    pub(crate) index: Section,
    /// Start of `.text`.
    pub(crate) text: u64,
    /// Start of `.got`.
    pub(crate) got: u64,
}

#[cfg(target_arch = "x86_64")]
const RETURN_ADDRESS_REGISTER: gimli::Register = gimli::X86_64::RA;
#[cfg(target_arch = "aarch64")]
const RETURN_ADDRESS_REGISTER: gimli::Register = gimli::AArch64::X30;

impl UnwindTables {
    /// The tables in framehop's form.
    pub(crate) fn to_module_sections(&self) -> ExplicitModuleSectionInfo<Arc<[u8]>> {
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

    /// Returns true if the function at `address` of the file has no caller, because a thread starts there.
    pub(crate) fn is_outermost(&self, address: u64) -> bool {
        self.return_address_rule(address).is_some_and(|rule| rule == RegisterRule::Undefined)
    }

    fn return_address_rule(&self, address: u64) -> Option<RegisterRule<usize>> {
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
        row.register(RETURN_ADDRESS_REGISTER)
    }
}
