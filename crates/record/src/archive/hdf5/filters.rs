//! Filters that the HDF5 library does not have itself: LZF, LZ4 and Zstandard are given to it, others are named.
// Sound for the reasons that `hdf5.rs` gives.
#![allow(unsafe_code)]

use std::{
    ffi::{CStr, c_uint, c_void},
    ptr, slice,
};

use hdf5_metno_sys::{
    h5::{H5allocate_memory, H5free_memory},
    h5d::H5Dget_create_plist,
    h5p::{H5Pget_filter2, H5Pget_nfilters},
    h5z::{H5Z_CLASS_T_VERS, H5Z_FLAG_REVERSE, H5Z_class2_t, H5Zfilter_avail, H5Zregister},
};

use super::{super::codec, Dataset, Failed, Id, Result, alone, done};

/// Most bytes that a chunk may become.
const MOST: usize = 1 << 30;

/// Filters that files of others are packed with and that nothing here unpacks, by the numbers that the HDF Group gives out.
const NAMES: [(i32, &str); 18] = [
    (4, "szip"),
    (305, "LZO"),
    (307, "bzip2"),
    (32001, "Blosc"),
    (32002, "MAFISC"),
    (32003, "Snappy"),
    (32008, "bitshuffle"),
    (32012, "JPEG-LS"),
    (32013, "ZFP"),
    (32014, "FPZIP"),
    (32017, "SZ"),
    (32018, "FCIDECOMP"),
    (32019, "JPEG"),
    (32020, "VBZ"),
    (32022, "BitGroom"),
    (32024, "SZ3"),
    (32026, "Blosc2"),
    (32028, "SPERR"),
];

/// Gives the library what unpacks LZF, LZ4 and Zstandard. Not for a process that writes: it would want them to pack as well.
pub(in super::super) fn register() -> Result<()> {
    let class = |id, name: &'static CStr, filter| H5Z_class2_t {
        version: H5Z_CLASS_T_VERS as _,
        id,
        encoder_present: 0,
        decoder_present: 1,
        name: name.as_ptr(),
        can_apply: None,
        set_local: None,
        filter: Some(filter),
    };
    type Filter = unsafe extern "C" fn(c_uint, usize, *const c_uint, usize, *mut usize, *mut *mut c_void) -> usize;
    let all: [(i32, &'static CStr, Filter); 3] = [
        (codec::LZF_FILTER, c"lzf", filter_lzf),
        (codec::LZ4_FILTER, c"lz4", filter_lz4),
        (codec::ZSTD_FILTER, c"zstd", filter_zstd),
    ];
    alone(|| {
        for (id, name, filter) in all {
            // The library copies what it is given.
            let class = class(id, name, filter);
            done(unsafe { H5Zregister((&raw const class).cast()) })?;
        }
        Ok(())
    })
}

unsafe extern "C" fn filter_lzf(
    flags: c_uint,
    count: usize,
    values: *const c_uint,
    length: usize,
    size: *mut usize,
    buffer: *mut *mut c_void,
) -> usize {
    // Its third value is the size of a chunk; files of before that have none.
    let chunk = if count >= 3 && !values.is_null() { unsafe { *values.add(2) as usize } } else { 0 };
    let most = if chunk == 0 { MOST } else { chunk };
    unsafe { unpack(flags, length, size, buffer, |packed| codec::unpack_lzf(packed, most)) }
}

unsafe extern "C" fn filter_lz4(
    flags: c_uint,
    _: usize,
    _: *const c_uint,
    length: usize,
    size: *mut usize,
    buffer: *mut *mut c_void,
) -> usize {
    unsafe { unpack(flags, length, size, buffer, |packed| codec::unpack_lz4(packed, MOST)) }
}

unsafe extern "C" fn filter_zstd(
    flags: c_uint,
    _: usize,
    _: *const c_uint,
    length: usize,
    size: *mut usize,
    buffer: *mut *mut c_void,
) -> usize {
    unsafe { unpack(flags, length, size, buffer, |packed| codec::unpack_zstd_stream(packed, MOST)) }
}

/// Puts what `work` makes of the library's buffer in its place, and says how many bytes these are; 0 is a failure.
unsafe fn unpack(
    flags: c_uint,
    length: usize,
    size: *mut usize,
    buffer: *mut *mut c_void,
    work: impl FnOnce(&[u8]) -> Option<Vec<u8>>,
) -> usize {
    // The library gives `length` bytes in a buffer that it has allocated, and takes one that it can free.
    unsafe {
        if flags & H5Z_FLAG_REVERSE == 0 || buffer.is_null() || (*buffer).is_null() || size.is_null() {
            return 0;
        }
        let packed = slice::from_raw_parts((*buffer).cast::<u8>(), length);
        let Some(plain) = work(packed).filter(|plain| !plain.is_empty()) else { return 0 };
        let into = H5allocate_memory(plain.len(), 0);
        if into.is_null() {
            return 0;
        }
        ptr::copy_nonoverlapping(plain.as_ptr(), into.cast::<u8>(), plain.len());
        H5free_memory(*buffer);
        (*buffer, *size) = (into, plain.len());
        plain.len()
    }
}

impl Dataset {
    /// Whether all its filters can be undone; the error names the first that cannot.
    pub(in super::super) fn check_filters(&self) -> Result<()> {
        alone(|| unsafe {
            let how = Id::new(H5Dget_create_plist(self.0.0))?;
            for number in 0..H5Pget_nfilters(how.0).max(0).unsigned_abs() {
                let (mut flags, mut values, none) = (0, 0, ptr::null_mut());
                let id = H5Pget_filter2(how.0, number, &raw mut flags, &raw mut values, none, 0, ptr::null_mut(), none);
                if id < 0 || H5Zfilter_avail(id) <= 0 {
                    return Err(missing(id));
                }
            }
            Ok(())
        })
    }
}

fn missing(id: i32) -> Failed {
    let name = NAMES.iter().find(|(known, _)| *known == id).map_or("unknown", |(_, name)| name);
    Failed(format!("the required filter {name} ({id}) is not supported"))
}
